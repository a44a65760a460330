#include "slowpath/network_plan.h"

#include <algorithm>
#include <set>

#include "io/own_mark.h"

namespace braid {
namespace {

using Family = IpAddress::Family;

constexpr int kSmallNetworkV4 = 24;
constexpr int kSmallNetworkV6 = 64;

// Private, link-local, shared (RFC 1918, 3927, 6598, 4193, 4291).
constexpr const char* kLocalNetworks[] = {"10.0.0.0/8",     "172.16.0.0/12", "192.168.0.0/16",
                                          "169.254.0.0/16", "100.64.0.0/10", "fc00::/7",
                                          "fe80::/10"};
// Never another machine's far away.
constexpr const char* kOfLinks[] = {"224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8"};

bool Covers(const IpPrefix& wide, const IpPrefix& narrow) {
  return wide.address.family == narrow.address.family && wide.length <= narrow.length &&
         wide.Contains(narrow.address);
}

const NetLink* LinkOf(const NetworkPlanInput& input, const NetAddress& address) {
  const NetLink* link = input.network.Find(address.link);
  const bool counts =
      link != nullptr && !link->loopback && link->up && link->name != input.config.network.device;
  return counts ? link : nullptr;
}

std::set<IpPrefix> PastTheTunnel(const NetworkPlanInput& input, const RoutesConfig& routes) {
  std::set<IpPrefix> past;
  for (const IpPrefix& prefix : routes.exclude) past.insert(prefix.Network());
  if (!routes.exclude_lan) return past;
  for (const char* prefix : kOfLinks) past.insert(*IpPrefix::Parse(prefix));
  for (const NetAddress& address : input.network.addresses) {
    if (LinkOf(input, address) == nullptr || !IsLan(address.on_link)) continue;
    past.insert(address.on_link);
  }
  return past;
}

std::set<IpPrefix> ThroughTheTunnel(const Config& config, const RoutesConfig& routes) {
  std::set<IpPrefix> through;
  for (const IpPrefix& prefix : routes.include) through.insert(prefix.Network());
  for (const Family family : {Family::kV4, Family::kV6}) {
    const IpPrefix all = *IpPrefix::Parse(family == Family::kV4 ? "0.0.0.0/0" : "::/0");
    if (routes.everything && IsCarried(config, all)) through.insert(all);
  }
  return through;
}

void PlanRoutes(const NetworkPlanInput& input, std::vector<HostChange>& plan) {
  const std::optional<RoutesConfig>& routes = input.config.network.routes;
  if (!routes || !input.draws_traffic) return;
  std::set<IpPrefix> through = ThroughTheTunnel(input.config, *routes);
  if (!input.has_v6) {
    std::erase_if(through, [](const IpPrefix& prefix) { return prefix.address.is_v6(); });
  }
  std::set<Family> families;
  for (const IpPrefix& prefix : through) families.insert(prefix.address.family);
  for (const IpPrefix& prefix : PastTheTunnel(input, *routes)) {
    // What is wanted through the tunnel by name is meant so.
    if (!families.contains(prefix.address.family) || through.contains(prefix)) continue;
    plan.emplace_back(OwnRoute{OwnRoute::Type::kThrow, prefix, input.table, ""});
  }
  for (const IpPrefix& prefix : through) {
    plan.emplace_back(
        OwnRoute{OwnRoute::Type::kThroughDevice, prefix, input.table, input.config.network.device});
  }
  for (const Family family : families) {
    plan.emplace_back(OwnRule{family, kRulePriority, kOwnMark, input.table});
  }
}

}  // namespace

bool IsLan(const IpPrefix& prefix) {
  const bool is_local =
      std::any_of(std::begin(kLocalNetworks), std::end(kLocalNetworks),
                  [&prefix](const char* local) { return Covers(*IpPrefix::Parse(local), prefix); });
  return is_local || prefix.length >= (prefix.address.is_v4() ? kSmallNetworkV4 : kSmallNetworkV6);
}

bool IsCarried(const Config& config, const IpPrefix& prefix) {
  return std::any_of(
      config.tunnel.peers.begin(), config.tunnel.peers.end(), [&prefix](const PeerConfig& peer) {
        return std::any_of(peer.allowed_ips.begin(), peer.allowed_ips.end(),
                           [&prefix](const IpPrefix& allowed) { return Covers(allowed, prefix); });
      });
}

// Packets are forwarded from the device that they come in by: for what leaves by `out`, those that
// its source is reached by, and `out` itself for the answers.
std::vector<std::string> ForwardingDevices(const Config& config, const NetSnapshot& network) {
  std::set<std::string> devices;
  for (const NatConfig& nat : config.network.nat) {
    if (nat.source.address.is_v6()) continue;
    devices.insert(nat.out);
    for (const NetAddress& address : network.addresses) {
      const NetLink* link = network.Find(address.link);
      if (link == nullptr || link->loopback || !address.on_link.Overlaps(nat.source)) continue;
      devices.insert(link->name);
    }
  }
  return {devices.begin(), devices.end()};
}

bool ForwardsV6(const Config& config) {
  return std::any_of(config.network.nat.begin(), config.network.nat.end(),
                     [](const NatConfig& nat) { return nat.source.address.is_v6(); });
}

bool IsV6Left(const NetworkPlanInput& input) {
  const NetworkConfig& wanted = input.config.network;
  const bool may_leave = wanted.routes && input.draws_traffic && !wanted.kill_switch;
  if (!may_leave || input.has_v6) return false;
  const std::set<IpPrefix> through = ThroughTheTunnel(input.config, *wanted.routes);
  const auto& out = input.network.default_routes;
  return std::any_of(through.begin(), through.end(),
                     [](const IpPrefix& prefix) { return prefix.address.is_v6(); }) &&
         std::any_of(out.begin(), out.end(),
                     [](const NetDefaultRoute& route) { return route.family == Family::kV6; });
}

std::vector<HostChange> PlanNetwork(const NetworkPlanInput& input) {
  std::vector<HostChange> plan;
  const NetworkConfig& network = input.config.network;
  if (!network.nat.empty()) plan.emplace_back(NatTable(network.device, network.nat, input.guard));
  PlanRoutes(input, plan);
  return plan;
}

}  // namespace braid
