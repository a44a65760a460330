// The search against paths of every size, with losses, outages and changes on the way. Time is the
// test's own.
#include "slowpath/mtu_search.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace braid::mtu_search_test {
namespace {

constexpr int kOverhead = 68;  // IPv4
constexpr DurationNs kTimeoutNs = 500 * kMillisecondNs;
constexpr DurationNs kRttNs = 50 * kMillisecondNs;
constexpr DurationNs kStepNs = 10 * kMillisecondNs;

class MtuSearchTest : public ::testing::Test {
 protected:
  // As a path does that carries `carries_`.
  void Run(DurationNs duration_ns) {
    for (const TimeNs end_ns = now_ns_ + duration_ns; now_ns_ < end_ns; now_ns_ += kStepNs) {
      while (!answers_.empty() && answers_.begin()->first <= now_ns_) {
        const MtuSearch::Probe probe = answers_.begin()->second;
        answers_.erase(answers_.begin());
        search_.OnProbed(probe.token, probe.mtu, now_ns_);
      }
      while (const auto probe = search_.Next(now_ns_, kTimeoutNs, [this] { return random_(); })) {
        ++sent_;
        const bool lost = std::uniform_real_distribution()(random_) < loss_;
        if (probe->mtu <= carries_ && !lost) answers_.emplace(now_ns_ + kRttNs, *probe);
      }
      if (search_.mtu() != 0) smallest_seen_ = std::min(smallest_seen_, search_.mtu());
    }
  }

  bool is_done() const { return search_.due_ns() > now_ns_ + MtuSearch::kTooSmallRetryNs; }

  MtuSearch search_;
  TimeNs now_ns_ = 1000 * kSecondNs;
  std::multimap<TimeNs, MtuSearch::Probe> answers_;
  std::mt19937_64 random_{7};
  uint16_t carries_ = 1432;
  double loss_ = 0;
  uint64_t sent_ = 0;
  uint16_t smallest_seen_ = UINT16_MAX;
};

TEST_F(MtuSearchTest, WhatTheLinkTakesIsMostlyFoundByOneRound) {
  search_.Start(1432, kOverhead, now_ns_);
  EXPECT_EQ(search_.mtu(), 0);
  Run(2 * kRttNs);
  EXPECT_EQ(search_.mtu(), 1432);
  EXPECT_EQ(smallest_seen_, 1432) << "it was not taken for less in between";
  EXPECT_TRUE(is_done());
  EXPECT_EQ(sent_, 3u);
}

TEST_F(MtuSearchTest, EverySizeIsFound) {
  for (uint16_t carries = kMinMtu; carries <= 1432; ++carries) {
    carries_ = carries;
    search_.Stop();
    answers_.clear();
    search_.Start(1432, kOverhead, now_ns_);
    Run(20 * kSecondNs);
    EXPECT_TRUE(is_done()) << carries;
    EXPECT_LE(search_.mtu(), carries);
    EXPECT_GT(search_.mtu() + 8, carries);
    EXPECT_FALSE(search_.too_small());
  }
}

TEST_F(MtuSearchTest, CommonSizesAreFoundExactlyAndSoon) {
  for (const uint16_t outer : {1492, 1480, 1460, 1420, 1400, 1350}) {
    carries_ = static_cast<uint16_t>(outer - kOverhead);
    search_.Stop();
    search_.Start(1432, kOverhead, now_ns_);
    // One round for the largest, and the answer to the next.
    Run(MtuSearch::kTries * kTimeoutNs + 5 * kRttNs);
    EXPECT_EQ(search_.mtu(), carries_) << outer;
    Run(20 * kSecondNs);
    EXPECT_EQ(search_.mtu(), carries_) << outer;
  }
}

TEST_F(MtuSearchTest, JumboFramesToo) {
  carries_ = 8000;
  search_.Start(65467, kOverhead, now_ns_);
  Run(60 * kSecondNs);
  EXPECT_TRUE(is_done());
  EXPECT_LE(search_.mtu(), 8000);
  EXPECT_GT(search_.mtu() + 8, 8000);
}

TEST_F(MtuSearchTest, APathThatCarriesTooLittleIsTold) {
  carries_ = kMinMtu - 1;
  search_.Start(1432, kOverhead, now_ns_);
  Run(3 * kSecondNs);
  EXPECT_TRUE(search_.too_small());
  EXPECT_EQ(search_.mtu(), 0);
  // It is looked at again and again, and used once it carries enough.
  Run(60 * kSecondNs);
  EXPECT_TRUE(search_.too_small());
  carries_ = 1400;
  Run(30 * kSecondNs);
  EXPECT_FALSE(search_.too_small());
  EXPECT_GT(search_.mtu() + 8, 1400);
  EXPECT_LE(search_.mtu(), 1400);
}

TEST_F(MtuSearchTest, ALinkThatTakesTooLittleNeedsNoProbe) {
  search_.Start(1279, kOverhead, now_ns_);
  EXPECT_TRUE(search_.too_small());
  Run(kSecondNs);
  EXPECT_EQ(sent_, 0u);
  search_.Start(1300, kOverhead, now_ns_);
  Run(kSecondNs);
  EXPECT_FALSE(search_.too_small());
  EXPECT_EQ(search_.mtu(), 1300);
}

TEST_F(MtuSearchTest, SilenceIsNoSize) {
  carries_ = 0;
  search_.Start(1432, kOverhead, now_ns_);
  Run(120 * kSecondNs);
  EXPECT_FALSE(search_.too_small());
  EXPECT_EQ(search_.mtu(), 0);
  carries_ = 1432;
  Run(5 * kSecondNs);
  EXPECT_EQ(search_.mtu(), 1432);
}

TEST_F(MtuSearchTest, AnOutageInTheMiddleDoesNotMakeThePathSmaller) {
  for (DurationNs after_ns = 0; after_ns < 8 * kSecondNs; after_ns += 130 * kMillisecondNs) {
    search_.Stop();
    answers_.clear();
    carries_ = 1410;
    search_.Start(1432, kOverhead, now_ns_);
    Run(after_ns);
    carries_ = 0;
    Run(3 * kSecondNs);
    carries_ = 1410;
    Run(30 * kSecondNs);
    EXPECT_TRUE(is_done());
    EXPECT_LE(search_.mtu(), 1410);
    EXPECT_GT(search_.mtu() + 8, 1410) << after_ns;
  }
}

TEST_F(MtuSearchTest, LossIsLivedWith) {
  loss_ = 0.1;
  int found = 0;
  for (int i = 0; i < 100; ++i) {
    search_.Stop();
    answers_.clear();
    search_.Start(1432, kOverhead, now_ns_);
    Run(30 * kSecondNs);
    found += search_.mtu() == 1432;
  }
  EXPECT_GE(found, 98);
}

TEST_F(MtuSearchTest, AWiderPathIsFoundInTenMinutes) {
  carries_ = 1332;
  search_.Start(1432, kOverhead, now_ns_);
  Run(30 * kSecondNs);
  EXPECT_EQ(search_.mtu(), 1332);
  carries_ = 1432;
  smallest_seen_ = UINT16_MAX;
  Run(MtuSearch::kRepeatNs - 60 * kSecondNs);
  EXPECT_EQ(search_.mtu(), 1332);
  Run(60 * kSecondNs);
  EXPECT_EQ(search_.mtu(), 1432);
  EXPECT_EQ(smallest_seen_, 1332) << "it did not become smaller for the search";
}

TEST_F(MtuSearchTest, ANarrowerPathIsFoundWhenItIsSuspectedOrInTenMinutes) {
  for (const bool suspected : {true, false}) {
    carries_ = 1432;
    search_.Stop();
    search_.Start(1432, kOverhead, now_ns_);
    Run(kSecondNs);
    carries_ = 1332;
    if (suspected) {
      search_.SuspectBlackHole(now_ns_);
      search_.SuspectBlackHole(now_ns_);  // while it looks already
    } else {
      Run(MtuSearch::kRepeatNs);
    }
    Run(15 * kSecondNs);
    EXPECT_EQ(search_.mtu(), 1332);
  }
}

TEST_F(MtuSearchTest, ASuspicionWithoutReasonChangesNothing) {
  search_.Start(1432, kOverhead, now_ns_);
  Run(kSecondNs);
  sent_ = 0;
  smallest_seen_ = UINT16_MAX;
  search_.SuspectBlackHole(now_ns_);
  Run(kSecondNs);
  EXPECT_EQ(search_.mtu(), 1432);
  EXPECT_EQ(smallest_seen_, 1432);
  EXPECT_TRUE(is_done());
  EXPECT_LE(sent_, 3u);
}

TEST_F(MtuSearchTest, NothingIsSentWhenItIsStopped) {
  Run(kSecondNs);
  search_.SuspectBlackHole(now_ns_);
  Run(kSecondNs);
  search_.Start(1432, kOverhead, now_ns_);
  search_.Stop();
  Run(MtuSearch::kRepeatNs);
  EXPECT_EQ(sent_, 0u);
  EXPECT_FALSE(search_.OnProbed(0, 1432, now_ns_));
}

TEST_F(MtuSearchTest, OnlyItsOwnTokenWithItsSizeIsAnAnswer) {
  search_.Start(1432, kOverhead, now_ns_);
  std::vector<MtuSearch::Probe> probes;
  while (const auto probe = search_.Next(now_ns_, kTimeoutNs, [this] { return random_(); })) {
    probes.push_back(*probe);
  }
  ASSERT_EQ(probes.size(), 3u);
  EXPECT_FALSE(search_.OnProbed(probes[1].token, 1432, now_ns_));
  EXPECT_FALSE(search_.OnProbed(probes[2].token + 1, 1432, now_ns_));
  EXPECT_EQ(search_.mtu(), 0);
  EXPECT_TRUE(search_.OnProbed(probes[2].token, 1432, now_ns_));
  EXPECT_EQ(search_.mtu(), 1432);
}

}  // namespace
}  // namespace braid::mtu_search_test
