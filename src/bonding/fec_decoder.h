// The receiving half of forward error correction: keeps what came lately in the lanes that have
// parity, and makes of it what did not come. Sans I/O; one thread. What it is given has been
// opened, so what it makes is as authentic.
#pragma once

#include <array>
#include <cstdint>

#include "bonding/bond_memory.h"
#include "bonding/fec_block.h"

namespace braid {

class FecDecoder {
 public:
  struct Counters {
    uint64_t parity = 0;         // packets that came
    uint64_t unrecoverable = 0;  // that were missing where too little parity came
  };

  FecDecoder(BondMemory& memory, uint16_t bond) : memory_(memory), bond_(bond) {}
  ~FecDecoder() { Clear(); }
  FecDecoder(const FecDecoder&) = delete;
  FecDecoder& operator=(const FecDecoder&) = delete;

  // Came as `sequence` of its lane, for the first time. What is no data packet is empty.
  void OnPacket(uint8_t lane, uint64_t sequence, uint8_t flags, Bytes packet, TimeNs now_ns);
  // False when it is no parity packet that any sender would make.
  bool OnParity(Bytes plain, TimeNs now_ns);

  // A packet that was made, with lane, sequence, flags and bytes in its slot; kNoSlot when there is
  // none. It may have come by itself meanwhile. The slot is the caller's, who gives it back.
  SlotId TakeRecovered() { return recovered_.PopFront(memory_.slab); }

  // Lets go of what is old.
  void Look(TimeNs now_ns);
  TimeNs due_ns() const;

  void Clear();
  const Counters& counters() const { return counters_; }

 private:
  static constexpr size_t kMostKept = 2048;
  static constexpr size_t kMaxBlocks = 64;

  struct Block {
    uint8_t lane = 0;
    uint8_t count = 0;  // 0: there is none
    uint64_t first = 0;
    uint64_t missing = 0;  // bits: columns. 0: nothing is left to be done
    size_t symbol_bytes = 0;
    TimeNs since_ns = 0;
    uint32_t rows = 0;  // bits: those that came
    size_t parity_used = 0;
    std::array<SlotId, FecCode::kMaxParity> parity;
    std::array<uint8_t, FecCode::kMaxParity> row;

    bool Has(uint8_t in_lane, uint64_t sequence) const {
      return lane == in_lane && sequence - first < count;
    }
  };

  // What comes in it is kept.
  struct KeptLane {
    TimeNs until_ns = 0;
    uint64_t from = UINT64_MAX;  // the first sequence since then; what was before is not known
  };

  SlotId TakeSlot();
  SlotId Kept(const Block& block, size_t column) const {
    return memory_.kept.Find(HeldKey(bond_, block.lane, block.first + column));
  }
  void Forget(SlotId kept);
  Block* Find(const ParityHeader& header);
  Block& Begin(const ParityHeader& header, size_t symbol_bytes, TimeNs now_ns);
  void Recover(Block& block);
  bool TakeOut(Block& block);
  void Finish(Block& block);
  void GiveUp(Block& block);

  BondMemory& memory_;
  const uint16_t bond_;
  std::array<KeptLane, kBondLanes> lanes_;
  SlotList kept_;  // in the order of their coming
  size_t kept_used_ = 0;
  std::array<Block, kMaxBlocks> blocks_;
  size_t next_block_ = 0;
  size_t pending_ = 0;  // blocks with something missing
  SlotList recovered_;
  TimeNs newest_ns_ = 0;
  Counters counters_;
};

}  // namespace braid
