// Explicit congestion notification in an IP header (RFC 3168, RFC 8311).
#pragma once

#include "base/bytes.h"

namespace braid {

// Marks an IPv4 or IPv6 packet as having met congestion. False when its ends do not understand
// that: it is to be dropped instead. An IPv4 header's checksum is kept right (RFC 1624).
inline bool MarkCongestion(MutableBytes packet) {
  if (packet.size() < 20) return false;
  if (packet[0] >> 4 == 4) {
    const uint8_t ecn = packet[1] & 3;
    if (ecn == 0) return false;
    const uint8_t marked = packet[1] | 3;
    const uint32_t sum = (~LoadBe16(&packet[10]) & 0xffffu) +
                         (~(packet[0] << 8 | packet[1]) & 0xffffu) +
                         static_cast<uint32_t>(packet[0] << 8 | marked);
    packet[1] = marked;
    const uint32_t folded = (sum & 0xffff) + (sum >> 16);
    StoreBe16(&packet[10], static_cast<uint16_t>(~((folded & 0xffff) + (folded >> 16))));
    return true;
  }
  if ((packet[1] >> 4 & 3) == 0) return false;
  packet[1] |= 3 << 4;
  return true;
}

}  // namespace braid
