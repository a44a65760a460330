// braid's two handshake messages: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s over the 24-byte header,
// from which the two ends take the roots of their transport keys. No I/O and no clock of its own.
//
// Prologue: "braid 1" ‖ magic (2, big-endian) ‖ version (1). The header of each message is mixed
// into the hash before the message. Payloads are big-endian; bytes after the known fields belong to
// later versions and are ignored.
//
//   1 initiation: header, e (32), sealed s (48), sealed payload (20 … 256, + 16), mac1, mac2
//     payload: sender's index u32, counter u64, ciphers u8, lanes u8, mtu u16, features u32
//   2 response:   header, e (32), sealed payload (12 … 256, + 16), mac1, mac2
//     payload: sender's index u32, cipher u8, lanes u8, mtu u16, features u32
//
// Whoever receives either has CookieChecker admit it first: the MACs are not looked at here.
// An object belongs to one thread at a time; different ones may run on different threads.
#pragma once

#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "fastpath/wire.h"
#include "slowpath/cookie.h"
#include "slowpath/noise.h"

namespace braid {

inline constexpr size_t kMaxHandshakePayloadBytes = 256;
inline constexpr size_t kInitiationPayloadBytes = 4 + 8 + 1 + 1 + 2 + 4;
inline constexpr size_t kResponsePayloadBytes = 4 + 1 + 1 + 2 + 4;
inline constexpr size_t kInitiationFrameBytes =  // all but the payload
    kHeaderBytes + kKeyBytes + (kKeyBytes + kTagBytes) + kTagBytes + kMacsBytes;
inline constexpr size_t kResponseFrameBytes = kHeaderBytes + kKeyBytes + kTagBytes + kMacsBytes;
inline constexpr size_t kInitiationBytes = kInitiationFrameBytes + kInitiationPayloadBytes;
inline constexpr size_t kResponseBytes = kResponseFrameBytes + kResponsePayloadBytes;
inline constexpr size_t kMaxHandshakeBytes = kInitiationFrameBytes + kMaxHandshakePayloadBytes;

static_assert(kInitiationBytes == 172 && kResponseBytes == 116 && kMaxHandshakeBytes == 408);
static_assert(kMaxHandshakeBytes <= kMinMtu);
// Nobody gains by sending under a false address.
static_assert(kResponseBytes < kInitiationBytes && kCookieReplyBytes < kResponseBytes);
static_assert(kInitiationPayloadBytes <= kMaxHandshakePayloadBytes);
static_assert(kResponsePayloadBytes <= kMaxHandshakePayloadBytes);

// An initiation offers a set of these, a response names one.
inline constexpr uint8_t kOfferChaCha20Poly1305 = 1 << 0;
inline constexpr uint8_t kOfferAes256Gcm = 1 << 1;

using Identity = KeyPair;

struct InitiationPayload {
  uint32_t sender_index = 0;  // never 0
  uint64_t counter = 0;       // strictly increasing; the responder's caller refuses an old one
  uint8_t ciphers = kOfferChaCha20Poly1305;
  uint8_t lanes = 0;  // 1 … kMaxLanes
  uint16_t mtu = 0;
  uint32_t features = 0;

  bool operator==(const InitiationPayload&) const = default;
};

struct ResponsePayload {
  uint32_t sender_index = 0;                // never 0
  uint8_t cipher = kOfferChaCha20Poly1305;  // one of those offered
  uint8_t lanes = 0;                        // at most what was offered
  uint16_t mtu = 0;
  uint32_t features = 0;

  bool operator==(const ResponsePayload&) const = default;
};

// The root of each direction's transport keys.
struct TransportRoots {
  Secret send;
  Secret receive;
};

// What one side knows of a peer before any handshake. The agreement of the two static keys is made
// once here, which saves each handshake one of its four agreements.
struct PeerKeys {
  Key public_key{};
  Secret preshared_key;  // all-zero when there is none
  Secret static_shared;

  [[nodiscard]] static absl::StatusOr<PeerKeys> Create(const Identity& identity,
                                                       const Key& public_key,
                                                       const Key& preshared_key = {});
};

// Finds a peer, or null. What it returns must live until Read has returned.
using PeerLookup = absl::FunctionRef<const PeerKeys*(const Key& public_key)>;

// One attempt to reach a peer. A retry, or another path, is a new one.
class InitiatorHandshake {
 public:
  [[nodiscard]] static absl::StatusOr<InitiatorHandshake> Create(const Identity& identity,
                                                                 const PeerKeys& peer);

  // Returns the datagram's size; `out` has room for kInitiationBytes. Once only.
  [[nodiscard]] absl::StatusOr<size_t> Write(uint8_t path_id, const InitiationPayload& payload,
                                             MacStamper& stamper, TimeNs now, MutableBytes out);

  struct Result {
    ResponsePayload response;
    TransportRoots roots;
    uint8_t path_id = 0;  // the responder's
  };
  // A response that is refused leaves the attempt pending, so that a forged one cannot end it by
  // being faster. The first that is accepted ends it.
  [[nodiscard]] absl::StatusOr<Result> Read(Bytes datagram);

  bool pending() const { return pending_; }

 private:
  explicit InitiatorHandshake(HandshakeState noise) : noise_(std::move(noise)) {}

  HandshakeState noise_;
  InitiationPayload offer_;
  bool written_ = false;
  bool pending_ = false;
};

// An initiation that authenticated: its sender holds the static key. It may still be a replay, and
// the sender has not yet proven the preshared key, which shows in the first sealed packet.
class ResponderHandshake {
 public:
  // Keeps no state for, and says nothing about, a datagram that it refuses. A peer that `lookup`
  // does not find is refused after one key agreement.
  [[nodiscard]] static absl::StatusOr<ResponderHandshake> Read(const Identity& identity,
                                                               Bytes datagram, PeerLookup lookup);

  const Key& peer_public_key() const { return peer_public_key_; }
  const InitiationPayload& initiation() const { return initiation_; }
  uint8_t path_id() const { return path_id_; }  // the initiator's

  struct Result {
    size_t size = 0;  // of the datagram in `out`
    TransportRoots roots;
  };
  // `out` has room for kResponseBytes. Once only.
  [[nodiscard]] absl::StatusOr<Result> Write(uint8_t path_id, const ResponsePayload& payload,
                                             MacStamper& stamper, TimeNs now, MutableBytes out);

 private:
  explicit ResponderHandshake(HandshakeState noise) : noise_(std::move(noise)) {}

  HandshakeState noise_;
  Key peer_public_key_{};
  InitiationPayload initiation_;
  uint8_t path_id_ = 0;
};

// The pattern and the prologue, for programs that speak the handshake by the Noise layer alone.
const NoisePattern& HandshakePattern();
std::array<uint8_t, 10> HandshakePrologue();

}  // namespace braid
