// Which traffic class the operator has given to ports, whatever the senders' DSCP says. Immutable
// once built; a change builds another one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "bonding/packet_slab.h"
#include "fastpath/inner_packet.h"

namespace braid {

struct PortRange {
  uint16_t first = 0;
  uint16_t last = 0;

  bool operator==(const PortRange&) const = default;
};

struct ClassRule {
  uint8_t protocol = kProtocolUdp;  // or TCP
  std::vector<PortRange> ports;     // of either end
  TrafficClass traffic_class = TrafficClass::kBulk;

  bool operator==(const ClassRule&) const = default;
};

class ClassRules {
 public:
  // Where several match, the first one counts. At most kMaxClassRules.
  explicit ClassRules(std::span<const ClassRule> rules);

  // Nothing when no rule matches. `inner` is what was parsed of `packet`. A fragment matches none,
  // also not the first one, which has ports: all fragments of a packet are to be of one class.
  std::optional<TrafficClass> Find(Bytes packet, const InnerPacket& inner) const {
    const bool udp = inner.protocol == kProtocolUdp;
    if (inner.fragment || (!udp && inner.protocol != kProtocolTcp)) return std::nullopt;
    if (packet.size() < inner.l4_offset + size_t{4}) return std::nullopt;
    const Ports* ports = (udp ? udp_ : tcp_).get();
    if (ports == nullptr) return std::nullopt;
    const uint8_t rule = std::min((*ports)[LoadBe16(&packet[inner.l4_offset])],
                                  (*ports)[LoadBe16(&packet[inner.l4_offset + 2u])]);
    if (rule == kNoRule) return std::nullopt;
    return classes_[rule];
  }

 private:
  using Ports = std::array<uint8_t, 65536>;  // the rule of each
  static constexpr uint8_t kNoRule = UINT8_MAX;
  static_assert(kMaxClassRules < kNoRule);

  std::unique_ptr<Ports> tcp_;  // nullptr: no rule
  std::unique_ptr<Ports> udp_;
  std::array<TrafficClass, kMaxClassRules> classes_{};
};

}  // namespace braid
