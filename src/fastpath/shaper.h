// What waits for the limits of one direction (throttle.h), at one worker: a fair queue for each
// peer that has a limit and sends more. Sans I/O.
//
//   Pass ─► goes on at once, as long as nothing of its peer waits and the limits have room
//     └───► Enqueue ─► the peer's fair queue ─► Run: the peer's own limit ─► that of all, in turn
//
// So a peer's packets wait in its own queue only, whose length CoDel bounds, and at the limit of
// all the one that has had least goes first.
#pragma once

#include <atomic>
#include <cstddef>
#include <vector>

#include "base/counters.h"
#include "base/reserved_pool.h"
#include "base/timer_heap.h"
#include "bonding/fair_queue.h"
#include "fastpath/throttle.h"

namespace braid {

// Of one peer, at one worker. Written by the worker, read by the slow path.
struct ShaperGauges {
  std::atomic<uint64_t> waiting_bytes{0};
  Counter delayed;  // packets that had to wait
  Counter dropped;  // of those
  Counter marked;   // of those, by CoDel
  Counter refused;  // datagrams, before they were opened
};

class Shaper {
 public:
  // How long packets may wait: as FairQueue::SetDelays() takes it.
  struct Delays {
    DurationNs target_ns = 10 * kMillisecondNs;
    DurationNs interval_ns = 100 * kMillisecondNs;
  };

  // `slab` outlives it.
  Shaper(PacketSlab& slab, size_t max_peers, int worker);

  // nullptr: there are none. What waits for limits that are no more goes on in the next Run().
  void SetLimits(ThrottleWay* way, TimeNs now_ns);
  bool Limits(PeerSlot peer) const { return way_ != nullptr && way_->Limits(peer); }

  // Of a peer that Limits(): true when a packet may go on at once; it is counted then. Else it is
  // to be given to Enqueue().
  bool Pass(PeerSlot peer, size_t bytes, TimeNs now_ns);
  // The same of a peer whose packets cannot wait, so that those who wait have their turns, too.
  bool Police(PeerSlot peer, size_t bytes, TimeNs now_ns);
  // The slot's bytes and flow_hash are set. Returns how many packets were dropped, of the peer's
  // longest flow.
  size_t Enqueue(PeerSlot peer, SlotId id, const Delays& delays, TimeNs now_ns);

  // Calls `release(peer, slot)` for what may go on now. Returns how many packets CoDel dropped.
  template <typename Release>
  size_t Run(TimeNs now_ns, Release&& release);
  TimeNs NextDue() const { return std::min(due_ns_, waits_for_own_.due_ns()); }

  // The peer sends several times of what it may: what comes of it is not worth opening until some
  // of what waits has gone on. Only packets that were opened, and had to be dropped, make it so:
  // nobody else can send any. What comes on the express lane, from small flows mostly, is worth
  // it for longer.
  bool Floods(PeerSlot peer, bool express) const {
    if (way_ == nullptr || queues_[peer] == nullptr) return false;
    return queues_[peer]->excess_bytes >
           queues_[peer]->most_bytes * (express ? kMostExcess - 1 : 1);
  }
  void NoteRefused(PeerSlot peer) { queues_[peer]->gauges.refused.Add(1); }

  // The peer's session has ended: nothing of it waits any more. Returns how many packets did.
  size_t Clear(PeerSlot peer);
  // The peer is no more; the next of this slot has nothing of it. The same.
  size_t End(PeerSlot peer);

  // For the slow path, at any time: nullptr when nothing of the peer has ever waited here.
  const ShaperGauges* GaugesOf(PeerSlot peer) const {
    const Queue* queue = shown_[peer].load(std::memory_order_acquire);
    return queue == nullptr ? nullptr : &queue->gauges;
  }

 private:
  // What becomes free within less is waited for, so that packets go on together.
  static constexpr DurationNs kGatherNs = 400 * kMicrosecondNs;
  static constexpr double kQueueSeconds = 0.3;
  static constexpr size_t kLeastQueueBytes = 128 << 10;  // two super-packets
  static constexpr size_t kLeastQueuePackets = 16;
  // Of each packet that goes on so many times its bytes are opened in vain.
  static constexpr uint64_t kOpenedInVain = 3;
  // What a bond has held comes at once and may be dropped at once: so many queues of it count.
  static constexpr uint64_t kMostExcess = 5;
  // That one peer may be ahead of another at the limit of all.
  static constexpr uint64_t kAheadPackets = 4;

  struct Queue {
    FairQueue packets;
    size_t most_bytes = kLeastQueueBytes;
    uint64_t had_bytes = 0;     // as SharedTurns counts
    uint64_t excess_bytes = 0;  // dropped, less what was made up for
    ShaperGauges gauges;
  };
  Queue& Take(PeerSlot peer);
  void SetBounds(PeerSlot peer, Queue& queue, const Delays& delays);
  void Wait(PeerSlot peer, TimeNs now_ns);
  SlotId Dequeue(PeerSlot peer, TimeNs now_ns, size_t& dropped);
  void CountDrops(Queue& queue, size_t packets, size_t bytes);
  uint64_t AheadBytes() const { return kAheadPackets * slab_.packet_bytes(); }
  bool OthersGoFirst(uint64_t others_bytes, TimeNs now_ns) const;
  DurationNs Gather(const TokenBucket& bucket) const {
    return std::min(kGatherNs, bucket.burst_ns() / 4);
  }
  void PublishTurn();

  PacketSlab& slab_;
  const int worker_;
  ThrottleWay* way_ = nullptr;
  ReservedPool<Queue> pool_;
  std::vector<Queue*> queues_;  // by peer
  std::vector<std::atomic<const Queue*>> shown_;
  TimerHeap waits_for_own_;  // peers that owe their own limit, by when they do not any more
  TimerHeap turns_;          // the others that wait, by what they have had
  TimeNs due_ns_ = kNever;   // of those
};

template <typename Release>
size_t Shaper::Run(TimeNs now_ns, Release&& release) {
  size_t dropped = 0;
  while (waits_for_own_.due_ns() <= now_ns) {
    const PeerSlot peer = waits_for_own_.first();
    waits_for_own_.Set(peer, kNever);
    Wait(peer, now_ns);
  }
  if (now_ns < due_ns_) return dropped;
  TokenBucket* total = way_ == nullptr ? nullptr : way_->total.get();
  const uint64_t others_bytes =
      total == nullptr ? SharedTurns::kNobody : way_->turns.LeastOfOthers(worker_);
  due_ns_ = kNever;
  while (turns_.due_ns() != kNever) {
    if (total != nullptr && !total->Has(now_ns)) {
      due_ns_ = total->ReadyNs() + Gather(*total);
      break;
    }
    if (total != nullptr && OthersGoFirst(others_bytes, now_ns)) {
      due_ns_ = now_ns + Gather(*total);
      break;
    }
    const PeerSlot peer = turns_.first();
    TokenBucket* own = way_ == nullptr ? nullptr : way_->Of(peer);
    if (own != nullptr && !own->Has(now_ns)) {
      turns_.Set(peer, kNever);
      waits_for_own_.Set(peer, own->ReadyNs() + Gather(*own));
      continue;
    }
    const SlotId id = Dequeue(peer, now_ns, dropped);
    Queue& queue = *queues_[peer];
    turns_.Set(peer, queue.packets.empty() ? kNever : queue.had_bytes);
    if (id != kNoSlot) release(peer, id);
  }
  if (total != nullptr) PublishTurn();
  return dropped;
}

}  // namespace braid
