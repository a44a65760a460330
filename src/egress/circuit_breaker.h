// Keeps new connections away from an upstream that failed several times in a row, and after a while
// tries it with a few (M. Nygard, Release It!, "Circuit Breaker"). Without a clock of its own; one
// thread.
//
//            failures in a row            its time is over, and one begins
//   closed ────────────────────► open ────────────────────────────────────► half open
//     ▲                           ▲              a trial fails               │    │
//     │                           └──────────────────────────────────────────┘    │
//     └───────────────────────────────────────────────────────────────────────────┘
//                                 enough trials succeed
//
// It stays open twice as long each time that a trial fails, up to eight times as long, until it has
// been closed. The first time is over early where somebody who has checked the upstream says that
// it works: it may only have had more to do than it could. After a trial that has failed a check
// says less than the trial did.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace braid {

class CircuitBreaker {
 public:
  struct Options {
    int failures = 5;                     // in a row, that open it
    DurationNs open_ns = 10 * kSecondNs;  // the first time
    int trials = 1;                       // that may be under way while it is half open
    int successes = 2;                    // of trials, that close it

    bool operator==(const Options&) const = default;
  };

  enum class State : uint8_t { kClosed, kOpen, kHalfOpen };

  // Counts only as long as the state in which it was begun lasts: what comes late of one from
  // before tells nothing of the upstream as it is now. The default one counts never.
  struct Attempt {
    uint64_t generation = 0;
    bool is_trial = false;  // and no other may be begun in its place
  };

  // All of the options are at least 1.
  explicit CircuitBreaker(const Options& options) : options_(options) {}

  // Whether a connection may be begun.
  bool Allows(TimeNs now_ns) const;
  // It is; where Allows() says so. It ends by one of the other three, once.
  Attempt Begin(TimeNs now_ns);
  // The upstream works as far as it has come, but how it ends may take long: if it is a trial,
  // another one may be begun.
  void OnReached(Attempt& attempt);
  void OnSuccess(Attempt attempt);
  void OnFailure(Attempt attempt, TimeNs now_ns);
  // Nothing was learnt of the upstream, as when the application gave up.
  void OnAbandoned(Attempt attempt);
  // Somebody who has checked it says that it works; see above.
  void OnChecked(TimeNs now_ns);

  // Half open also while no trial has begun yet, but may.
  State StateAt(TimeNs now_ns) const;
  uint64_t times_opened() const { return times_opened_; }

 private:
  static constexpr DurationNs kMostOpenTimes = 8;

  bool Counts(Attempt attempt) const {
    return attempt.generation == generation_ && state_ != State::kOpen;
  }
  void Enter(State state);
  void Open(TimeNs now_ns);

  Options options_;
  State state_ = State::kClosed;
  uint64_t generation_ = 1;  // counts the states that it was in
  // Of this state.
  int failures_ = 0;
  int trials_ = 0;  // under way
  int successes_ = 0;
  DurationNs open_for_ns_ = 0;  // when it opened last
  TimeNs open_until_ns_ = 0;
  uint64_t times_opened_ = 0;
};

}  // namespace braid
