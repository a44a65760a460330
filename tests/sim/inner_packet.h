// A packet of a simulated host. Of its bytes the simulator carries the first ones, whatever its
// length: an IPv4 header, and behind it what flow it is of, its number there, and the flow's own.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "base/bytes.h"
#include "base/clock.h"
#include "bonding/packet_slab.h"

namespace braid::sim {

inline constexpr size_t kIpHeaderBytes = 20;

// In front of the flow's own bytes.
struct PacketLabel {
  uint32_t flow = 0;
  uint8_t from_end = 0;
  uint16_t bytes = 0;
  uint64_t number = 0;  // of the flow's packets of this end
  TimeNs sent_ns = 0;
};

struct InnerPacket {
  static constexpr size_t kCarriedBytes = 144;
  static constexpr size_t kOwnAt = kIpHeaderBytes + sizeof(PacketLabel);
  static constexpr size_t kOwnBytes = kCarriedBytes - kOwnAt;

  uint16_t bytes = 0;
  uint32_t flow_hash = 0;
  TrafficClass traffic_class = TrafficClass::kBulk;
  std::array<uint8_t, kCarriedBytes> head{};

  PacketLabel label() const {
    PacketLabel label;
    std::memcpy(&label, &head[kIpHeaderBytes], sizeof(label));
    return label;
  }

  template <typename T>
  T own() const {
    static_assert(sizeof(T) <= kOwnBytes);
    T value;
    std::memcpy(&value, &head[kOwnAt], sizeof(T));
    return value;
  }

  template <typename T>
  void set_own(const T& value) {
    static_assert(sizeof(T) <= kOwnBytes);
    std::memcpy(&head[kOwnAt], &value, sizeof(T));
  }

  // Explicit congestion notification: whether the ends understand it, and whether it was marked.
  bool marked() const { return (head[1] & 3) == 3; }

  void Write(const PacketLabel& label, bool ecn) {
    std::memset(head.data(), 0, kIpHeaderBytes);
    head[0] = 0x45;
    head[1] = ecn ? 2 : 0;
    StoreBe16(&head[2], bytes);
    StoreBe32(&head[12], label.flow);
    StoreBe16(&head[10], static_cast<uint16_t>(~HeaderSum()));
    std::memcpy(&head[kIpHeaderBytes], &label, sizeof(label));
  }

  // Of a header with a right checksum it is 0xffff.
  uint16_t HeaderSum() const {
    uint32_t sum = 0;
    for (size_t i = 0; i < kIpHeaderBytes; i += 2) sum += LoadBe16(&head[i]);
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>((sum & 0xffff) + (sum >> 16));
  }
};

}  // namespace braid::sim
