// The daemon's health for people: what `braid health` prints without --json.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace braid {

// A line for each component, the whole first, of at most 80 columns; what there is to know of a
// component is wrapped beside it. What is bad stands out also without colours.
std::string RenderHealth(const nlohmann::ordered_json& health, bool colour);

// What the program exits with, as monitoring plugins do: 0 ok, 1 degraded, 2 failed, 3 anything
// else.
int ExitCodeOf(const nlohmann::ordered_json& health);

}  // namespace braid
