// Gives a whole TCP or UDP packet, or a super-packet of them, other addresses and ports, and keeps
// its checksums right without a look at the payload (RFC 1624, equation 3).
#pragma once

#include "base/bytes.h"
#include "fastpath/flow_key.h"
#include "fastpath/inner_packet.h"

namespace braid {

// `to` is of the packet's family. The transport checksum is partial, as the kernel leaves it to a
// device, or whole; one of UDP over IPv4 that is not there stays so.
void Readdress(MutableBytes packet, const InnerPacket& inner, const FlowKey& to,
               bool partial_checksum);

}  // namespace braid
