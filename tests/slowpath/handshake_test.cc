// braid's handshake messages: both sides agree, and nothing but an untouched message is accepted.
#include "slowpath/handshake.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

namespace braid::handshake_test {
namespace {

using Buffer = std::vector<uint8_t>;

constexpr TimeNs kStart = 1'000 * kSecondNs;

// One end: its keys, what it knows of others, and the gate in front of its handshakes.
struct End {
  Identity identity = Identity::Generate();
  CookieChecker checker{identity.public_key};
  std::map<Key, PeerKeys> peers;

  void Meet(const End& other, const Key& psk = {}) {
    const Key& key = other.identity.public_key;
    peers[key] = PeerKeys::Create(identity, key, psk).value();
  }

  // As a daemon does it: the MACs first.
  absl::StatusOr<ResponderHandshake> Receive(Bytes datagram, const Endpoint& source) {
    if (checker.Admit(datagram, source, false, kStart) != Admission::kAdmitted) {
      return absl::UnauthenticatedError("not admitted");
    }
    return Open(datagram);
  }

  absl::StatusOr<ResponderHandshake> Open(Bytes datagram) {
    return ResponderHandshake::Read(identity, datagram, [&](const Key& key) -> const PeerKeys* {
      const auto found = peers.find(key);
      return found == peers.end() ? nullptr : &found->second;
    });
  }
};

class HandshakeTest : public ::testing::Test {
 protected:
  HandshakeTest() {
    client_.Meet(server_, psk_);
    server_.Meet(client_, psk_);
  }

  InitiatorHandshake Begin() {
    return InitiatorHandshake::Create(client_.identity, client_.peers.begin()->second).value();
  }

  Buffer Initiate(InitiatorHandshake& handshake) { return Initiate(handshake, offer_); }
  Buffer Initiate(InitiatorHandshake& handshake, const InitiationPayload& offer) {
    Buffer datagram(kMaxHandshakeBytes);
    const absl::StatusOr<size_t> size = handshake.Write(3, offer, to_server_, kStart, datagram);
    EXPECT_TRUE(size.ok()) << size.status();
    datagram.resize(size.value_or(0));
    return datagram;
  }

  ResponderHandshake Receive(const Buffer& datagram) {
    return server_.Receive(datagram, client_address_).value();
  }

  Buffer Respond(ResponderHandshake& handshake, TransportRoots* roots = nullptr) {
    Buffer datagram(kMaxHandshakeBytes);
    const absl::StatusOr<ResponderHandshake::Result> result =
        handshake.Write(4, choice_, to_client_, kStart, datagram);
    EXPECT_TRUE(result.ok()) << result.status();
    datagram.resize(result->size);
    if (roots != nullptr) *roots = result->roots;
    return datagram;
  }

  // As a daemon does it: the MACs first.
  absl::StatusOr<InitiatorHandshake::Result> Finish(InitiatorHandshake& handshake, Bytes datagram) {
    if (client_.checker.Admit(datagram, server_address_, false, kStart) != Admission::kAdmitted) {
      return absl::UnauthenticatedError("not admitted");
    }
    return handshake.Read(datagram);
  }

  // A message of a later version, sealed by somebody who holds the keys.
  Buffer InitiationWith(const Buffer& payload) {
    const auto prologue = HandshakePrologue();
    HandshakeState noise = HandshakeState::Create({.pattern = &HandshakePattern(),
                                                   .prologue = prologue,
                                                   .local_static = &client_.identity,
                                                   .remote_static = &server_.identity.public_key,
                                                   .preshared_key = &psk_})
                               .value();
    return Sealed(noise, HandshakeHeader(Kind::kInitiation, 0, 0), payload, to_server_);
  }

  Buffer ResponseWith(const Buffer& initiation, const Buffer& payload) {
    const auto prologue = HandshakePrologue();
    HandshakeState noise = HandshakeState::Create({.pattern = &HandshakePattern(),
                                                   .role = NoiseRole::kResponder,
                                                   .prologue = prologue,
                                                   .local_static = &server_.identity,
                                                   .preshared_key = &psk_})
                               .value();
    Buffer plain(kMaxHandshakePayloadBytes);
    noise.MixHash(Bytes(initiation).first(kHeaderBytes));
    const size_t size = initiation.size() - kHeaderBytes - kMacsBytes;
    EXPECT_TRUE(noise.ReadMessage(Bytes(initiation).subspan(kHeaderBytes, size), plain).ok());
    return Sealed(noise, HandshakeHeader(Kind::kResponse, LoadBe32(plain.data()), 0), payload,
                  to_client_);
  }

  static Buffer Sealed(HandshakeState& noise, const Header& header, const Buffer& payload,
                       MacStamper& stamper) {
    Buffer datagram(1024);
    WriteHeader(datagram.data(), header);
    noise.MixHash(Bytes(datagram).first(kHeaderBytes));
    const size_t size =
        noise.WriteMessage(payload, MutableBytes(datagram).subspan(kHeaderBytes)).value();
    datagram.resize(kHeaderBytes + size + kMacsBytes);
    stamper.AddMacs(datagram, 0, kStart);
    return datagram;
  }

  // `offer_` and `choice_` on the wire.
  static Buffer OfferBytes() {
    return {0, 0, 0x11, 0x22, 0, 0, 0, 0, 0, 0, 0, 9, 3, 16, 0x05, 0x8c, 0, 0, 0, 5};
  }
  static Buffer ChoiceBytes() { return {0, 0, 0x33, 0x44, 2, 8, 0x05, 0x78, 0, 0, 0, 1}; }

  const Key psk_{1, 2, 3};
  End client_;
  End server_;
  MacStamper to_server_{server_.identity.public_key};
  MacStamper to_client_{client_.identity.public_key};
  const Endpoint client_address_ = Endpoint::Parse("10.20.1.1:40000").value();
  const Endpoint server_address_ = Endpoint::Parse("10.20.1.2:7700").value();
  const InitiationPayload offer_ = {.sender_index = 0x1122,
                                    .counter = 9,
                                    .ciphers = kOfferChaCha20Poly1305 | kOfferAes256Gcm,
                                    .lanes = 16,
                                    .mtu = 1420,
                                    .features = 5};
  const ResponsePayload choice_ = {
      .sender_index = 0x3344, .cipher = kOfferAes256Gcm, .lanes = 8, .mtu = 1400, .features = 1};
};

TEST_F(HandshakeTest, BothEndsAgree) {
  InitiatorHandshake initiator = Begin();
  const Buffer initiation = Initiate(initiator);
  EXPECT_EQ(initiation.size(), 172u);
  ResponderHandshake responder = Receive(initiation);
  EXPECT_EQ(responder.peer_public_key(), client_.identity.public_key);
  EXPECT_EQ(responder.initiation(), offer_);
  EXPECT_EQ(responder.path_id(), 3);

  TransportRoots roots;
  const Buffer response = Respond(responder, &roots);
  EXPECT_EQ(response.size(), 116u);
  EXPECT_TRUE(initiator.pending());
  const absl::StatusOr<InitiatorHandshake::Result> result = Finish(initiator, response);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->response, choice_);
  EXPECT_EQ(result->path_id, 4);
  EXPECT_EQ(result->roots.send, roots.receive);
  EXPECT_EQ(result->roots.receive, roots.send);
  EXPECT_NE(roots.send, roots.receive);
  EXPECT_NE(static_cast<const Key&>(roots.send), Key{});
  EXPECT_FALSE(initiator.pending());
}

TEST_F(HandshakeTest, EachHandshakeHasItsOwnKeys) {
  TransportRoots first;
  TransportRoots second;
  InitiatorHandshake initiator = Begin();
  InitiatorHandshake again = Begin();
  const Buffer one = Initiate(initiator);
  const Buffer two = Initiate(again);
  EXPECT_NE(one, two);
  ResponderHandshake responder = Receive(one);
  Respond(responder, &first);
  ResponderHandshake repeated = Receive(one);  // a replay is for the caller's counter to refuse
  Respond(repeated, &second);
  EXPECT_NE(first.send, second.send);
}

TEST_F(HandshakeTest, HeadersAreAsTheWireSays) {
  InitiatorHandshake initiator = Begin();
  const Buffer initiation = Initiate(initiator);
  const Buffer expected = {0xb7, 0xa1, 1, 1, 0, 0, 0, 0, 255, 3, 0, 0,
                           0,    0,    0, 0, 0, 0, 0, 0, 0,   0, 0, 0};
  EXPECT_EQ(Buffer(initiation.begin(), initiation.begin() + kHeaderBytes), expected);
  ResponderHandshake responder = Receive(initiation);
  const Buffer response = Respond(responder);
  const Buffer expected_response = {0xb7, 0xa1, 1, 2, 0, 0, 0x11, 0x22, 255, 4, 0, 0,
                                    0,    0,    0, 0, 0, 0, 0,    0,    0,   0, 0, 0};
  EXPECT_EQ(Buffer(response.begin(), response.begin() + kHeaderBytes), expected_response);
}

// Against the Noise layer alone, so that a payload's layout is not only read by what wrote it.
TEST_F(HandshakeTest, PayloadsAreAsTheWireSays) {
  EXPECT_EQ(Receive(InitiationWith(OfferBytes())).initiation(), offer_);
  InitiatorHandshake initiator = Begin();
  const Buffer initiation = Initiate(initiator);
  const auto result = Finish(initiator, ResponseWith(initiation, ChoiceBytes()));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->response, choice_);
}

TEST_F(HandshakeTest, FieldsOfLaterVersionsAreIgnored) {
  for (size_t extra : {size_t{1}, size_t{100}, kMaxHandshakePayloadBytes - 20}) {
    Buffer offer = OfferBytes();
    offer.resize(offer.size() + extra, 0xee);
    EXPECT_EQ(Receive(InitiationWith(offer)).initiation(), offer_);
    InitiatorHandshake initiator = Begin();
    Buffer choice = ChoiceBytes();
    choice.resize(choice.size() + extra, 0xee);
    const auto result = Finish(initiator, ResponseWith(Initiate(initiator), choice));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->response, choice_);
  }
}

TEST_F(HandshakeTest, PayloadsOfAnotherSizeAreRefused) {
  for (size_t size :
       {size_t{0}, size_t{1}, size_t{11}, size_t{19}, kMaxHandshakePayloadBytes + 1}) {
    Buffer offer = OfferBytes();
    offer.resize(size);
    EXPECT_FALSE(server_.Receive(InitiationWith(offer), client_address_).ok()) << size;
    if (size == 19) continue;  // long enough for a response
    InitiatorHandshake initiator = Begin();
    Buffer choice = ChoiceBytes();
    choice.resize(size);
    EXPECT_FALSE(Finish(initiator, ResponseWith(Initiate(initiator), choice)).ok()) << size;
    EXPECT_TRUE(initiator.pending());
  }
}

TEST_F(HandshakeTest, OffersWithoutMeaningAreRefused) {
  for (size_t field : {size_t{2}, size_t{12}, size_t{13}}) {  // index (with 3), ciphers, lanes
    Buffer offer = OfferBytes();
    offer[field] = 0;
    if (field == 2) offer[3] = 0;
    EXPECT_FALSE(server_.Receive(InitiationWith(offer), client_address_).ok()) << field;
  }
  Buffer unknown = OfferBytes();
  unknown[12] = 0x81;
  EXPECT_TRUE(server_.Receive(InitiationWith(unknown), client_address_).ok());
}

TEST_F(HandshakeTest, AChoiceOutsideTheOfferIsRefusedByBothEnds) {
  struct Row {
    uint32_t sender_index;
    uint8_t cipher;
    uint8_t lanes;
  };
  for (const Row& row :
       {Row{0, 1, 8}, Row{1, 0, 8}, Row{1, 3, 8}, Row{1, 4, 8}, Row{1, 1, 0}, Row{1, 1, 17}}) {
    const ResponsePayload bad = {
        .sender_index = row.sender_index, .cipher = row.cipher, .lanes = row.lanes};
    InitiatorHandshake initiator = Begin();
    const Buffer initiation = Initiate(initiator);
    ResponderHandshake responder = Receive(initiation);
    Buffer out(kMaxHandshakeBytes);
    EXPECT_FALSE(responder.Write(0, bad, to_client_, kStart, out).ok());

    Buffer choice = ChoiceBytes();
    StoreBe32(choice.data(), row.sender_index);
    choice[4] = row.cipher;
    choice[5] = row.lanes;
    EXPECT_FALSE(Finish(initiator, ResponseWith(initiation, choice)).ok());
    EXPECT_TRUE(Finish(initiator, Respond(responder)).ok()) << "both are still usable";
  }
}

TEST_F(HandshakeTest, EveryChangedBitOfAnInitiationIsRefused) {
  InitiatorHandshake initiator = Begin();
  const Buffer initiation = Initiate(initiator);
  for (size_t bit = 0; bit < 8 * initiation.size(); ++bit) {
    Buffer changed = initiation;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_FALSE(server_.Receive(changed, client_address_).ok()) << bit;
    // Also by the handshake itself, where somebody made the MACs anew.
    if (bit / 8 >= initiation.size() - kMacsBytes) continue;
    ASSERT_FALSE(server_.Open(changed).ok()) << bit;
  }
}

TEST_F(HandshakeTest, EveryChangedBitOfAResponseIsRefusedAndKillsNothing) {
  InitiatorHandshake initiator = Begin();
  ResponderHandshake responder = Receive(Initiate(initiator));
  const Buffer response = Respond(responder);
  for (size_t bit = 0; bit < 8 * response.size(); ++bit) {
    Buffer changed = response;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_FALSE(Finish(initiator, changed).ok()) << bit;
    if (bit / 8 < response.size() - kMacsBytes) {
      ASSERT_FALSE(initiator.Read(changed).ok()) << bit;
    }
    ASSERT_TRUE(initiator.pending());
  }
  EXPECT_TRUE(Finish(initiator, response).ok());
}

TEST_F(HandshakeTest, EveryOtherSizeIsRefused) {
  InitiatorHandshake initiator = Begin();
  Buffer initiation = Initiate(initiator);
  ResponderHandshake responder = Receive(initiation);
  Buffer response = Respond(responder);
  initiation.resize(2 * kMaxHandshakeBytes);
  response.resize(2 * kMaxHandshakeBytes);
  for (size_t size = 0; size <= initiation.size(); ++size) {
    if (size != kInitiationBytes) {
      ASSERT_FALSE(server_.Receive(Bytes(initiation).first(size), client_address_).ok()) << size;
      ASSERT_FALSE(server_.Open(Bytes(initiation).first(size)).ok()) << size;
    }
    if (size != kResponseBytes) {
      ASSERT_FALSE(Finish(initiator, Bytes(response).first(size)).ok()) << size;
      ASSERT_FALSE(initiator.Read(Bytes(response).first(size)).ok()) << size;
    }
  }
  EXPECT_TRUE(Finish(initiator, Bytes(response).first(kResponseBytes)).ok());
}

TEST_F(HandshakeTest, AWrongPskIsRefusedByTheInitiator) {
  for (const Key& other : {Key{}, Key{1, 2, 4}}) {
    server_.Meet(client_, other);
    InitiatorHandshake initiator = Begin();
    ResponderHandshake responder = Receive(Initiate(initiator));
    EXPECT_FALSE(Finish(initiator, Respond(responder)).ok());
    EXPECT_TRUE(initiator.pending());
  }
}

TEST_F(HandshakeTest, WithoutAPskBothEndsAgree) {
  client_.Meet(server_);
  server_.Meet(client_);
  InitiatorHandshake initiator = Begin();
  ResponderHandshake responder = Receive(Initiate(initiator));
  EXPECT_TRUE(Finish(initiator, Respond(responder)).ok());
}

TEST_F(HandshakeTest, AnUnknownPeerIsRefused) {
  server_.peers.clear();
  InitiatorHandshake initiator = Begin();
  const auto refused = server_.Receive(Initiate(initiator), client_address_);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(HandshakeTest, AnInitiationForAnotherServerIsRefused) {
  End other;
  other.Meet(client_, psk_);
  InitiatorHandshake initiator = Begin();
  const Buffer initiation = Initiate(initiator);
  EXPECT_FALSE(other.Receive(initiation, client_address_).ok());
  EXPECT_FALSE(other.Open(initiation).ok());
}

// Whoever knows the server's key and a client's public key can seal `s`, but not the payload.
TEST_F(HandshakeTest, AStaticKeyCannotBeClaimedWithoutItsPrivateKey) {
  Identity liar = Identity::Generate();
  liar.public_key = client_.identity.public_key;
  const PeerKeys server = PeerKeys::Create(liar, server_.identity.public_key, psk_).value();
  InitiatorHandshake initiator = InitiatorHandshake::Create(liar, server).value();
  EXPECT_FALSE(server_.Receive(Initiate(initiator), client_address_).ok());
}

TEST_F(HandshakeTest, AResponseToAnotherInitiationIsRefused) {
  InitiatorHandshake first = Begin();
  ResponderHandshake responder = Receive(Initiate(first));
  const Buffer response = Respond(responder);
  InitiatorHandshake same_index = Begin();
  Initiate(same_index);
  EXPECT_FALSE(Finish(same_index, response).ok());
  EXPECT_TRUE(same_index.pending());
  InitiatorHandshake other_index = Begin();
  InitiationPayload offer = offer_;
  offer.sender_index = 0x9999;
  Initiate(other_index, offer);
  EXPECT_EQ(Finish(other_index, response).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Finish(first, response).ok());
}

TEST_F(HandshakeTest, AForgedResponseDoesNotEndTheAttempt) {
  InitiatorHandshake initiator = Begin();
  const Buffer initiation = Initiate(initiator);
  ResponderHandshake responder = Receive(initiation);
  Buffer forged(kResponseBytes, 0x77);
  WriteHeader(forged.data(), HandshakeHeader(Kind::kResponse, offer_.sender_index, 0));
  to_client_.AddMacs(forged, 1, kStart);
  EXPECT_FALSE(Finish(initiator, forged).ok());
  std::fill_n(forged.begin() + kHeaderBytes, kKeyBytes, uint8_t{0});  // an e of small order
  to_client_.AddMacs(forged, 1, kStart);
  EXPECT_FALSE(Finish(initiator, forged).ok());
  EXPECT_TRUE(initiator.pending());
  EXPECT_TRUE(Finish(initiator, Respond(responder)).ok());
}

TEST_F(HandshakeTest, AResponseIsAcceptedOnce) {
  InitiatorHandshake initiator = Begin();
  ResponderHandshake responder = Receive(Initiate(initiator));
  const Buffer response = Respond(responder);
  EXPECT_TRUE(Finish(initiator, response).ok());
  EXPECT_FALSE(Finish(initiator, response).ok());
}

TEST_F(HandshakeTest, AMessageIsWrittenOnce) {
  InitiatorHandshake initiator = Begin();
  EXPECT_FALSE(initiator.Read(Buffer(kResponseBytes)).ok()) << "nothing was sent";
  const Buffer initiation = Initiate(initiator);
  Buffer out(kMaxHandshakeBytes);
  EXPECT_FALSE(initiator.Write(0, offer_, to_server_, kStart, out).ok());
  ResponderHandshake responder = Receive(initiation);
  Respond(responder);
  EXPECT_FALSE(responder.Write(0, choice_, to_client_, kStart, out).ok());
  EXPECT_EQ(out, Buffer(kMaxHandshakeBytes));
}

TEST_F(HandshakeTest, BadArgumentsAreRefusedAndHarmless) {
  InitiatorHandshake initiator = Begin();
  Buffer out(kMaxHandshakeBytes);
  Buffer small(kInitiationBytes - 1);
  EXPECT_FALSE(initiator.Write(64, offer_, to_server_, kStart, out).ok());
  EXPECT_FALSE(initiator.Write(0, {}, to_server_, kStart, out).ok());
  EXPECT_FALSE(initiator.Write(0, offer_, to_server_, kStart, small).ok());
  ResponderHandshake responder = Receive(Initiate(initiator));
  small.resize(kResponseBytes - 1);
  EXPECT_FALSE(responder.Write(64, choice_, to_client_, kStart, out).ok());
  EXPECT_FALSE(responder.Write(0, choice_, to_client_, kStart, small).ok());
  EXPECT_TRUE(Finish(initiator, Respond(responder)).ok());
}

TEST_F(HandshakeTest, APeerKeyOfSmallOrderIsRefused) {
  EXPECT_FALSE(PeerKeys::Create(client_.identity, Key{}).ok());
  EXPECT_FALSE(PeerKeys::Create(client_.identity, Key{1}).ok());
}

TEST_F(HandshakeTest, UnderLoadTheSecondInitiationCarriesTheCookie) {
  InitiatorHandshake first = Begin();
  const Buffer refused = Initiate(first);
  ASSERT_EQ(server_.checker.Admit(refused, client_address_, true, kStart), Admission::kNeedsCookie);
  Buffer cookie(kCookieReplyBytes);
  ASSERT_TRUE(server_.checker.WriteCookie(refused, client_address_, kStart, cookie).ok());
  ASSERT_TRUE(to_server_.ConsumeCookie(cookie, kStart).ok());

  InitiatorHandshake second = Begin();
  const Buffer initiation = Initiate(second);
  ASSERT_EQ(server_.checker.Admit(initiation, client_address_, true, kStart), Admission::kAdmitted);
  ResponderHandshake responder = Receive(initiation);
  const Buffer response = Respond(responder);

  // The initiator may be under load too.
  ASSERT_EQ(client_.checker.Admit(response, server_address_, true, kStart),
            Admission::kNeedsCookie);
  ASSERT_TRUE(client_.checker.WriteCookie(response, server_address_, kStart, cookie).ok());
  EXPECT_TRUE(to_client_.ConsumeCookie(cookie, kStart).ok());
  EXPECT_TRUE(Finish(second, response).ok());
}

}  // namespace
}  // namespace braid::handshake_test
