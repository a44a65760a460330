// The link-layer address of a path's next hop, as the kernel resolves it (ARP, neighbour
// discovery).
#pragma once

#include "slowpath/net_snapshot.h"

namespace braid {

// While a next hop does not answer, the kernel asks for it once a second, and holds what is to be
// sent until then. Forgets such an entry, so that the next packet asks at once; one with an address
// stays as it is.
void ForgetUnresolved(const NextHop& next_hop);

}  // namespace braid
