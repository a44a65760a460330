// Noise in the order of its specification: primitives (§4), cipher state (§5.1), symmetric state
// (§5.2), handshake state (§5.3), and the patterns with their psk modifiers (§7, §9, §18).
#include "slowpath/noise.h"

#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/c_pointer.h"
#include "slowpath/require.h"

namespace braid {
namespace {

constexpr size_t kHashBlockBytes = 64;  // of BLAKE2s, as HMAC needs it
constexpr std::string_view kNoisePrefix = "Noise_";
constexpr std::string_view kNoiseSuffix = "_25519_ChaChaPoly_BLAKE2s";

static_assert(kKeyBytes == crypto_scalarmult_curve25519_BYTES);
static_assert(kTagBytes == crypto_aead_chacha20poly1305_ietf_ABYTES);

// Also chooses the implementations for this processor, so it comes before any use.
void EnsureSodium() {
  static const bool ready = sodium_init() >= 0;
  Require(ready, "libsodium cannot be initialised");
}

// One context per thread and one fetch per process: a fetch costs more than a hash.
EVP_MD_CTX* DigestContext() {
  using Context = CPointer<EVP_MD_CTX, EVP_MD_CTX_free>;
  static const EVP_MD* const digest = EVP_MD_fetch(nullptr, "BLAKE2S-256", nullptr);
  Require(digest != nullptr, "OpenSSL offers no BLAKE2S-256");
  thread_local const Context context = [] {
    EVP_MD_CTX* fresh = EVP_MD_CTX_new();
    Require(fresh != nullptr && EVP_DigestInit_ex2(fresh, digest, nullptr) == 1,
            "no context for BLAKE2S-256");
    return Context(fresh);
  }();
  Require(EVP_DigestInit_ex2(context.get(), nullptr, nullptr) == 1, "BLAKE2S-256 does not start");
  return context.get();
}

void Update(EVP_MD_CTX* context, Bytes data) {
  Require(EVP_DigestUpdate(context, data.data(), data.size()) == 1, "BLAKE2S-256 does not hash");
}

void Final(EVP_MD_CTX* context, Key& digest) {
  Require(EVP_DigestFinal_ex(context, digest.data(), nullptr) == 1, "BLAKE2S-256 does not end");
}

using HashBlock = std::array<uint8_t, kHashBlockBytes>;

HashBlock PadKey(const Key& key, uint8_t pad) {
  HashBlock block;
  block.fill(pad);
  for (size_t i = 0; i < key.size(); ++i) block[i] ^= key[i];
  return block;
}

// HKDF of Noise §4.3 with N outputs; the salt is the chaining key.
template <size_t N>
std::array<Secret, N> Hkdf(const Key& chaining_key, Bytes input) {
  std::array<Secret, N> output;
  const Secret base = HmacBlake2s(chaining_key, {input});
  for (size_t i = 0; i < N; ++i) {
    const uint8_t number = static_cast<uint8_t>(i + 1);
    output[i] = HmacBlake2s(base, {i == 0 ? Bytes{} : Bytes(output[i - 1]), Bytes(&number, 1)});
  }
  return output;
}

using NoiseNonce = std::array<uint8_t, crypto_aead_chacha20poly1305_ietf_NPUBBYTES>;

NoiseNonce CountingNonce(uint64_t counter) {
  NoiseNonce nonce{};
  StoreNative(nonce.data() + 4, counter);  // little-endian, asserted in base/bytes.h
  return nonce;
}

absl::Status TooShort() { return absl::InvalidArgumentError("the Noise message is too short"); }

// The first `count` bytes of `rest`, which moves behind them.
template <typename T>
std::optional<std::span<T>> Take(std::span<T>& rest, size_t count) {
  if (rest.size() < count) return std::nullopt;
  const std::span<T> taken = rest.first(count);
  rest = rest.subspan(count);
  return taken;
}

}  // namespace

Secret::~Secret() { sodium_memzero(data(), size()); }

KeyPair KeyPair::FromPrivate(const Key& private_key) {
  EnsureSodium();
  KeyPair pair;
  pair.private_key = Secret(private_key);
  crypto_scalarmult_curve25519_base(pair.public_key.data(), private_key.data());
  return pair;
}

KeyPair KeyPair::Generate() {
  EnsureSodium();
  Secret private_key;
  randombytes_buf(private_key.data(), private_key.size());
  return FromPrivate(private_key);
}

absl::StatusOr<Secret> X25519(const Key& private_key, const Key& public_key) {
  EnsureSodium();
  Secret shared;
  // libsodium refuses a zero result by itself; the second look does not depend on its version.
  if (crypto_scalarmult_curve25519(shared.data(), private_key.data(), public_key.data()) != 0 ||
      sodium_is_zero(shared.data(), shared.size()) != 0) {
    return absl::UnauthenticatedError("the public key has small order");
  }
  return shared;
}

Key Blake2s(std::initializer_list<Bytes> parts) {
  EVP_MD_CTX* context = DigestContext();
  for (Bytes part : parts) Update(context, part);
  Key digest;
  Final(context, digest);
  return digest;
}

Secret HmacBlake2s(const Key& key, std::initializer_list<Bytes> parts) {
  HashBlock block = PadKey(key, 0x36);
  EVP_MD_CTX* context = DigestContext();
  Update(context, block);
  for (Bytes part : parts) Update(context, part);
  Secret inner;
  Final(context, inner);

  block = PadKey(key, 0x5c);
  context = DigestContext();
  Update(context, block);
  Update(context, inner);
  Secret result;
  Final(context, result);
  sodium_memzero(block.data(), block.size());
  return result;
}

// Cipher state.

absl::Status CipherState::Encrypt(Bytes associated, Bytes plaintext, MutableBytes ciphertext) {
  if (ciphertext.size() != plaintext.size() + kTagBytes) {
    return absl::InvalidArgumentError("no room for the sealed message");
  }
  if (nonce_ == UINT64_MAX) return absl::ResourceExhaustedError("the key is used up");
  const NoiseNonce nonce = CountingNonce(nonce_++);
  crypto_aead_chacha20poly1305_ietf_encrypt(ciphertext.data(), nullptr, plaintext.data(),
                                            plaintext.size(), associated.data(), associated.size(),
                                            nullptr, nonce.data(), key_.data());
  return absl::OkStatus();
}

absl::Status CipherState::Decrypt(Bytes associated, Bytes ciphertext, MutableBytes plaintext) {
  if (ciphertext.size() != plaintext.size() + kTagBytes) {
    return absl::InvalidArgumentError("the sealed message has another size");
  }
  if (nonce_ == UINT64_MAX) return absl::ResourceExhaustedError("the key is used up");
  const NoiseNonce nonce = CountingNonce(nonce_);
  if (crypto_aead_chacha20poly1305_ietf_decrypt(
          plaintext.data(), nullptr, nullptr, ciphertext.data(), ciphertext.size(),
          associated.data(), associated.size(), nonce.data(), key_.data()) != 0) {
    return absl::UnauthenticatedError("the message does not authenticate");
  }
  ++nonce_;
  return absl::OkStatus();
}

// Symmetric state.

SymmetricState::SymmetricState(std::string_view protocol_name) {
  const Bytes name(reinterpret_cast<const uint8_t*>(protocol_name.data()), protocol_name.size());
  if (name.size() <= hash_.size()) {
    std::copy(name.begin(), name.end(), hash_.begin());
  } else {
    hash_ = Blake2s({name});
  }
  chaining_key_ = Secret(hash_);
}

void SymmetricState::MixHash(Bytes data) { hash_ = Blake2s({hash_, data}); }

void SymmetricState::MixKey(const Key& input) {
  const auto [chaining_key, key] = Hkdf<2>(chaining_key_, input);
  chaining_key_ = chaining_key;
  cipher_.emplace(key);
}

void SymmetricState::MixKeyAndHash(const Key& input) {
  const auto [chaining_key, hash_input, key] = Hkdf<3>(chaining_key_, input);
  chaining_key_ = chaining_key;
  MixHash(hash_input);
  cipher_.emplace(key);
}

absl::Status SymmetricState::EncryptAndHash(Bytes plaintext, MutableBytes out) {
  if (cipher_.has_value()) {
    if (absl::Status sealed = cipher_->Encrypt(hash_, plaintext, out); !sealed.ok()) return sealed;
  } else {
    std::copy(plaintext.begin(), plaintext.end(), out.begin());
  }
  MixHash(out);
  return absl::OkStatus();
}

absl::Status SymmetricState::DecryptAndHash(Bytes ciphertext, MutableBytes out) {
  if (cipher_.has_value()) {
    if (absl::Status opened = cipher_->Decrypt(hash_, ciphertext, out); !opened.ok()) return opened;
  } else {
    std::copy(ciphertext.begin(), ciphertext.end(), out.begin());
  }
  MixHash(ciphertext);
  return absl::OkStatus();
}

std::array<Secret, 2> SymmetricState::Split() const { return Hkdf<2>(chaining_key_, {}); }

// Handshake state.

namespace {

NoiseRole Other(NoiseRole role) {
  return role == NoiseRole::kInitiator ? NoiseRole::kResponder : NoiseRole::kInitiator;
}

absl::Status CheckKeys(const HandshakeState::Config& config) {
  const NoisePattern& pattern = *config.pattern;
  const bool needs_static = pattern.IsStaticKnown(config.role) || pattern.SendsStatic(config.role);
  if (needs_static && config.local_static == nullptr) {
    return absl::InvalidArgumentError("the pattern needs a static key of this side");
  }
  if (pattern.IsStaticKnown(Other(config.role)) != (config.remote_static != nullptr)) {
    return absl::InvalidArgumentError(config.remote_static == nullptr
                                          ? "the pattern needs the peer's static key"
                                          : "the pattern does not know the peer's static key");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HandshakeState> HandshakeState::Create(const Config& config) {
  EnsureSodium();
  if (absl::Status keys = CheckKeys(config); !keys.ok()) return keys;
  HandshakeState state(config);
  state.MixHash(config.prologue);
  state.MixKnownKeys();
  return state;
}

HandshakeState::HandshakeState(const Config& config)
    : pattern_(config.pattern), role_(config.role), symmetric_(config.pattern->protocol_name) {
  if (config.local_static != nullptr) static_ = *config.local_static;
  if (config.remote_static != nullptr) remote_static_ = *config.remote_static;
  if (config.static_shared != nullptr) static_shared_.emplace(*config.static_shared);
  if (config.preshared_key != nullptr) preshared_key_.emplace(*config.preshared_key);
  if (config.ephemeral_private != nullptr) next_ephemeral_.emplace(*config.ephemeral_private);
}

void HandshakeState::MixKnownKeys() {
  for (NoiseRole owner : {NoiseRole::kInitiator, NoiseRole::kResponder}) {
    if (!pattern_->IsStaticKnown(owner)) continue;
    MixHash(owner == role_ ? static_->public_key : *remote_static_);
  }
}

absl::Status HandshakeState::CheckTurn(NoiseRole sender) const {
  if (dead_) return absl::FailedPreconditionError("the handshake is over");
  if (finished()) return absl::FailedPreconditionError("the handshake has no more messages");
  const NoiseRole turn = next_message_ % 2 == 0 ? NoiseRole::kInitiator : NoiseRole::kResponder;
  if (turn != sender) return absl::FailedPreconditionError("it is the other side's turn");
  return absl::OkStatus();
}

absl::StatusOr<size_t> HandshakeState::WriteMessage(Bytes payload, MutableBytes out) {
  absl::StatusOr<size_t> written = Write(payload, out);
  if (!written.ok()) {
    sodium_memzero(out.data(), out.size());
    Kill();
  }
  return written;
}

absl::StatusOr<size_t> HandshakeState::ReadMessage(Bytes message, MutableBytes payload) {
  return ReadMessage(message, payload,
                     [](const Key&, std::optional<Secret>&) { return absl::OkStatus(); });
}

absl::StatusOr<size_t> HandshakeState::ReadMessage(Bytes message, MutableBytes payload,
                                                   NoisePeerGate gate) {
  absl::StatusOr<size_t> read = Read(message, payload, gate);
  if (!read.ok()) {
    sodium_memzero(payload.data(), payload.size());
    Kill();
  }
  return read;
}

absl::StatusOr<size_t> HandshakeState::Write(Bytes payload, MutableBytes out) {
  if (absl::Status turn = CheckTurn(role_); !turn.ok()) return turn;
  MutableBytes rest = out.first(std::min(out.size(), kMaxNoiseMessageBytes));
  for (NoiseToken token : pattern_->messages[next_message_]) {
    if (absl::Status done = WriteToken(token, rest); !done.ok()) return done;
  }
  const auto sealed = Take(rest, payload.size() + symmetric_.overhead());
  if (!sealed) return TooShort();
  if (absl::Status done = symmetric_.EncryptAndHash(payload, *sealed); !done.ok()) return done;
  ++next_message_;
  return static_cast<size_t>(rest.data() - out.data());
}

absl::StatusOr<size_t> HandshakeState::Read(Bytes message, MutableBytes payload,
                                            NoisePeerGate gate) {
  if (absl::Status turn = CheckTurn(Other(role_)); !turn.ok()) return turn;
  if (message.size() > kMaxNoiseMessageBytes) {
    return absl::InvalidArgumentError("the Noise message is too long");
  }
  Bytes rest = message;
  for (NoiseToken token : pattern_->messages[next_message_]) {
    if (absl::Status done = ReadToken(token, rest, gate); !done.ok()) return done;
  }
  if (rest.size() < symmetric_.overhead()) return TooShort();
  const size_t size = rest.size() - symmetric_.overhead();
  if (size > payload.size()) return absl::InvalidArgumentError("the payload is too long");
  if (absl::Status done = symmetric_.DecryptAndHash(rest, payload.first(size)); !done.ok()) {
    return done;
  }
  ++next_message_;
  return size;
}

absl::Status HandshakeState::WriteToken(NoiseToken token, MutableBytes& rest) {
  if (token == NoiseToken::kE) return WriteEphemeral(rest);
  if (token == NoiseToken::kS) return WriteStatic(rest);
  return MixToken(token);
}

absl::Status HandshakeState::ReadToken(NoiseToken token, Bytes& rest, NoisePeerGate gate) {
  if (token == NoiseToken::kE) return ReadEphemeral(rest);
  if (token == NoiseToken::kS) return ReadStatic(rest, gate);
  return MixToken(token);
}

absl::Status HandshakeState::WriteEphemeral(MutableBytes& rest) {
  const auto out = Take(rest, kKeyBytes);
  if (!out) return TooShort();
  ephemeral_ = next_ephemeral_ ? KeyPair::FromPrivate(*next_ephemeral_) : KeyPair::Generate();
  std::copy(ephemeral_->public_key.begin(), ephemeral_->public_key.end(), out->begin());
  MixEphemeral(ephemeral_->public_key);
  return absl::OkStatus();
}

absl::Status HandshakeState::ReadEphemeral(Bytes& rest) {
  const auto in = Take(rest, kKeyBytes);
  if (!in) return TooShort();
  std::copy(in->begin(), in->end(), remote_ephemeral_.emplace().begin());
  MixEphemeral(*remote_ephemeral_);
  return absl::OkStatus();
}

// With a psk the ephemeral key is mixed into the key too, so that it never encrypts twice alike.
void HandshakeState::MixEphemeral(const Key& public_key) {
  MixHash(public_key);
  if (pattern_->has_psk) symmetric_.MixKey(public_key);
}

absl::Status HandshakeState::WriteStatic(MutableBytes& rest) {
  const auto out = Take(rest, kKeyBytes + symmetric_.overhead());
  if (!out) return TooShort();
  return symmetric_.EncryptAndHash(static_->public_key, *out);
}

absl::Status HandshakeState::ReadStatic(Bytes& rest, NoisePeerGate gate) {
  const auto in = Take(rest, kKeyBytes + symmetric_.overhead());
  if (!in) return TooShort();
  Key& key = remote_static_.emplace();
  if (absl::Status done = symmetric_.DecryptAndHash(*in, key); !done.ok()) return done;
  return gate(key, static_shared_);
}

absl::Status HandshakeState::MixToken(NoiseToken token) {
  const bool initiator = role_ == NoiseRole::kInitiator;
  switch (token) {
    case NoiseToken::kEe:
      return MixAgreement(ephemeral_, remote_ephemeral_);
    case NoiseToken::kEs:
      return initiator ? MixAgreement(ephemeral_, remote_static_)
                       : MixAgreement(static_, remote_ephemeral_);
    case NoiseToken::kSe:
      return initiator ? MixAgreement(static_, remote_ephemeral_)
                       : MixAgreement(ephemeral_, remote_static_);
    case NoiseToken::kSs:
      return MixStaticShared();
    case NoiseToken::kPsk:
      if (!preshared_key_) return absl::FailedPreconditionError("the pattern needs a psk");
      symmetric_.MixKeyAndHash(*preshared_key_);
      return absl::OkStatus();
    case NoiseToken::kE:
    case NoiseToken::kS:
      break;  // carry bytes, so they are not only mixed
  }
  return absl::InternalError("a Noise token has no meaning here");
}

absl::Status HandshakeState::MixStaticShared() {
  if (!static_shared_) return MixAgreement(static_, remote_static_);
  symmetric_.MixKey(*static_shared_);
  return absl::OkStatus();
}

absl::Status HandshakeState::MixAgreement(const std::optional<KeyPair>& own,
                                          const std::optional<Key>& remote) {
  if (!own || !remote) return absl::InternalError("the pattern uses a key before it has it");
  const absl::StatusOr<Secret> shared = X25519(own->private_key, *remote);
  if (!shared.ok()) return shared.status();
  symmetric_.MixKey(*shared);
  return absl::OkStatus();
}

absl::StatusOr<NoiseTransport> HandshakeState::Split() {
  if (dead_ || !finished()) return absl::FailedPreconditionError("the handshake is not finished");
  const bool initiator = role_ == NoiseRole::kInitiator;
  const auto [from_initiator, from_responder] = symmetric_.Split();
  NoiseTransport transport;
  transport.handshake_hash = symmetric_.hash();
  (initiator ? transport.send : transport.receive).emplace(from_initiator);
  if (!pattern_->one_way()) {
    (initiator ? transport.receive : transport.send).emplace(from_responder);
  }
  Kill();
  return transport;
}

void HandshakeState::Kill() {
  dead_ = true;
  symmetric_ = SymmetricState(pattern_->protocol_name);
  static_.reset();
  ephemeral_.reset();
  remote_static_.reset();
  remote_ephemeral_.reset();
  preshared_key_.reset();
  static_shared_.reset();
  next_ephemeral_.reset();
}

// Patterns.

namespace {

struct PatternRow {
  std::string_view name;
  std::string_view known;  // whose static key the other side has beforehand: i, r
  std::string_view messages;
};

constexpr PatternRow kPatterns[] = {
    {"N", "r", "e es"},
    {"K", "ir", "e es ss"},
    {"X", "r", "e es s ss"},

    {"NN", "", "e|e ee"},
    {"NK", "r", "e es|e ee"},
    {"NX", "", "e|e ee s es"},
    {"KN", "i", "e|e ee se"},
    {"KK", "ir", "e es ss|e ee se"},
    {"KX", "i", "e|e ee se s es"},
    {"XN", "", "e|e ee|s se"},
    {"XK", "r", "e es|e ee|s se"},
    {"XX", "", "e|e ee s es|s se"},
    {"IN", "", "e s|e ee se"},
    {"IK", "r", "e es s ss|e ee se"},
    {"IX", "", "e s|e ee se s es"},

    {"NK1", "r", "e|e ee es"},
    {"NX1", "", "e|e ee s|es"},
    {"X1N", "", "e|e ee|s|se"},
    {"X1K", "r", "e es|e ee|s|se"},
    {"XK1", "r", "e|e ee es|s se"},
    {"X1K1", "r", "e|e ee es|s|se"},
    {"X1X", "", "e|e ee s es|s|se"},
    {"XX1", "", "e|e ee s|es s se"},
    {"X1X1", "", "e|e ee s|es s|se"},
    {"K1N", "i", "e|e ee|se"},
    {"K1K", "ir", "e es|e ee|se"},
    {"KK1", "ir", "e|e ee se es"},
    {"K1K1", "ir", "e|e ee es|se"},
    {"K1X", "i", "e|e ee s es|se"},
    {"KX1", "i", "e|e ee se s|es"},
    {"K1X1", "i", "e|e ee s|se es"},
    {"I1N", "", "e s|e ee|se"},
    {"I1K", "r", "e es s|e ee|se"},
    {"IK1", "r", "e s|e ee se es"},
    {"I1K1", "r", "e s|e ee es|se"},
    {"I1X", "", "e s|e ee s es|se"},
    {"IX1", "", "e s|e ee se s|es"},
    {"I1X1", "", "e s|e ee s|se es"},
};

NoiseToken ParseToken(std::string_view text) {
  if (text == "e") return NoiseToken::kE;
  if (text == "s") return NoiseToken::kS;
  if (text == "ee") return NoiseToken::kEe;
  if (text == "es") return NoiseToken::kEs;
  if (text == "se") return NoiseToken::kSe;
  Require(text == "ss", "the pattern table has an unknown token");
  return NoiseToken::kSs;
}

// What stands before the next `separator`; `rest` moves behind it, and is empty after the last
// part.
std::string_view CutAt(char separator, std::string_view& rest) {
  const std::string_view part = rest.substr(0, rest.find(separator));
  rest.remove_prefix(std::min(part.size() + 1, rest.size()));
  return part;
}

std::vector<std::vector<NoiseToken>> ParseMessages(std::string_view text) {
  std::vector<std::vector<NoiseToken>> messages;
  while (!text.empty()) {
    std::string_view message = CutAt('|', text);
    std::vector<NoiseToken>& tokens = messages.emplace_back();
    while (!message.empty()) tokens.push_back(ParseToken(CutAt(' ', message)));
  }
  return messages;
}

const PatternRow* FindPattern(std::string_view name) {
  for (const PatternRow& row : kPatterns) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

// psk0 opens the first message; pskN ends the Nth.
bool InsertPsk(std::string_view place, NoisePattern& pattern) {
  if (place.size() != 1 || place[0] < '0') return false;
  const size_t number = static_cast<size_t>(place[0] - '0');
  if (number > pattern.messages.size()) return false;
  pattern.has_psk = true;
  if (number == 0) {
    pattern.messages.front().insert(pattern.messages.front().begin(), NoiseToken::kPsk);
  } else {
    pattern.messages[number - 1].push_back(NoiseToken::kPsk);
  }
  return true;
}

}  // namespace

absl::StatusOr<NoisePattern> NoisePattern::Parse(std::string_view protocol_name) {
  const absl::Status unknown =
      absl::InvalidArgumentError(std::string(protocol_name) + ": unknown Noise protocol");
  if (!protocol_name.starts_with(kNoisePrefix) || !protocol_name.ends_with(kNoiseSuffix)) {
    return unknown;
  }
  const size_t name_size = protocol_name.size() - kNoisePrefix.size() - kNoiseSuffix.size();
  const std::string_view name = protocol_name.substr(kNoisePrefix.size(), name_size);
  const size_t modifier = name.find("psk");
  const PatternRow* row = FindPattern(name.substr(0, modifier));
  if (row == nullptr) return unknown;

  NoisePattern pattern;
  pattern.protocol_name = std::string(protocol_name);
  pattern.initiator_static_known = row->known.find('i') != std::string_view::npos;
  pattern.responder_static_known = row->known.find('r') != std::string_view::npos;
  pattern.messages = ParseMessages(row->messages);
  if (modifier != std::string_view::npos && !InsertPsk(name.substr(modifier + 3), pattern)) {
    return unknown;
  }
  return pattern;
}

bool NoisePattern::IsStaticKnown(NoiseRole owner) const {
  return owner == NoiseRole::kInitiator ? initiator_static_known : responder_static_known;
}

bool NoisePattern::SendsStatic(NoiseRole sender) const {
  for (size_t i = sender == NoiseRole::kInitiator ? 0 : 1; i < messages.size(); i += 2) {
    for (NoiseToken token : messages[i]) {
      if (token == NoiseToken::kS) return true;
    }
  }
  return false;
}

}  // namespace braid
