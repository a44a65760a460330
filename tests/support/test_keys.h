// Keys and key pairs of handshakes that never took place.
#pragma once

#include "base/clock.h"
#include "fastpath/aead.h"
#include "fastpath/keypair.h"

namespace braid::testing {

inline Key KeyFilledWith(uint8_t byte) {
  Key key;
  key.fill(byte);
  return key;
}

// Both ends of one handshake: what `client` sends, `server` opens, and the other way round.
struct KeypairOfBothEnds {
  Keypair client;
  Keypair server;
};

inline KeypairOfBothEnds MakeKeypair(uint64_t id, const Aead* aead,
                                     uint64_t epoch_packets = uint64_t{1} << 23) {
  KeypairOfBothEnds both{};
  Keypair& client = both.client;
  client.id = id;
  client.local_index = static_cast<uint32_t>(0x10000 + id);
  client.remote_index = static_cast<uint32_t>(0x20000 + id);
  client.aead = aead;
  client.send_root = KeyFilledWith(static_cast<uint8_t>(2 * id));
  client.receive_root = KeyFilledWith(static_cast<uint8_t>(2 * id + 1));
  client.generation = 1;
  client.lanes = 16;
  client.epoch_packets = epoch_packets;
  client.seal_until_ns = 180 * kSecondNs;
  client.open_until_ns = 180 * kSecondNs;
  both.server = client;
  std::swap(both.server.local_index, both.server.remote_index);
  std::swap(both.server.send_root, both.server.receive_root);
  return both;
}

}  // namespace braid::testing
