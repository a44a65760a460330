#include "slowpath/latency_histogram.h"

#include <gtest/gtest.h>

namespace braid::latency_histogram_test {
namespace {

TEST(LatencyHistogramTest, NothingCountedIsNothing) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.min_ns(), 0u);
  EXPECT_EQ(histogram.max_ns(), 0u);
  EXPECT_EQ(histogram.Percentile(0.5), 0u);
}

TEST(LatencyHistogramTest, SmallValuesAreExact) {
  LatencyHistogram histogram;
  for (DurationNs each = 1; each <= 50; ++each) histogram.Add(each);
  EXPECT_EQ(histogram.Percentile(0), 1u);
  EXPECT_EQ(histogram.Percentile(0.5), 25u);
  EXPECT_EQ(histogram.Percentile(0.98), 49u);
  EXPECT_EQ(histogram.Percentile(1), 50u);
}

TEST(LatencyHistogramTest, PercentilesAreWithinAThirtySecond) {
  LatencyHistogram histogram;
  for (DurationNs each = 1; each <= 100'000; ++each) histogram.Add(each * 37);
  for (const double share : {0.01, 0.1, 0.5, 0.9, 0.99, 0.999}) {
    const double exact = share * 100'000 * 37;
    const auto told = static_cast<double>(histogram.Percentile(share));
    EXPECT_GE(told, exact - 37) << share;
    EXPECT_LE(told, exact * 33 / 32 + 37) << share;
  }
  EXPECT_EQ(histogram.min_ns(), 37u);
  EXPECT_EQ(histogram.max_ns(), 3'700'000u);
}

TEST(LatencyHistogramTest, ValuesAtTheEdgesOfBucketsAreNotLost) {
  for (int bit = 0; bit < 64; ++bit) {
    for (const DurationNs value : {(DurationNs{1} << bit) - 1, DurationNs{1} << bit}) {
      LatencyHistogram histogram;
      histogram.Add(value);
      EXPECT_EQ(histogram.Percentile(0.5), value);  // the only one is the least and the most
      EXPECT_EQ(histogram.count(), 1u);
    }
  }
}

TEST(LatencyHistogramTest, ClearForgets) {
  LatencyHistogram histogram;
  histogram.Add(1000);
  histogram.Clear();
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.Percentile(1), 0u);
}

}  // namespace
}  // namespace braid::latency_histogram_test
