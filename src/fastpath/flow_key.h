// What tells one inner flow from another, as its own packets have it.
#pragma once

#include <cstdint>
#include <utility>

#include "base/address.h"
#include "base/bytes.h"
#include "fastpath/inner_packet.h"

namespace braid {

struct FlowKey {
  IpAddress source;
  IpAddress destination;
  uint16_t source_port = 0;  // of TCP and UDP, as far as the packet shows them; else 0
  uint16_t destination_port = 0;
  uint8_t protocol = 0;

  // Of a packet that ParseInner() took.
  static FlowKey Of(Bytes packet, const InnerPacket& inner) {
    FlowKey key{InnerSource(packet), InnerDestination(packet), 0, 0, inner.protocol};
    if (inner.l4_header_bytes != 0) {
      key.source_port = LoadBe16(&packet[inner.l4_offset]);
      key.destination_port = LoadBe16(&packet[inner.l4_offset + 2u]);
    }
    return key;
  }

  bool has_ports() const { return protocol == kProtocolTcp || protocol == kProtocolUdp; }
  // Of the packets that answer.
  FlowKey Reversed() const {
    return {destination, source, destination_port, source_port, protocol};
  }

  bool operator==(const FlowKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H state, const FlowKey& key) {
    return H::combine(std::move(state), key.source, key.destination, key.source_port,
                      key.destination_port, key.protocol);
  }
};

}  // namespace braid
