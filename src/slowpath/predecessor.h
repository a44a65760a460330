// What another daemon holds that is just ending, or was killed: it may still answer, and the kernel
// may need a moment to let go of it.
#pragma once

#include <chrono>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "base/clock.h"

namespace braid {

// `take()` again, for as long as it says AlreadyExists, but no longer than two seconds. Blocks.
inline absl::Status TakeOver(absl::FunctionRef<absl::Status()> take) {
  const TimeNs give_up_ns = MonotonicNowNs() + 2 * kSecondNs;
  while (true) {
    absl::Status status = take();
    if (!absl::IsAlreadyExists(status) || MonotonicNowNs() >= give_up_ns) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace braid
