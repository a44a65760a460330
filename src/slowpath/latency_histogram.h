// Latencies counted in buckets, so that percentiles of any number of them take a fixed amount of
// memory. A bucket is at most 1/32 as wide as the values in it (the layout of HdrHistogram).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace braid {

class LatencyHistogram {
 public:
  void Add(DurationNs latency_ns);
  void Clear() { *this = {}; }

  uint64_t count() const { return count_; }
  // 0 when nothing was counted.
  DurationNs min_ns() const { return count_ == 0 ? 0 : min_ns_; }
  DurationNs max_ns() const { return max_ns_; }
  // The latency that `share` (0 … 1) of all do not exceed. 0 when nothing was counted.
  DurationNs Percentile(double share) const;

 private:
  static constexpr int kSubBits = 5;     // 32 buckets each time the value doubles
  static constexpr int kValueBits = 40;  // 18 minutes; what takes longer counts as that
  static constexpr size_t kBuckets = size_t{kValueBits - kSubBits + 1} << kSubBits;

  static size_t BucketOf(DurationNs latency_ns);
  static DurationNs LargestIn(size_t bucket);

  std::array<uint32_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  DurationNs min_ns_ = UINT64_MAX;
  DurationNs max_ns_ = 0;
};

}  // namespace braid
