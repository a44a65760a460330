#include "fastpath/route_table.h"

#include <algorithm>

namespace braid {

RouteTable::RouteTable(std::span<const Route> routes)
    : v4_(Build(routes, IpAddress::Family::kV4)), v6_(Build(routes, IpAddress::Family::kV6)) {}

std::vector<RouteTable::Length> RouteTable::Build(std::span<const Route> routes,
                                                  IpAddress::Family family) {
  std::vector<Length> lengths;
  for (const Route& route : routes) {
    if (route.prefix.address.family != family) continue;
    auto length = std::find_if(lengths.begin(), lengths.end(), [&](const Length& known) {
      return known.bits == route.prefix.length;
    });
    if (length == lengths.end()) length = lengths.insert(length, {route.prefix.length, {}});
    length->owners[route.prefix.Network().address] = route.peer;
  }
  std::sort(lengths.begin(), lengths.end(),
            [](const Length& a, const Length& b) { return a.bits > b.bits; });
  return lengths;
}

PeerSlot RouteTable::Lookup(const IpAddress& address) const {
  for (const Length& length : address.is_v4() ? v4_ : v6_) {
    const auto owner = length.owners.find(IpPrefix{address, length.bits}.Network().address);
    if (owner != length.owners.end()) return owner->second;
  }
  return kNoPeer;
}

}  // namespace braid
