// Reads what a configuration wants of this machine's network around the tunnel: routes, NAT, DNS,
// kill switch.
#pragma once

#include <optional>

#include "slowpath/config.h"
#include "slowpath/config_node.h"

namespace braid {

// `role` is nothing where "mode" is wrong: what depends on it is not judged.
void ReadHostNetwork(const Section& network, std::optional<Role> role, NetworkConfig& to);

// Of what was read whole: whether the peers carry what is to go through the tunnel.
void CheckHostNetwork(const Config& config, Report& report);

}  // namespace braid
