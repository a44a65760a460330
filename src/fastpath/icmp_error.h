// The ICMP errors that a router owes the sender of a packet (RFC 792, 1191, 4443).
#pragma once

#include "base/address.h"
#include "base/bytes.h"
#include "fastpath/inner_packet.h"

namespace braid {

// "Too big, at most `mtu`": fragmentation needed for IPv4, packet too big for IPv6, from `source`
// (the packet's own destination when unset). Returns the bytes written to `to`, which holds at least
// 640; 0 where no error may be sent: about ICMP errors, later fragments, and packets to
// or from no single host.
size_t WriteTooBig(Bytes packet, const InnerPacket& inner, const IpAddress& source, uint16_t mtu,
                   MutableBytes to);

}  // namespace braid
