// What another daemon holds that is just ending, or was killed: it may still answer, and the kernel
// may need a moment to let go of it.
#pragma once

#include <chrono>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "base/clock.h"

namespace braid {

inline constexpr DurationNs kPredecessorEndsInNs = 2 * kSecondNs;

// `take()` again, for as long as it says AlreadyExists, but no longer than that. Blocks, so it is
// not for a loop that runs: what holds the rest may wait there.
inline absl::Status TakeOver(absl::FunctionRef<absl::Status()> take) {
  const TimeNs give_up_ns = MonotonicNowNs() + kPredecessorEndsInNs;
  while (true) {
    absl::Status status = take();
    if (!absl::IsAlreadyExists(status) || MonotonicNowNs() >= give_up_ns) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace braid
