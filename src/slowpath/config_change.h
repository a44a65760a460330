// What differs between two configurations, and whether a running daemon can take it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "slowpath/config.h"

namespace braid {

struct ConfigDifference {
  std::string pointer;  // as in the file, but of paths and peers by name: /tunnel/peers/hub
  std::string before;   // JSON; empty: it was not there
  std::string after;    // JSON; empty: it is no more
  bool live = false;    // else it needs a restart

  bool operator==(const ConfigDifference&) const = default;
};

// In the order of the file.
std::vector<ConfigDifference> CompareConfigs(const Config& before, const Config& after);

// The preshared key of a peer that stays, in the file of the same name. The session is begun anew.
ConfigDifference OtherPresharedKey(const PeerConfig& peer);

// [{"pointer", "before", "after", "needs_restart"}]; what is not there is null.
nlohmann::ordered_json ToJson(const std::vector<ConfigDifference>& differences);

}  // namespace braid
