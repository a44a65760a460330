// Where a peer may be reached inside the tunnel. No protocol tells its inner addresses, so they are
// what the configuration lets conclude.
#pragma once

#include <vector>

#include "base/address.h"
#include "slowpath/config.h"

namespace braid {

// The likeliest first: the single addresses that the peer owns; then, of each network that this end
// is in itself, the first address, where a hub commonly is, if the peer owns it. The second kind is
// a guess: who uses it must make sure who answers there.
std::vector<IpAddress> PeerAddresses(const Config& config, const PeerConfig& peer);

}  // namespace braid
