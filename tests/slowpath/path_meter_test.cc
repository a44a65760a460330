// Rates and loss out of counters, with the clock and the counters in the test's hands.
#include "slowpath/path_meter.h"

#include <gtest/gtest.h>

#include <array>

namespace braid::path_meter_test {
namespace {

constexpr size_t kPeers = 2;

class PathMetersTest : public ::testing::Test {
 protected:
  void Sample() {
    meters_.Sample(
        [this](PeerSlot peer) { return paths_[peer]; },
        [this](PeerSlot peer, int path) { return totals_[peer][static_cast<size_t>(path)]; },
        now_ns_);
  }
  void SampleAfter(DurationNs passed_ns) {
    now_ns_ += passed_ns;
    Sample();
  }
  // One second in which the peer sent so many datagrams, of which so many came.
  void Second(uint64_t expected, uint64_t received) {
    path().rx_expected += expected;
    path().rx_datagrams += received;
    SampleAfter(kSecondNs);
  }

  WorkerGroup::PathTotals& path() { return totals_[1][2]; }
  const PathMeters::Reading& reading() const { return meters_.Of(1, 2); }

  TimeNs now_ns_ = 100 * kSecondNs;
  std::array<std::array<WorkerGroup::PathTotals, kMaxPaths>, kPeers> totals_{};
  std::array<size_t, kPeers> paths_{kMaxPaths, kMaxPaths};
  PathMeters meters_{kPeers};
};

TEST_F(PathMetersTest, TheFirstSampleIsOnlyWhereTheNextBegins) {
  path() = {.rx_bytes = 1 << 30, .tx_bytes = 1 << 30, .rx_datagrams = 1, .rx_expected = 1'000'000};
  Sample();
  EXPECT_EQ(reading().rx_bytes_per_s, 0);
  EXPECT_EQ(reading().tx_bytes_per_s, 0);
  EXPECT_EQ(reading().rx_loss, 0);
}

TEST_F(PathMetersTest, RatesAreOverTheTimeThatPassed) {
  Sample();
  path().tx_bytes += 5000;
  path().rx_bytes += 1000;
  SampleAfter(2 * kSecondNs);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 2500);
  EXPECT_DOUBLE_EQ(reading().rx_bytes_per_s, 500);
  path().tx_bytes += 5000;
  SampleAfter(kSecondNs / 2);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 10'000);
  EXPECT_DOUBLE_EQ(reading().rx_bytes_per_s, 0);
  SampleAfter(kSecondNs);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 0);
}

TEST_F(PathMetersTest, EveryPathOfEveryPeerHasItsOwn) {
  Sample();
  for (size_t peer = 0; peer < kPeers; ++peer) {
    for (size_t path = 0; path < kMaxPaths; ++path) {
      totals_[peer][path].tx_bytes = 1000 * peer + path;
      totals_[peer][path].rx_expected = 100;
      totals_[peer][path].rx_datagrams = 100 - 10 * path;
    }
  }
  SampleAfter(kSecondNs);
  for (size_t peer = 0; peer < kPeers; ++peer) {
    for (size_t path = 0; path < kMaxPaths; ++path) {
      const auto& one = meters_.Of(static_cast<PeerSlot>(peer), path);
      EXPECT_DOUBLE_EQ(one.tx_bytes_per_s, static_cast<double>(1000 * peer + path));
      EXPECT_NEAR(one.rx_loss, 0.3 * 0.1 * static_cast<double>(path), 1e-12);
    }
  }
}

TEST_F(PathMetersTest, APathIsMeasuredAsLongAsItsPeerHasIt) {
  paths_[1] = 2;  // not the third yet
  path().tx_bytes = 1 << 30;
  Sample();
  SampleAfter(kSecondNs);
  paths_[1] = 3;
  SampleAfter(kSecondNs);
  EXPECT_EQ(reading().tx_bytes_per_s, 0) << "what it carried before is nothing of this second";
  path().tx_bytes += 1000;
  Second(100, 50);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 1000);
  EXPECT_NEAR(reading().rx_loss, 0.15, 1e-12);
  paths_[1] = 0;
  path().tx_bytes += 1000;
  SampleAfter(kSecondNs);
  EXPECT_EQ(reading().tx_bytes_per_s, 0);
  EXPECT_NEAR(reading().rx_loss, 0.15, 1e-12);
  paths_[1] = 3;
  SampleAfter(kSecondNs);
  EXPECT_EQ(reading().tx_bytes_per_s, 0);
  path().tx_bytes += 500;
  SampleAfter(kSecondNs);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 500);
}

TEST_F(PathMetersTest, LossFollowsWhatIsLostSmoothly) {
  Sample();
  Second(100, 50);
  EXPECT_NEAR(reading().rx_loss, 0.15, 1e-12);
  Second(100, 50);
  EXPECT_NEAR(reading().rx_loss, 0.255, 1e-12);
  for (int i = 0; i < 50; ++i) Second(100, 50);
  EXPECT_NEAR(reading().rx_loss, 0.5, 1e-6);
  for (int i = 0; i < 50; ++i) Second(100, 100);
  EXPECT_NEAR(reading().rx_loss, 0, 1e-6);
  for (int i = 0; i < 100; ++i) Second(1'000'000, 0);
  EXPECT_NEAR(reading().rx_loss, 1, 1e-6);
}

TEST_F(PathMetersTest, AFewDatagramsSayNothingOfLoss) {
  Sample();
  Second(19, 0);
  EXPECT_EQ(reading().rx_loss, 0);
  Second(20, 0);
  EXPECT_NEAR(reading().rx_loss, 0.3, 1e-12);
  // Nor that it is over.
  Second(19, 19);
  Second(0, 0);
  EXPECT_NEAR(reading().rx_loss, 0.3, 1e-12);
}

TEST_F(PathMetersTest, WhatComesLateIsNoNegativeLoss) {
  Sample();
  Second(100, 150);
  EXPECT_EQ(reading().rx_loss, 0);
}

TEST_F(PathMetersTest, CountersThatStepBackSayNothingOfThatSecond) {
  path() = {.rx_bytes = 9000,
            .tx_bytes = 9000,
            .rx_datagrams = 900,
            .tx_datagrams = 900,
            .rx_expected = 900};
  Sample();
  path() = {
      .rx_bytes = 10, .tx_bytes = 20, .rx_datagrams = 1, .tx_datagrams = 1, .rx_expected = 30};
  SampleAfter(kSecondNs);
  EXPECT_EQ(reading().rx_bytes_per_s, 0);
  EXPECT_EQ(reading().tx_bytes_per_s, 0);
  EXPECT_EQ(reading().rx_loss, 0);
  // From there on they count again.
  path().rx_bytes += 700;
  path().tx_bytes += 800;
  Second(100, 90);
  EXPECT_DOUBLE_EQ(reading().rx_bytes_per_s, 700);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 800);
  EXPECT_NEAR(reading().rx_loss, 0.03, 1e-12);
}

TEST_F(PathMetersTest, AClockThatStandsOrGoesBackChangesNothing) {
  Sample();
  path().tx_bytes = 1000;
  SampleAfter(kSecondNs);
  path().tx_bytes = 4000;
  Sample();
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 1000);
  now_ns_ -= kSecondNs;
  Sample();
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 1000);
  // What was counted meanwhile belongs to the next time that passes.
  now_ns_ += kSecondNs;
  SampleAfter(kSecondNs);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 3000);
}

TEST_F(PathMetersTest, AClockThatJumpsAheadGivesTheAverageOfTheWholeTime) {
  Sample();
  path().tx_bytes = 3'600'000;
  path().rx_bytes = 7'200'000;
  SampleAfter(3600 * kSecondNs);
  EXPECT_DOUBLE_EQ(reading().tx_bytes_per_s, 1000);
  EXPECT_DOUBLE_EQ(reading().rx_bytes_per_s, 2000);
}

}  // namespace
}  // namespace braid::path_meter_test
