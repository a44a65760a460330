#include "bonding/fec_encoder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "bonding/fec_block.h"

namespace braid {
namespace {

constexpr double kMostStayLost = 1e-4;
constexpr double kSmallShare = 0.15;
constexpr DurationNs kLeastSpanNs = 20 * kMillisecondNs;
constexpr DurationNs kMostSpanNs = 80 * kMillisecondNs;
constexpr DurationNs kStaleNs = 100 * kMillisecondNs;
// The longest span counts for so long.
constexpr DurationNs kSpanCountsNs = kSecondNs;

// The share of a block's packets that stays lost, each one being lost with the same chance: what is
// lost of the blocks that lose more than they have parity.
double ShareThatStaysLost(double loss, size_t packets, size_t parity) {
  const auto all = static_cast<double>(packets + parity);
  double chance = std::pow(1 - loss, all);  // that exactly `lost` of them are
  double made_up = 0;
  for (size_t lost = 1; lost <= parity; ++lost) {
    const auto n = static_cast<double>(lost);
    chance *= (all - n + 1) / n * loss / (1 - loss);
    made_up += chance * n / all;
  }
  return loss - made_up;
}

}  // namespace

size_t FecEncoder::ParityAgainst(double loss, size_t packets) {
  // Beyond that, it would be paid dearer than with sending everything twice over other paths.
  const size_t most = std::min((packets + 1) / 2, FecCode::kMaxParity);
  loss = std::min(loss, 0.5);
  size_t parity = 0;
  while (parity < most && ShareThatStaysLost(loss, packets, parity) > kMostStayLost) ++parity;
  return parity;
}

void FecEncoder::SetOptions(const BondOptions& options) {
  if (options.fec != mode_ || options.fec_ratio != ratio_) Clear();
  mode_ = options.fec;
  ratio_ = options.fec_ratio;
  most_span_ns_ = std::min(kMostSpanNs, options.reorder_max_ns / 2);
  most_data_ = FecCode::kMaxData;
  if (mode_ == FecMode::kRatio) {
    const double fits = static_cast<double>(FecCode::kMaxParity) / ratio_;
    most_data_ = static_cast<size_t>(std::min(fits, static_cast<double>(most_data_)));
  }
}

void FecEncoder::SetUnderstood(bool understood) {
  if (!understood && understood_) Clear();
  understood_ = understood;
}

void FecEncoder::Add(SlotId id, uint8_t path, double loss, bool needed, TimeNs now_ns) {
  if (!on()) return;
  const Slot& slot = memory_.slab[id];
  const auto lane = static_cast<uint8_t>(slot.lane - kFirstBondLane);
  Block& block = blocks_[lane];
  if (block.rows != 0 && slot.sequence - block.first >= most_data_) Close(lane, now_ns);
  if (block.rows == 0) {
    if (!needed || !Begin(block, slot.sequence, loss, now_ns)) return;
    open_ |= uint32_t{1} << lane;
  }
  if (slot.bytes > block.bytes) {
    const size_t from = block.packets == 0 ? 0 : kSymbolHeaderBytes + block.bytes;
    for (size_t row = 0; row < block.rows; ++row) {
      std::memset(block.symbols[row] + from, 0, kSymbolHeaderBytes + slot.bytes - from);
    }
    block.bytes = slot.bytes;
  }
  memory_.fec_code.Add(slot.sequence - block.first, WriteSymbol(memory_.slab, id),
                       {block.symbols.data(), block.rows});
  block.next = slot.sequence + 1;
  block.losses += loss;
  ++block.packets;
  ++block.over[path];
  if (Done(block, now_ns)) Close(lane, now_ns);
  SetDue();
}

bool FecEncoder::Begin(Block& block, uint64_t sequence, double loss, TimeNs now_ns) {
  if (sequence + most_data_ > kMaxFecSequence) return false;
  block = {.first = sequence, .next = sequence, .since_ns = now_ns};
  const size_t rows = mode_ == FecMode::kRatio
                          ? static_cast<size_t>(std::ceil(static_cast<double>(most_data_) * ratio_))
                          : ParityAgainst(loss, most_data_);
  // What is to be sent needs its memory more.
  if (memory_.slab.used() + rows > memory_.slab.capacity() / 2) return false;
  for (; block.rows < rows; ++block.rows) {
    const SlotId id = memory_.slab.Take();
    block.parity[block.rows] = id;
    block.symbols[block.rows] = SymbolOf(memory_.slab, id);
  }
  return rows != 0;
}

bool FecEncoder::Done(const Block& block, TimeNs now_ns) const {
  const uint64_t data = block.next - block.first;
  if (data >= most_data_ || now_ns >= block.since_ns + most_span_ns_) return true;
  if (now_ns < block.since_ns + std::min(kLeastSpanNs, most_span_ns_)) return false;
  const double small = mode_ == FecMode::kRatio ? ratio_ : kSmallShare;
  return static_cast<double>(ParityOf(block)) <= small * static_cast<double>(data);
}

size_t FecEncoder::ParityOf(const Block& block) const {
  const uint64_t data = block.next - block.first;
  const size_t parity =
      mode_ == FecMode::kRatio
          ? static_cast<size_t>(std::ceil(static_cast<double>(data) * ratio_ - 1e-9))
          : ParityAgainst(block.losses / static_cast<double>(block.packets), data);
  return std::min(parity, block.rows);
}

void FecEncoder::Close(uint8_t lane, TimeNs now_ns) {
  Block& block = blocks_[lane];
  const size_t parity = ParityOf(block);
  const auto mostly = std::max_element(block.over.begin(), block.over.end()) - block.over.begin();
  for (uint8_t row = 0; row < parity; ++row) {
    const SlotId id = block.parity[row];
    WriteParityHeader(block.symbols[row] - kParityHeaderBytes,
                      {.lane = static_cast<uint8_t>(kFirstBondLane + lane),
                       .row = row,
                       .count = static_cast<uint8_t>(block.next - block.first),
                       .first = block.first});
    Slot& slot = memory_.slab[id];
    slot.bytes = block.bytes;
    slot.time_ns = now_ns;
    slot.paths_used = static_cast<uint8_t>(1 << mostly);
    waiting_.PushBack(memory_.slab, id);
  }
  counters_.made += parity;
  if (parity != 0 && lane != kExpressLane - kFirstBondLane) {
    const DurationNs took_ns = std::min(now_ns - block.since_ns, most_span_ns_);
    span_ns_ = std::max(took_ns, span_ns(now_ns) - span_ns(now_ns) / 8);
    span_until_ns_ = now_ns + kSpanCountsNs;
  }
  for (size_t row = parity; row < block.rows; ++row) memory_.slab.Return(block.parity[row]);
  block.rows = 0;
  open_ &= ~(uint32_t{1} << lane);
}

void FecEncoder::Look(TimeNs now_ns) {
  while (!waiting_.empty() && now_ns >= memory_.slab[waiting_.first()].time_ns + kStaleNs) {
    memory_.slab.Return(waiting_.PopFront(memory_.slab));
    ++counters_.stale;
  }
  if (now_ns < due_ns_) return;
  for (uint32_t left = open_; left != 0; left &= left - 1) {
    const auto lane = static_cast<uint8_t>(std::countr_zero(left));
    if (now_ns >= blocks_[lane].since_ns + most_span_ns_) Close(lane, now_ns);
  }
  SetDue();
}

void FecEncoder::SetDue() {
  due_ns_ = kNever;
  for (uint32_t left = open_; left != 0; left &= left - 1) {
    const Block& block = blocks_[static_cast<size_t>(std::countr_zero(left))];
    due_ns_ = std::min(due_ns_, block.since_ns + most_span_ns_);
  }
}

SlotId FecEncoder::Take(Bytes& plain) {
  const SlotId id = waiting_.PopFront(memory_.slab);
  plain = {SymbolOf(memory_.slab, id) - kParityHeaderBytes,
           kParityOverheadBytes + memory_.slab[id].bytes};
  return id;
}

void FecEncoder::Clear() {
  for (uint32_t left = open_; left != 0; left &= left - 1) {
    Block& block = blocks_[static_cast<size_t>(std::countr_zero(left))];
    for (size_t row = 0; row < block.rows; ++row) memory_.slab.Return(block.parity[row]);
    block.rows = 0;
  }
  open_ = 0;
  due_ns_ = kNever;
  while (!waiting_.empty()) memory_.slab.Return(waiting_.PopFront(memory_.slab));
  span_until_ns_ = 0;
}

}  // namespace braid
