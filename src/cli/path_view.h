// The paths of a client for people: what `braid path list` prints without --json.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace braid {

// A table of at most 80 columns, a line for each path and peer; under a path what is wrong with it.
std::string RenderPaths(const nlohmann::ordered_json& paths);

}  // namespace braid
