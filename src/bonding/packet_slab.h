// Where a bond keeps inner packets: those that wait to be sent, those that were sent and may have
// to be sent again, and those that wait for an earlier one. One slab for a worker, a packet in one
// of its slots, a slot in one list at a time.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/reserved_array.h"

namespace braid {

using SlotId = uint32_t;
inline constexpr SlotId kNoSlot = UINT32_MAX;

// How long a packet may wait, and what a loss means to it.
enum class TrafficClass : uint8_t {
  kInteractive,  // leaves first and is delivered at once
  kBulk,         // rather late than lost: kept in order, and sent again when lost
  kRealtime,     // rather lost than late: delivered at once, never sent again
};
// In the order of the enumerators.
inline constexpr std::array<std::string_view, 3> kTrafficClassNames = {"interactive", "bulk",
                                                                       "realtime"};

// A packet left over a path, as the so-manieth of its lane there.
struct Transmission {
  uint8_t path;
  uint32_t path_seq;
};

struct Slot {
  static constexpr size_t kMaxTransmissions = 6;

  SlotId next = kNoSlot;  // in its list
  SlotId previous = kNoSlot;
  uint16_t bytes = 0;
  uint8_t flags = 0;  // of the wire header
  uint8_t lane = 0;
  TrafficClass traffic_class = TrafficClass::kBulk;
  uint32_t flow_hash = 0;
  TimeNs time_ns = 0;  // since when it waits; once sent: when it first was

  // Of what was sent.
  uint64_t sequence = 0;
  uint16_t copies_used = 0;  // by path, two bits: how often it was sent there again
  uint8_t paths_used = 0;    // by path, one bit: it was sent there first
  uint8_t transmissions_used = 0;
  bool repair_waits = false;
  bool kept = false;  // so that it can be sent again
  std::array<Transmission, kMaxTransmissions> transmissions;
};
static_assert(kMaxPaths <= 8);

class PacketSlab {
 public:
  // In front of a packet: the vnet header that TUN wants.
  static constexpr size_t kHeadroomBytes = 64;

  PacketSlab(size_t slots, size_t packet_bytes);

  // kNoSlot when all are in use.
  SlotId Take();
  void Return(SlotId id);

  Slot& operator[](SlotId id) { return slots_[id]; }
  const Slot& operator[](SlotId id) const { return slots_[id]; }
  uint8_t* data(SlotId id) { return &memory_[size_t{id} * slot_bytes_ + kHeadroomBytes]; }
  MutableBytes packet(SlotId id) { return {data(id), slots_[id].bytes}; }

  size_t packet_bytes() const { return packet_bytes_; }  // the largest packet
  size_t capacity() const { return slots_.size(); }
  size_t used() const { return used_; }

 private:
  const size_t packet_bytes_;
  const size_t slot_bytes_;
  ReservedArray<uint8_t> memory_;
  ReservedArray<Slot> slots_;
  size_t used_ = 0;
  size_t touched_ = 0;
  SlotId free_ = kNoSlot;
};

// A list through the slots: first in, first out, but any may be taken out.
class SlotList {
 public:
  bool empty() const { return first_ == kNoSlot; }
  SlotId first() const { return first_; }
  SlotId last() const { return last_; }

  void PushBack(PacketSlab& slab, SlotId id);
  void PushFront(PacketSlab& slab, SlotId id);
  SlotId PopFront(PacketSlab& slab);  // kNoSlot when it is empty
  void Remove(PacketSlab& slab, SlotId id);

 private:
  SlotId first_ = kNoSlot;
  SlotId last_ = kNoSlot;
};

}  // namespace braid
