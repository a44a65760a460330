// Time as the packet path sees it: nanoseconds of CLOCK_MONOTONIC, read once per batch.
#pragma once

#include <time.h>

#include <cstdint>

namespace braid {

using TimeNs = uint64_t;      // a point on CLOCK_MONOTONIC
using DurationNs = uint64_t;  // a difference of two

inline constexpr DurationNs kMicrosecondNs = 1'000;
inline constexpr DurationNs kMillisecondNs = 1'000'000;
inline constexpr DurationNs kSecondNs = 1'000'000'000;

inline TimeNs MonotonicNowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<TimeNs>(now.tv_sec) * kSecondNs + static_cast<TimeNs>(now.tv_nsec);
}

}  // namespace braid
