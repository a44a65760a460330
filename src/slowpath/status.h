// What `braid status --json` shows, put together from the peers and the workers' counters.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "slowpath/status_sources.h"

namespace braid {

nlohmann::ordered_json DescribeStatus(const StatusSources& sources);
// {"peers": […]}, as there.
nlohmann::ordered_json DescribePeers(const StatusSources& sources);
// Of a daemon whose tunnel does not run: "stopped" by command, or "failed" with why.
nlohmann::ordered_json DescribeStopped(const Config& config, const std::string& failure);

}  // namespace braid
