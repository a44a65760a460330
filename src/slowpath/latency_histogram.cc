#include "slowpath/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace braid {

size_t LatencyHistogram::BucketOf(DurationNs latency_ns) {
  const uint64_t value = std::min(latency_ns, (DurationNs{1} << kValueBits) - 1);
  // Values below 64 have a bucket each; above, the leading bit and the five behind it count.
  const int shift = std::max(static_cast<int>(std::bit_width(value)) - kSubBits - 1, 0);
  return (static_cast<size_t>(shift) << kSubBits) + static_cast<size_t>(value >> shift);
}

DurationNs LatencyHistogram::LargestIn(size_t bucket) {
  const size_t shift = bucket < (size_t{2} << kSubBits) ? 0 : (bucket >> kSubBits) - 1;
  const uint64_t value = bucket - (shift << kSubBits);
  return ((value + 1) << shift) - 1;
}

void LatencyHistogram::Add(DurationNs latency_ns) {
  ++buckets_[BucketOf(latency_ns)];
  ++count_;
  min_ns_ = std::min(min_ns_, latency_ns);
  max_ns_ = std::max(max_ns_, latency_ns);
}

DurationNs LatencyHistogram::Percentile(double share) const {
  if (count_ == 0) return 0;
  const auto wanted =
      static_cast<uint64_t>(std::ceil(std::clamp(share, 0.0, 1.0) * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += buckets_[bucket];
    if (seen >= std::max<uint64_t>(wanted, 1)) {
      return std::clamp(LargestIn(bucket), min_ns_, max_ns_);
    }
  }
  return max_ns_;
}

}  // namespace braid
