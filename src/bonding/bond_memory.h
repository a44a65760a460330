// What all bonds of one worker share: the packets, and how they are found again.
#pragma once

#include "bonding/fec_code.h"
#include "bonding/packet_slab.h"
#include "bonding/slot_index.h"

namespace braid {

struct BondMemory {
  BondMemory(size_t slots, size_t packet_bytes)
      : slab(slots, packet_bytes), sent(slots * 2), held(slots), kept(slots) {}

  PacketSlab slab;
  SlotIndex sent;  // by SentKey: a packet may be there several times
  SlotIndex held;  // by HeldKey
  SlotIndex kept;  // by HeldKey: what came and may help to make up for what does not
  const FecCode fec_code;
};

// `bond` tells the sessions of one worker apart.
inline uint64_t SentKey(uint16_t bond, uint8_t lane, uint8_t path, uint32_t path_seq) {
  return uint64_t{bond} << 48 | uint64_t{lane} << 40 | uint64_t{path} << 32 | path_seq;
}

// Sequences of one lane that are waited for at the same time differ in their low bits.
inline uint64_t HeldKey(uint16_t bond, uint8_t lane, uint64_t sequence) {
  constexpr uint64_t kSequenceMask = (uint64_t{1} << 40) - 1;
  return uint64_t{bond} << 48 | uint64_t{lane} << 40 | (sequence & kSequenceMask);
}

}  // namespace braid
