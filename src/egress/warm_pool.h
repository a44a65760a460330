// Connections to one upstream that are made, and greeted, before a flow wants them, so that it need
// not wait for that. Owns those that wait, and says how many more are to be opened; its owner opens
// them, at its own pace. Without I/O or a clock of its own; one thread.
//
//   Wanted() ─ OnOpening(n) ─► under way ─ OnOpened(), Put() ─► idle ─ Take() ─► a flow
//                                │ OnOpenFailed()                │ Cleanup(), Remove()
//                                ▼                               ▼
//
// How many there are to be, its target, follows demand. A Take() that finds less than a quarter of
// it raises it by half, once a quarter of it has been asked for since it was raised last. A cleanup
// lowers it by a third, which is what was added, where no Take() since the one before has found
// less than half of it; never below the initial one. The freshest is taken first, so that those
// which nobody needs grow old.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace braid {

struct WarmPoolOptions {
  size_t initial = 100;
  size_t max = 1000;                     // at least `initial`
  DurationNs idle_ns = 300 * kSecondNs;  // one that has waited longer is let go
  DurationNs cleanup_ns = 60 * kSecondNs;

  bool operator==(const WarmPoolOptions&) const = default;
};

struct WarmPoolTotals {
  uint64_t taken = 0;
  uint64_t empty = 0;  // there was none to be taken
  uint64_t expired = 0;
  uint64_t stale = 0;  // removed, since their server had closed them
};

// T is movable, and whoever destroys it closes the connection.
template <typename T>
class WarmPool {
 public:
  using Options = WarmPoolOptions;
  using Totals = WarmPoolTotals;

  WarmPool(const Options& options, TimeNs now_ns)
      : options_(options),
        target_(options.initial),
        used_ns_(now_ns),
        next_cleanup_ns_(now_ns + options.cleanup_ns) {}

  // Nothing: the flow has to connect by itself.
  std::optional<T> Take(TimeNs now_ns) {
    used_ns_ = now_ns;
    is_used_ = true;
    if (idle_.size() * 2 < target_) is_needed_ = true;
    ++asked_;
    const bool is_short = idle_.empty() || idle_.size() * 4 < target_;
    if (is_short && asked_ * 4 >= target_) Raise();
    if (idle_.empty()) {
      ++totals_.empty;
      return std::nullopt;
    }
    std::optional<T> taken(std::move(idle_.back().connection));
    idle_.pop_back();
    ++totals_.taken;
    return taken;
  }

  // One that was opened, or was taken and not used. The oldest comes back when there are too many.
  std::optional<T> Put(T connection, TimeNs now_ns) {
    idle_.push_back({std::move(connection), now_ns});
    if (idle_.size() <= options_.max) return std::nullopt;
    return TakeOldest();
  }

  // How many to open now. None when nobody took one for as long as one may wait: what goes then is
  // not replaced until somebody does.
  size_t Wanted() const {
    const size_t coming = idle_.size() + opening_;
    return is_used_ && coming < target_ ? target_ - coming : 0;
  }
  void OnOpening(size_t count) { opening_ += count; }
  void OnOpened() { --opening_; }         // Put() follows, or a flow has it at once
  void OnOpenFailed() { --opening_; }     // when to try again is the owner's to say
  void ForgetOpening() { opening_ = 0; }  // those under way were given up

  // Those for which `is_closed(const T&)` holds: their server has closed them.
  template <typename Predicate>
  std::vector<T> Remove(Predicate is_closed) {
    std::vector<T> removed;
    std::deque<Idle> kept;
    for (Idle& one : idle_) {
      if (is_closed(std::as_const(one.connection))) {
        removed.push_back(std::move(one.connection));
      } else {
        kept.push_back(std::move(one));
      }
    }
    idle_ = std::move(kept);
    totals_.stale += removed.size();
    return removed;
  }

  // When NextCleanup() has come. Those that are let go.
  std::vector<T> Cleanup(TimeNs now_ns) {
    std::vector<T> expired;
    while (!idle_.empty() && now_ns - idle_.front().since_ns > options_.idle_ns) {
      expired.push_back(TakeOldest());
    }
    totals_.expired += expired.size();
    if (!std::exchange(is_needed_, false)) Lower();
    is_used_ = now_ns - used_ns_ <= options_.idle_ns;
    next_cleanup_ns_ = now_ns + options_.cleanup_ns;
    return expired;
  }
  TimeNs NextCleanup() const { return next_cleanup_ns_; }

  size_t idle() const { return idle_.size(); }
  size_t opening() const { return opening_; }
  size_t target() const { return target_; }
  const Totals& totals() const { return totals_; }

 private:
  struct Idle {
    T connection;
    TimeNs since_ns;
  };

  void Raise() {
    is_needed_ = true;
    asked_ = 0;
    target_ = std::min(target_ + std::max(target_ / 2, size_t{1}), options_.max);
  }
  void Lower() {
    if (target_ <= options_.initial) return;
    target_ = std::max(target_ - std::max(target_ / 3, size_t{1}), options_.initial);
  }

  T TakeOldest() {
    T oldest = std::move(idle_.front().connection);
    idle_.pop_front();
    return oldest;
  }

  const Options options_;
  std::deque<Idle> idle_;  // the oldest is first
  size_t opening_ = 0;
  size_t target_;
  size_t asked_ = 0;        // Take()s since it was raised
  bool is_needed_ = false;  // since the last cleanup
  TimeNs used_ns_;          // when somebody wanted one last, whether or not there was one
  bool is_used_ = true;
  TimeNs next_cleanup_ns_;
  Totals totals_;
};

}  // namespace braid
