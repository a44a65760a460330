// What the status tells of a peer's bond and of what each path of it does.
#pragma once

#include <nlohmann/json.hpp>

#include "fastpath/bond_gauges.h"

namespace braid {

nlohmann::ordered_json DescribeBond(const BondGauges& bond);
nlohmann::ordered_json DescribeBondPath(const BondGauges::Path& path);

}  // namespace braid
