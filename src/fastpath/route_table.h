// Which peer owns an inner address: the longest of the peers' allowed prefixes that contains it.
// Immutable once built; a change builds another one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/address.h"

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
  explicit RouteTable(std::span<const Route> routes);

  // kNoPeer when nobody owns it.
  PeerSlot Lookup(const IpAddress& address) const;

 private:
  // All prefixes of one length, by their network bits.
  struct Length {
    int bits;
    absl::flat_hash_map<IpAddress, PeerSlot> owners;
  };

  static std::vector<Length> Build(std::span<const Route> routes, IpAddress::Family family);

  std::vector<Length> v4_;  // longest first
  std::vector<Length> v6_;
};

}  // namespace braid
