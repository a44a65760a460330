// Time as the packet path sees it: nanoseconds of CLOCK_MONOTONIC, read once per batch; and the
// other clocks, in the same unit.
#pragma once

#include <time.h>

#include <cstdint>

namespace braid {

using TimeNs = uint64_t;      // a point on CLOCK_MONOTONIC
using DurationNs = uint64_t;  // a difference of two

inline constexpr TimeNs kNever = UINT64_MAX;

inline constexpr DurationNs kMicrosecondNs = 1'000;
inline constexpr DurationNs kMillisecondNs = 1'000'000;
inline constexpr DurationNs kSecondNs = 1'000'000'000;

inline uint64_t ToNs(const timespec& time) {
  return static_cast<uint64_t>(time.tv_sec) * kSecondNs + static_cast<uint64_t>(time.tv_nsec);
}

inline uint64_t ReadClockNs(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return ToNs(now);
}

inline TimeNs MonotonicNowNs() { return ReadClockNs(CLOCK_MONOTONIC); }
// Since 1970. It may be set, also back.
inline uint64_t WallNowNs() { return ReadClockNs(CLOCK_REALTIME); }
// CPU time that the calling thread has had.
inline DurationNs ThreadCpuTimeNs() { return ReadClockNs(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace braid
