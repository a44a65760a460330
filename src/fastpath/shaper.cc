#include "fastpath/shaper.h"

#include <algorithm>
#include <utility>

namespace braid {

Shaper::Shaper(PacketSlab& slab, size_t max_peers, int worker)
    : slab_(slab),
      worker_(worker),
      pool_(max_peers),
      queues_(max_peers),
      shown_(max_peers),
      waits_for_own_(max_peers),
      turns_(max_peers) {}

// What a worker has told of its turn stays with the limits that it was told of, which end.
void Shaper::SetLimits(ThrottleWay* way, TimeNs now_ns) {
  if (way_ != nullptr) way_->turns.Publish(worker_, SharedTurns::kNobody);
  way_ = way;
  for (PeerSlot peer = 0; peer < queues_.size(); ++peer) {
    Queue* queue = queues_[peer];
    if (queue == nullptr) continue;
    queue->had_bytes = queue->excess_bytes = 0;
    waits_for_own_.Set(peer, kNever);
    if (!queue->packets.empty()) Wait(peer, now_ns);
  }
}

bool Shaper::Pass(PeerSlot peer, size_t bytes, TimeNs now_ns) {
  Queue* queue = queues_[peer];
  if (queue != nullptr && !queue->packets.empty()) return false;
  // Another one waits for what there will be.
  if (way_->total != nullptr && turns_.due_ns() != kNever) return false;
  if (!way_->Has(peer, now_ns)) return false;
  way_->Take(peer, bytes, now_ns);
  if (queue != nullptr) {
    queue->had_bytes += bytes;
    queue->excess_bytes -= std::min(queue->excess_bytes, kOpenedInVain * bytes);
  }
  return true;
}

bool Shaper::Police(PeerSlot peer, size_t bytes, TimeNs now_ns) {
  Queue& queue = Take(peer);
  const uint64_t least_bytes = std::min(turns_.due_ns(), way_->turns.LeastOfOthers(worker_));
  const uint64_t had_bytes = way_->turns.had_bytes();
  if (way_->total == nullptr || least_bytes == SharedTurns::kNobody) {
    queue.had_bytes = had_bytes;
  } else {
    queue.had_bytes = std::max(queue.had_bytes, had_bytes);
    if (queue.had_bytes > least_bytes + AheadBytes()) return false;
  }
  if (!way_->Has(peer, now_ns)) return false;
  way_->Take(peer, bytes, now_ns);
  queue.had_bytes += bytes;
  return true;
}

size_t Shaper::Enqueue(PeerSlot peer, SlotId id, const Delays& delays, TimeNs now_ns) {
  Queue& queue = Take(peer);
  const bool first = queue.packets.empty();
  SetBounds(peer, queue, delays);
  const size_t packets = queue.packets.packets() + 1;
  const size_t bytes = queue.packets.bytes() + slab_[id].bytes;
  queue.packets.Enqueue(slab_, id, now_ns);
  queue.gauges.delayed.Add(1);
  const size_t dropped = packets - queue.packets.packets();
  CountDrops(queue, dropped, bytes - queue.packets.bytes());
  if (first) Wait(peer, now_ns);
  return dropped;
}

Shaper::Queue& Shaper::Take(PeerSlot peer) {
  Queue*& queue = queues_[peer];
  if (queue == nullptr) {
    queue = pool_.Make();
    shown_[peer].store(queue, std::memory_order_release);
  }
  return *queue;
}

// One peer's packets leave most of the worker's memory to others, however small they are; and those
// of all leave half of it to the bonds.
void Shaper::SetBounds(PeerSlot peer, Queue& queue, const Delays& delays) {
  uint64_t bytes_per_s = UINT64_MAX;
  for (const TokenBucket* bucket : {way_->Of(peer), way_->total.get()}) {
    if (bucket != nullptr) bytes_per_s = std::min(bytes_per_s, bucket->limit().bytes_per_s);
  }
  queue.most_bytes =
      std::clamp(static_cast<size_t>(static_cast<double>(bytes_per_s) * kQueueSeconds),
                 kLeastQueueBytes, slab_.capacity() * slab_.packet_bytes() / 4);
  queue.packets.SetMostBytes(queue.most_bytes);
  const size_t half = slab_.capacity() / 2;
  const size_t room = half - std::min(half, slab_.used());
  queue.packets.SetMostPackets(std::max(kLeastQueuePackets, room / 4));
  // Where two packets take longer than that, they cannot wait for less.
  const DurationNs two_packets_ns = 2 * slab_.packet_bytes() * kSecondNs / bytes_per_s;
  queue.packets.SetDelays(std::max(delays.target_ns, two_packets_ns),
                          std::max(delays.interval_ns, 2 * two_packets_ns));
}

// The peer has something that waits.
void Shaper::Wait(PeerSlot peer, TimeNs now_ns) {
  Queue& queue = *queues_[peer];
  const TokenBucket* own = way_ == nullptr ? nullptr : way_->Of(peer);
  if (own != nullptr && !own->Has(now_ns)) {
    turns_.Set(peer, kNever);
    // Of several workers that have its packets, one that has got nothing comes before one that has.
    waits_for_own_.Set(peer, own->ReadyNs() + Gather(*own) / 2);
    return;
  }
  TimeNs due_ns = now_ns;
  if (way_ != nullptr && way_->total != nullptr) {
    // Neither what it did not have while it sent nothing nor what it had then counts for long.
    const uint64_t had_bytes = way_->turns.had_bytes();
    queue.had_bytes = std::clamp(queue.had_bytes, had_bytes, had_bytes + AheadBytes());
    if (!way_->total->Has(now_ns)) due_ns = way_->total->ReadyNs() + Gather(*way_->total);
  }
  turns_.Set(peer, queue.had_bytes);
  due_ns_ = std::min(due_ns_, due_ns);
}

SlotId Shaper::Dequeue(PeerSlot peer, TimeNs now_ns, size_t& dropped) {
  Queue& queue = *queues_[peer];
  const size_t packets = queue.packets.packets();
  const size_t bytes = queue.packets.bytes();
  const uint64_t marked = queue.packets.counters().marked;
  const SlotId id = queue.packets.Dequeue(slab_, now_ns, [](uint32_t) { return true; });
  const size_t passed = id == kNoSlot ? 0 : 1;
  const size_t passed_bytes = id == kNoSlot ? 0 : slab_[id].bytes;
  if (id != kNoSlot && way_ != nullptr) way_->Take(peer, passed_bytes, now_ns);
  queue.had_bytes += passed_bytes;
  queue.excess_bytes -= std::min(queue.excess_bytes, kOpenedInVain * passed_bytes);
  const size_t lost = packets - passed - queue.packets.packets();
  CountDrops(queue, lost, bytes - passed_bytes - queue.packets.bytes());
  if (queue.packets.empty()) queue.excess_bytes = 0;
  queue.gauges.marked.Add(queue.packets.counters().marked - marked);
  dropped += lost;
  return id;
}

void Shaper::CountDrops(Queue& queue, size_t packets, size_t bytes) {
  queue.excess_bytes = std::min(queue.excess_bytes + bytes, kMostExcess * queue.most_bytes);
  queue.gauges.dropped.Add(packets);
  queue.gauges.waiting_bytes.store(queue.packets.bytes(), std::memory_order_relaxed);
}

// A peer of another worker has had less, unless that worker does not come to it.
bool Shaper::OthersGoFirst(uint64_t others_bytes, TimeNs now_ns) const {
  if (others_bytes == SharedTurns::kNobody) return false;
  return turns_.due_ns() > others_bytes + AheadBytes() && !way_->total->HalfFull(now_ns);
}

void Shaper::PublishTurn() {
  way_->turns.Publish(worker_, turns_.due_ns());  // kNever: nobody's
}

size_t Shaper::Clear(PeerSlot peer) {
  Queue* queue = queues_[peer];
  if (queue == nullptr || queue->packets.empty()) return 0;
  const size_t dropped = queue->packets.packets();
  queue->packets.Clear(slab_);
  CountDrops(*queue, dropped, 0);
  queue->excess_bytes = 0;
  waits_for_own_.Set(peer, kNever);
  turns_.Set(peer, kNever);
  if (way_ != nullptr && way_->total != nullptr) PublishTurn();
  return dropped;
}

size_t Shaper::End(PeerSlot peer) {
  if (queues_[peer] == nullptr) return 0;
  const size_t dropped = Clear(peer);
  shown_[peer].store(nullptr, std::memory_order_release);
  pool_.Destroy(std::exchange(queues_[peer], nullptr));
  return dropped;
}

}  // namespace braid
