// braid's own symmetric hash of an inner flow: both directions of a flow give the same value, at
// both ends, whatever kernels run there. Its low bits choose the lane (flow_hash % lanes).
//
// Each end of the flow (address, port) is mixed by itself and the two are added, so that swapping
// them changes nothing but near addresses or ports still spread. Multiplicative hashing after
// Knuth, with the golden ratio's constant. The same arithmetic is loaded into the kernel by
// io/tun_steering.cc: what changes here changes there, and a test compares the two.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace braid {

inline constexpr uint64_t kFlowHashMultiplier = 0x9E3779B97F4A7C15;

// Protocols whose header opens with the two ports.
inline bool FlowHashUsesPorts(uint8_t protocol) {
  return protocol == 6 || protocol == 17 || protocol == 132;
}

inline uint64_t FlowHashMix(uint64_t value) {
  value *= kFlowHashMultiplier;
  return value ^ value >> 32;
}

// `packet` is a whole IPv4 or IPv6 packet, or at least its headers; what is cut off counts as 0.
// The ports of fragments are not used, so that all fragments of a packet keep to one lane; behind
// IPv6 extension headers they are not looked for.
inline uint32_t FlowHash(Bytes packet) {
  constexpr size_t kNoPorts = SIZE_MAX;
  if (packet.empty()) return 0;
  const uint8_t* from = packet.data();
  uint64_t source = 0;
  uint64_t destination = 0;
  uint8_t protocol = 0;
  size_t ports_offset = kNoPorts;
  if (from[0] >> 4 == 4) {
    if (packet.size() < 20) return 0;
    source = static_cast<uint64_t>(LoadBe32(from + 12)) << 16;
    destination = static_cast<uint64_t>(LoadBe32(from + 16)) << 16;
    protocol = from[9];
    const bool fragment = (LoadBe16(from + 6) & 0x3fff) != 0;
    if (!fragment) ports_offset = static_cast<size_t>(from[0] & 0xf) * 4;
  } else {
    if (packet.size() < 40) return 0;
    source = FlowHashMix(LoadBe64(from + 8)) + LoadBe64(from + 16);
    destination = FlowHashMix(LoadBe64(from + 24)) + LoadBe64(from + 32);
    protocol = from[6];
    ports_offset = 40;
  }
  if (ports_offset != kNoPorts && FlowHashUsesPorts(protocol)) {
    if (packet.size() < ports_offset + 4) return 0;
    source ^= LoadBe16(from + ports_offset);
    destination ^= LoadBe16(from + ports_offset + 2);
  }
  const uint64_t sum = FlowHashMix(source) + FlowHashMix(destination) + protocol;
  return static_cast<uint32_t>(FlowHashMix(sum) >> 16);
}

}  // namespace braid
