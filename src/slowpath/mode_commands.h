// What the control socket's verb about the bonding mode takes and gives: mode.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "absl/status/statusor.h"
#include "bonding/bond_options.h"
#include "slowpath/peers.h"

namespace braid {

// {"mode": "stripe" | "preferred" | "redundant"}; nothing when it is only asked for: {}.
absl::StatusOr<std::optional<BondingMode>> ReadMode(const nlohmann::json& params);

// What bonds are to be, when the configuration was `before` and is `next`: a mode that was set by
// command stands where it says the same mode as before.
BondOptions BondAfterReload(const BondOptions& now, const BondOptions& before,
                            const BondOptions& next);

// {"mode": …, "peers": [{"name", "mode", "other_end"}]}. "mode" of a peer is how it is sent to;
// "other_end" how it takes what this client has asked it for: "follows", "asked" (it has not
// answered yet), "cannot" (it is too old), or null when it was asked for nothing.
nlohmann::ordered_json DescribeModes(BondingMode mode, const Peers& peers);

}  // namespace braid
