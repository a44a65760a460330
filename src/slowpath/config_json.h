// A configuration as JSON: all of it, with what is left to its default, in the shape of the file.
// Read again it gives the same configuration. There are no secrets in it: those stand in files of
// their own, of which only the names are here.
#pragma once

#include <nlohmann/json.hpp>

#include "slowpath/config.h"

namespace braid {

nlohmann::ordered_json ToJson(const Config& config);

}  // namespace braid
