// The sending half of forward error correction: gathers the packets of each lane into blocks, and
// makes parity packets with which the other end makes up for those that are lost. The packets
// themselves leave as they would without it.
//
// When. Where only losses are to be answered (kAuto) a lane has parity when some of its packets
// would not be sent again in time, and only as much as its paths' measured losses ask for: so that
// fewer than one packet in ten thousand stays lost if losses are independent of each other. A
// repair costs no more than what was lost, so where it comes in time there is no parity.
//
// How long a block is. A long one needs less parity for the same losses, and gives it later. It is
// closed when it is full; when it is old enough and its parity is a small share already; or when it
// is so old that its parity would come too late.
#pragma once

#include <array>
#include <cstdint>

#include "bonding/bond_memory.h"
#include "bonding/bond_options.h"

namespace braid {

class FecEncoder {
 public:
  struct Counters {
    uint64_t made = 0;   // parity packets
    uint64_t stale = 0;  // of them: that no path took in time
  };

  explicit FecEncoder(BondMemory& memory) : memory_(memory) {}
  ~FecEncoder() { Clear(); }
  FecEncoder(const FecEncoder&) = delete;
  FecEncoder& operator=(const FecEncoder&) = delete;

  void SetOptions(const BondOptions& options);
  // Whether the other end knows what to do with parity.
  void SetUnderstood(bool understood);
  bool on() const { return understood_ && mode_ != FecMode::kOff; }
  bool always() const { return understood_ && mode_ == FecMode::kRatio; }

  // The slot's packet was given its sequence, to leave over a path that loses such a share.
  // `needed`: it would not be sent again in time. In the order of the lane's sequences; those that
  // are left out are no data packets.
  void Add(SlotId id, uint8_t path, double loss, bool needed, TimeNs now_ns);

  // Closes what is due, and lets go of what no path has taken.
  void Look(TimeNs now_ns);
  TimeNs due_ns() const { return due_ns_; }

  // The parity packet that is next; kNoSlot: there is none. Its slot's paths_used has the path that
  // most of its block left over.
  SlotId next() const { return waiting_.first(); }
  // The slot is the caller's, who gives it back; what is to be sealed is in it.
  SlotId Take(Bytes& plain);

  // How much later than a packet its parity may leave, of the lanes that are put in order.
  DurationNs span_ns(TimeNs now_ns) const { return now_ns < span_until_ns_ ? span_ns_ : 0; }
  // Something is to be closed or to be sent.
  bool busy() const { return open_ != 0 || !waiting_.empty(); }

  void Clear();
  const Counters& counters() const { return counters_; }

  // How many parity packets a block of so many needs against such losses.
  static size_t ParityAgainst(double loss, size_t packets);

 private:
  struct Block {
    size_t rows = 0;  // 0: there is none
    uint64_t first = 0;
    uint64_t next = 0;
    uint16_t bytes = 0;  // of its longest packet
    TimeNs since_ns = 0;
    double losses = 0;  // that are to be expected among its packets
    size_t packets = 0;
    std::array<uint16_t, kMaxPaths> over{};  // each path so many
    std::array<SlotId, FecCode::kMaxParity> parity;
    std::array<uint8_t*, FecCode::kMaxParity> symbols;
  };

  bool Begin(Block& block, uint64_t sequence, double loss, TimeNs now_ns);
  bool Done(const Block& block, TimeNs now_ns) const;
  size_t ParityOf(const Block& block) const;
  void Close(uint8_t lane, TimeNs now_ns);
  void SetDue();

  BondMemory& memory_;
  FecMode mode_ = FecMode::kOff;
  double ratio_ = 0;
  size_t most_data_ = FecCode::kMaxData;
  DurationNs most_span_ns_ = 0;
  bool understood_ = false;
  std::array<Block, kBondLanes> blocks_;
  uint32_t open_ = 0;  // bits: lanes with a block
  SlotList waiting_;
  TimeNs due_ns_ = kNever;
  DurationNs span_ns_ = 0;
  TimeNs span_until_ns_ = 0;
  Counters counters_;
};

}  // namespace braid
