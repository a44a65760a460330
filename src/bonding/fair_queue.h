// The queue in front of a bond's paths: one for each flow, served in turn, each kept short by
// CoDel. A flow that has nothing waiting is served before those that have. RFC 8290 (FQ-CoDel), RFC
// 8289 (CoDel): packets of flows that understand ECN are marked instead of dropped.
#pragma once

#include <array>
#include <cstdint>

#include "bonding/packet_slab.h"

namespace braid {

class FairQueue {
 public:
  static constexpr size_t kFlows = 256;  // that are told apart, by hash

  struct Counters {
    uint64_t dropped = 0;     // by CoDel
    uint64_t marked = 0;      // by CoDel, with ECN
    uint64_t overflowed = 0;  // because the whole queue was full
  };

  // `target_ns` may packets wait for long; they may wait longer for `interval_ns`, about the
  // longest round trip of what goes through.
  void SetDelays(DurationNs target_ns, DurationNs interval_ns);
  DurationNs target_ns() const { return target_ns_; }
  DurationNs interval_ns() const { return interval_ns_; }
  void SetMostBytes(size_t bytes) { most_bytes_ = bytes; }
  void SetMostPackets(size_t packets) { most_packets_ = packets; }

  // The slot's bytes and flow_hash are set. Where the queue is full the longest flow loses packets,
  // back into the slab.
  void Enqueue(PacketSlab& slab, SlotId id, TimeNs now_ns);

  // The next packet of a flow that `accepts(flow_hash)`; kNoSlot when there is none.
  template <typename Accepts>
  SlotId Dequeue(PacketSlab& slab, TimeNs now_ns, Accepts&& accepts);

  bool empty() const { return packets_ == 0; }
  size_t packets() const { return packets_; }
  size_t bytes() const { return bytes_; }
  const Counters& counters() const { return counters_; }
  // Gives everything back.
  void Clear(PacketSlab& slab);

 private:
  using FlowId = uint16_t;
  static constexpr FlowId kNoFlow = UINT16_MAX;

  struct Flow {
    SlotList packets;
    uint32_t bytes = 0;
    int32_t deficit = 0;
    uint32_t hash = 0;  // of its newest packet
    bool listed = false;
    FlowId next = kNoFlow;
    // CoDel.
    bool dropping = false;
    uint32_t drops = 0;
    uint32_t drops_before = 0;
    TimeNs above_until_ns = 0;  // 0: it is not above the target
    TimeNs next_drop_ns = 0;
  };

  struct FlowList {
    FlowId first = kNoFlow;
    FlowId last = kNoFlow;
  };

  void PushBack(FlowList& list, FlowId id);
  void PopFront(FlowList& list);
  SlotId Pop(PacketSlab& slab, Flow& flow);
  SlotId PopByCodel(PacketSlab& slab, Flow& flow, TimeNs now_ns);
  bool MayDrop(const PacketSlab& slab, Flow& flow, SlotId id, TimeNs now_ns);
  // Marks the packet, or gives it back. True when it was marked, and goes on.
  bool MarkOrDrop(PacketSlab& slab, SlotId id);
  DurationNs ControlLaw(uint32_t drops) const;
  void DropOfLongest(PacketSlab& slab);

  DurationNs target_ns_ = 5 * kMillisecondNs;
  DurationNs interval_ns_ = 100 * kMillisecondNs;
  size_t most_bytes_ = 4 << 20;
  size_t most_packets_ = SIZE_MAX;
  size_t packets_ = 0;
  size_t bytes_ = 0;
  Counters counters_;
  FlowList fresh_;  // had nothing waiting
  FlowList old_;
  std::array<Flow, kFlows> flows_;
};

template <typename Accepts>
SlotId FairQueue::Dequeue(PacketSlab& slab, TimeNs now_ns, Accepts&& accepts) {
  // Each look serves a flow, gives it credit, or passes by one that is not accepted.
  size_t passed_by = 0;
  while (packets_ != 0 && passed_by <= kFlows) {
    FlowList& list = fresh_.first != kNoFlow ? fresh_ : old_;
    if (list.first == kNoFlow) break;
    const FlowId id = list.first;
    Flow& flow = flows_[id];
    const bool accepted = accepts(flow.hash);
    if (accepted && flow.deficit > 0) {
      const SlotId slot = PopByCodel(slab, flow, now_ns);
      if (slot != kNoSlot) {
        flow.deficit -= slab[slot].bytes;
        return slot;
      }
      // A fresh flow goes through the old ones once more, so that it cannot stay fresh for ever.
      PopFront(list);
      if (&list == &fresh_) {
        PushBack(old_, id);
      } else {
        flow.listed = false;
      }
      continue;
    }
    passed_by = accepted ? 0 : passed_by + 1;
    if (accepted) flow.deficit += static_cast<int32_t>(slab.packet_bytes());
    PopFront(list);
    PushBack(old_, id);
  }
  return kNoSlot;
}

}  // namespace braid
