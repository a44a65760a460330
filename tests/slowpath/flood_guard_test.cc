// When initiations become a flood, and what one address may still do then.
#include "slowpath/flood_guard.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace braid {
namespace {

constexpr TimeNs kStart = 1'000 * kSecondNs;

IpAddress Address(const char* text) { return IpAddress::Parse(text).value(); }

// So many initiations in a second, evenly. Returns how many of them met a loaded guard.
int RunOneSecond(FloodGuard& guard, TimeNs& now_ns, int per_second) {
  int loaded = 0;
  for (int i = 0; i < per_second; ++i) {
    now_ns += kSecondNs / static_cast<DurationNs>(per_second);
    guard.OnInitiation(now_ns);
    if (guard.UnderLoad(now_ns)) ++loaded;
  }
  return loaded;
}

TEST(FloodGuard, ABurstOfOneSecondsShareIsNoLoad) {
  FloodGuard guard;
  for (int i = 0; i < 400; ++i) guard.OnInitiation(kStart);
  EXPECT_FALSE(guard.UnderLoad(kStart));
  guard.OnInitiation(kStart);
  EXPECT_TRUE(guard.UnderLoad(kStart));
}

TEST(FloodGuard, StaysLoadedForASecond) {
  FloodGuard guard;
  for (int i = 0; i < 401; ++i) guard.OnInitiation(kStart);
  EXPECT_TRUE(guard.UnderLoad(kStart + kSecondNs - 1));
  EXPECT_FALSE(guard.UnderLoad(kStart + kSecondNs));
}

TEST(FloodGuard, WhatAServerCanWorkOffIsNeverLoad) {
  FloodGuard guard;
  TimeNs now_ns = kStart;
  for (int second = 0; second < 60; ++second) EXPECT_EQ(RunOneSecond(guard, now_ns, 390), 0);
}

TEST(FloodGuard, ASteadyFloodIsLoadUntilItEnds) {
  FloodGuard guard;
  TimeNs now_ns = kStart;
  for (int second = 0; second < 2; ++second) RunOneSecond(guard, now_ns, 1000);
  for (int second = 0; second < 60; ++second) {
    EXPECT_EQ(RunOneSecond(guard, now_ns, 1000), 1000);
  }
  now_ns += 2 * kSecondNs;
  EXPECT_FALSE(guard.UnderLoad(now_ns));
  EXPECT_EQ(RunOneSecond(guard, now_ns, 100), 0);
}

TEST(FloodGuard, AnAddressGetsItsBurstAndThenItsRate) {
  FloodGuard guard;
  const IpAddress source = Address("192.0.2.1");
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(guard.Allow(source, kStart)) << i;
  EXPECT_FALSE(guard.Allow(source, kStart));
  EXPECT_FALSE(guard.Allow(source, kStart + 49 * kMillisecondNs));
  EXPECT_TRUE(guard.Allow(source, kStart + 51 * kMillisecondNs));
  EXPECT_FALSE(guard.Allow(source, kStart + 52 * kMillisecondNs));
  // What was not used for long is no more than a burst.
  int allowed = 0;
  for (int i = 0; i < 100; ++i) allowed += guard.Allow(source, kStart + 3600 * kSecondNs);
  EXPECT_EQ(allowed, 20);
}

TEST(FloodGuard, AddressesDoNotTakeFromEachOther) {
  FloodGuard guard;
  for (int i = 0; i < 1000; ++i) guard.Allow(Address("192.0.2.1"), kStart);
  int allowed = 0;
  for (uint8_t host = 2; host < 202; ++host) {
    const uint8_t bytes[] = {192, 0, 2, host};
    allowed += guard.Allow(IpAddress::V4(bytes), kStart);
  }
  // A few may share the bucket of the greedy one: it is not known which.
  EXPECT_GE(allowed, 190);
}

TEST(FloodGuard, OfIpv6TheNetworkCounts) {
  FloodGuard guard;
  int allowed = 0;
  for (uint16_t host = 0; host < 1000; ++host) {
    IpAddress address = Address("2001:db8:1:2::");
    StoreBe16(&address.bytes[14], host);
    allowed += guard.Allow(address, kStart);
  }
  EXPECT_EQ(allowed, 20);
  int others = 0;
  for (uint16_t network = 0; network < 100; ++network) {
    IpAddress address = Address("2001:db8:2::1");
    StoreBe16(&address.bytes[6], network);
    others += guard.Allow(address, kStart);
  }
  EXPECT_GE(others, 95);
}

}  // namespace
}  // namespace braid
