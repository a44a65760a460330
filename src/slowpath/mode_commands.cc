#include "slowpath/mode_commands.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

Json OtherEnd(const Peer& peer) {
  if (!peer.wanted_mode) return Json();
  if (peer.wanted_mode->taken) return "follows";
  return peer.established() && (peer.features & kFeatureMode) == 0 ? "cannot" : "asked";
}

}  // namespace

absl::StatusOr<std::optional<BondingMode>> ReadMode(const nlohmann::json& params) {
  if (params.empty()) return std::nullopt;
  const auto mode = params.find("mode");
  if (params.size() == 1 && mode != params.end()) {
    const auto found = std::find(kBondingModeNames.begin(), kBondingModeNames.end(), *mode);
    if (found != kBondingModeNames.end()) {
      return static_cast<BondingMode>(found - kBondingModeNames.begin());
    }
  }
  return absl::InvalidArgumentError(
      "\"mode\" must be \"stripe\", \"preferred\" or \"redundant\", and be given alone");
}

BondOptions BondAfterReload(const BondOptions& now, const BondOptions& before,
                            const BondOptions& next) {
  BondOptions to = next;
  if (next.mode == before.mode) to.mode = now.mode;
  return to;
}

Json DescribeModes(BondingMode mode, const Peers& peers) {
  Json json;
  json["mode"] = std::string(NameOf(mode));
  json["peers"] = Json::array();
  for (const Peer* peer : peers.all()) {
    json["peers"].push_back({{"name", peer->config.name},
                             {"mode", std::string(NameOf(peer->asked_mode.value_or(mode)))},
                             {"other_end", OtherEnd(*peer)}});
  }
  return json;
}

}  // namespace braid
