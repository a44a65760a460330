#include "slowpath/peer_keys.h"

#include "slowpath/key_file.h"

namespace braid {

absl::StatusOr<Secret> ReadPresharedKey(const PeerConfig& peer) {
  if (peer.preshared_key_file.empty()) return Secret();
  return ReadKeyFile(peer.preshared_key_file);
}

absl::StatusOr<PeerKeys> KeysTowards(const PeerConfig& peer, const Identity& identity,
                                     const Secret& preshared_key) {
  auto keys = PeerKeys::Create(identity, peer.public_key, preshared_key);
  if (keys.ok()) return keys;
  return absl::InvalidArgumentError("peer \"" + peer.name + "\": public_key is no usable key");
}

}  // namespace braid
