// What a mode measured, for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace braid::swarm {

std::string Render(const nlohmann::ordered_json& result);

}  // namespace braid::swarm
