// A rate is kept over every second, whatever comes and however late the clock is looked at.
#include "base/token_bucket.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <thread>
#include <vector>

namespace braid::token_bucket_test {
namespace {

constexpr uint64_t kBytesPerS = 50'000'000 / 8;
constexpr TimeNs kStartNs = 1000 * kSecondNs;

// What passes when a packet is offered every `every_ns`, within any second at most and at least.
struct AnySecond {
  uint64_t most_bytes = 0;
  uint64_t least_bytes = UINT64_MAX;
};

template <typename Pause>
AnySecond Offer(TokenBucket& bucket, size_t packet_bytes, DurationNs for_ns, Pause&& pause_ns) {
  AnySecond any;
  std::deque<std::pair<TimeNs, size_t>> window;
  uint64_t in_window = 0;
  for (TimeNs now_ns = kStartNs; now_ns < kStartNs + for_ns; now_ns += pause_ns()) {
    while (!window.empty() && window.front().first + kSecondNs <= now_ns) {
      in_window -= window.front().second;
      window.pop_front();
    }
    while (bucket.Has(now_ns)) {
      bucket.Take(packet_bytes, now_ns);
      window.emplace_back(now_ns, packet_bytes);
      in_window += packet_bytes;
    }
    any.most_bytes = std::max(any.most_bytes, in_window);
    if (now_ns >= kStartNs + 2 * kSecondNs) any.least_bytes = std::min(any.least_bytes, in_window);
  }
  return any;
}

TEST(TokenBucket, AnySecondHasTheRateAndABurstAtMost) {
  for (const size_t packet_bytes : {64u, 1420u}) {
    TokenBucket bucket(RateLimit::WithDefaultBurst(kBytesPerS));
    const AnySecond any =
        Offer(bucket, packet_bytes, 10 * kSecondNs, [] { return 100 * kMicrosecondNs; });
    EXPECT_LE(any.most_bytes, kBytesPerS + kBytesPerS / 50 + packet_bytes);
    EXPECT_LE(static_cast<double>(any.most_bytes), 1.03 * kBytesPerS);
    EXPECT_GE(static_cast<double>(any.least_bytes), 0.99 * kBytesPerS);
  }
}

TEST(TokenBucket, WhoComesLateByLessThanABurstLosesNothing) {
  TokenBucket bucket(RateLimit::WithDefaultBurst(kBytesPerS));
  std::mt19937 random(1);
  const AnySecond any = Offer(bucket, 1420, 10 * kSecondNs, [&random] {
    return std::uniform_int_distribution<DurationNs>(1, 19 * kMillisecondNs)(random);
  });
  EXPECT_LE(any.most_bytes, kBytesPerS + kBytesPerS / 50 + 1420);
  EXPECT_GE(static_cast<double>(any.least_bytes), 0.97 * kBytesPerS);
}

TEST(TokenBucket, AfterALongPauseOnlyABurstPasses) {
  TokenBucket bucket({kBytesPerS, 10'000});
  for (const TimeNs now_ns : {kStartNs, kStartNs + 3600 * kSecondNs}) {
    int packets = 0;
    for (; bucket.Has(now_ns); ++packets) bucket.Take(1000, now_ns);
    EXPECT_EQ(packets, 11);  // the last one is owed
    EXPECT_GT(bucket.ReadyNs(), now_ns);
  }
}

TEST(TokenBucket, IsReadyWhenItSays) {
  TokenBucket bucket({kBytesPerS, 3000});
  for (TimeNs now_ns = kStartNs; now_ns < kStartNs + kSecondNs; now_ns = bucket.ReadyNs()) {
    EXPECT_TRUE(bucket.Has(now_ns));
    bucket.Take(7919, now_ns);
    EXPECT_FALSE(bucket.Has(now_ns));
    EXPECT_FALSE(bucket.Has(bucket.ReadyNs() - 1));
  }
}

TEST(TokenBucket, AClockThatIsBehindAnothersGivesNothingTwice) {
  TokenBucket bucket({kBytesPerS, 10'000});
  uint64_t bytes = 0;
  // Two threads, of which one looks at a time of up to a millisecond ago.
  for (TimeNs now_ns = kStartNs; now_ns < kStartNs + kSecondNs; now_ns += 50 * kMicrosecondNs) {
    for (const TimeNs seen_ns : {now_ns, now_ns - kMillisecondNs}) {
      for (; bucket.Has(seen_ns); bytes += 1420) bucket.Take(1420, seen_ns);
    }
  }
  EXPECT_LE(bytes, kBytesPerS + 10'000 + 2 * 1420);
  EXPECT_GE(bytes, kBytesPerS * 99 / 100);
}

TEST(TokenBucket, RoundingDoesNotAddUp) {
  constexpr uint64_t kFast = 100'000'000'000 / 8;
  TokenBucket bucket({kFast, 1'000'000});
  uint64_t bytes = 0;
  for (TimeNs now_ns = kStartNs; now_ns < kStartNs + kSecondNs / 100; now_ns += kMicrosecondNs) {
    for (; bucket.Has(now_ns); bytes += 64) bucket.Take(64, now_ns);
  }
  EXPECT_NEAR(static_cast<double>(bytes - 1'000'000), kFast / 100.0, kFast / 100.0 * 0.01);
}

TEST(TokenBucket, ThreadsTogetherTakeNoMoreThanThereIs) {
  constexpr int kThreads = 4;
  TokenBucket bucket({kBytesPerS, 1'000'000});
  std::atomic<uint64_t> bytes{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (; bucket.Has(kStartNs); bytes += 100) bucket.Take(100, kStartNs);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(bytes, 1'000'000u);
  EXPECT_LE(bytes, 1'000'000u + kThreads * 100);
}

TEST(RateLimit, ADefaultBurstStaysWithinThreePercentAndHoldsTwoPackets) {
  for (const uint64_t bytes_per_s : {125'000u, 1'000'000u, 6'250'000u, 1'250'000'000u}) {
    const RateLimit limit = RateLimit::WithDefaultBurst(bytes_per_s);
    EXPECT_GE(limit.burst_bytes, 3000u);
    EXPECT_LE(static_cast<double>(limit.burst_bytes), 0.03 * static_cast<double>(bytes_per_s));
  }
}

}  // namespace
}  // namespace braid::token_bucket_test
