#include "slowpath/path_commands.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "bonding/bond_sender.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

bool Suits(const PathConfig& path, const HostPort& endpoint) {
  return !endpoint.address.is_set() || !path.address.is_set() ||
         endpoint.address.family == path.address.family;
}

Json OrNull(std::string text) { return text.empty() ? Json() : Json(std::move(text)); }

Json DescribePathOfPeer(const Peer& peer, size_t id, const PeerPath& path,
                        const WorkerGroup& workers) {
  Json json;
  json["name"] = peer.config.name;
  json["state"] = std::string(PathStateName(peer, id, workers.BondOf(peer.slot)));
  json["remote"] = path.route.remote.is_set() ? Json(path.route.remote.ToString()) : Json();
  json["rtt_ms"] = path.rtt_ms ? Json(std::round(*path.rtt_ms * 1000) / 1000) : Json();
  return json;
}

Json DescribePath(const ClientPath& path, uint8_t id, const Peers& peers,
                  const WorkerGroup& workers, const PathQuotas& quotas) {
  Json json;
  json["id"] = id;
  json["name"] = path.config.name;
  const std::string bound_to = path.binding ? path.binding->device : "";
  json["interface"] = OrNull(path.config.interface.empty() ? bound_to : path.config.interface);
  json["address"] = OrNull(path.config.address.is_set() ? path.config.address.ToString() : "");
  json["endpoint"] = OrNull(path.config.endpoint ? DescribeEndpoint(*path.config.endpoint) : "");
  json["from"] = std::string(OriginName(path.origin));
  DescribePathOptions(path.config.bonding, json);
  json["open"] = path.binding.has_value();
  json["problem"] = OrNull(path.problem);
  json["quota"] = DescribeQuota(path.config, quotas);
  json["peers"] = Json::array();
  for (const Peer* peer : peers.all()) {
    const PeerPath* of_peer = peer->FindPath(id);
    if (of_peer != nullptr)
      json["peers"].push_back(DescribePathOfPeer(*peer, id, *of_peer, workers));
  }
  return json;
}

}  // namespace

absl::StatusOr<PathConfig> ReadPathToAdd(const nlohmann::json& params, const Config& config) {
  auto path = ParsePath(params, config.network.device);
  if (!path.ok() || path->endpoint) return path;
  for (const PeerConfig& peer : config.tunnel.peers) {
    const bool reaches =
        std::any_of(peer.endpoints.begin(), peer.endpoints.end(),
                    [&](const HostPort& endpoint) { return Suits(*path, endpoint); });
    if (reaches) continue;
    return absl::InvalidArgumentError("peer \"" + peer.name +
                                      "\" has no endpoint that this path could send to: give the "
                                      "path an endpoint of its own");
  }
  return path;
}

absl::StatusOr<std::string> ReadPathToRemove(const nlohmann::json& params) {
  const auto name = params.find("name");
  if (params.size() == 1 && name != params.end() && name->is_string()) {
    return name->get<std::string>();
  }
  return absl::InvalidArgumentError("\"name\" must be the name of a path, and be given alone");
}

ControlResult DescribeAddedPath(const ClientPaths& paths, const std::string& name) {
  for (size_t id = 0; id < kMaxPaths; ++id) {
    if (!paths[id] || paths[id]->config.name != name) continue;
    Json json;
    json["name"] = name;
    json["open"] = paths[id]->binding.has_value();
    json["problem"] = OrNull(paths[id]->problem);
    return ToJsonText(json);
  }
  return ControlError{ControlCode::kInternal, "the path was added, but has no id"};
}

Json DescribePaths(const ClientPaths& paths, const Peers& peers, const WorkerGroup& workers,
                   const PathQuotas& quotas) {
  Json json;
  json["paths"] = Json::array();
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (paths[id]) json["paths"].push_back(DescribePath(*paths[id], id, peers, workers, quotas));
  }
  json["problem"] = OrNull(paths.problem());
  return json;
}

void DescribePathOptions(const BondPathOptions& options, Json& to) {
  to["weight"] = options.weight;
  to["rate_mbps"] = options.fixed_bytes_per_s == 0
                        ? Json()
                        : Json(static_cast<double>(options.fixed_bytes_per_s) * 8 / 1e6);
  to["standby"] = options.standby;
}

Json DescribeQuota(const PathConfig& path, const PathQuotas& quotas) {
  const PathQuota* quota = path.quota ? quotas.Find(path.name) : nullptr;
  if (quota == nullptr) return Json();
  return {{"used_bytes", quota->kept().used_bytes},
          {"limit_bytes", quota->config().bytes},
          {"resets", quota->NextReset(static_cast<int64_t>(WallNowNs() / kSecondNs))}};
}

std::string_view PathStateName(const Peer& peer, size_t id, const BondGauges* bond) {
  if (!peer.established() || !peer.paths[id].usable()) return "down";
  const bool up =
      bond != nullptr && bond->bonded.Get()
          ? bond->paths[id].state.Get() == static_cast<uint8_t>(BondSender::PathState::kUp)
          : id == peer.active_path;
  return up ? "up" : "standby";
}

std::string DescribeEndpoint(const HostPort& endpoint) {
  if (endpoint.address.is_set()) return Endpoint{endpoint.address, endpoint.port}.ToString();
  return endpoint.host + ":" + std::to_string(endpoint.port);
}

}  // namespace braid
