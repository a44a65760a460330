// Where a worker's thread runs: on its own CPU while it is busy, so that what it works on stays in
// that CPU's caches; wherever it is woken while it is not, because waking another CPU that sleeps
// takes longer than all the work on one packet. Used by the worker's thread only.
#pragma once

#include <sched.h>

#include "absl/status/status.h"
#include "base/clock.h"

namespace braid {

class CpuAffinity {
 public:
  // Busy enough to be pinned, and idle enough to be let go, in percent of the time since the last
  // look. Two workers that share one CPU have half of it each under full load.
  static constexpr int kPinAbovePercent = 42;
  static constexpr int kReleaseBelowPercent = 35;
  static constexpr DurationNs kLookEveryNs = 10 * kMillisecondNs;

  // `cpu` is where the calling thread is pinned when it is busy; -1: never. What the thread may use
  // now is where it runs when it is not. An error when it may not be pinned there.
  absl::Status Start(int cpu);

  // Once per batch.
  void OnBatch(TimeNs now_ns) {
    if (cpu_ >= 0 && now_ns >= looked_ns_ + kLookEveryNs) Look(now_ns);
  }

  bool pinned() const { return pinned_; }

 private:
  void Look(TimeNs now_ns);
  bool Pin(bool pinned);

  int cpu_ = -1;
  bool pinned_ = false;
  cpu_set_t anywhere_;
  TimeNs looked_ns_ = 0;
  DurationNs worked_ns_ = 0;  // CPU time of the thread when it was last looked at
};

}  // namespace braid
