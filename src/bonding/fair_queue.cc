#include "bonding/fair_queue.h"

#include <algorithm>
#include <cmath>

#include "bonding/ecn.h"

namespace braid {

void FairQueue::SetDelays(DurationNs target_ns, DurationNs interval_ns) {
  target_ns_ = target_ns;
  interval_ns_ = interval_ns;
}

void FairQueue::Enqueue(PacketSlab& slab, SlotId id, TimeNs now_ns) {
  Slot& slot = slab[id];
  slot.time_ns = now_ns;
  const auto flow_id = static_cast<FlowId>(slot.flow_hash % kFlows);
  Flow& flow = flows_[flow_id];
  flow.packets.PushBack(slab, id);
  flow.bytes += slot.bytes;
  flow.hash = slot.flow_hash;
  bytes_ += slot.bytes;
  ++packets_;
  if (!flow.listed) {
    flow.listed = true;
    flow.deficit = static_cast<int32_t>(slab.packet_bytes());
    PushBack(fresh_, flow_id);
  }
  while (bytes_ > most_bytes_ || packets_ > most_packets_) DropOfLongest(slab);
}

void FairQueue::PushBack(FlowList& list, FlowId id) {
  flows_[id].next = kNoFlow;
  (list.first == kNoFlow ? list.first : flows_[list.last].next) = id;
  list.last = id;
}

void FairQueue::PopFront(FlowList& list) { list.first = flows_[list.first].next; }

SlotId FairQueue::Pop(PacketSlab& slab, Flow& flow) {
  const SlotId id = flow.packets.PopFront(slab);
  if (id == kNoSlot) return id;
  const Slot& slot = slab[id];
  flow.bytes -= slot.bytes;
  bytes_ -= slot.bytes;
  --packets_;
  return id;
}

// RFC 8289, 5.6: whether the flow has been above the target for a whole interval.
bool FairQueue::MayDrop(const PacketSlab& slab, Flow& flow, SlotId id, TimeNs now_ns) {
  if (id == kNoSlot || now_ns - slab[id].time_ns < target_ns_ ||
      flow.bytes <= slab.packet_bytes()) {
    flow.above_until_ns = 0;
    return false;
  }
  if (flow.above_until_ns == 0) {
    flow.above_until_ns = now_ns + interval_ns_;
    return false;
  }
  return now_ns >= flow.above_until_ns;
}

// RFC 8289, 5.5.
SlotId FairQueue::PopByCodel(PacketSlab& slab, Flow& flow, TimeNs now_ns) {
  SlotId id = Pop(slab, flow);
  bool may_drop = MayDrop(slab, flow, id, now_ns);
  if (flow.dropping) {
    if (!may_drop) flow.dropping = false;
    while (flow.dropping && now_ns >= flow.next_drop_ns) {
      ++flow.drops;
      if (MarkOrDrop(slab, id)) {
        flow.next_drop_ns += ControlLaw(flow.drops);
        return id;
      }
      id = Pop(slab, flow);
      if (MayDrop(slab, flow, id, now_ns)) {
        flow.next_drop_ns += ControlLaw(flow.drops);
      } else {
        flow.dropping = false;
      }
    }
    return id;
  }
  if (!may_drop) return id;
  const bool marked = MarkOrDrop(slab, id);
  if (!marked) {
    id = Pop(slab, flow);
    MayDrop(slab, flow, id, now_ns);
  }
  flow.dropping = true;
  // As fast as it was, if that is not long ago.
  const uint32_t since = flow.drops - flow.drops_before;
  const bool recently = now_ns < flow.next_drop_ns + 16 * interval_ns_;
  flow.drops = since > 1 && recently ? since : 1;
  flow.drops_before = flow.drops;
  flow.next_drop_ns = now_ns + ControlLaw(flow.drops);
  return id;
}

DurationNs FairQueue::ControlLaw(uint32_t drops) const {
  return static_cast<DurationNs>(static_cast<double>(interval_ns_) / std::sqrt(drops));
}

bool FairQueue::MarkOrDrop(PacketSlab& slab, SlotId id) {
  if (MarkCongestion(slab.packet(id))) {
    ++counters_.marked;
    return true;
  }
  slab.Return(id);
  ++counters_.dropped;
  return false;
}

void FairQueue::DropOfLongest(PacketSlab& slab) {
  auto longest = std::max_element(flows_.begin(), flows_.end(),
                                  [](const Flow& a, const Flow& b) { return a.bytes < b.bytes; });
  slab.Return(Pop(slab, *longest));
  ++counters_.overflowed;
}

void FairQueue::Clear(PacketSlab& slab) {
  for (Flow& flow : flows_) {
    for (SlotId id = Pop(slab, flow); id != kNoSlot; id = Pop(slab, flow)) slab.Return(id);
    flow = {};
  }
  fresh_ = old_ = {};
}

}  // namespace braid
