// Resets of TCP flows (RFC 9293, 3.10.7.1).
#pragma once

#include "base/bytes.h"
#include "fastpath/flow_key.h"

namespace braid {

// What a segment gets where it has no business, from its destination to its source. Returns the
// bytes written to `to`; 0 for what gets none: a reset, or what is no whole TCP segment.
size_t WriteTcpReset(Bytes packet, const InnerPacket& inner, MutableBytes to);

// One of the flow's own, which its receiver takes since it expects `sequence` next.
size_t WriteTcpResetOf(const FlowKey& flow, uint32_t sequence, MutableBytes to);

}  // namespace braid
