// The limits of what is sent to peers and taken from them, each and all together. Made by the slow
// path, which gives the workers another one when something changes; all of them take from its
// buckets. What waits for them is in shaper.h.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "base/token_bucket.h"
#include "fastpath/route_table.h"

namespace braid {

// Whose turn it is at the limit of all, among the workers. Each peer is served by the bytes that it
// has had; a worker waits while another has a peer that had less (self-clocked fair queueing:
// Golestani, INFOCOM 1994).
class SharedTurns {
 public:
  static constexpr uint64_t kNobody = UINT64_MAX;

  explicit SharedTurns(int workers) : turns_(static_cast<size_t>(workers)) {}

  // The least that a peer has had which waits at this worker.
  void Publish(int worker, uint64_t least_bytes) {
    if (Of(worker).load(std::memory_order_relaxed) == least_bytes) return;
    Of(worker).store(least_bytes, std::memory_order_relaxed);
    const uint64_t all_bytes = std::min(least_bytes, LeastOfOthers(worker));
    if (all_bytes != kNobody && all_bytes > had_bytes()) {
      had_bytes_.store(all_bytes, std::memory_order_relaxed);
    }
  }
  uint64_t LeastOfOthers(int worker) const {
    uint64_t least_bytes = kNobody;
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (i == static_cast<size_t>(worker)) continue;
      least_bytes = std::min(least_bytes, turns_[i].least_bytes.load(std::memory_order_relaxed));
    }
    return least_bytes;
  }
  // What every peer that waits has had: one that begins to wait is taken to have had that.
  uint64_t had_bytes() const { return had_bytes_.load(std::memory_order_relaxed); }

 private:
  struct alignas(64) Turn {
    std::atomic<uint64_t> least_bytes{kNobody};
  };

  std::atomic<uint64_t>& Of(int worker) { return turns_[static_cast<size_t>(worker)].least_bytes; }

  std::vector<Turn> turns_;
  alignas(64) std::atomic<uint64_t> had_bytes_{0};
};

// The limits of one direction. The members are set before any worker knows of it.
struct ThrottleWay {
  explicit ThrottleWay(int workers) : turns(workers) {}

  std::unique_ptr<TokenBucket> total;               // nullptr: there is none
  std::vector<std::unique_ptr<TokenBucket>> peers;  // by slot; those beyond have none
  SharedTurns turns;

  TokenBucket* Of(PeerSlot peer) const { return peer < peers.size() ? peers[peer].get() : nullptr; }
  bool Limits(PeerSlot peer) const { return total != nullptr || Of(peer) != nullptr; }
  bool Has(PeerSlot peer, TimeNs now_ns) const {
    const TokenBucket* own = Of(peer);
    return (own == nullptr || own->Has(now_ns)) && (total == nullptr || total->Has(now_ns));
  }
  void Take(PeerSlot peer, size_t bytes, TimeNs now_ns) const {
    if (TokenBucket* own = Of(peer)) own->Take(bytes, now_ns);
    if (total != nullptr) total->Take(bytes, now_ns);
  }
};

struct Throttle {
  explicit Throttle(int workers) : tx(workers), rx(workers) {}

  ThrottleWay tx;
  ThrottleWay rx;
};

}  // namespace braid
