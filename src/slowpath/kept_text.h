// A text that is told again for a while after it was made: who asks again and again takes little
// from the thread that makes it, however long that takes. One thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "base/clock.h"

namespace braid {

class KeptText {
 public:
  static constexpr DurationNs kLeastNs = 50 * kMillisecondNs;
  // So many times as long as it took to make.
  static constexpr DurationNs kTimesItsCost = 10;

  // Valid until the next call. `last_event_id` tells whether something has happened since: a text
  // that is cheap is made anew then, one that is not has to be told for its time all the same.
  const std::string& Get(uint64_t last_event_id, absl::FunctionRef<std::string()> make,
                         absl::FunctionRef<TimeNs()> clock = MonotonicNowNs) {
    const TimeNs begin_ns = clock();
    const bool is_of_now = is_costly_ || last_event_id == last_event_id_;
    if (begin_ns < until_ns_ && is_of_now) return text_;
    text_ = make();
    const TimeNs end_ns = clock();
    const DurationNs by_cost_ns = kTimesItsCost * (end_ns - begin_ns);
    is_costly_ = by_cost_ns > kLeastNs;
    until_ns_ = end_ns + std::max(kLeastNs, by_cost_ns);
    last_event_id_ = last_event_id;
    return text_;
  }

  // What it tells has been changed.
  void Forget() { until_ns_ = 0; }
  // Of one that is too old not even the memory is kept.
  void FreeIfOld(TimeNs now_ns) {
    if (now_ns < until_ns_) return;
    std::string().swap(text_);
    Forget();
  }
  size_t capacity() const { return text_.capacity(); }

 private:
  std::string text_;
  TimeNs until_ns_ = 0;
  uint64_t last_event_id_ = 0;
  bool is_costly_ = false;
};

}  // namespace braid
