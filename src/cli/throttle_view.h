// What `braid throttle` prints for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace braid {

// The reply to the control socket's verb "throttle" (slowpath/throttle_commands.h).
std::string RenderThrottle(const nlohmann::ordered_json& throttle);

}  // namespace braid
