// Choices among upstreams: by each strategy, by what is known of them, and none that may not be; as
// a plain list of flows would have it.
#include "egress/upstream_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace braid::upstream_choice_test {
namespace {

using ::testing::ElementsAre;
using Attempt = UpstreamChoice::Attempt;
using Options = UpstreamChoice::Options;
using Set = UpstreamChoice::Set;
using State = CircuitBreaker::State;
using Strategy = UpstreamChoice::Strategy;

UpstreamChoice Make(Strategy strategy, const std::vector<int>& weights) {
  return UpstreamChoice({.strategy = strategy, .breaker = {}}, weights);
}

// `count` choices: "a" is the first upstream, and so on; "-" where there was none.
std::string Chosen(UpstreamChoice& choice, int count, TimeNs now_ns = 0) {
  std::string chosen;
  for (int i = 0; i < count; ++i) {
    const auto index = choice.Choose(now_ns, {});
    chosen += index ? static_cast<char>('a' + *index) : '-';
  }
  return chosen;
}

void Fail(UpstreamChoice& choice, size_t index, int times, TimeNs now_ns) {
  for (int i = 0; i < times; ++i) {
    choice.OnFailed(index, choice.OnBegin(index, now_ns), now_ns);
  }
}

// Connects, and ends at once.
void Succeed(UpstreamChoice& choice, size_t index, DurationNs latency_ns, TimeNs now_ns) {
  choice.OnConnected(index, choice.OnBegin(index, now_ns), latency_ns, now_ns);
  choice.OnEnded(index);
}

void OpenBreaker(UpstreamChoice& choice, size_t index, TimeNs now_ns) {
  Fail(choice, index, CircuitBreaker::Options{}.failures, now_ns);
  ASSERT_EQ(choice.Figures(index, now_ns).breaker, State::kOpen);
}

double Weight(const UpstreamChoice& choice, size_t index, TimeNs now_ns = 0) {
  return choice.Figures(index, now_ns).weight_now;
}

TEST(UpstreamChoice, AGroupOfNoneHasNoChoice) {
  for (const Strategy strategy :
       {Strategy::kRoundRobin, Strategy::kLeastConnections, Strategy::kWeighted}) {
    UpstreamChoice choice = Make(strategy, {});
    EXPECT_EQ(Chosen(choice, 2), "--");
  }
}

TEST(UpstreamChoice, RoundRobinIsEachInTurnWhateverItsWeight) {
  UpstreamChoice choice = Make(Strategy::kRoundRobin, {1, 1000, 1});
  EXPECT_EQ(Chosen(choice, 7), "abcabca");
  choice.SetHealth(2, false, std::nullopt, 0);
  EXPECT_EQ(Chosen(choice, 4), "baba");
  choice.SetHealth(2, true, std::nullopt, 0);
  EXPECT_EQ(Chosen(choice, 4), "bcab");
}

TEST(UpstreamChoice, ManyTurnsAreSharedEqually) {
  UpstreamChoice choice = Make(Strategy::kRoundRobin, std::vector<int>(64, 1));
  std::vector<int> times(64);
  for (int i = 0; i < 64 * 100; ++i) ++times[*choice.Choose(0, {})];
  EXPECT_THAT(times, ::testing::Each(100));
}

// The example with which nginx introduced it.
TEST(UpstreamChoice, WeightsAreSpreadSmoothly) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {5, 1, 1});
  EXPECT_EQ(Chosen(choice, 14), "aabacaaaabacaa");
}

TEST(UpstreamChoice, WeightsAreKeptExactly) {
  const std::vector<int> weights = {1000, 1, 7, 250, 333, 1};
  UpstreamChoice choice = Make(Strategy::kWeighted, weights);
  int sum = 0;
  for (const int weight : weights) sum += weight;
  std::vector<int> times(weights.size());
  for (int round = 1; round <= 5; ++round) {
    for (int i = 1; i <= sum; ++i) {
      ++times[*choice.Choose(0, {})];
      // Never far from its share either.
      for (size_t index = 0; index < weights.size(); ++index) {
        const double share = (sum * (round - 1.0) + i) * weights[index] / sum;
        ASSERT_LT(std::abs(times[index] - share), 2) << index;
      }
    }
    for (size_t index = 0; index < weights.size(); ++index) {
      ASSERT_EQ(times[index], weights[index] * round) << index;
    }
  }
}

TEST(UpstreamChoice, WeightsCountAmongThoseThatAreUp) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {4, 2, 1});
  choice.SetHealth(0, false, std::nullopt, 0);
  EXPECT_EQ(Chosen(choice, 6), "bcbbcb");
}

TEST(UpstreamChoice, LeastConnectionsLooksAtOpenOnesByWeight) {
  UpstreamChoice choice = Make(Strategy::kLeastConnections, {2, 1, 1});
  std::vector<uint64_t> open(3);
  for (int i = 0; i < 400; ++i) {
    const size_t index = *choice.Choose(0, {});
    choice.OnConnected(index, choice.OnBegin(index, 0), kMillisecondNs, 0);
    ++open[index];
  }
  EXPECT_THAT(open, ElementsAre(200, 100, 100));
  // One that loses connections gets the next.
  for (int i = 0; i < 10; ++i) choice.OnEnded(1);
  EXPECT_EQ(choice.Figures(1, 0).open, 90u);
  for (int i = 0; i < 9; ++i) {
    ASSERT_EQ(choice.Choose(0, {}), 1u);
    choice.OnBegin(1, 0);
  }
}

TEST(UpstreamChoice, ConnectionsUnderWayAreOpenOnes) {
  UpstreamChoice choice = Make(Strategy::kLeastConnections, {1, 1});
  const size_t first = *choice.Choose(0, {});
  choice.OnBegin(first, 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(choice.Choose(0, {}), 1 - first);
}

TEST(UpstreamChoice, OfThoseWithEquallyManyEachHasItsTurn) {
  UpstreamChoice choice = Make(Strategy::kLeastConnections, {3, 3, 3});
  EXPECT_EQ(Chosen(choice, 6), "abcabc");
}

TEST(UpstreamChoice, OneThatFailsAtOnceDoesNotGetAllForHavingNoneOpen) {
  Options options{.strategy = Strategy::kLeastConnections, .breaker = {}};
  options.breaker.failures = 1'000'000;  // it is not the breaker that helps
  UpstreamChoice choice(options, {1000, 1});
  for (int i = 0; i < 10; ++i) {
    const size_t index = *choice.Choose(0, {});
    const Attempt attempt = choice.OnBegin(index, 0);
    if (index == 0) {
      choice.OnFailed(index, attempt, 0);
    } else {
      choice.OnConnected(index, attempt, kMillisecondNs, 0);
    }
  }
  EXPECT_EQ(choice.Figures(0, 0).failed, 1u);
  EXPECT_EQ(choice.Figures(1, 0).open, 9u);
}

TEST(UpstreamChoice, OfThoseWithTheFewestTheOnesThatHaveFailedLatelyComeLast) {
  UpstreamChoice choice = Make(Strategy::kLeastConnections, {1, 1000, 1000});
  for (int i = 0; i < 100; ++i) choice.OnBegin(0, 0);
  Fail(choice, 1, 1, 0);
  Fail(choice, 2, 2, 0);
  EXPECT_EQ(Chosen(choice, 5), "aaaaa");
  // They are chosen where nothing else is: by their connections and what their weights are now.
  EXPECT_EQ(choice.Choose(0, Set(0b001)), 1u);
  EXPECT_EQ(choice.Choose(0, Set(0b011)), 2u);
  choice.SetHealth(0, false, std::nullopt, 0);
  EXPECT_EQ(Chosen(choice, 5), "bbbbb");
  choice.SetHealth(0, true, std::nullopt, 0);
  // Each comes back when its failures are forgotten, or outweighed.
  EXPECT_EQ(Chosen(choice, 3, 30 * kSecondNs - 1), "aaa");
  EXPECT_EQ(Chosen(choice, 3, 30 * kSecondNs), "bbb");
  Succeed(choice, 2, kMillisecondNs, 30 * kSecondNs);
  EXPECT_EQ(Chosen(choice, 4, 30 * kSecondNs), "cbcb");
}

TEST(UpstreamChoice, OtherStrategiesGiveThoseThatHaveFailedLatelyTheirTurns) {
  UpstreamChoice in_turn = Make(Strategy::kRoundRobin, {1, 1});
  Fail(in_turn, 0, 3, 0);
  EXPECT_EQ(Chosen(in_turn, 4), "abab");
  UpstreamChoice weighted = Make(Strategy::kWeighted, {3, 1});
  Fail(weighted, 0, 1, 0);  // 3 / 2
  EXPECT_EQ(Chosen(weighted, 5), "ababa");
}

TEST(UpstreamChoice, EachRecentFailureHalvesTheWeightAndEachSuccessDoublesIt) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {8, 8});
  for (const double weight : {4.0, 2.0, 1.0, 1.0}) {
    Fail(choice, 0, 1, 0);
    EXPECT_EQ(Weight(choice, 0), weight);
  }
  EXPECT_EQ(Weight(choice, 1), 8);
  for (const double weight : {2.0, 4.0, 8.0, 8.0}) {
    Succeed(choice, 0, kMillisecondNs, 0);
    EXPECT_EQ(Weight(choice, 0), weight);
  }
}

TEST(UpstreamChoice, FailuresAreForgottenOneEachHalfMinute) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {8});
  const TimeNs begin_ns = 7 * kSecondNs;
  Fail(choice, 0, 3, begin_ns);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 30 * kSecondNs - 1), 1);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 30 * kSecondNs), 2);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 60 * kSecondNs), 4);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 90 * kSecondNs), 8);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 36'000 * kSecondNs), 8);
  // A new one counts with those that are not forgotten.
  Fail(choice, 0, 1, begin_ns + 60 * kSecondNs);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 60 * kSecondNs), 2);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 89 * kSecondNs), 2);
  // And the half minute begins anew with whatever is seen of it.
  Succeed(choice, 0, kMillisecondNs, begin_ns + 89 * kSecondNs);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 118 * kSecondNs), 4);
  EXPECT_EQ(Weight(choice, 0, begin_ns + 119 * kSecondNs), 8);
}

TEST(UpstreamChoice, OneThatIsSlowerThanTheBestWeighsLess) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {16, 16, 16, 16});
  Succeed(choice, 0, 10 * kMillisecondNs, 0);
  Succeed(choice, 1, 40 * kMillisecondNs, 0);
  Succeed(choice, 2, 10 * kSecondNs, 0);
  EXPECT_EQ(Weight(choice, 0), 16);
  EXPECT_EQ(Weight(choice, 1), 4);
  EXPECT_EQ(Weight(choice, 2), 2) << "no less than an eighth";
  EXPECT_EQ(Weight(choice, 3), 16) << "nobody knows";
  // Who is not chosen is no measure for others.
  choice.SetHealth(0, false, std::nullopt, 0);
  EXPECT_EQ(Weight(choice, 0), 0);
  EXPECT_EQ(Weight(choice, 1), 16);
}

TEST(UpstreamChoice, TheWeightAsItIsNowSharesFlows) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {16, 8, 8});
  Succeed(choice, 0, 80 * kMillisecondNs, 0);  // 16 / 8
  Succeed(choice, 1, 10 * kMillisecondNs, 0);
  Fail(choice, 2, 1, 0);  // 8 / 2
  std::vector<int> times(3);
  for (int i = 0; i < 140; ++i) ++times[*choice.Choose(0, {})];
  EXPECT_THAT(times, ElementsAre(20, 80, 40));
}

TEST(UpstreamChoice, TheBestIsTheMeasureAlsoForAFlowThatHasTriedIt) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {1, 1, 1});
  Succeed(choice, 0, kMillisecondNs, 0);
  Succeed(choice, 1, 8 * kMillisecondNs, 0);
  Succeed(choice, 2, 80 * kMillisecondNs, 0);  // an eighth, too
  std::vector<int> times(3);
  for (int i = 0; i < 20; ++i) ++times[*choice.Choose(0, Set(0b001))];
  EXPECT_THAT(times, ElementsAre(0, 10, 10));
}

TEST(UpstreamChoice, LatenciesAreSmoothedAndForgotten) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {8, 8});
  choice.SetHealth(0, true, 8 * kMillisecondNs, 0);
  EXPECT_EQ(choice.Figures(0, 0).latency_ns, 8 * kMillisecondNs);
  Succeed(choice, 0, 16 * kMillisecondNs, kSecondNs);
  EXPECT_EQ(choice.Figures(0, kSecondNs).latency_ns, 9 * kMillisecondNs);
  choice.SetHealth(0, true, std::nullopt, 2 * kSecondNs);
  EXPECT_EQ(choice.Figures(0, 61 * kSecondNs - 1).latency_ns, 9 * kMillisecondNs);
  EXPECT_EQ(choice.Figures(0, 61 * kSecondNs).latency_ns, 0u);
  // And the next one is the first.
  Succeed(choice, 0, 2 * kMillisecondNs, 61 * kSecondNs);
  EXPECT_EQ(choice.Figures(0, 61 * kSecondNs).latency_ns, 2 * kMillisecondNs);
}

TEST(UpstreamChoice, NoTimeAtAllIsALatency) {
  UpstreamChoice choice = Make(Strategy::kWeighted, {8, 8});
  Succeed(choice, 0, 0, 0);
  Succeed(choice, 0, 0, 0);
  Succeed(choice, 1, kSecondNs, 0);
  EXPECT_EQ(choice.Figures(0, 0).latency_ns, 1u);
  EXPECT_EQ(Weight(choice, 0), 8);
  EXPECT_EQ(Weight(choice, 1), 1);
}

TEST(UpstreamChoice, OneThatWasSlowOnceIsTriedAgain) {
  UpstreamChoice choice = Make(Strategy::kLeastConnections, {1, 1});
  Succeed(choice, 0, kMillisecondNs, 0);
  Succeed(choice, 1, kSecondNs, 0);
  EXPECT_EQ(Chosen(choice, 5), "aaaaa");
  Succeed(choice, 0, kMillisecondNs, 60 * kSecondNs);
  EXPECT_THAT(Chosen(choice, 2, 60 * kSecondNs), ::testing::HasSubstr("b"));
}

TEST(UpstreamChoice, WhatWasTriedIsNotTriedAgain) {
  for (const Strategy strategy :
       {Strategy::kRoundRobin, Strategy::kLeastConnections, Strategy::kWeighted}) {
    UpstreamChoice choice = Make(strategy, {1000, 1, 1, 1});
    choice.SetHealth(2, false, std::nullopt, 0);
    for (int flow = 0; flow < 50; ++flow) {
      Set tried;
      for (size_t tries = 0; tries < 4; ++tries) {
        const auto index = choice.Choose(0, tried);
        ASSERT_TRUE(index);
        ASSERT_FALSE(tried[*index]);
        ASSERT_EQ(*index == 2, tries == 3) << "the one that is down comes last";
        tried.set(*index);
      }
      EXPECT_FALSE(choice.Choose(0, tried));
    }
  }
}

TEST(UpstreamChoice, WhenAllAreDownTheyAreTriedInOrder) {
  UpstreamChoice choice = Make(Strategy::kRoundRobin, {1, 1, 1});
  for (size_t index = 0; index < 3; ++index) choice.SetHealth(index, false, std::nullopt, 0);
  EXPECT_EQ(Chosen(choice, 3), "aaa");
  EXPECT_EQ(choice.Choose(0, Set(0b001)), 1u);
  EXPECT_EQ(choice.Choose(0, Set(0b011)), 2u);
  EXPECT_FALSE(choice.Choose(0, Set(0b111)));
  OpenBreaker(choice, 0, 0);
  EXPECT_EQ(Chosen(choice, 2), "bb");
  OpenBreaker(choice, 1, 0);
  OpenBreaker(choice, 2, 0);
  EXPECT_EQ(Chosen(choice, 2), "--");
  choice.SetHealth(1, true, std::nullopt, 0);
  EXPECT_EQ(Chosen(choice, 2), "bb") << "it was checked, so one may try";
}

TEST(UpstreamChoice, ABreakerKeepsFlowsAwayAndLetsOneTry) {
  UpstreamChoice choice = Make(Strategy::kRoundRobin, {1, 1});
  OpenBreaker(choice, 0, 0);
  EXPECT_EQ(choice.Figures(0, 0).breaker_opened, 1u);
  EXPECT_EQ(Weight(choice, 0), 0);
  EXPECT_EQ(Chosen(choice, 3, 9 * kSecondNs), "bbb");
  const TimeNs now_ns = 10 * kSecondNs;
  EXPECT_EQ(choice.Figures(0, now_ns).breaker, State::kHalfOpen);
  ASSERT_EQ(choice.Choose(now_ns, {}), 0u);
  Attempt trial = choice.OnBegin(0, now_ns);
  EXPECT_EQ(Chosen(choice, 3, now_ns), "bbb") << "the trial is under way";
  choice.OnAbandoned(0, trial);
  EXPECT_EQ(choice.Figures(0, now_ns).open, 0u);
  ASSERT_EQ(choice.Choose(now_ns, {}), 0u);
  Succeed(choice, 0, kMillisecondNs, now_ns);
  Succeed(choice, 0, kMillisecondNs, now_ns);
  EXPECT_EQ(choice.Figures(0, now_ns).breaker, State::kClosed);
  EXPECT_EQ(Chosen(choice, 4, now_ns), "baba");
}

TEST(UpstreamChoice, AResultFromBeforeTheBreakerOpenedDoesNotCloseIt) {
  UpstreamChoice choice = Make(Strategy::kRoundRobin, {1});
  const Attempt slow = choice.OnBegin(0, 0), slower = choice.OnBegin(0, 0);
  OpenBreaker(choice, 0, 0);
  choice.OnConnected(0, slow, kMillisecondNs, kSecondNs);
  EXPECT_EQ(Chosen(choice, 1, kSecondNs), "-");
  EXPECT_EQ(Chosen(choice, 1, 10 * kSecondNs), "a");
  choice.OnFailed(0, slower, 10 * kSecondNs);
  EXPECT_EQ(Chosen(choice, 1, 10 * kSecondNs), "a");
  const UpstreamFigures figures = choice.Figures(0, 10 * kSecondNs);
  EXPECT_EQ(figures.open, 1u);
  EXPECT_EQ(figures.begun, 7u);
  EXPECT_EQ(figures.failed, 6u);
}

TEST(UpstreamChoice, AgreesWithAListOfFlows) {
  struct Flow {
    size_t index;
    Attempt attempt;
    Attempt expected;  // of the model
    bool connected = false;
  };
  struct Known {
    int weight = 1;
    bool up = true;
    CircuitBreaker breaker{CircuitBreaker::Options{}};
    uint64_t begun = 0, failed = 0;
  };
  std::mt19937 random(11);
  std::optional<UpstreamChoice> another;
  std::vector<Known> known;
  std::vector<Flow> flows;
  TimeNs now_ns = 0;
  int refused = 0, last_resorts = 0, opened = 0;
  const auto begin_anew = [&] {
    std::vector<int> weights(random() % 9);
    for (int& weight : weights) weight = 1 + static_cast<int>(random() % 1000);
    another.emplace(Options{.strategy = static_cast<Strategy>(random() % 3), .breaker = {}},
                    weights);
    known.clear();
    for (const int weight : weights) known.push_back({.weight = weight});
    flows.clear();
  };
  for (int i = 0; i < 100'000; ++i) {
    if (i % 1000 == 0) begin_anew();
    UpstreamChoice& choice = *another;
    if (random() % 4 == 0) now_ns += random() % (4 * kSecondNs);
    if (choice.size() > 0 && random() % 10 == 0) {
      const size_t index = random() % choice.size();
      const bool up = random() % 3 != 0;
      choice.SetHealth(index, up, random() % kSecondNs, now_ns);
      if (up) known[index].breaker.OnChecked(now_ns);
      known[index].up = up;
    }
    if (random() % 2 == 0) {
      const Set tried(random() % 256 & random());
      bool some_allowed = false, some_usable = false;
      for (size_t index = 0; index < choice.size(); ++index) {
        const Known& one = known[index];
        const bool allowed = !tried[index] && one.breaker.Allows(now_ns);
        some_allowed |= allowed;
        some_usable |= allowed && one.up;
      }
      const auto index = choice.Choose(now_ns, tried);
      ASSERT_EQ(index.has_value(), some_allowed);
      refused += !some_allowed;
      if (!index) continue;
      ASSERT_LT(*index, choice.size());
      ASSERT_FALSE(tried[*index]);
      Known& one = known[*index];
      ASSERT_TRUE(one.breaker.Allows(now_ns));
      ASSERT_EQ(one.up, some_usable);
      last_resorts += !some_usable;
      ++one.begun;
      flows.push_back({*index, choice.OnBegin(*index, now_ns), one.breaker.Begin(now_ns)});
    } else if (!flows.empty()) {
      std::swap(flows[random() % flows.size()], flows.back());
      Flow& flow = flows.back();
      Known& one = known[flow.index];
      // Long times in which most fail, others in which most work.
      const unsigned works_percent = (i / 3000) % 2 == 0 ? 15 : 80;
      if (flow.connected) {
        choice.OnEnded(flow.index);
      } else if (random() % 100 < works_percent) {
        choice.OnConnected(flow.index, flow.attempt, random() % kSecondNs, now_ns);
        one.breaker.OnSuccess(flow.expected);
        flow.connected = true;
        continue;
      } else if (random() % 10 == 0) {
        choice.OnAbandoned(flow.index, flow.attempt);
        one.breaker.OnAbandoned(flow.expected);
      } else {
        choice.OnFailed(flow.index, flow.attempt, now_ns);
        one.breaker.OnFailure(flow.expected, now_ns);
        ++one.failed;
      }
      flows.pop_back();
    }
    for (size_t index = 0; index < choice.size(); ++index) {
      const UpstreamFigures figures = choice.Figures(index, now_ns);
      const Known& one = known[index];
      const auto open = std::count_if(flows.begin(), flows.end(),
                                      [&](const Flow& flow) { return flow.index == index; });
      ASSERT_EQ(figures.open, static_cast<uint64_t>(open));
      ASSERT_EQ(figures.begun, one.begun);
      ASSERT_EQ(figures.failed, one.failed);
      ASSERT_EQ(figures.up, one.up);
      ASSERT_EQ(figures.breaker, one.breaker.StateAt(now_ns));
      if (one.up && one.breaker.Allows(now_ns)) {
        ASSERT_GE(figures.weight_now, one.weight / 64.0 - 0.001);
        ASSERT_LE(figures.weight_now, one.weight);
      } else {
        ASSERT_EQ(figures.weight_now, 0);
      }
      opened += figures.breaker == State::kOpen;
    }
  }
  EXPECT_GT(refused, 100) << "the walk has not been everywhere";
  EXPECT_GT(last_resorts, 100);
  EXPECT_GT(opened, 100);
}

}  // namespace
}  // namespace braid::upstream_choice_test
