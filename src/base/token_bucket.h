// A limit of a rate, kept by several threads together: a token bucket as virtual scheduling (GCRA,
// ITU-T I.371, annex A). One atomic time says until when what has passed takes at the rate; a full
// bucket's is a burst in the past. No lock, and no thread that fills it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace braid {

struct RateLimit {
  // Beyond the rate over any second is what passed at once: a fiftieth of a second stays within 3 %
  // with what measuring adds, and makes up for a thread that came late by so much.
  static constexpr uint64_t kBurstsPerSecond = 50;
  static constexpr uint64_t kLeastBurstBytes = 3000;  // two packets

  uint64_t bytes_per_s = 0;
  uint64_t burst_bytes = 0;

  static RateLimit WithDefaultBurst(uint64_t bytes_per_s) {
    return {bytes_per_s, std::max(bytes_per_s / kBurstsPerSecond, kLeastBurstBytes)};
  }
  bool operator==(const RateLimit&) const = default;
};

// In any time t at most t * bytes_per_s + burst_bytes pass, and one packet more for each thread,
// since the last one may take more than there is.
class alignas(64) TokenBucket {
 public:
  explicit TokenBucket(const RateLimit& limit)
      : ticks_per_byte_(static_cast<double>(kSecondNs * kTicksPerNs) /
                        static_cast<double>(limit.bytes_per_s)),
        burst_ticks_(TicksFor(limit.burst_bytes)),
        limit_(limit) {}
  TokenBucket(const TokenBucket&) = delete;
  TokenBucket& operator=(const TokenBucket&) = delete;

  // Whether something may pass. `now_ns` may differ a little between threads.
  bool Has(TimeNs now_ns) const { return spent_until() <= now_ns * kTicksPerNs; }
  // Something passes: also more than there is, which is owed then.
  void Take(size_t bytes, TimeNs now_ns) {
    const uint64_t now = now_ns * kTicksPerNs;
    const uint64_t full = now > burst_ticks_ ? now - burst_ticks_ : 0;
    const uint64_t cost = TicksFor(bytes);
    uint64_t before = spent_until();
    while (!spent_until_.compare_exchange_weak(before, std::max(before, full) + cost,
                                               std::memory_order_relaxed)) {
    }
  }
  // From when on something may pass, if nothing is taken until then.
  TimeNs ReadyNs() const { return (spent_until() + kTicksPerNs - 1) / kTicksPerNs; }
  // At least half of a burst is left: nobody else takes what there is.
  bool HalfFull(TimeNs now_ns) const {
    return spent_until() + burst_ticks_ / 2 <= now_ns * kTicksPerNs;
  }
  DurationNs burst_ns() const { return burst_ticks_ / kTicksPerNs; }
  const RateLimit& limit() const { return limit_; }

 private:
  // So that the rounding of small packets at high rates does not add up.
  static constexpr uint64_t kTicksPerNs = 16;

  uint64_t spent_until() const { return spent_until_.load(std::memory_order_relaxed); }
  uint64_t TicksFor(uint64_t bytes) const {
    return static_cast<uint64_t>(static_cast<double>(bytes) * ticks_per_byte_ + 0.5);
  }

  std::atomic<uint64_t> spent_until_{0};
  const double ticks_per_byte_;
  const uint64_t burst_ticks_;
  const RateLimit limit_;
};

}  // namespace braid
