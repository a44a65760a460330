#include "slowpath/path_binding.h"

#include <linux/rtnetlink.h>

#include <algorithm>

namespace braid {
namespace {

bool SuitsFamily(const PathConfig& path, const Endpoint& remote) {
  return !path.address.is_set() || path.address.family == remote.address.family;
}

const Endpoint* FirstSuitable(const PathConfig& path, const std::vector<Endpoint>& remotes) {
  const auto found = std::find_if(remotes.begin(), remotes.end(), [&](const Endpoint& remote) {
    return SuitsFamily(path, remote);
  });
  return found == remotes.end() ? nullptr : &*found;
}

bool HasRoute(const PathConfig& path, const std::vector<Endpoint>& remotes, int link,
              const RouteLookup& look_up) {
  return std::any_of(remotes.begin(), remotes.end(), [&](const Endpoint& remote) {
    return SuitsFamily(path, remote) && look_up(remote, path.address, link).has_value();
  });
}

bool HasDefaultRoute(const PathConfig& path, const NetSnapshot& network, int link) {
  return std::any_of(network.default_routes.begin(), network.default_routes.end(),
                     [&](const NetDefaultRoute& route) {
                       return route.link == link &&
                              (!path.address.is_set() || route.family == path.address.family);
                     });
}

// Why nothing that is bound to this link gets to `remote`, and what to do.
std::string NoRoute(const NetLink& link, const Endpoint& remote, const NetSnapshot& network) {
  const std::string what =
      "no route through " + link.name + " leads to " + remote.address.ToString();
  const std::string ip = remote.address.is_v6() ? "ip -6 " : "ip ";
  for (const NetDefaultRoute& route : network.default_routes) {
    if (route.link != link.index || route.family != remote.address.family) continue;
    const std::string table = std::to_string(route.table);
    if (route.table == RT_TABLE_MAIN) continue;
    return what + ": the main table has none; table " + table +
           " has a default route there, but no rule chooses it: \"" + ip + "rule add oif " +
           link.name + " lookup " + table + "\"";
  }
  return what + ": no table has a default route there: \"" + ip +
         "route add default via GATEWAY dev " + link.name + " metric 1000\"";
}

BindingChoice ChooseDevice(const PathConfig& path, const std::vector<Endpoint>& remotes,
                           const NetSnapshot& network, const RouteLookup& look_up) {
  const NetLink* link = network.Find(path.interface);
  if (link == nullptr) {
    return {std::nullopt, "this machine has no interface \"" + path.interface + "\""};
  }
  if (!link->up) return {std::nullopt, "interface \"" + path.interface + "\" is down"};
  BindingChoice choice{PathBinding{link->name, link->index, {}}, ""};
  const Endpoint* remote = FirstSuitable(path, remotes);
  if (remote != nullptr && !HasRoute(path, remotes, link->index, look_up)) {
    choice.problem = NoRoute(*link, *remote, network);
  }
  return choice;
}

BindingChoice ChooseByAddress(const PathConfig& path, const std::vector<Endpoint>& remotes,
                              const NetSnapshot& network, const RouteLookup& look_up) {
  const PathBinding address_alone{"", 0, path.address};
  std::vector<const NetLink*> holders;
  for (const NetAddress& one : network.addresses) {
    const NetLink* link = one.address == path.address ? network.Find(one.link) : nullptr;
    if (link != nullptr) holders.push_back(link);
  }
  if (holders.empty()) {
    return {std::nullopt, "this machine has no address " + path.address.ToString()};
  }
  const NetLink* usable = nullptr;
  const Endpoint* remote = FirstSuitable(path, remotes);
  for (const NetLink* link : holders) {
    if (link->loopback) return {address_alone, ""};
    if (!link->up) continue;
    if (usable == nullptr) usable = link;
    const bool leads = remote != nullptr ? HasRoute(path, remotes, link->index, look_up)
                                         : HasDefaultRoute(path, network, link->index);
    if (leads) return {PathBinding{link->name, link->index, path.address}, ""};
  }
  if (usable == nullptr) {
    return {std::nullopt, "interface \"" + holders[0]->name + "\", which has " +
                              path.address.ToString() + ", is down"};
  }
  // The endpoint's name is not resolved yet, and it may be on the link itself.
  if (remote == nullptr) return {PathBinding{usable->name, usable->index, path.address}, ""};
  const std::string problem = NoRoute(*usable, *remote, network);
  const auto other = look_up(*remote, path.address, 0);
  const NetLink* by = other ? network.Find(*other) : nullptr;
  if (by == nullptr) return {PathBinding{usable->name, usable->index, path.address}, problem};
  return {address_alone, "leaves by " + by->name + " although " + path.address.ToString() +
                             " is an address of " + usable->name + ", for " + problem};
}

}  // namespace

BindingChoice ChooseBinding(const PathConfig& path, const std::vector<Endpoint>& remotes,
                            const NetSnapshot& network, const RouteLookup& look_up) {
  if (!path.interface.empty()) return ChooseDevice(path, remotes, network, look_up);
  if (path.address.is_set()) return ChooseByAddress(path, remotes, network, look_up);
  return {PathBinding{}, ""};
}

std::optional<Endpoint> ChooseRemote(const PathConfig& path,
                                     const std::optional<PathBinding>& binding,
                                     const std::vector<Endpoint>& remotes,
                                     const RouteLookup& look_up) {
  const Endpoint* first = FirstSuitable(path, remotes);
  if (first == nullptr) return std::nullopt;
  for (const Endpoint& remote : remotes) {
    if (!binding || !SuitsFamily(path, remote)) continue;
    if (look_up(remote, binding->address, binding->device_index)) return remote;
  }
  return *first;
}

}  // namespace braid
