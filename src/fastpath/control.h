// Sealed control messages (kind 5), the same on every lane: one type byte and fixed fields,
// big-endian. docs/wire.md lists them. Types of later versions are skipped, not refused.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "bonding/bond_options.h"

namespace braid {

struct ControlMessage {
  enum class Type : uint8_t {
    // Answered with a Pong of the same token, to where the ping came from. The token is random, so
    // that the answer also proves that the peer receives there.
    kPing = 1,
    kPong = 2,
    // The sender opened a packet of `epoch` that carried `session` in its header.
    kConfirmEpoch = 3,
    // Nothing but its own source address, which the receiver may answer this lane at.
    kHello = 4,
    // The sender ends the session and forgets its keys.
    kClose = 5,
    // The sender has no path of this id any more. Answered with a Pong of the same token. On the
    // slow lane only, whose sequence tells whether anything that came over the path is newer.
    kPathGone = 6,
    // As long as the largest inner packet that it asks about: what follows the token is padding.
    // Answered with a Probed.
    kProbe = 7,
    // A Probe of this token and length came through.
    kProbed = 8,
    // The sender wants to be sent to in this bonding mode. Answered with a Pong of the same token.
    // On the slow lane only, whose sequence tells which of two is the newer one.
    kMode = 9,
  };

  Type type;
  uint64_t token = 0;                       // Ping, Pong, PathGone, Probe, Probed, Mode
  uint32_t session = 0;                     // ConfirmEpoch
  uint32_t epoch = 0;                       // ConfirmEpoch
  uint8_t path = 0;                         // PathGone
  uint16_t mtu = 0;                         // Probe: its own length; Probed
  BondingMode mode = BondingMode::kStripe;  // Mode
};

inline constexpr size_t kMaxControlBytes = 16;

enum class ControlVerdict : uint8_t { kOk, kUnknownType, kMalformed };

ControlVerdict ReadControlMessage(Bytes from, ControlMessage& message);

// Returns the bytes written. The padding of a Probe is its sender's to add.
size_t WriteControlMessage(const ControlMessage& message,
                           std::array<uint8_t, kMaxControlBytes>& to);

}  // namespace braid
