// When something that has failed is started again: soon at first, then ever later, and not for
// ever. What has run well for a while is trusted anew. Sans I/O.
#pragma once

#include <algorithm>
#include <optional>

#include "base/clock.h"

namespace braid {

class RestartPolicy {
 public:
  static constexpr DurationNs kFirstDelayNs = kSecondNs;
  static constexpr DurationNs kMostDelayNs = 60 * kSecondNs;
  static constexpr int kMaxRestarts = 10;
  static constexpr DurationNs kTrustedAfterNs = 300 * kSecondNs;

  // It has failed, after having run since `started_ns`. How long to wait before the next start;
  // nothing: it is given up.
  std::optional<DurationNs> OnFailure(TimeNs started_ns, TimeNs now_ns) {
    if (now_ns >= started_ns + kTrustedAfterNs) restarts_ = 0;
    if (restarts_ == kMaxRestarts) return std::nullopt;
    const int doublings = std::min(restarts_++, 6);
    return std::min(kFirstDelayNs << doublings, kMostDelayNs);
  }
  // Somebody wants it to be tried anew.
  void Reset() { restarts_ = 0; }

  int restarts() const { return restarts_; }

 private:
  int restarts_ = 0;
};

}  // namespace braid
