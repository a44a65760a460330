// What an inner packet wants, as its sender has marked it (DSCP, RFC 2474, RFC 4594, RFC 8622).
// What the operator says of its ports (class_rules.h) goes before that.
#pragma once

#include "base/bytes.h"
#include "bonding/packet_slab.h"

namespace braid {

// `packet` holds a whole IPv4 or IPv6 header.
inline TrafficClass ClassOf(Bytes packet) {
  const int byte = packet[0] >> 4 == 4 ? packet[1] : (packet[0] << 4 | packet[1] >> 4) & 0xff;
  switch (byte >> 2) {
    case 16:  // CS2: operation, administration and management
    case 40:  // CS5: signalling
    case 44:  // voice admitted
    case 46:  // expedited forwarding: telephony
    case 48:  // CS6: network control
    case 56:  // CS7
      return TrafficClass::kInteractive;
    case 24:  // CS3: broadcast video
    case 32:  // CS4: real-time interactive
    case 34:  // AF41 … AF43: conferencing
    case 36:
    case 38:
      return TrafficClass::kRealtime;
    default:
      return TrafficClass::kBulk;
  }
}

}  // namespace braid
