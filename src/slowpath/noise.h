// The Noise protocol framework (revision 34, noiseprotocol.org) for 25519_ChaChaPoly_BLAKE2s: its
// hash, its key agreement and the handshake of every pattern in the table. Bytes go in, bytes come
// out: no I/O, no clock. An object belongs to one thread at a time; different ones are independent.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "base/limits.h"

namespace braid {

inline constexpr size_t kKeyBytes = sizeof(Key);
inline constexpr size_t kMaxNoiseMessageBytes = 65535;

// A key that is wiped when it goes out of scope. It can be used wherever a Key is read.
struct Secret : Key {
  Secret() : Key{} {}
  explicit Secret(const Key& key) : Key(key) {}
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  ~Secret();
};

struct KeyPair {
  Secret private_key;
  Key public_key{};

  static KeyPair FromPrivate(const Key& private_key);
  static KeyPair Generate();
};

// RFC 7748. An all-zero result, which a peer can force with a point of small order, is refused.
[[nodiscard]] absl::StatusOr<Secret> X25519(const Key& private_key, const Key& public_key);

// BLAKE2s-256 over the concatenation of `parts`, and HMAC (RFC 2104) with it as Noise specifies.
Key Blake2s(std::initializer_list<Bytes> parts);
Secret HmacBlake2s(const Key& key, std::initializer_list<Bytes> parts);

enum class NoiseRole : uint8_t { kInitiator, kResponder };
enum class NoiseToken : uint8_t { kE, kS, kEe, kEs, kSe, kSs, kPsk };

struct NoisePattern {
  std::string protocol_name;
  bool initiator_static_known = false;  // the responder has it before the first message
  bool responder_static_known = false;
  bool has_psk = false;
  std::vector<std::vector<NoiseToken>> messages;  // the initiator's first, then in turns

  // "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"; at most one psk modifier.
  [[nodiscard]] static absl::StatusOr<NoisePattern> Parse(std::string_view protocol_name);

  bool one_way() const { return messages.size() == 1; }
  bool IsStaticKnown(NoiseRole owner) const;
  bool SendsStatic(NoiseRole sender) const;
};

// ChaCha20-Poly1305 under one key with Noise's counting nonce. Refuses to wrap around.
class CipherState {
 public:
  explicit CipherState(const Key& key) : key_(key) {}

  // `ciphertext` is exactly kTagBytes longer than `plaintext`.
  [[nodiscard]] absl::Status Encrypt(Bytes associated, Bytes plaintext, MutableBytes ciphertext);
  // The nonce moves on only when the message authenticates.
  [[nodiscard]] absl::Status Decrypt(Bytes associated, Bytes ciphertext, MutableBytes plaintext);

  const Secret& key() const { return key_; }

 private:
  Secret key_;
  uint64_t nonce_ = 0;
};

// Noise's SymmetricState: chaining key, transcript hash, and a cipher once a key was mixed in.
class SymmetricState {
 public:
  explicit SymmetricState(std::string_view protocol_name);

  void MixHash(Bytes data);
  void MixKey(const Key& input);
  void MixKeyAndHash(const Key& input);
  // `out` has the size of the input plus or minus overhead().
  [[nodiscard]] absl::Status EncryptAndHash(Bytes plaintext, MutableBytes out);
  [[nodiscard]] absl::Status DecryptAndHash(Bytes ciphertext, MutableBytes out);

  size_t overhead() const { return cipher_.has_value() ? kTagBytes : 0; }
  const Key& hash() const { return hash_; }
  std::array<Secret, 2> Split() const;

 private:
  Secret chaining_key_;
  Key hash_{};
  std::optional<CipherState> cipher_;
};

// What a finished handshake leaves. A one-way pattern gives its responder nothing to send with.
struct NoiseTransport {
  std::optional<CipherState> send;
  std::optional<CipherState> receive;
  Key handshake_hash{};
};

// Asked once the peer's static key was opened, before anything more is spent on it. An error
// refuses the message. It may hand in DH(own static, peer's static) where that is known already.
using NoisePeerGate =
    absl::FunctionRef<absl::Status(const Key& remote_static, std::optional<Secret>& static_shared)>;

// One side of one handshake. A copy is an independent handshake at the same point. After an error
// of WriteMessage or ReadMessage, and after Split, the state is dead: wiped, and refusing all
// calls.
class HandshakeState {
 public:
  struct Config {
    const NoisePattern* pattern = nullptr;  // outlives the state and its copies
    NoiseRole role = NoiseRole::kInitiator;
    Bytes prologue{};
    const KeyPair* local_static = nullptr;
    const Key* remote_static = nullptr;      // exactly where the pattern knows it beforehand
    const Key* static_shared = nullptr;      // DH of the two static keys, if known already
    const Key* preshared_key = nullptr;      // or SetPresharedKey before it is needed
    const Key* ephemeral_private = nullptr;  // tests only: otherwise a random one is drawn
  };
  // Keys are copied; only the pattern is borrowed.
  [[nodiscard]] static absl::StatusOr<HandshakeState> Create(const Config& config);

  // Binds bytes that travel outside the message; both sides do it before the message they precede.
  void MixHash(Bytes data) { symmetric_.MixHash(data); }
  void SetPresharedKey(const Key& key) { preshared_key_.emplace(key); }

  // Return how many bytes were put into `out` or `payload`. `payload` must not overlap `message`.
  [[nodiscard]] absl::StatusOr<size_t> WriteMessage(Bytes payload, MutableBytes out);
  [[nodiscard]] absl::StatusOr<size_t> ReadMessage(Bytes message, MutableBytes payload);
  [[nodiscard]] absl::StatusOr<size_t> ReadMessage(Bytes message, MutableBytes payload,
                                                   NoisePeerGate gate);
  [[nodiscard]] absl::StatusOr<NoiseTransport> Split();

  bool finished() const { return next_message_ == pattern_->messages.size(); }
  bool dead() const { return dead_; }
  const Key& handshake_hash() const { return symmetric_.hash(); }
  const std::optional<Key>& remote_static() const { return remote_static_; }

 private:
  explicit HandshakeState(const Config& config);

  void MixKnownKeys();
  absl::Status CheckTurn(NoiseRole sender) const;
  absl::StatusOr<size_t> Write(Bytes payload, MutableBytes out);
  absl::StatusOr<size_t> Read(Bytes message, MutableBytes payload, NoisePeerGate gate);
  absl::Status WriteToken(NoiseToken token, MutableBytes& rest);
  absl::Status ReadToken(NoiseToken token, Bytes& rest, NoisePeerGate gate);
  absl::Status WriteEphemeral(MutableBytes& rest);
  absl::Status WriteStatic(MutableBytes& rest);
  absl::Status ReadEphemeral(Bytes& rest);
  absl::Status ReadStatic(Bytes& rest, NoisePeerGate gate);
  absl::Status MixToken(NoiseToken token);
  absl::Status MixStaticShared();
  absl::Status MixAgreement(const std::optional<KeyPair>& own, const std::optional<Key>& remote);
  void MixEphemeral(const Key& public_key);
  void Kill();

  const NoisePattern* pattern_;
  NoiseRole role_;
  bool dead_ = false;
  size_t next_message_ = 0;
  SymmetricState symmetric_;
  std::optional<KeyPair> static_;
  std::optional<KeyPair> ephemeral_;
  std::optional<Key> remote_static_;
  std::optional<Key> remote_ephemeral_;
  std::optional<Secret> preshared_key_;
  std::optional<Secret> static_shared_;
  std::optional<Secret> next_ephemeral_;  // injected
};

}  // namespace braid
