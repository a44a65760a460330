#include "slowpath/config_throttle.h"

#include <cmath>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "slowpath/config_file.h"

namespace braid {
namespace {

constexpr double kMinMbps = 0.1;
constexpr double kMaxMbps = 100'000;
constexpr double kMinBurstKb = 1;
constexpr double kMaxBurstKb = 10'000'000;
constexpr std::string_view kNoSuchPeer = "is not the name of a peer";

std::optional<RateLimit> ReadRate(const Section& limit) {
  const auto rate = limit.Need("rate_mbps", "a number such as 50");
  if (!rate) return std::nullopt;
  const auto mbps = rate->Number(kMinMbps, kMaxMbps);
  const auto burst = limit.Find("burst_kb");
  const auto kb = burst ? burst->Number(kMinBurstKb, kMaxBurstKb) : std::nullopt;
  if (!mbps) return std::nullopt;
  RateLimit to = RateLimit::WithDefaultBurst(static_cast<uint64_t>(std::llround(*mbps * 1e6 / 8)));
  if (kb) to.burst_bytes = static_cast<uint64_t>(std::llround(*kb * 1000));
  return to;
}

ThrottleLimits ReadLimits(const Node& node) {
  ThrottleLimits to;
  const Section limit(node, {"rate_mbps", "burst_kb", "send", "receive"});
  if (!node.value().is_object()) return to;
  const auto send = limit.Find("send");
  const auto receive = limit.Find("receive");
  if (!send && !receive) {
    to.send = to.receive = ReadRate(limit);
    return to;
  }
  for (const std::string_view key : {"rate_mbps", "burst_kb"}) {
    if (limit.Find(key)) limit.Wrong(key, "belongs into \"send\" or \"receive\", which stand here");
  }
  const auto read_way = [](const std::optional<Node>& way) -> std::optional<RateLimit> {
    if (!way) return std::nullopt;
    const Section rate(*way, {"rate_mbps", "burst_kb"});
    return way->value().is_object() ? ReadRate(rate) : std::nullopt;
  };
  to.send = read_way(send);
  to.receive = read_way(receive);
  return to;
}

// Calls `each(name, node)` for the members of "peers".
template <typename Each>
void ForEachPeer(const Section& throttle, Each&& each) {
  const auto peers = throttle.Find("peers");
  if (!peers) return;
  if (!peers->value().is_object()) {
    return peers->Wrong("must be a section such as {\"office\": {\"rate_mbps\": 50}}");
  }
  for (const auto& [name, value] : peers->value().items()) {
    each(name,
         Node(value, absl::StrCat(peers->pointer(), "/", PointerStep(name)), peers->report()));
  }
}

}  // namespace

void ReadThrottle(const Node& node, ThrottleConfig& to) {
  const Section throttle(node, {"total", "peers"});
  if (const auto total = throttle.Find("total")) to.total = ReadLimits(*total);
  ForEachPeer(throttle, [&to](const std::string& name, const Node& limit) {
    to.peers[name] = ReadLimits(limit);
  });
}

void CheckThrottle(const Config& config, Report& report) {
  std::unordered_set<std::string_view> peers;
  if (!config.throttle.peers.empty()) {
    for (const PeerConfig& peer : config.tunnel.peers) peers.insert(peer.name);
  }
  for (const auto& [name, limits] : config.throttle.peers) {
    if (peers.contains(name)) continue;
    report.Wrong(absl::StrCat("/throttle/peers/", PointerStep(name)), std::string(kNoSuchPeer));
  }
}

absl::StatusOr<ThrottleConfig> ChangeThrottle(const nlohmann::json& change,
                                              const ThrottleConfig& throttle,
                                              const std::vector<std::string>& peers) {
  LoadedConfig loaded;
  const Origins origins;
  Report report(origins, loaded);
  ThrottleConfig to = throttle;
  const std::unordered_set<std::string_view> known(peers.begin(), peers.end());
  const Section section(Node(change, "", report), {"total", "peers"});
  const auto apply = [](const Node& node) {
    return node.value().is_null() ? ThrottleLimits() : ReadLimits(node);
  };
  if (const auto total = section.Find("total")) to.total = apply(*total);
  ForEachPeer(section, [&](const std::string& name, const Node& limit) {
    if (!known.contains(name)) return limit.Wrong(std::string(kNoSuchPeer));
    to.peers[name] = apply(limit);
    if (to.peers[name] == ThrottleLimits()) to.peers.erase(name);
  });
  if (loaded.mistakes.empty()) return to;
  const Mistake& first = loaded.mistakes.front();
  const std::string where = first.pointer.empty() ? "throttle" : first.pointer.substr(1);
  return absl::InvalidArgumentError(absl::StrCat(absl::Utf8SafeCHexEscape(where), " ", first.what));
}

}  // namespace braid
