// What the fuzzers share: their input taken piece by piece, and a check that stops them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "base/bytes.h"
#include "support/packets.h"

namespace braid::testing {

inline void Check(bool holds) {
  if (!holds) std::abort();
}

// Makes the length fields of an IP packet, and of UDP behind a plain header, say how long it is: a
// fuzzer would seldom guess that.
inline void MendLengths(MutableBytes packet) {
  if (packet.size() < 40 || packet.size() > 65535) return;
  const bool v6 = packet[0] >> 4 == 6;
  const size_t l4_offset = v6 ? 40 : static_cast<size_t>(packet[0] & 0xf) * 4;
  StoreBe16(&packet[v6 ? 4 : 2], static_cast<uint16_t>(packet.size() - (v6 ? 40 : 0)));
  const bool udp = packet[v6 ? 6 : 9] == kUdp && l4_offset + 8 <= packet.size();
  if (udp) StoreBe16(&packet[l4_offset + 4], static_cast<uint16_t>(packet.size() - l4_offset));
}

// Gives zeros once it has run dry.
class FuzzInput {
 public:
  explicit FuzzInput(Bytes bytes) : left_(bytes) {}

  bool empty() const { return left_.empty(); }

  uint8_t Byte() {
    if (left_.empty()) return 0;
    const uint8_t byte = left_.front();
    left_ = left_.subspan(1);
    return byte;
  }
  uint16_t Word() {
    const uint8_t high = Byte();
    return static_cast<uint16_t>(high << 8 | Byte());
  }
  Buffer Take(size_t bytes) {
    const Bytes taken = left_.first(std::min(bytes, left_.size()));
    left_ = left_.subspan(taken.size());
    return {taken.begin(), taken.end()};
  }

 private:
  Bytes left_;
};

}  // namespace braid::testing
