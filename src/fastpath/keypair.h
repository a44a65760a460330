// What one handshake gave: the roots of both directions' keys, and how long they may be used.
// Made by the slow path, immutable from then on, read by every worker. The slow path frees it once
// all workers have let go of it.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/clock.h"
#include "fastpath/aead.h"

namespace braid {

struct Keypair {
  uint64_t id;            // counts up with each handshake of this process; never used again
  uint32_t local_index;   // what the peer writes into the header
  uint32_t remote_index;  // what we write
  const Aead* aead;
  Key send_root;
  Key receive_root;
  uint64_t generation;     // of the peer's counters: higher when the peer has begun anew
  uint8_t lanes;           // as agreed: lanes 0 … lanes-1, and the slow lane
  bool bonds;              // both ends know of a bond's lanes
  bool parity;             // and the peer of parity in them
  uint64_t epoch_packets;  // a lane seals so many, then its epoch moves on
  TimeNs seal_until_ns;    // hard stops
  TimeNs open_until_ns;
};

}  // namespace braid
