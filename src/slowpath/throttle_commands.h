// The limits of rates between the configuration, the workers and the control socket's verb about
// them: throttle.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "absl/status/statusor.h"
#include "fastpath/throttle.h"
#include "slowpath/config.h"
#include "slowpath/peers.h"
#include "slowpath/worker_group.h"

namespace braid {

// What WorkerGroup::SetThrottle() takes: nullptr when nothing is limited. Limits of peers that
// there are not are left out.
std::shared_ptr<Throttle> MakeThrottle(const ThrottleConfig& config, const Peers& peers,
                                       int workers);

// {"total": LIMIT | null, "peers": {NAME: LIMIT | null}} as in the configuration; what is not named
// stays, and null ends a limit. {} changes nothing. Errors name the member.
absl::StatusOr<ThrottleConfig> ReadThrottleChange(const nlohmann::json& params,
                                                  const ThrottleConfig& throttle,
                                                  const Peers& peers);

// The limits of now, when the configuration's were `before` and are `next`: what commands have
// changed stands where it says the same as before. Of peers that there are.
ThrottleConfig ThrottleAfterReload(const ThrottleConfig& now, const ThrottleConfig& before,
                                   const ThrottleConfig& next, const Peers& peers);

// {"send": {"rate_mbps", "burst_kb"}, "receive": …}; null for what is not limited.
nlohmann::ordered_json DescribeLimits(const ThrottleLimits& limits);

// {"total": LIMITS, "peers": [{"name", "send", "receive", "sending", "receiving"}]}. "sending" and
// "receiving" are what the limits have done: {"waiting_bytes", "delayed", "dropped", "marked"}, and
// "refused" of what came: before it was opened.
nlohmann::ordered_json DescribeThrottle(const ThrottleConfig& throttle, const Peers& peers,
                                        const WorkerGroup& workers);

// Of one peer, as there. nullopt: it has no limit, and nothing of it has ever waited for one.
std::optional<nlohmann::ordered_json> DescribePeerThrottle(const ThrottleConfig& throttle,
                                                           const Peer& peer,
                                                           const WorkerGroup& workers);

}  // namespace braid
