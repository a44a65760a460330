// The ICMP errors that a router owes the sender of a packet (RFC 792, 1191, 4443).
#pragma once

#include "base/bytes.h"
#include "fastpath/inner_packet.h"

namespace braid {

struct IcmpError {
  enum class What : uint8_t {
    kTooBig,     // fragmentation needed for IPv4, packet too big for IPv6
    kNoNetwork,  // no route to the destination
    kNoHost,     // address unreachable
    kNoPort,
    kProhibited,  // by whoever rules there
  };
  What what = What::kTooBig;
  uint16_t mtu = 0;  // of kTooBig: what fits
};

// It comes from the packet's own destination: the kernel takes one from an address of this machine
// for a forgery. Returns the bytes written to `to`, which holds at least 640; 0 where no error may
// be sent: about ICMP errors, later fragments, and packets to or from no single host.
size_t WriteIcmpError(Bytes packet, const InnerPacket& inner, IcmpError error, MutableBytes to);

}  // namespace braid
