// What the tunnel wants of this machine's network, from the configuration and the network as it is.
// No I/O here: what comes out is made by host_network.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "slowpath/config.h"
#include "slowpath/host_change.h"
#include "slowpath/net_snapshot.h"
#include "slowpath/nft.h"

namespace braid {

// Below those that administrators and other programs mostly choose, so that theirs come first;
// above the main table's, 32766.
inline constexpr uint32_t kRulePriority = 32'000;

struct NetworkPlanInput {
  const Config& config;
  const NetSnapshot& network;
  uint32_t table = 0;  // of braid's own routes
  bool has_v6 = true;  // the tunnel's device may have IPv6
  // The tunnel has carried something, or nothing is to leave beside it anyway.
  bool draws_traffic = false;
  NatGuard guard;
};

// In the order in which they are to be made, so that nothing is drawn into the tunnel before what
// is to stay out does.
//
// Servers need no way past the tunnel: braid's own sockets are marked. A route past it for their
// addresses would let out what anybody else sends there, and whoever forges an answer of DNS would
// choose which addresses those are.
std::vector<HostChange> PlanNetwork(const NetworkPlanInput& input);

// What is to go through the tunnel as IPv6 leaves beside it: its device may have none, and this
// machine does elsewhere.
bool IsV6Left(const NetworkPlanInput& input);

// One peer carries all of it.
bool IsCarried(const Config& config, const IpPrefix& prefix);

// Devices that are to forward IPv4 for NAT.
std::vector<std::string> ForwardingDevices(const Config& config, const NetSnapshot& network);
bool ForwardsV6(const Config& config);

// What is in a network that this machine is in: private addresses, or a network as small as most
// are, so that somebody's lie about it draws little out of the tunnel.
bool IsLan(const IpPrefix& prefix);

}  // namespace braid
