// When initiations become a flood, and what one address may still do then.
#include "slowpath/flood_guard.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace braid::flood_guard_test {
namespace {

constexpr TimeNs kStart = 1'000 * kSecondNs;

Endpoint At(const char* address, uint16_t port = 7700) {
  return {IpAddress::Parse(address).value(), port};
}

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

// So many of so many ports of one address, each port in turn.
int AllowedOfPorts(FloodGuard& guard, const char* address, int ports, int each, TimeNs now_ns) {
  int allowed = 0;
  for (int i = 0; i < each; ++i) {
    for (int port = 0; port < ports; ++port) {
      allowed += guard.Allow(At(address, static_cast<uint16_t>(1024 + port)), now_ns);
    }
  }
  return allowed;
}

TEST(FloodGuard, ASenderGetsItsBurstAndThenItsRate) {
  FloodGuard guard;
  const Endpoint source = At("192.0.2.1");
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

TEST(FloodGuard, ManyClientsBehindOneAddressAreEachServed) {
  FloodGuard guard;
  TimeNs now_ns = kStart;
  int allowed = 0;
  for (int second = 0; second < 2; ++second) {  // 1,000 clients, once a second
    for (int port = 0; port < 1000; ++port) {
      now_ns += kMillisecondNs;
      allowed += guard.Allow(At("192.0.2.1", static_cast<uint16_t>(1024 + port)), now_ns);
    }
  }
  EXPECT_EQ(allowed, 2000);
}

TEST(FloodGuard, OneWhoAsksTooOftenTakesNothingFromOthersBehindItsAddress) {
  FloodGuard guard;
  for (int i = 0; i < 100'000; ++i) guard.Allow(At("192.0.2.1", 1), kStart);
  // One or two may share the bucket of the greedy one: it is not known which.
  EXPECT_GE(AllowedOfPorts(guard, "192.0.2.1", 400, 1, kStart), 395);
}

TEST(FloodGuard, AnAddressWithAllItsPortsGetsItsShareOnly) {
  FloodGuard guard;
  EXPECT_EQ(AllowedOfPorts(guard, "192.0.2.1", 10'000, 20, kStart), 500);
  EXPECT_EQ(AllowedOfPorts(guard, "192.0.2.1", 10'000, 20, kStart + kSecondNs / 10), 100);
  // And leaves others theirs.
  int allowed = 0;
  for (uint8_t host = 2; host < 202; ++host) {
    const uint8_t bytes[] = {192, 0, 2, host};
    allowed += guard.Allow({IpAddress::V4(bytes), 7700}, kStart + kSecondNs / 10);
  }
  EXPECT_GE(allowed, 190);
}

TEST(FloodGuard, OfIpv6TheNetworkCounts) {
  FloodGuard guard;
  int allowed = 0;
  for (uint16_t host = 0; host < 10'000; ++host) {
    Endpoint source = At("2001:db8:1:2::");
    StoreBe16(&source.address.bytes[14], host);
    allowed += guard.Allow(source, kStart);
  }
  EXPECT_EQ(allowed, 500);
  int others = 0;
  for (uint16_t network = 0; network < 100; ++network) {
    Endpoint source = At("2001:db8:2::1");
    StoreBe16(&source.address.bytes[6], network);
    others += guard.Allow(source, kStart);
  }
  EXPECT_GE(others, 95);
}

}  // namespace
}  // namespace braid::flood_guard_test
