// What a configuration says of the keys towards a peer, as the handshakes want it.
#pragma once

#include "absl/status/statusor.h"
#include "slowpath/config.h"
#include "slowpath/handshake.h"

namespace braid {

// All-zero where the peer has none. Errors name the file.
[[nodiscard]] absl::StatusOr<Secret> ReadPresharedKey(const PeerConfig& peer);

// InvalidArgument: with the peer's public key no agreement is possible.
[[nodiscard]] absl::StatusOr<PeerKeys> KeysTowards(const PeerConfig& peer, const Identity& identity,
                                                   const Secret& preshared_key);

}  // namespace braid
