// Which peer owns an inner address: the longest of the peers' allowed prefixes that contains it.
// Immutable once built; a change builds another one.
#pragma once

#include <cstdint>
#include <span>

#include "base/prefix_map.h"

namespace braid {

using PeerSlot = uint32_t;  // a peer's place in every table, the same for as long as it lives
inline constexpr PeerSlot kNoPeer = UINT32_MAX;

class RouteTable {
 public:
  struct Route {
    IpPrefix prefix;
    PeerSlot peer;
  };

  // Of two equal prefixes the later one counts; the configuration allows no such pair.
  explicit RouteTable(std::span<const Route> routes) {
    for (const Route& route : routes) owners_.Set(route.prefix, route.peer);
  }

  // kNoPeer when nobody owns it.
  PeerSlot Lookup(const IpAddress& address) const {
    const PeerSlot* owner = owners_.Find(address);
    return owner == nullptr ? kNoPeer : *owner;
  }

 private:
  PrefixMap<PeerSlot> owners_;
};

}  // namespace braid
