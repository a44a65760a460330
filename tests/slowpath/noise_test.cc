// The Noise layer against the published vectors: every pattern, both sides, every message; and
// every byte of every message changed.
#include "slowpath/noise.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace braid::noise_test {
namespace {

using Json = nlohmann::json;
using Buffer = std::vector<uint8_t>;

std::filesystem::path VectorFolder() {
  const char* folder = std::getenv("BRAID_VECTORS");
  return std::filesystem::path(folder != nullptr ? folder : "../shared/vectors") / "noise";
}

Buffer FromHex(const std::string& text) {
  Buffer bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

Key KeyFromHex(const std::string& text) {
  const Buffer bytes = FromHex(text);
  EXPECT_EQ(bytes.size(), kKeyBytes);
  Key key{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), kKeyBytes), key.begin());
  return key;
}

std::optional<Key> OptionalKey(const Json& vector, const std::string& name) {
  if (!vector.contains(name)) return std::nullopt;
  return KeyFromHex(vector[name]);
}

const Key* Address(const std::optional<Key>& key) { return key ? &*key : nullptr; }

std::vector<Json> LoadVectors() {
  std::vector<Json> vectors;
  for (const auto& entry : std::filesystem::directory_iterator(VectorFolder())) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream file(entry.path());
    const Json document = Json::parse(file);
    for (const Json& vector : document.at("vectors")) vectors.push_back(vector);
  }
  return vectors;
}

HandshakeState MakeSide(const Json& vector, const NoisePattern& pattern, NoiseRole role) {
  const std::string side = role == NoiseRole::kInitiator ? "init_" : "resp_";
  const Buffer prologue = FromHex(vector.at(side + "prologue"));
  const std::optional<Key> static_private = OptionalKey(vector, side + "static");
  const std::optional<Key> remote_static = OptionalKey(vector, side + "remote_static");
  const std::optional<Key> ephemeral = OptionalKey(vector, side + "ephemeral");
  std::optional<KeyPair> local_static;
  if (static_private) local_static = KeyPair::FromPrivate(*static_private);
  std::optional<Key> psk;
  if (vector.contains(side + "psks")) {
    EXPECT_EQ(vector[side + "psks"].size(), 1u);
    psk = KeyFromHex(vector[side + "psks"][0]);
  }
  return HandshakeState::Create({.pattern = &pattern,
                                 .role = role,
                                 .prologue = prologue,
                                 .local_static = local_static ? &*local_static : nullptr,
                                 .remote_static = Address(remote_static),
                                 .preshared_key = Address(psk),
                                 .ephemeral_private = Address(ephemeral)})
      .value();
}

// Both sides of one vector, at any point of it. A copy is independent.
class Conversation {
 public:
  Conversation(const Json& vector, const NoisePattern& pattern)
      : pattern_(pattern),
        initiator_(MakeSide(vector, pattern, NoiseRole::kInitiator)),
        responder_(MakeSide(vector, pattern, NoiseRole::kResponder)) {}

  // A one-way pattern's initiator sends everything.
  bool InitiatorSends() const { return pattern_.one_way() || next_ % 2 == 0; }
  bool InHandshake() const { return next_ < pattern_.messages.size(); }

  absl::StatusOr<Buffer> Send(const Buffer& payload) {
    Buffer message(payload.size() + 256);
    if (InHandshake()) {
      const absl::StatusOr<size_t> size = SendingState().WriteMessage(payload, message);
      if (!size.ok()) return size.status();
      message.resize(*size);
      return message;
    }
    message.resize(payload.size() + kTagBytes);
    std::optional<CipherState>& cipher = SendingTransport().send;
    if (!cipher) return absl::FailedPreconditionError("nothing to send with");
    if (absl::Status sealed = cipher->Encrypt({}, payload, message); !sealed.ok()) return sealed;
    return message;
  }

  absl::StatusOr<Buffer> Receive(const Buffer& message) {
    Buffer payload(message.size());
    if (InHandshake()) {
      const absl::StatusOr<size_t> size = ReceivingState().ReadMessage(message, payload);
      if (!size.ok()) return size.status();
      payload.resize(*size);
      return payload;
    }
    payload.resize(message.size() - kTagBytes);
    std::optional<CipherState>& cipher = ReceivingTransport().receive;
    if (!cipher) return absl::FailedPreconditionError("nothing to receive with");
    if (absl::Status opened = cipher->Decrypt({}, message, payload); !opened.ok()) return opened;
    return payload;
  }

  // After both sides have done with a message.
  void Next() {
    if (++next_ != pattern_.messages.size()) return;
    initiator_transport_ = initiator_.Split().value();
    responder_transport_ = responder_.Split().value();
  }

  HandshakeState& ReceivingState() { return InitiatorSends() ? responder_ : initiator_; }
  const NoiseTransport& initiator_transport() const { return initiator_transport_; }
  const NoiseTransport& responder_transport() const { return responder_transport_; }

 private:
  HandshakeState& SendingState() { return InitiatorSends() ? initiator_ : responder_; }
  NoiseTransport& SendingTransport() {
    return InitiatorSends() ? initiator_transport_ : responder_transport_;
  }
  NoiseTransport& ReceivingTransport() {
    return InitiatorSends() ? responder_transport_ : initiator_transport_;
  }

  const NoisePattern& pattern_;
  HandshakeState initiator_;
  HandshakeState responder_;
  NoiseTransport initiator_transport_;
  NoiseTransport responder_transport_;
  size_t next_ = 0;
};

class NoiseVectors : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::is_directory(VectorFolder())) {
      GTEST_SKIP() << "no test vectors in " << VectorFolder()
                   << ": BRAID_VECTORS names the folder that holds noise/";
    }
    vectors_ = LoadVectors();
    ASSERT_FALSE(vectors_.empty()) << "no vectors in " << VectorFolder();
  }

  std::vector<Json> vectors_;
};

TEST_F(NoiseVectors, BothSidesSayWhatIsPublished) {
  std::set<std::string> names;
  for (const Json& vector : vectors_) {
    const std::string name = vector.at("protocol_name");
    SCOPED_TRACE(name);
    names.insert(name);
    const absl::StatusOr<NoisePattern> pattern = NoisePattern::Parse(name);
    ASSERT_TRUE(pattern.ok()) << pattern.status();
    Conversation talk(vector, *pattern);
    for (const Json& message : vector.at("messages")) {
      const Buffer payload = FromHex(message.at("payload"));
      const absl::StatusOr<Buffer> sent = talk.Send(payload);
      ASSERT_TRUE(sent.ok()) << sent.status();
      EXPECT_EQ(*sent, FromHex(message.at("ciphertext")));
      const absl::StatusOr<Buffer> received = talk.Receive(*sent);
      ASSERT_TRUE(received.ok()) << received.status();
      EXPECT_EQ(*received, payload);
      talk.Next();
    }
    const Key expected = KeyFromHex(vector.at("handshake_hash"));
    EXPECT_EQ(talk.initiator_transport().handshake_hash, expected);
    EXPECT_EQ(talk.responder_transport().handshake_hash, expected);
    EXPECT_EQ(talk.responder_transport().send.has_value(), !pattern->one_way());
    EXPECT_EQ(talk.initiator_transport().receive.has_value(), !pattern->one_way());
  }
  EXPECT_EQ(names.size(), vectors_.size());
}

// What became of a conversation in which one byte was changed on the way.
enum class Fate { kRefusedAtOnce, kRefusedLater, kHashesDiffer, kUnnoticed };

Fate ContinueAfterChange(Conversation talk, const Json& messages, size_t at,
                         const Buffer& changed) {
  const absl::StatusOr<Buffer> first = talk.Receive(changed);
  if (!first.ok()) {
    HandshakeState& state = talk.ReceivingState();
    Buffer room(1024);
    EXPECT_TRUE(!talk.InHandshake() || state.dead());
    EXPECT_TRUE(!talk.InHandshake() || !state.ReadMessage(changed, room).ok());
    EXPECT_TRUE(!talk.InHandshake() || !state.WriteMessage({}, room).ok());
    EXPECT_FALSE(talk.InHandshake() && state.Split().ok());
    return Fate::kRefusedAtOnce;
  }
  talk.Next();
  for (size_t i = at + 1; i < messages.size(); ++i) {
    const absl::StatusOr<Buffer> sent = talk.Send(FromHex(messages[i].at("payload")));
    if (!sent.ok() || !talk.Receive(*sent).ok()) return Fate::kRefusedLater;
    talk.Next();
  }
  return talk.initiator_transport().handshake_hash != talk.responder_transport().handshake_hash
             ? Fate::kHashesDiffer
             : Fate::kUnnoticed;
}

// A byte that no key protects yet (a first `e`, or a payload before any key) cannot be missed where
// it stands: such a message is read without error. It is in the transcript, which every later seal
// of the handshake covers, so the next sealed message is refused; and were there none, the
// handshake hashes would differ. No published pattern leaves it to the hashes.
TEST_F(NoiseVectors, EveryChangedByteIsNoticed) {
  std::map<Fate, int> count;
  for (const Json& vector : vectors_) {
    SCOPED_TRACE(std::string(vector.at("protocol_name")));
    const NoisePattern pattern =
        NoisePattern::Parse(std::string(vector.at("protocol_name"))).value();
    const Json& messages = vector.at("messages");
    Conversation talk(vector, pattern);
    for (size_t i = 0; i < messages.size(); ++i) {
      const Buffer sent = talk.Send(FromHex(messages[i].at("payload"))).value();
      for (size_t byte = 0; byte < sent.size(); ++byte) {
        Buffer changed = sent;
        changed[byte] ^= static_cast<uint8_t>(1 << (byte % 8));
        const Fate fate = ContinueAfterChange(talk, messages, i, changed);
        ASSERT_NE(fate, Fate::kUnnoticed) << "message " << i << " byte " << byte;
        ASSERT_TRUE(fate == Fate::kRefusedAtOnce || talk.InHandshake()) << "a transport message";
        ++count[fate];
      }
      ASSERT_TRUE(talk.Receive(sent).ok());
      talk.Next();
    }
  }
  RecordProperty("refused_at_once", count[Fate::kRefusedAtOnce]);
  RecordProperty("refused_later", count[Fate::kRefusedLater]);
  RecordProperty("hashes_differ", count[Fate::kHashesDiffer]);
  EXPECT_GT(count[Fate::kRefusedAtOnce], count[Fate::kRefusedLater]);
  EXPECT_EQ(count[Fate::kHashesDiffer], 0);
}

TEST_F(NoiseVectors, EveryTruncationIsNoticed) {
  for (const Json& vector : vectors_) {
    SCOPED_TRACE(std::string(vector.at("protocol_name")));
    const NoisePattern pattern =
        NoisePattern::Parse(std::string(vector.at("protocol_name"))).value();
    const Json& messages = vector.at("messages");
    Conversation talk(vector, pattern);
    for (size_t i = 0; i < pattern.messages.size(); ++i) {
      const Buffer sent = talk.Send(FromHex(messages[i].at("payload"))).value();
      for (size_t size = 0; size < sent.size(); ++size) {
        const Buffer cut(sent.begin(), sent.begin() + size);
        ASSERT_NE(ContinueAfterChange(talk, messages, i, cut), Fate::kUnnoticed);
      }
      ASSERT_TRUE(talk.Receive(sent).ok());
      talk.Next();
    }
  }
}

// RFC 7693's "abc", and HMAC by its definition over a key and two parts (computed with Python's
// hmac and hashlib.blake2s).
TEST(NoiseHash, MatchesKnownAnswers) {
  const Buffer abc = {'a', 'b', 'c'};
  EXPECT_EQ(Blake2s({abc}),
            KeyFromHex("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"));
  EXPECT_EQ(Blake2s({Bytes(abc).first(1), {}, Bytes(abc).subspan(1)}), Blake2s({abc}));
  Key key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(static_cast<const Key&>(HmacBlake2s(key, {abc, abc})),
            KeyFromHex("b76889e400a6a2208df125f8929d4843be0edbafdfe7e398c04fc1c993932a34"));
}

TEST(NoisePatternParse, RefusesWhatItDoesNotKnow) {
  for (const char* name :
       {"", "Noise_", "Noise_25519_ChaChaPoly_BLAKE2s", "Noise__25519_ChaChaPoly_BLAKE2s",
        "Noise_ZZ_25519_ChaChaPoly_BLAKE2s", "Noise_IK_25519_AESGCM_BLAKE2s",
        "Noise_IK_448_ChaChaPoly_BLAKE2s", "Noise_IKpsk_25519_ChaChaPoly_BLAKE2s",
        "Noise_IKpsk3_25519_ChaChaPoly_BLAKE2s", "Noise_IKpsk0+psk2_25519_ChaChaPoly_BLAKE2s",
        "Noise_IKpsk10_25519_ChaChaPoly_BLAKE2s", "_25519_ChaChaPoly_BLAKE2s"}) {
    EXPECT_FALSE(NoisePattern::Parse(name).ok()) << name;
  }
}

class NoiseHandshake : public ::testing::Test {
 protected:
  HandshakeState Side(NoiseRole role, const NoisePattern& pattern) {
    const bool initiator = role == NoiseRole::kInitiator;
    return HandshakeState::Create({.pattern = &pattern,
                                   .role = role,
                                   .local_static = initiator ? &initiator_ : &responder_,
                                   .remote_static = initiator ? &responder_.public_key : nullptr,
                                   .preshared_key = &psk_})
        .value();
  }

  const NoisePattern pattern_ =
      NoisePattern::Parse("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s").value();
  const KeyPair initiator_ = KeyPair::Generate();
  const KeyPair responder_ = KeyPair::Generate();
  const Key psk_{7};
  Buffer message_ = Buffer(512);
  Buffer payload_ = Buffer(512);
};

TEST_F(NoiseHandshake, MissingOrNeedlessKeysAreRefused) {
  EXPECT_FALSE(HandshakeState::Create({.pattern = &pattern_}).ok());
  EXPECT_FALSE(HandshakeState::Create({.pattern = &pattern_, .local_static = &initiator_}).ok());
  EXPECT_FALSE(HandshakeState::Create({.pattern = &pattern_,
                                       .role = NoiseRole::kResponder,
                                       .local_static = &responder_,
                                       .remote_static = &initiator_.public_key})
                   .ok());
}

TEST_F(NoiseHandshake, AMissingPskIsRefusedWhenItIsNeeded) {
  HandshakeState state =
      HandshakeState::Create(
          {.pattern = &pattern_, .role = NoiseRole::kResponder, .local_static = &responder_})
          .value();
  HandshakeState initiator = Side(NoiseRole::kInitiator, pattern_);
  const size_t size = initiator.WriteMessage({}, message_).value();
  ASSERT_TRUE(state.ReadMessage(Bytes(message_).first(size), payload_).ok());
  EXPECT_FALSE(state.WriteMessage({}, message_).ok());
  EXPECT_TRUE(state.dead());
}

TEST_F(NoiseHandshake, SplitNeedsAFinishedHandshake) {
  HandshakeState initiator = Side(NoiseRole::kInitiator, pattern_);
  EXPECT_FALSE(initiator.Split().ok());
  EXPECT_FALSE(initiator.dead());
  ASSERT_TRUE(initiator.WriteMessage({}, message_).ok());
  EXPECT_FALSE(initiator.Split().ok());
}

TEST_F(NoiseHandshake, TheWrongTurnIsRefused) {
  HandshakeState responder = Side(NoiseRole::kResponder, pattern_);
  EXPECT_FALSE(responder.WriteMessage({}, message_).ok());
  HandshakeState initiator = Side(NoiseRole::kInitiator, pattern_);
  EXPECT_FALSE(initiator.ReadMessage(message_, payload_).ok());
}

TEST_F(NoiseHandshake, TooSmallABufferIsRefusedAndLeavesNothing) {
  for (size_t size = 0; size < 32 + 48 + 16; ++size) {
    Buffer small(size, 0xaa);
    EXPECT_FALSE(Side(NoiseRole::kInitiator, pattern_).WriteMessage({}, small).ok());
    EXPECT_EQ(small, Buffer(size));
  }
}

TEST_F(NoiseHandshake, BytesMixedInByOneSideOnlyAreNoticed) {
  const Buffer header = {1, 2, 3};
  for (bool same : {true, false}) {
    HandshakeState initiator = Side(NoiseRole::kInitiator, pattern_);
    HandshakeState responder = Side(NoiseRole::kResponder, pattern_);
    initiator.MixHash(header);
    responder.MixHash(Bytes(header).first(same ? 3 : 2));
    const size_t size = initiator.WriteMessage({}, message_).value();
    EXPECT_EQ(responder.ReadMessage(Bytes(message_).first(size), payload_).ok(), same);
  }
}

TEST_F(NoiseHandshake, ThePeerGateDecides) {
  HandshakeState initiator = Side(NoiseRole::kInitiator, pattern_);
  const size_t size = initiator.WriteMessage({}, message_).value();
  const Bytes message = Bytes(message_).first(size);

  HandshakeState refusing = Side(NoiseRole::kResponder, pattern_);
  EXPECT_FALSE(refusing
                   .ReadMessage(message, payload_,
                                [](const Key&, std::optional<Secret>&) {
                                  return absl::NotFoundError("unknown");
                                })
                   .ok());
  EXPECT_TRUE(refusing.dead());

  const Secret shared = X25519(responder_.private_key, initiator_.public_key).value();
  HandshakeState knowing = Side(NoiseRole::kResponder, pattern_);
  EXPECT_TRUE(knowing
                  .ReadMessage(message, payload_,
                               [&](const Key& key, std::optional<Secret>& known) {
                                 EXPECT_EQ(key, initiator_.public_key);
                                 known = shared;
                                 return absl::OkStatus();
                               })
                  .ok());
}

TEST_F(NoiseHandshake, AnEphemeralKeyOfSmallOrderIsRefused) {
  const NoisePattern pattern = NoisePattern::Parse("Noise_NN_25519_ChaChaPoly_BLAKE2s").value();
  HandshakeState responder =
      HandshakeState::Create({.pattern = &pattern, .role = NoiseRole::kResponder}).value();
  const Buffer zero(kKeyBytes);
  ASSERT_TRUE(responder.ReadMessage(zero, payload_).ok());  // no agreement yet
  EXPECT_FALSE(responder.WriteMessage({}, message_).ok());
  EXPECT_TRUE(responder.dead());
}

}  // namespace
}  // namespace braid::noise_test
