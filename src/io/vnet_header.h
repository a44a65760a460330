// The virtio header in front of each packet that TUN reads or writes (virtio 1.2, §5.1.6, the
// 10-byte legacy form in native byte order).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace braid {

struct VnetHeader {
  // flags
  static constexpr uint8_t kNeedsChecksum = 1;  // checksum_start and checksum_offset are valid
  static constexpr uint8_t kDataValid = 2;
  // gso_type
  static constexpr uint8_t kGsoNone = 0;
  static constexpr uint8_t kGsoTcpV4 = 1;
  static constexpr uint8_t kGsoTcpV6 = 4;
  static constexpr uint8_t kGsoUdpL4 = 5;   // Linux 6.2
  static constexpr uint8_t kGsoEcn = 0x80;  // TCP has ECN set

  uint8_t flags;
  uint8_t gso_type;
  uint16_t header_bytes;     // of all headers, up to the payload
  uint16_t gso_bytes;        // of payload in each segment
  uint16_t checksum_start;   // where the checksum begins to count
  uint16_t checksum_offset;  // where it goes, from there
};
inline constexpr size_t kVnetHeaderBytes = 10;
static_assert(sizeof(VnetHeader) == kVnetHeaderBytes);
static_assert(kVnetHeaderBytes + kMaxInnerBytes <= kPacketDataBytes);

}  // namespace braid
