// The SYNs of flows of which it is not known yet whether they get there, as they came from TUN: for
// so many there is room, and the one that has waited longest is known. One thread.
//
//   free ─Hold─► waiting ─Take─► taken ─Free─► free
//                   └────────Drop────────────────┘
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "fastpath/segmenter.h"

namespace braid {

class HeldSyns {
 public:
  using Slot = uint16_t;
  static constexpr Slot kNone = UINT16_MAX;
  static constexpr size_t kMaxSynBytes = 120;  // 60 of IPv4 or less of IPv6, and 60 of TCP

  struct Syn {
    std::array<uint8_t, kVnetHeaderBytes + kMaxSynBytes> bytes;
    size_t length = 0;
    InnerPacket inner{};
    bool partial_checksum = false;
    uint32_t place = 0;  // of its flow, among those of its family
    TimeNs since_ns = 0;
    Slot older = kNone, newer = kNone;  // while it waits

    MutableBytes from_tun() { return {bytes.data(), length}; }
    MutableBytes packet() { return from_tun().subspan(kVnetHeaderBytes); }
  };

  // Less than kNone.
  explicit HeldSyns(Slot capacity);

  bool HasRoom() const { return !free_.empty(); }
  // There is room, and it is no longer than may be.
  Slot Hold(const Segmenter& segmenter, uint32_t place, TimeNs now_ns);
  Syn& operator[](Slot slot) { return syns_[slot]; }
  // Of those that wait; kNone when none does.
  Slot oldest() const { return oldest_; }

  // It waits no more, and stays as it is until it is freed.
  void Take(Slot slot);
  void Free(Slot slot) { free_.push_back(slot); }
  void Drop(Slot slot) {
    Take(slot);
    Free(slot);
  }

 private:
  std::vector<Syn> syns_;
  std::vector<Slot> free_;
  Slot oldest_ = kNone, newest_ = kNone;
};

}  // namespace braid
