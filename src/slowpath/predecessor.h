// What another daemon holds that is just ending, or was killed: it may still answer, and the kernel
// may need a moment to let go of it.
#pragma once

#include <chrono>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace braid {

// `take()` again, for as long as it says AlreadyExists, but no longer than two seconds. Blocks.
inline absl::Status TakeOver(absl::FunctionRef<absl::Status()> take) {
  using Clock = std::chrono::steady_clock;
  const auto give_up = Clock::now() + std::chrono::seconds(2);
  while (true) {
    absl::Status status = take();
    if (!absl::IsAlreadyExists(status) || Clock::now() >= give_up) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace braid
