#include "fastpath/cpu_affinity.h"

#include <errno.h>

#include <string>

namespace braid {
absl::Status CpuAffinity::Start(int cpu) {
  cpu_ = cpu;
  if (cpu_ < 0) return absl::OkStatus();
  if (sched_getaffinity(0, sizeof(anywhere_), &anywhere_) != 0 || !Pin(true)) {
    return absl::ErrnoToStatus(
        errno, "performance.pin: cannot pin a worker to CPU " + std::to_string(cpu_));
  }
  worked_ns_ = ThreadCpuTimeNs();
  return absl::OkStatus();
}

void CpuAffinity::Look(TimeNs now_ns) {
  const DurationNs worked_ns = ThreadCpuTimeNs();
  const DurationNs busy_percent = (worked_ns - worked_ns_) * 100 / (now_ns - looked_ns_);
  worked_ns_ = worked_ns;
  looked_ns_ = now_ns;
  if (!pinned_ && busy_percent > kPinAbovePercent) Pin(true);
  if (pinned_ && busy_percent < kReleaseBelowPercent) Pin(false);
}

bool CpuAffinity::Pin(bool pinned) {
  cpu_set_t set = anywhere_;
  if (pinned) {
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(cpu_), &set);
  }
  if (sched_setaffinity(0, sizeof(set), &set) != 0) return false;
  pinned_ = pinned;
  return true;
}

}  // namespace braid
