// How a parity packet names its block, and what a symbol is (docs/wire.md).
//
//   parity packet   lane, row, count, first sequence | parity symbol
//   symbol          length, flags, inner packet      | zeros, as far as the longest of the block
//
// A block is `count` sequences of a lane, one behind the other. Those of no data packet are symbols
// of zeros. Headers are written in front of a packet, into the headroom of its slot.
#pragma once

#include "base/bytes.h"
#include "base/limits.h"
#include "bonding/fec_code.h"
#include "bonding/packet_slab.h"

namespace braid {

inline constexpr size_t kSymbolHeaderBytes = 3;
inline constexpr size_t kParityHeaderBytes = 9;
// By which a parity packet is longer than the longest packet of its block.
inline constexpr size_t kParityOverheadBytes = kParityHeaderBytes + kSymbolHeaderBytes;
static_assert(kParityOverheadBytes <= PacketSlab::kHeadroomBytes);
// Those that a parity packet can name.
inline constexpr uint64_t kMaxFecSequence = (uint64_t{1} << 48) - 1;

struct ParityHeader {
  uint8_t lane = 0;
  uint8_t row = 0;
  uint8_t count = 0;
  uint64_t first = 0;  // sequence
};

inline void WriteParityHeader(uint8_t* to, const ParityHeader& header) {
  to[0] = header.lane;
  to[1] = header.row;
  to[2] = header.count;
  StoreBe16(to + 3, static_cast<uint16_t>(header.first >> 32));
  StoreBe32(to + 5, static_cast<uint32_t>(header.first));
}

// False when `plain` is no parity packet, or one with a symbol that holds no packet of at most
// `packet_bytes`.
inline bool ReadParityHeader(Bytes plain, size_t packet_bytes, ParityHeader& header) {
  if (plain.size() <= kParityOverheadBytes) return false;
  if (plain.size() > kParityOverheadBytes + packet_bytes) return false;
  header.lane = plain[0];
  header.row = plain[1];
  header.count = plain[2];
  header.first = uint64_t{LoadBe16(&plain[3])} << 32 | LoadBe32(&plain[5]);
  return IsBondLane(header.lane) && header.row < FecCode::kMaxParity && header.count != 0 &&
         header.count <= FecCode::kMaxData;
}

// The symbol that a slot's packet is.
inline uint8_t* SymbolOf(PacketSlab& slab, SlotId id) { return slab.data(id) - kSymbolHeaderBytes; }

inline MutableBytes WriteSymbol(PacketSlab& slab, SlotId id) {
  uint8_t* symbol = SymbolOf(slab, id);
  StoreBe16(symbol, slab[id].bytes);
  symbol[2] = slab[id].flags;
  return {symbol, kSymbolHeaderBytes + slab[id].bytes};
}

// Of a slot that holds a symbol of so many bytes. False when it cannot be one.
inline bool ReadSymbol(PacketSlab& slab, SlotId id, size_t symbol_bytes) {
  const uint8_t* symbol = SymbolOf(slab, id);
  slab[id].bytes = LoadBe16(symbol);
  slab[id].flags = symbol[2];
  return kSymbolHeaderBytes + slab[id].bytes <= symbol_bytes;
}

}  // namespace braid
