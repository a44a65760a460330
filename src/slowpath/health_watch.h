// What of the daemon's health only shows over time, and the rest as it is now: what JudgeHealth()
// is given. One thread, the slow path's.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "slowpath/health.h"
#include "slowpath/status_sources.h"

namespace braid {

class HealthWatch {
 public:
  // A timer of the slow path was to fire at `due_ns`, and did.
  void OnTimer(TimeNs due_ns, TimeNs now_ns);
  // About once a second; of kPoolDrops.
  void Sample(absl::FunctionRef<uint64_t(Drop)> drops, TimeNs now_ns);

  // How late the timer came at most, in the last ten seconds or somewhat longer.
  DurationNs LagAt(TimeNs now_ns) const;
  // Those of kPoolDrops that were counted in the last minute.
  std::vector<Drop> UsedUpAt(TimeNs now_ns) const;

  HealthInputs See(const StatusSources& sources, std::string network_problem) const;

 private:
  struct Pool {
    uint64_t drops = 0;
    TimeNs dropped_ns = 0;  // 0: never
  };

  TimeNs lag_since_ns_ = 0;
  DurationNs lag_ns_ = 0;         // at most, since then
  DurationNs lag_before_ns_ = 0;  // in the ten seconds before
  std::array<Pool, kPoolDrops.size()> pools_{};
};

// By worker.
std::vector<DurationNs> SilencesOf(const WorkerGroup& workers, TimeNs now_ns);

}  // namespace braid
