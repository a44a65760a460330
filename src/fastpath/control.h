// Sealed control messages (kind 5), the same on every lane: one type byte and fixed fields,
// big-endian. docs/wire.md lists them. Types of later versions are skipped, not refused.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.h"

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
  };

  Type type;
  uint64_t token = 0;    // Ping, Pong
  uint32_t session = 0;  // ConfirmEpoch
  uint32_t epoch = 0;    // ConfirmEpoch
};

inline constexpr size_t kMaxControlBytes = 16;

enum class ControlVerdict : uint8_t { kOk, kUnknownType, kMalformed };

ControlVerdict ReadControlMessage(Bytes from, ControlMessage& message);

// Returns the bytes written.
size_t WriteControlMessage(const ControlMessage& message,
                           std::array<uint8_t, kMaxControlBytes>& to);

}  // namespace braid
