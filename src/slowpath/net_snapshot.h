// What the kernel says of this network namespace's links, addresses and default routes, and how it
// would route. Through rtnetlink.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/address.h"

namespace braid {

struct NetLink {
  int index = 0;
  std::string name;
  bool up = false;        // by its administrator, and it has a carrier as far as it can tell
  bool loopback = false;  // or a dummy: no packet leaves the machine by it
  int mtu = 0;

  bool operator==(const NetLink&) const = default;
};

struct NetAddress {
  int link = 0;  // by index
  IpAddress address;
  // Whom it reaches there without a gateway; of a point-to-point link the other end.
  IpPrefix on_link;

  bool operator==(const NetAddress&) const = default;
};

// Of a multipath route one for each link.
struct NetDefaultRoute {
  int link = 0;
  IpAddress::Family family = IpAddress::Family::kNone;
  uint32_t table = 0;
  uint32_t metric = 0;

  bool operator==(const NetDefaultRoute&) const = default;
};

// All in the kernel's order. Addresses that cannot be used (yet) are left out.
struct NetSnapshot {
  std::vector<NetLink> links;
  std::vector<NetAddress> addresses;
  std::vector<NetDefaultRoute> default_routes;

  const NetLink* Find(int index) const;
  const NetLink* Find(const std::string& name) const;
  bool operator==(const NetSnapshot&) const = default;
};

absl::StatusOr<NetSnapshot> ReadNetSnapshot();

// The index of the link by which the kernel would send UDP from `local` (may be unset) to `remote`,
// for a socket that is bound to the link `bound_to` (0: none). Nothing where it has no route: the
// guess that a destination is on the bound link itself is none.
using RouteLookup =
    std::function<std::optional<int>(const Endpoint& remote, const IpAddress& local, int bound_to)>;
std::optional<int> LookUpRoute(const Endpoint& remote, const IpAddress& local, int bound_to);

// The machine to which the kernel would hand it: a gateway, or `remote` itself; as above.
struct NextHop {
  int link = 0;
  IpAddress address;
};
std::optional<NextHop> NextHopTowards(const Endpoint& remote, const IpAddress& local, int bound_to);

// The MTU of the link, or of the route, by which the kernel would send; as above. What ICMP has
// told it does not count: anyone could.
std::optional<int> LinkMtuTowards(const Endpoint& remote, const IpAddress& local, int bound_to);

}  // namespace braid
