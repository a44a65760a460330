// A virtual clock and what is to happen when: the heart of the simulator. One thread, no real time;
// chance comes from one seeded generator, so a seed replays exactly.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <random>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace braid::sim {

using Random = std::mt19937_64;

inline constexpr TimeNs kNever = UINT64_MAX;

class EventLoop;

// Something that happens at a time that may be moved. It outlives the loop's last run, or is
// destroyed between two events that are not its own.
class Timer {
 public:
  Timer(EventLoop& loop, std::function<void()> on_due);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void Set(TimeNs due_ns);  // what is past is due at once; kNever: not at all
  void Cancel() { Set(kNever); }
  TimeNs due_ns() const { return due_ns_; }

 private:
  friend class EventLoop;

  EventLoop& loop_;
  const std::function<void()> on_due_;
  const uint32_t number_;
  TimeNs due_ns_ = kNever;
  TimeNs entry_ns_ = kNever;  // the entry in the loop's heap that counts; never later than due_ns_
  uint64_t entry_order_ = 0;
};

class EventLoop {
 public:
  // Time 0 means "never" in much of the code, so the clock begins later.
  static constexpr TimeNs kStartNs = 1'000 * kSecondNs;

  explicit EventLoop(uint64_t seed) : random_(seed) {}

  TimeNs now_ns() const { return now_ns_; }
  Random& random() { return random_; }
  uint64_t events() const { return events_; }

  // What happens at `end_ns` has happened.
  void RunUntil(TimeNs end_ns) {
    while (!entries_.empty() && entries_.top().due_ns <= end_ns) {
      const Entry entry = entries_.top();
      entries_.pop();
      Timer* timer = timers_[entry.timer];
      if (timer == nullptr || timer->entry_order_ != entry.order) continue;
      timer->entry_ns_ = kNever;
      if (timer->due_ns_ > entry.due_ns) {
        Push(*timer);
        continue;
      }
      timer->due_ns_ = kNever;
      now_ns_ = entry.due_ns;
      ++events_;
      timer->on_due_();
    }
    now_ns_ = end_ns;
  }

 private:
  friend class Timer;

  // Of what is due at once, that which was set first goes first.
  struct Entry {
    TimeNs due_ns;
    uint64_t order;
    uint32_t timer;

    bool operator>(const Entry& other) const {
      return std::pair(due_ns, order) > std::pair(other.due_ns, other.order);
    }
  };

  void Push(Timer& timer) {
    if (timer.due_ns_ == kNever) return;
    timer.entry_ns_ = timer.due_ns_;
    timer.entry_order_ = ++order_;
    entries_.push({timer.entry_ns_, timer.entry_order_, timer.number_});
  }

  TimeNs now_ns_ = kStartNs;
  Random random_;
  uint64_t order_ = 0;
  uint64_t events_ = 0;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> entries_;
  std::vector<Timer*> timers_;
};

inline Timer::Timer(EventLoop& loop, std::function<void()> on_due)
    : loop_(loop), on_due_(std::move(on_due)), number_(static_cast<uint32_t>(loop.timers_.size())) {
  loop_.timers_.push_back(this);
}

inline Timer::~Timer() { loop_.timers_[number_] = nullptr; }

inline void Timer::Set(TimeNs due_ns) {
  due_ns_ = due_ns == kNever ? kNever : std::max(due_ns, loop_.now_ns_);
  // A later time is looked at when the entry's has come.
  if (due_ns_ < entry_ns_) loop_.Push(*this);
}

// Both bounds may come out.
inline uint64_t Between(Random& random, uint64_t least, uint64_t most) {
  return least + random() % (most - least + 1);
}

inline double Share(Random& random) {
  constexpr double kOneOf53Bits = 1.0 / (uint64_t{1} << 53);
  return static_cast<double>(random() >> 11) * kOneOf53Bits;
}

inline bool OneOf(Random& random, uint64_t many) { return random() % many == 0; }

}  // namespace braid::sim
