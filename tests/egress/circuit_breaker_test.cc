// Opens after failures in a row, tries again after a while, closes when that works; and what comes
// late counts nothing. As a plain list of attempts would have it.
#include "egress/circuit_breaker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <random>
#include <vector>

namespace braid::circuit_breaker_test {
namespace {

using State = CircuitBreaker::State;
using Attempt = CircuitBreaker::Attempt;

constexpr CircuitBreaker::Options kOptions = {
    .failures = 3, .open_ns = 10 * kSecondNs, .trials = 1, .successes = 2};

void Fail(CircuitBreaker& breaker, int times, TimeNs now_ns) {
  for (int i = 0; i < times; ++i) breaker.OnFailure(breaker.Begin(now_ns), now_ns);
}

void Succeed(CircuitBreaker& breaker, int times, TimeNs now_ns) {
  for (int i = 0; i < times; ++i) breaker.OnSuccess(breaker.Begin(now_ns));
}

TEST(CircuitBreaker, OpensAfterSoManyFailuresInARow) {
  CircuitBreaker breaker(kOptions);
  Fail(breaker, 2, 0);
  Succeed(breaker, 1, 0);
  Fail(breaker, 2, 0);
  EXPECT_EQ(breaker.StateAt(0), State::kClosed);
  EXPECT_TRUE(breaker.Allows(0));
  EXPECT_EQ(breaker.times_opened(), 0u);
  Fail(breaker, 1, 0);
  EXPECT_EQ(breaker.StateAt(0), State::kOpen);
  EXPECT_FALSE(breaker.Allows(0));
  EXPECT_EQ(breaker.times_opened(), 1u);
}

TEST(CircuitBreaker, WhileTheClockStandsStillItStaysOpen) {
  CircuitBreaker breaker(kOptions);
  Fail(breaker, 3, 5);
  for (int i = 0; i < 1000; ++i) ASSERT_FALSE(breaker.Allows(5));
  EXPECT_FALSE(breaker.Allows(5 + 10 * kSecondNs - 1));
  EXPECT_TRUE(breaker.Allows(5 + 10 * kSecondNs));
}

TEST(CircuitBreaker, WhileTheClockStandsStillTrialsMayCloseIt) {
  CircuitBreaker breaker(kOptions);
  Fail(breaker, 3, 0);
  Succeed(breaker, 2, 10 * kSecondNs);
  EXPECT_EQ(breaker.StateAt(10 * kSecondNs), State::kClosed);
}

TEST(CircuitBreaker, WhenItsTimeIsOverOneTrialAtATimeMayBegin) {
  CircuitBreaker breaker(kOptions);
  Fail(breaker, 3, 0);
  const TimeNs now_ns = 10 * kSecondNs;
  EXPECT_EQ(breaker.StateAt(now_ns), State::kHalfOpen);
  const Attempt first = breaker.Begin(now_ns);
  EXPECT_EQ(breaker.StateAt(now_ns), State::kHalfOpen);
  EXPECT_FALSE(breaker.Allows(now_ns));
  EXPECT_FALSE(breaker.Allows(now_ns + 3600 * kSecondNs)) << "the trial is still under way";
  breaker.OnSuccess(first);
  EXPECT_EQ(breaker.StateAt(now_ns), State::kHalfOpen) << "two are wanted";
  ASSERT_TRUE(breaker.Allows(now_ns));
  breaker.OnSuccess(breaker.Begin(now_ns));
  EXPECT_EQ(breaker.StateAt(now_ns), State::kClosed);
  EXPECT_EQ(breaker.times_opened(), 1u);
}

TEST(CircuitBreaker, AsManyTrialsAsMayBeUnderWay) {
  CircuitBreaker::Options options = kOptions;
  options.trials = 3;
  CircuitBreaker breaker(options);
  Fail(breaker, 3, 0);
  const TimeNs now_ns = 10 * kSecondNs;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(breaker.Allows(now_ns));
    breaker.Begin(now_ns);
  }
  EXPECT_FALSE(breaker.Allows(now_ns));
}

TEST(CircuitBreaker, OneTrialThatFailsOpensItAndTheOthersCountNoMore) {
  CircuitBreaker::Options options = kOptions;
  options.trials = 3;
  CircuitBreaker breaker(options);
  Fail(breaker, 3, 0);
  const TimeNs now_ns = 10 * kSecondNs;
  const Attempt first = breaker.Begin(now_ns), second = breaker.Begin(now_ns),
                third = breaker.Begin(now_ns);
  breaker.OnSuccess(first);
  breaker.OnFailure(second, now_ns);
  EXPECT_EQ(breaker.StateAt(now_ns), State::kOpen);
  EXPECT_EQ(breaker.times_opened(), 2u);
  breaker.OnSuccess(third);
  EXPECT_EQ(breaker.StateAt(now_ns), State::kOpen);
  // Nor did the trial that worked before it opened again.
  Succeed(breaker, 1, now_ns + 20 * kSecondNs);
  EXPECT_EQ(breaker.StateAt(now_ns + 20 * kSecondNs), State::kHalfOpen);
}

TEST(CircuitBreaker, AnAttemptFromBeforeItOpenedNeitherClosesNorReopensIt) {
  CircuitBreaker breaker(kOptions);
  std::vector<Attempt> slow;
  for (int i = 0; i < 8; ++i) slow.push_back(breaker.Begin(0));
  Fail(breaker, 3, 0);
  const auto say_late = [&](TimeNs now_ns) {
    const auto allowed = breaker.Allows(now_ns);
    const State state = breaker.StateAt(now_ns);
    const uint64_t opened = breaker.times_opened();
    for (int i = 0; i < 3; ++i) breaker.OnSuccess(slow[0]);
    for (int i = 0; i < 3; ++i) breaker.OnFailure(slow[1], now_ns);
    breaker.OnAbandoned(slow[2]);
    EXPECT_EQ(breaker.StateAt(now_ns), state);
    EXPECT_EQ(breaker.Allows(now_ns), allowed);
    EXPECT_EQ(breaker.times_opened(), opened);
  };
  say_late(1);               // open
  say_late(10 * kSecondNs);  // half open, but nobody has tried
  const Attempt trial = breaker.Begin(10 * kSecondNs);
  say_late(10 * kSecondNs);  // half open
  EXPECT_FALSE(breaker.Allows(10 * kSecondNs));
  breaker.OnSuccess(trial);
  Succeed(breaker, 1, 10 * kSecondNs);
  ASSERT_EQ(breaker.StateAt(10 * kSecondNs), State::kClosed);
  say_late(10 * kSecondNs);  // closed again
  Fail(breaker, 2, 10 * kSecondNs);
  breaker.OnSuccess(slow[3]);
  Fail(breaker, 1, 10 * kSecondNs);
  EXPECT_EQ(breaker.StateAt(10 * kSecondNs), State::kOpen) << "a late success is none in the row";
}

TEST(CircuitBreaker, StaysOpenTwiceAsLongEachTimeUntilItIsClosed) {
  CircuitBreaker breaker(kOptions);
  TimeNs now_ns = 0;
  Fail(breaker, 3, now_ns);
  for (const DurationNs times : {1u, 2u, 4u, 8u, 8u, 8u}) {
    EXPECT_FALSE(breaker.Allows(now_ns + times * 10 * kSecondNs - 1)) << times;
    now_ns += times * 10 * kSecondNs;
    ASSERT_TRUE(breaker.Allows(now_ns)) << times;
    Fail(breaker, 1, now_ns);
    EXPECT_FALSE(breaker.Allows(now_ns));
  }
  EXPECT_EQ(breaker.times_opened(), 7u);
  now_ns += 80 * kSecondNs;
  Succeed(breaker, 2, now_ns);
  ASSERT_EQ(breaker.StateAt(now_ns), State::kClosed);
  Fail(breaker, 3, now_ns);
  EXPECT_FALSE(breaker.Allows(now_ns + 10 * kSecondNs - 1));
  EXPECT_TRUE(breaker.Allows(now_ns + 10 * kSecondNs));
}

TEST(CircuitBreaker, ACheckThatWorksEndsTheFirstTimeEarly) {
  CircuitBreaker breaker(kOptions);
  breaker.OnChecked(0);
  Fail(breaker, 2, 0);
  breaker.OnChecked(0);
  Fail(breaker, 1, 0);
  EXPECT_EQ(breaker.StateAt(1), State::kOpen) << "what was checked before says nothing";
  breaker.OnChecked(1);
  EXPECT_EQ(breaker.StateAt(1), State::kHalfOpen);
  Fail(breaker, 1, 1);
  breaker.OnChecked(2);
  EXPECT_EQ(breaker.StateAt(2), State::kOpen) << "a flow has just found otherwise";
  EXPECT_EQ(breaker.StateAt(1 + 20 * kSecondNs), State::kHalfOpen);
  Succeed(breaker, 2, 1 + 20 * kSecondNs);
  Fail(breaker, 3, 30 * kSecondNs);
  breaker.OnChecked(31 * kSecondNs);
  EXPECT_EQ(breaker.StateAt(31 * kSecondNs), State::kHalfOpen) << "it was closed since";
}

TEST(CircuitBreaker, ATrialThatTakesLongLeavesItsPlaceAndStillCounts) {
  CircuitBreaker breaker(kOptions);
  Fail(breaker, 3, 0);
  const TimeNs now_ns = 10 * kSecondNs;
  Attempt first = breaker.Begin(now_ns);
  EXPECT_FALSE(breaker.Allows(now_ns));
  breaker.OnReached(first);
  breaker.OnReached(first);
  EXPECT_TRUE(breaker.Allows(now_ns));
  const Attempt second = breaker.Begin(now_ns);
  EXPECT_FALSE(breaker.Allows(now_ns));
  breaker.OnSuccess(first);
  EXPECT_FALSE(breaker.Allows(now_ns)) << "the second one is still under way";
  breaker.OnSuccess(second);
  EXPECT_EQ(breaker.StateAt(now_ns), State::kClosed);
}

TEST(CircuitBreaker, OneThatWasAbandonedLeavesItsPlaceAndNothingElse) {
  CircuitBreaker breaker(kOptions);
  Fail(breaker, 2, 0);
  breaker.OnAbandoned(breaker.Begin(0));
  EXPECT_EQ(breaker.StateAt(0), State::kClosed);
  Fail(breaker, 1, 0);
  EXPECT_EQ(breaker.StateAt(0), State::kOpen) << "it is no success";
  const TimeNs now_ns = 10 * kSecondNs;
  for (int i = 0; i < 5; ++i) {
    const Attempt trial = breaker.Begin(now_ns);
    EXPECT_FALSE(breaker.Allows(now_ns));
    breaker.OnAbandoned(trial);
    EXPECT_EQ(breaker.StateAt(now_ns), State::kHalfOpen);
    EXPECT_TRUE(breaker.Allows(now_ns));
  }
}

TEST(CircuitBreaker, AnAttemptThatNeverBeganCountsNever) {
  CircuitBreaker breaker(kOptions);
  for (int i = 0; i < 10; ++i) breaker.OnFailure(Attempt{}, 0);
  EXPECT_EQ(breaker.StateAt(0), State::kClosed);
}

// Everything that a breaker is told, each with the number of the state in which it was begun.
TEST(CircuitBreaker, AgreesWithAListOfAttempts) {
  struct Begun {
    Attempt attempt;
    int in_state;
  };
  CircuitBreaker::Options options = kOptions;
  options.trials = 2;
  CircuitBreaker breaker(options);
  std::mt19937 random(5);
  std::vector<Begun> under_way;
  State state = State::kClosed;
  int states = 0, failures = 0, successes = 0;
  uint64_t opened = 0;
  DurationNs open_for_ns = 0;
  TimeNs now_ns = 0, open_until_ns = 0;
  const auto enter = [&](State to) {
    state = to;
    ++states;
    failures = successes = 0;
  };
  uint64_t closed_again = 0;
  for (int i = 0; i < 200'000; ++i) {
    if (random() % 4 == 0) now_ns += random() % (2 * kSecondNs);
    // Long times in which most fail, others in which most work.
    const unsigned failing_percent = (i / 500) % 2 == 0 ? 70 : 10;
    const bool time_is_over = state == State::kOpen && now_ns >= open_until_ns;
    const auto trials = std::count_if(under_way.begin(), under_way.end(),
                                      [&](const Begun& begun) { return begun.in_state == states; });
    const bool allows = state == State::kClosed || time_is_over ||
                        (state == State::kHalfOpen && trials < options.trials);
    ASSERT_EQ(breaker.Allows(now_ns), allows);
    ASSERT_EQ(breaker.StateAt(now_ns), time_is_over ? State::kHalfOpen : state);
    ASSERT_EQ(breaker.times_opened(), opened);
    if (under_way.empty() || random() % 2 == 0) {
      if (!allows || under_way.size() == 20) continue;
      if (time_is_over) enter(State::kHalfOpen);
      under_way.push_back({breaker.Begin(now_ns), states});
      continue;
    }
    const size_t which = random() % under_way.size();
    const Begun begun = under_way[which];
    under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(which));
    const bool counts = begun.in_state == states && state != State::kOpen;
    if (random() % 10 == 0) {
      breaker.OnAbandoned(begun.attempt);
    } else if (random() % 100 < failing_percent) {
      breaker.OnFailure(begun.attempt, now_ns);
      if (!counts || (state == State::kClosed && ++failures < options.failures)) continue;
      open_for_ns = state == State::kClosed ? options.open_ns
                                            : std::min(2 * open_for_ns, 8 * options.open_ns);
      open_until_ns = now_ns + open_for_ns;
      ++opened;
      enter(State::kOpen);
    } else {
      breaker.OnSuccess(begun.attempt);
      if (!counts) continue;
      failures = 0;
      if (state == State::kClosed || ++successes < options.successes) continue;
      enter(State::kClosed);
      ++closed_again;
    }
  }
  EXPECT_GT(opened, 100u) << "the walk has not been everywhere";
  EXPECT_GT(closed_again, 100u);
}

}  // namespace
}  // namespace braid::circuit_breaker_test
