// IP headers for the tests of queues that look at them.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace braid::testing {

inline constexpr size_t kIpv4HeaderBytes = 20;
inline constexpr uint8_t kNotEcn = 0;
inline constexpr uint8_t kEcn1 = 1;
inline constexpr uint8_t kEcn0 = 2;
inline constexpr uint8_t kMarked = 3;

// The sum of a header with a right checksum is 0xffff.
inline uint16_t Ipv4HeaderSum(Bytes packet) {
  uint32_t sum = 0;
  for (size_t i = 0; i < kIpv4HeaderBytes; i += 2) sum += LoadBe16(&packet[i]);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

inline void WriteIpv4Header(MutableBytes packet, uint8_t traffic_class, uint16_t id) {
  std::memset(packet.data(), 0, kIpv4HeaderBytes);
  packet[0] = 0x45;
  packet[1] = traffic_class;
  StoreBe16(&packet[2], static_cast<uint16_t>(packet.size()));
  StoreBe16(&packet[4], id);
  packet[8] = 64;
  packet[9] = 6;
  StoreBe32(&packet[12], 0x0a4d0001);
  StoreBe32(&packet[16], 0x0a4d0002);
  StoreBe16(&packet[10], static_cast<uint16_t>(~Ipv4HeaderSum(packet)));
}

}  // namespace braid::testing
