#include "egress/circuit_breaker.h"

#include <algorithm>
#include <utility>

namespace braid {

bool CircuitBreaker::Allows(TimeNs now_ns) const {
  switch (StateAt(now_ns)) {
    case State::kClosed:
      return true;
    case State::kOpen:
      return false;
    case State::kHalfOpen:
      return trials_ < options_.trials;
  }
  return false;
}

CircuitBreaker::Attempt CircuitBreaker::Begin(TimeNs now_ns) {
  if (StateAt(now_ns) != state_) Enter(State::kHalfOpen);
  const bool is_trial = state_ == State::kHalfOpen;
  if (is_trial) ++trials_;
  return {generation_, is_trial};
}

void CircuitBreaker::OnReached(Attempt& attempt) {
  if (std::exchange(attempt.is_trial, false) && Counts(attempt)) --trials_;
}

void CircuitBreaker::OnSuccess(Attempt attempt) {
  if (!Counts(attempt)) return;
  failures_ = 0;
  if (state_ == State::kClosed) return;
  if (attempt.is_trial) --trials_;
  if (++successes_ >= options_.successes) Enter(State::kClosed);
}

void CircuitBreaker::OnFailure(Attempt attempt, TimeNs now_ns) {
  if (!Counts(attempt)) return;
  if (state_ == State::kHalfOpen || ++failures_ >= options_.failures) Open(now_ns);
}

void CircuitBreaker::OnAbandoned(Attempt attempt) {
  if (Counts(attempt) && attempt.is_trial) --trials_;
}

void CircuitBreaker::OnChecked(TimeNs now_ns) {
  const bool has_failed_trial = open_for_ns_ > options_.open_ns;
  if (!has_failed_trial) open_until_ns_ = std::min(open_until_ns_, now_ns);
}

CircuitBreaker::State CircuitBreaker::StateAt(TimeNs now_ns) const {
  return state_ == State::kOpen && now_ns >= open_until_ns_ ? State::kHalfOpen : state_;
}

void CircuitBreaker::Enter(State state) {
  state_ = state;
  ++generation_;
  failures_ = 0;
  trials_ = 0;
  successes_ = 0;
}

void CircuitBreaker::Open(TimeNs now_ns) {
  open_for_ns_ = state_ == State::kClosed
                     ? options_.open_ns
                     : std::min(2 * open_for_ns_, kMostOpenTimes * options_.open_ns);
  open_until_ns_ = now_ns + open_for_ns_;
  ++times_opened_;
  Enter(State::kOpen);
}

}  // namespace braid
