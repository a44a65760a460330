#include "bonding/fec_decoder.h"

#include <bit>
#include <cstring>

namespace braid {
namespace {

// A lane that has had no parity for so long is not kept any more.
constexpr DurationNs kLaneHasParityNs = 2 * kSecondNs;
constexpr DurationNs kKeepNs = 500 * kMillisecondNs;

}  // namespace

// What is to be sent, and what waits for an earlier packet, need memory more.
SlotId FecDecoder::TakeSlot() {
  return memory_.slab.used() < memory_.slab.capacity() / 2 ? memory_.slab.Take() : kNoSlot;
}

void FecDecoder::OnPacket(uint8_t lane, uint64_t sequence, uint8_t flags, Bytes packet,
                          TimeNs now_ns) {
  KeptLane& kept_lane = lanes_[lane - kFirstBondLane];
  if (now_ns >= kept_lane.until_ns) return;
  if (kept_lane.from == UINT64_MAX) kept_lane.from = sequence;
  if (packet.size() > memory_.slab.packet_bytes()) return;
  if (kept_used_ == kMostKept) Forget(kept_.first());
  const SlotId id = TakeSlot();
  if (id == kNoSlot) return;
  Slot& slot = memory_.slab[id];
  slot.lane = lane;
  slot.sequence = sequence;
  slot.bytes = static_cast<uint16_t>(packet.size());
  slot.flags = flags;
  slot.time_ns = newest_ns_ = now_ns;
  if (!packet.empty()) std::memcpy(memory_.slab.data(id), packet.data(), packet.size());
  memory_.kept.Insert(HeldKey(bond_, lane, sequence), id);
  kept_.PushBack(memory_.slab, id);
  ++kept_used_;
  if (pending_ == 0) return;
  for (Block& block : blocks_) {
    if (block.missing == 0 || !block.Has(lane, sequence)) continue;
    block.missing &= ~(uint64_t{1} << (sequence - block.first));
    if (block.missing == 0) return Finish(block);
    return Recover(block);
  }
}

bool FecDecoder::OnParity(Bytes plain, TimeNs now_ns) {
  ParityHeader header;
  if (!ReadParityHeader(plain, memory_.slab.packet_bytes(), header)) return false;
  ++counters_.parity;
  newest_ns_ = now_ns;
  KeptLane& lane = lanes_[header.lane - kFirstBondLane];
  if (now_ns >= lane.until_ns) lane.from = UINT64_MAX;
  lane.until_ns = now_ns + kLaneHasParityNs;
  const Bytes symbol = plain.subspan(kParityHeaderBytes);
  Block* found = Find(header);
  if (found != nullptr && (found->count != header.count || found->symbol_bytes != symbol.size())) {
    return false;
  }
  Block& block = found != nullptr ? *found : Begin(header, symbol.size(), now_ns);
  const uint32_t bit = uint32_t{1} << header.row;
  if (block.missing == 0 || (block.rows & bit) != 0) return true;
  const SlotId id = TakeSlot();
  if (id == kNoSlot) return true;
  std::memcpy(SymbolOf(memory_.slab, id), symbol.data(), symbol.size());
  block.rows |= bit;
  block.row[block.parity_used] = header.row;
  block.parity[block.parity_used++] = id;
  Recover(block);
  return true;
}

FecDecoder::Block* FecDecoder::Find(const ParityHeader& header) {
  for (Block& block : blocks_) {
    if (block.count != 0 && block.lane == header.lane && block.first == header.first) return &block;
  }
  return nullptr;
}

FecDecoder::Block& FecDecoder::Begin(const ParityHeader& header, size_t symbol_bytes,
                                     TimeNs now_ns) {
  Block& block = blocks_[next_block_];
  next_block_ = (next_block_ + 1) % kMaxBlocks;
  Look(now_ns);
  GiveUp(block);
  block = {.lane = header.lane,
           .count = header.count,
           .first = header.first,
           .symbol_bytes = symbol_bytes,
           .since_ns = now_ns};
  if (block.first < lanes_[block.lane - kFirstBondLane].from) return block;
  for (size_t column = 0; column < block.count; ++column) {
    if (Kept(block, column) == kNoSlot) block.missing |= uint64_t{1} << column;
  }
  if (block.missing != 0) ++pending_;
  return block;
}

void FecDecoder::Recover(Block& block) {
  const auto lost = static_cast<size_t>(std::popcount(block.missing));
  if (block.parity_used < lost || !TakeOut(block)) return;
  std::array<uint8_t, FecCode::kMaxParity> columns;
  std::array<SlotId, FecCode::kMaxParity> made;
  std::array<uint8_t*, FecCode::kMaxParity> symbols;
  std::array<uint8_t*, FecCode::kMaxParity> parity;
  size_t used = 0;
  for (uint64_t left = block.missing; left != 0; left &= left - 1, ++used) {
    made[used] = memory_.slab.Take();
    if (made[used] == kNoSlot) break;
    columns[used] = static_cast<uint8_t>(std::countr_zero(left));
    symbols[used] = SymbolOf(memory_.slab, made[used]);
    parity[used] = SymbolOf(memory_.slab, block.parity[used]);
  }
  if (used < lost) {
    while (used > 0) memory_.slab.Return(made[--used]);
    return GiveUp(block);
  }
  memory_.fec_code.Solve({block.row.data(), lost}, {columns.data(), lost}, block.symbol_bytes,
                         {parity.data(), lost}, {symbols.data(), lost});
  for (size_t i = 0; i < lost; ++i) {
    Slot& slot = memory_.slab[made[i]];
    slot.lane = block.lane;
    slot.sequence = block.first + columns[i];
    // One without a length was no data packet.
    if (!ReadSymbol(memory_.slab, made[i], block.symbol_bytes) || slot.bytes == 0) {
      memory_.slab.Return(made[i]);
      continue;
    }
    recovered_.PushBack(memory_.slab, made[i]);
  }
  Finish(block);
}

// Takes what came out of as many parity symbols as packets are missing. False when that cannot be
// done: something has been forgotten, or is longer than the sender says that anything is.
bool FecDecoder::TakeOut(Block& block) {
  const auto lost = static_cast<size_t>(std::popcount(block.missing));
  std::array<SlotId, FecCode::kMaxData> came;
  for (size_t column = 0; column < block.count; ++column) {
    if ((block.missing >> column & 1) != 0) continue;
    const SlotId id = came[column] = Kept(block, column);
    if (id == kNoSlot || kSymbolHeaderBytes + memory_.slab[id].bytes > block.symbol_bytes) {
      GiveUp(block);
      return false;
    }
  }
  for (size_t column = 0; column < block.count; ++column) {
    if ((block.missing >> column & 1) != 0 || memory_.slab[came[column]].bytes == 0) continue;
    const Bytes symbol = WriteSymbol(memory_.slab, came[column]);
    for (size_t i = 0; i < lost; ++i) {
      memory_.fec_code.AddTo(block.row[i], column, symbol, SymbolOf(memory_.slab, block.parity[i]));
    }
  }
  return true;
}

// It stays known, so that no more parity of it is looked at.
void FecDecoder::Finish(Block& block) {
  while (block.parity_used > 0) memory_.slab.Return(block.parity[--block.parity_used]);
  block.missing = 0;
  --pending_;
}

void FecDecoder::GiveUp(Block& block) {
  if (block.missing == 0) return;
  counters_.unrecoverable += static_cast<uint64_t>(std::popcount(block.missing));
  Finish(block);
}

void FecDecoder::Forget(SlotId id) {
  const Slot& slot = memory_.slab[id];
  memory_.kept.Erase(HeldKey(bond_, slot.lane, slot.sequence));
  kept_.Remove(memory_.slab, id);
  memory_.slab.Return(id);
  --kept_used_;
}

void FecDecoder::Look(TimeNs now_ns) {
  while (!kept_.empty() && now_ns >= memory_.slab[kept_.first()].time_ns + kKeepNs) {
    Forget(kept_.first());
  }
  for (Block& block : blocks_) {
    if (now_ns >= block.since_ns + kKeepNs) GiveUp(block);
  }
}

// When all that it has is old: that much memory may wait.
TimeNs FecDecoder::due_ns() const {
  return kept_.empty() && pending_ == 0 ? kNever : newest_ns_ + kKeepNs;
}

void FecDecoder::Clear() {
  while (!kept_.empty()) Forget(kept_.first());
  for (Block& block : blocks_) {
    if (block.missing != 0) Finish(block);
    block.count = 0;
  }
  for (SlotId id = TakeRecovered(); id != kNoSlot; id = TakeRecovered()) memory_.slab.Return(id);
  lanes_ = {};
}

}  // namespace braid
