#include "slowpath/throttle_commands.h"

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "slowpath/config_throttle.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

std::unique_ptr<TokenBucket> BucketOf(const std::optional<RateLimit>& limit) {
  return limit ? std::make_unique<TokenBucket>(*limit) : nullptr;
}

void SetBucket(std::vector<std::unique_ptr<TokenBucket>>& buckets, PeerSlot peer,
               const std::optional<RateLimit>& limit) {
  if (!limit) return;
  if (peer >= buckets.size()) buckets.resize(peer + size_t{1});
  buckets[peer] = BucketOf(limit);
}

Json DescribeLimit(const std::optional<RateLimit>& limit) {
  if (!limit) return Json();
  return {{"rate_mbps", static_cast<double>(limit->bytes_per_s) * 8 / 1e6},
          {"burst_kb", static_cast<double>(limit->burst_bytes) / 1000}};
}

ThrottleLimits LimitsOf(const ThrottleConfig& throttle, const Peer& peer) {
  const auto found = throttle.peers.find(peer.config.name);
  return found == throttle.peers.end() ? ThrottleLimits() : found->second;
}

Json DescribeShaper(const WorkerGroup::ShaperTotals& totals) {
  return {{"waiting_bytes", totals.waiting_bytes},
          {"delayed", totals.delayed},
          {"dropped", totals.dropped},
          {"marked", totals.marked}};
}

}  // namespace

std::shared_ptr<Throttle> MakeThrottle(const ThrottleConfig& config, const Peers& peers,
                                       int workers) {
  auto throttle = std::make_shared<Throttle>(workers);
  throttle->tx.total = BucketOf(config.total.send);
  throttle->rx.total = BucketOf(config.total.receive);
  for (const auto& peer : peers.all()) {
    const ThrottleLimits limits = LimitsOf(config, *peer);
    SetBucket(throttle->tx.peers, peer->slot, limits.send);
    SetBucket(throttle->rx.peers, peer->slot, limits.receive);
  }
  const bool limits_any = throttle->tx.total != nullptr || throttle->rx.total != nullptr ||
                          !throttle->tx.peers.empty() || !throttle->rx.peers.empty();
  return limits_any ? throttle : nullptr;
}

absl::StatusOr<ThrottleConfig> ReadThrottleChange(const nlohmann::json& params,
                                                  const ThrottleConfig& throttle,
                                                  const Peers& peers) {
  std::vector<std::string> names;
  for (const auto& peer : peers.all()) names.push_back(peer->config.name);
  return ChangeThrottle(params, throttle, names);
}

ThrottleConfig ThrottleAfterReload(const ThrottleConfig& now, const ThrottleConfig& before,
                                   const ThrottleConfig& next, const Peers& peers) {
  ThrottleConfig to = now;
  if (next.total != before.total) to.total = next.total;
  for (const auto& [name, limits] : before.peers) {
    if (!next.peers.contains(name)) to.peers.erase(name);
  }
  for (const auto& [name, limits] : next.peers) {
    const auto was = before.peers.find(name);
    if (was == before.peers.end() || was->second != limits) to.peers[name] = limits;
  }
  std::unordered_set<std::string_view> names;
  for (const Peer* peer : peers.all()) names.insert(peer->config.name);
  std::erase_if(to.peers, [&names](const auto& limit) { return !names.contains(limit.first); });
  return to;
}

Json DescribeLimits(const ThrottleLimits& limits) {
  return {{"send", DescribeLimit(limits.send)}, {"receive", DescribeLimit(limits.receive)}};
}

std::optional<Json> DescribePeerThrottle(const ThrottleConfig& throttle, const Peer& peer,
                                         const WorkerGroup& workers) {
  const ThrottleLimits limits = LimitsOf(throttle, peer);
  const auto sending = workers.SendShaperOf(peer.slot);
  const auto receiving = workers.ReceiveShaperOf(peer.slot);
  if (limits == ThrottleLimits() && sending.delayed == 0 && receiving.delayed == 0) {
    return std::nullopt;
  }
  Json json = DescribeLimits(limits);
  json["sending"] = DescribeShaper(sending);
  json["receiving"] = DescribeShaper(receiving);
  json["receiving"]["refused"] = receiving.refused;
  return json;
}

Json DescribeThrottle(const ThrottleConfig& throttle, const Peers& peers,
                      const WorkerGroup& workers) {
  Json json;
  json["total"] = DescribeLimits(throttle.total);
  json["peers"] = Json::array();
  for (const auto& peer : peers.all()) {
    const auto described = DescribePeerThrottle(throttle, *peer, workers);
    if (!described) continue;
    Json one = {{"name", peer->config.name}};
    one.update(*described);
    json["peers"].push_back(std::move(one));
  }
  return json;
}

}  // namespace braid
