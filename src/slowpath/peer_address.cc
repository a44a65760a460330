#include "slowpath/peer_address.h"

#include <algorithm>

namespace braid {
namespace {

constexpr size_t kMaxAddresses = 16;

// Of all the peers' prefixes the longest that contains it decides.
bool Owns(const Config& config, const PeerConfig& peer, const IpAddress& address) {
  const PeerConfig* owner = nullptr;
  int longest = -1;
  for (const PeerConfig& each : config.tunnel.peers) {
    for (const IpPrefix& prefix : each.allowed_ips) {
      if (prefix.length <= longest || !prefix.Contains(address)) continue;
      longest = prefix.length;
      owner = &each;
    }
  }
  return owner != nullptr && owner->public_key == peer.public_key;
}

IpAddress FirstHost(const IpPrefix& prefix) {
  IpAddress address = prefix.Network().address;
  address.bytes[static_cast<size_t>(address.bits() / 8 - 1)] |= 1;
  return address;
}

}  // namespace

std::vector<IpAddress> PeerAddresses(const Config& config, const PeerConfig& peer) {
  std::vector<IpAddress> addresses;
  for (const IpPrefix& prefix : peer.allowed_ips) {
    if (addresses.size() == kMaxAddresses) return addresses;
    if (prefix.length == prefix.address.bits()) addresses.push_back(prefix.address);
  }
  for (const IpPrefix& own : config.network.addresses) {
    if (addresses.size() == kMaxAddresses) return addresses;
    if (own.length >= own.address.bits() - 1) continue;
    const IpAddress first = FirstHost(own);
    const bool is_own =
        std::any_of(config.network.addresses.begin(), config.network.addresses.end(),
                    [&first](const IpPrefix& each) { return each.address == first; });
    const bool is_known = std::find(addresses.begin(), addresses.end(), first) != addresses.end();
    if (!is_own && !is_known && Owns(config, peer, first)) addresses.push_back(first);
  }
  return addresses;
}

}  // namespace braid
