// What a handshake message costs before anything expensive is done with it: the frame of kinds 1 to
// 3, their two MACs, and the cookie that a loaded receiver asks for. The constructions are those of
// WireGuard (whitepaper, §5.3 and §5.4.4 to §5.4.7) over braid's header.
//
//   mac1   = MAC(HASH("mac1----" ‖ receiver's public key), message up to mac1)
//   mac2   = MAC(cookie, message up to mac2), or zero when the sender holds no cookie
//   cookie = MAC(secret, address ‖ port), the address 4 or 16 bytes, the port big-endian
//   kind 3 = header ‖ nonce ‖ XChaCha20-Poly1305(HASH("cookie--" ‖ sender's public key), cookie,
//            associated data = the mac1 it answers)
//
// MAC is keyed BLAKE2s-128, HASH is BLAKE2s-256. The sender's index travels sealed inside the
// message that a cookie answers, and a cookie is made without opening it: so a cookie's session is
// 0, and its path repeats the one it answers. It is matched by where it came from and by mac1.
//
// An object belongs to one thread at a time.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "fastpath/wire.h"
#include "slowpath/noise.h"

namespace braid {

inline constexpr size_t kMacBytes = 16;
inline constexpr size_t kMacsBytes = 2 * kMacBytes;
inline constexpr size_t kCookieBytes = 16;
inline constexpr size_t kCookieNonceBytes = 24;
inline constexpr size_t kCookieReplyBytes =
    kHeaderBytes + kCookieNonceBytes + kCookieBytes + kTagBytes;
// A sender uses a cookie that long; a receiver changes its secret that often, and still takes
// cookies of the secret before.
inline constexpr DurationNs kCookieLifetimeNs = 120 * kSecondNs;

using Mac = std::array<uint8_t, kMacBytes>;

// The header of a message of kind 1 to 3: everything but kind, session and path is fixed.
Header HandshakeHeader(Kind kind, uint32_t session, uint8_t path_id);
// Nothing unless `datagram` opens with such a header.
std::optional<Header> ReadHandshakeHeader(Bytes datagram, Kind kind);

enum class Mac2Verdict : uint8_t { kAbsent, kValid, kInvalid };
enum class Admission : uint8_t { kRefused, kNeedsCookie, kAdmitted };

// The receiving side: one for each own public key. It keeps nothing about any sender.
class CookieChecker {
 public:
  explicit CookieChecker(const Key& own_public_key);

  // The order in which a message of kind 1 or 2 earns work: mac1, then mac2, which is zero or valid
  // also while there is no load. kNeedsCookie: under load and without one; answer with WriteCookie.
  Admission Admit(Bytes message, const Endpoint& source, bool under_load, TimeNs now);

  // Two hashes, no key agreement.
  bool CheckMac1(Bytes message) const;
  Mac2Verdict CheckMac2(Bytes message, const Endpoint& source, TimeNs now);

  // Answers `message`, whose mac1 must be valid, with kCookieReplyBytes bytes: always fewer than it
  // has, so that nobody gains by asking under a false address.
  [[nodiscard]] absl::StatusOr<size_t> WriteCookie(Bytes message, const Endpoint& source,
                                                   TimeNs now, MutableBytes out);

 private:
  void Rotate(TimeNs now);

  Key mac1_key_;
  Key cookie_key_;
  Secret secret_;
  Secret previous_secret_;
  std::optional<TimeNs> rotated_;  // nothing before the first use
};

// The sending side: one for each receiver and path, since a cookie is bound to the address that the
// receiver sees. Holds the last mac1 and at most one cookie.
class MacStamper {
 public:
  explicit MacStamper(const Key& receiver_public_key);

  // Fills the last kMacsBytes bytes of `message`, a whole datagram of kind 1 or 2. A cookie that
  // answers it may name `sender_index` as its session.
  void AddMacs(MutableBytes message, uint32_t sender_index, TimeNs now);

  // Accepts one cookie for the message stamped last.
  [[nodiscard]] absl::Status ConsumeCookie(Bytes datagram, TimeNs now);

  // A message with a mac2 went unanswered: the receiver may have restarted, or see another address
  // now, and refuses a mac2 that does not fit. The next message goes without.
  void DropCookie();
  bool HasCookie(TimeNs now) const;

 private:
  struct Sent {
    Mac mac1;
    uint32_t sender_index;
    uint8_t path_id;
  };
  struct Cookie {
    Secret value;  // the first kCookieBytes bytes
    TimeNs received;
  };

  Key mac1_key_;
  Key cookie_key_;
  std::optional<Sent> sent_;
  std::optional<Cookie> cookie_;
};

}  // namespace braid
