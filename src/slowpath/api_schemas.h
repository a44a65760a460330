// What requests and results of the HTTP API look like, as schemas of OpenAPI 3.0.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace braid {

// By name, as they stand under "components/schemas". Results may have more members than are listed
// as required; later versions add some and take none away.
const nlohmann::ordered_json& ApiSchemas();

}  // namespace braid
