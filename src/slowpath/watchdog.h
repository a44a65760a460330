// When systemd is told that the daemon lives (WatchdogSec= of its unit). It is the slow path that
// asks, so a slow path that hangs says nothing either.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace braid {

class Watchdog {
 public:
  // `timeout_us` as sd_watchdog_enabled() gives it; 0: nobody watches.
  explicit Watchdog(uint64_t timeout_us) : every_ns_(timeout_us * kMicrosecondNs / 2) {}
  // What systemd has said to this process in its environment.
  static Watchdog OfThisProcess();

  // Whether WATCHDOG=1 is to be sent now: after half of the timeout, and as soon as workers that
  // were not alive by then are. To be asked several times as often.
  bool IsDue(bool workers_alive, TimeNs now_ns);

 private:
  DurationNs every_ns_;
  TimeNs next_ns_ = 0;
};

}  // namespace braid
