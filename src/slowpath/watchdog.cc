#include "slowpath/watchdog.h"

#include <systemd/sd-daemon.h>

namespace braid {

Watchdog Watchdog::OfThisProcess() {
  uint64_t timeout_us = 0;
  return Watchdog(sd_watchdog_enabled(0, &timeout_us) > 0 ? timeout_us : 0);
}

bool Watchdog::IsDue(bool workers_alive, TimeNs now_ns) {
  if (every_ns_ == 0 || !workers_alive || now_ns < next_ns_) return false;
  next_ns_ = now_ns + every_ns_;
  return true;
}

}  // namespace braid
