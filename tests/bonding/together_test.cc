// When flows that keep nothing waiting are tried on several paths, and when that ends.
#include "bonding/together.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace braid::together_test {
namespace {

using Order = Together::Order;

constexpr DurationNs kStepNs = 5 * kMillisecondNs;
constexpr double kRate = 10'000'000;  // bytes a second, of what is used

class TogetherTest : public ::testing::Test {
 protected:
  // So it goes on; `sends`: what is enqueued, of the rate.
  void Pass(DurationNs for_ns, double sends = 1) {
    for (const TimeNs end_ns = now_ns_ + for_ns; now_ns_ < end_ns; now_ns_ += kStepNs) {
      const double bytes = sends * kRate * static_cast<double>(kStepNs) / kSecondNs;
      together_.NoteBulk(static_cast<size_t>(bytes), now_ns_);
      waits_s_ += grows_s_per_s_ * static_cast<double>(kStepNs) / kSecondNs;
      // Up and down, once in eight round trips.
      const DurationNs cycle_ns = 8 * (view_.rtt_ns + view_.spread_ns);
      const double turns_s = turns_ * static_cast<double>(cycle_ns / 8) / kSecondNs;
      const double turn = static_cast<double>(now_ns_ % cycle_ns) / static_cast<double>(cycle_ns);
      view_.waiting_bytes = (waits_s_ + turns_s * std::abs(2 * turn - 1)) * kRate;
      together_.Look(view_, now_ns_);
      ++orders_[together_.order(now_ns_)];
    }
  }

  // Until it is tried; false: it is not, in so long.
  bool TriedWithin(DurationNs most_ns) {
    for (const TimeNs end_ns = now_ns_ + most_ns; now_ns_ < end_ns;) {
      Pass(kStepNs);
      if (!together_.active()) continue;
      view_.spare = false;
      view_.spread_ns = view_.next_spread_ns;
      return true;
    }
    return false;
  }

  double ShareOf(Order order) {
    double all = 0;
    for (const auto& [each, count] : orders_) all += count;
    return orders_[order] / all;
  }

  Together together_;
  Together::View view_{.used = 1,
                       .used_bytes_per_s = kRate,
                       .spare = true,
                       .demand_bytes_per_s = 0.95 * kRate,
                       .goodput_bytes_per_s = 0.95 * kRate,
                       .spread_ns = 0,
                       .next_spread_ns = 40 * kMillisecondNs,
                       .rtt_ns = 10 * kMillisecondNs};
  double waits_s_ = 0.002;
  double turns_ = 0.4;  // round trips
  double grows_s_per_s_ = 0;
  TimeNs now_ns_ = 1'000 * kSecondNs;
  std::map<Order, int> orders_;
};

TEST_F(TogetherTest, TriesAFlowThatFillsAPathAndLooksForMore) {
  EXPECT_EQ(together_.order(now_ns_), Order::kByArrival);
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  EXPECT_EQ(together_.paths(), 2u);
}

TEST_F(TogetherTest, LeavesAFlowAloneOfWhichMoreAndMoreWaits) {
  turns_ = 0;
  waits_s_ = 0;
  grows_s_per_s_ = 0.0007;
  EXPECT_FALSE(TriedWithin(20 * kSecondNs));
}

TEST_F(TogetherTest, LeavesAFlowAloneOfWhichTheSameWaits) {
  turns_ = 0.05;
  EXPECT_FALSE(TriedWithin(20 * kSecondNs));
}

TEST_F(TogetherTest, TakesNoJitterForTurns) {
  view_.jitter_ns = 4 * kMillisecondNs;
  EXPECT_FALSE(TriedWithin(20 * kSecondNs));
}

TEST_F(TogetherTest, LeavesAFlowAloneOfWhichMuchWaits) {
  waits_s_ = 0.02;
  EXPECT_FALSE(TriedWithin(20 * kSecondNs));
}

TEST_F(TogetherTest, LeavesAFlowAloneThatDoesNotFillItsPath) {
  view_.demand_bytes_per_s = 0.7 * kRate;
  EXPECT_FALSE(TriedWithin(20 * kSecondNs));
}

TEST_F(TogetherTest, TriesNothingWhereAllPathsAreUsed) {
  view_.spare = false;
  EXPECT_FALSE(TriedWithin(20 * kSecondNs));
}

TEST_F(TogetherTest, SparesLongerEachTimeItHasNotHelped) {
  DurationNs longest_ns = 0;
  for (int i = 0; i < 3; ++i) {
    view_.spare = true;
    view_.spread_ns = 0;
    const TimeNs since_ns = now_ns_;
    ASSERT_TRUE(TriedWithin(100 * kSecondNs));
    EXPECT_GT(now_ns_ - since_ns, longest_ns);
    longest_ns = now_ns_ - since_ns;
    Pass(4 * kSecondNs);
    ASSERT_FALSE(together_.active());
  }
}

TEST_F(TogetherTest, GoesOnAsLongAsItHelps) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.goodput_bytes_per_s = 1.2 * kRate;
  Pass(60 * kSecondNs);
  EXPECT_TRUE(together_.active());
}

TEST_F(TogetherTest, EndsSoonWhenItHarms) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.goodput_bytes_per_s = 0.4 * kRate;
  Pass(kSecondNs);
  EXPECT_FALSE(together_.active());
}

TEST_F(TogetherTest, EndsWhenNothingIsSentAnyMore) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.goodput_bytes_per_s = 1.2 * kRate;
  Pass(2 * kSecondNs, 0);
  EXPECT_FALSE(together_.active());
}

TEST_F(TogetherTest, EndsWhenSoMuchWaitsThatPathsFillByThemselves) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.goodput_bytes_per_s = 1.2 * kRate;
  waits_s_ = 0.06;
  Pass(2 * kSecondNs);
  EXPECT_FALSE(together_.active());
}

TEST_F(TogetherTest, PausesFarPathsOfFiveRoundTripsForTheTimeThatTheyTakeLonger) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.goodput_bytes_per_s = 1.2 * kRate;
  orders_.clear();
  Pass(10 * kSecondNs);
  EXPECT_NEAR(ShareOf(Order::kQuickestOnly), 40.0 / (5 * 50), 0.02);
  EXPECT_NEAR(ShareOf(Order::kQuickestFirst), 1 - 40.0 / (5 * 50), 0.02);
}

TEST_F(TogetherTest, SendsOverTheSlowestFirstOnceAFlowHasBeenQuiet) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.goodput_bytes_per_s = 1.2 * kRate;
  Pass(kSecondNs);
  orders_.clear();
  Pass(30 * kMillisecondNs, 0);
  EXPECT_EQ(together_.order(now_ns_), Order::kSlowestFirst) << "what it sends while it is quiet";
  Pass(170 * kMillisecondNs, 0.01);
  orders_.clear();
  Pass(5 * kSecondNs);
  EXPECT_EQ(ShareOf(Order::kSlowestFirst), 1);
}

TEST_F(TogetherTest, DoesNotTakeAShortStallForQuiet) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.goodput_bytes_per_s = 1.2 * kRate;
  Pass(60 * kMillisecondNs, 0);
  Pass(100 * kMillisecondNs);
  orders_.clear();
  Pass(5 * kSecondNs);
  EXPECT_EQ(ShareOf(Order::kSlowestFirst), 0);
}

TEST_F(TogetherTest, SendsOverTheSlowestFirstWhereTheWindowIsLargeEnough) {
  view_.next_spread_ns = view_.rtt_ns;
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  EXPECT_EQ(together_.order(now_ns_), Order::kSlowestFirst);
}

TEST_F(TogetherTest, AddsOnePathAfterAnotherAndKeepsWhatHasHelped) {
  ASSERT_TRUE(TriedWithin(5 * kSecondNs));
  view_.used = 2;
  view_.goodput_bytes_per_s = 1.5 * kRate;
  view_.spare = true;
  Pass(5 * kSecondNs);
  EXPECT_EQ(together_.paths(), 3u);
  view_.used = 3;
  view_.spare = false;
  Pass(4 * kSecondNs);
  EXPECT_EQ(together_.paths(), 2u) << "the third has brought nothing";
}

}  // namespace
}  // namespace braid::together_test
