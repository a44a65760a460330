// Reads the limits of what is sent to peers and taken from them: of a configuration, and of whoever
// changes them while the tunnel runs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "slowpath/config.h"
#include "slowpath/config_node.h"

namespace braid {

// {"total": LIMIT, "peers": {NAME: LIMIT}}; a limit is {"rate_mbps", "burst_kb"}, which holds for
// each way by itself, or {"send": …, "receive": …} of those.
void ReadThrottle(const Node& node, ThrottleConfig& to);

// Of what was read whole: whether there are such peers.
void CheckThrottle(const Config& config, Report& report);

// The same object as a change of `throttle`: what it does not name stays, and null ends a limit.
// `peers` are those that there are. Errors name the member.
absl::StatusOr<ThrottleConfig> ChangeThrottle(const nlohmann::json& change,
                                              const ThrottleConfig& throttle,
                                              const std::vector<std::string>& peers);

}  // namespace braid
