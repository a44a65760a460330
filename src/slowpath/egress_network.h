// The network of its own that a device has for flows that leave past the tunnel: the address where
// relays listen, and those of the made-up neighbours whom they talk to. Nobody else ever sees them.
// No I/O here.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "fastpath/egress_options.h"
#include "slowpath/net_snapshot.h"

namespace braid {

struct EgressNetwork {
  EgressNeighbours v4;              // without ports
  EgressNeighbours v6;              // unset where there is no IPv6
  std::vector<IpPrefix> addresses;  // for the device: the listeners', with their networks
};

// One that no other link is in: link-local for IPv4 (RFC 3927), a unique local one for IPv6 (RFC
// 4193).
absl::StatusOr<EgressNetwork> ChooseEgressNetwork(const NetSnapshot& network, bool has_v6);

}  // namespace braid
