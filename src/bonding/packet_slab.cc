#include "bonding/packet_slab.h"

#include <new>

namespace braid {
namespace {

// Behind a packet a vector unit may read on.
size_t SlotBytes(size_t packet_bytes) {
  return (PacketSlab::kHeadroomBytes + packet_bytes + kPacketTailroomBytes + 63) / 64 * 64;
}

}  // namespace

PacketSlab::PacketSlab(size_t slots, size_t packet_bytes)
    : packet_bytes_(packet_bytes),
      slot_bytes_(SlotBytes(packet_bytes)),
      memory_(slots * slot_bytes_),
      slots_(slots) {}

SlotId PacketSlab::Take() {
  SlotId id = free_;
  if (id != kNoSlot) {
    free_ = slots_[id].next;
  } else if (touched_ < slots_.size()) {
    id = static_cast<SlotId>(touched_++);
  } else {
    return kNoSlot;
  }
  new (&slots_[id]) Slot();
  ++used_;
  return id;
}

void PacketSlab::Return(SlotId id) {
  slots_[id].next = free_;
  free_ = id;
  --used_;
}

void SlotList::PushBack(PacketSlab& slab, SlotId id) {
  slab[id].next = kNoSlot;
  slab[id].previous = last_;
  (last_ == kNoSlot ? first_ : slab[last_].next) = id;
  last_ = id;
}

void SlotList::PushFront(PacketSlab& slab, SlotId id) {
  slab[id].previous = kNoSlot;
  slab[id].next = first_;
  (first_ == kNoSlot ? last_ : slab[first_].previous) = id;
  first_ = id;
}

SlotId SlotList::PopFront(PacketSlab& slab) {
  const SlotId id = first_;
  if (id != kNoSlot) Remove(slab, id);
  return id;
}

void SlotList::Remove(PacketSlab& slab, SlotId id) {
  const Slot& slot = slab[id];
  (slot.previous == kNoSlot ? first_ : slab[slot.previous].next) = slot.next;
  (slot.next == kNoSlot ? last_ : slab[slot.next].previous) = slot.previous;
}

}  // namespace braid
