// What the control socket's verbs about paths take and give: path_list, path_add, path_del,
// path_set.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "slowpath/client_paths.h"
#include "slowpath/config.h"
#include "slowpath/control_protocol.h"
#include "slowpath/peers.h"
#include "slowpath/worker_group.h"

namespace braid {

inline constexpr std::string_view kPathVerbs = "path_";  // they begin so

// An object as in "paths" of the configuration. Errors name the member.
absl::StatusOr<PathConfig> ReadPathToAdd(const nlohmann::json& params, const Config& config);
// {"name": …}
absl::StatusOr<std::string> ReadPathToRemove(const nlohmann::json& params);

// {"name": …, "open": …, "problem": …}
ControlResult DescribeAddedPath(const ClientPaths& paths, const std::string& name);
// {"paths": [{"id", "name", "interface", "address", "endpoint", "from", "weight", "rate_mbps",
// "standby", "open", "problem", "quota", "peers": [{"name", "state", "remote", "rtt_ms"}]}]}; what
// there is not is null.
nlohmann::ordered_json DescribePaths(const ClientPaths& paths, const Peers& peers,
                                     const WorkerGroup& workers, const PathQuotas& quotas);
// {"weight", "rate_mbps", "standby"}; a rate of null is measured.
void DescribePathOptions(const BondPathOptions& options, nlohmann::ordered_json& to);
// {"used_bytes", "limit_bytes", "resets": "2026-12-01"}; null when it has none.
nlohmann::ordered_json DescribeQuota(const PathConfig& path, const PathQuotas& quotas);

// "up", "standby", "down". `bond` may be nullptr.
std::string_view PathStateName(const Peer& peer, size_t id, const BondGauges* bond);
// "192.0.2.1:7700", "hub.example.org:7700"
std::string DescribeEndpoint(const HostPort& endpoint);

}  // namespace braid
