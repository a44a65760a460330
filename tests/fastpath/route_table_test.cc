// Which peer owns an address: the longest prefix, against a model that looks at every one.
#include "fastpath/route_table.h"

#include <gtest/gtest.h>

#include "support/packets.h"

namespace braid::route_table_test {
namespace {

using testing::Below;
using testing::Random;

RouteTable Table(const std::vector<std::pair<const char*, PeerSlot>>& routes) {
  std::vector<RouteTable::Route> parsed;
  for (const auto& [prefix, peer] : routes) parsed.push_back({*IpPrefix::Parse(prefix), peer});
  return RouteTable(parsed);
}

PeerSlot Lookup(const RouteTable& table, const char* address) {
  return table.Lookup(*IpAddress::Parse(address));
}

TEST(RouteTable, PrefersTheLongestPrefix) {
  const RouteTable table = Table({{"10.0.0.0/8", 1},
                                  {"10.77.0.0/16", 2},
                                  {"10.77.0.1", 3},
                                  {"0.0.0.0/0", 4},
                                  {"fd00::/8", 5},
                                  {"fd77::/64", 6}});
  EXPECT_EQ(Lookup(table, "10.1.1.1"), 1u);
  EXPECT_EQ(Lookup(table, "10.77.9.9"), 2u);
  EXPECT_EQ(Lookup(table, "10.77.0.1"), 3u);
  EXPECT_EQ(Lookup(table, "8.8.8.8"), 4u);
  EXPECT_EQ(Lookup(table, "fd12::1"), 5u);
  EXPECT_EQ(Lookup(table, "fd77::1"), 6u);
  EXPECT_EQ(Lookup(table, "2001::1"), kNoPeer);
}

TEST(RouteTable, IgnoresHostBitsOfAPrefix) {
  const RouteTable table = Table({{"10.77.3.200/24", 1}});
  EXPECT_EQ(Lookup(table, "10.77.3.1"), 1u);
  EXPECT_EQ(Lookup(table, "10.77.4.1"), kNoPeer);
}

TEST(RouteTable, KeepsTheFamiliesApart) {
  const RouteTable table = Table({{"0.0.0.0/0", 1}});
  EXPECT_EQ(Lookup(table, "::"), kNoPeer);
  EXPECT_EQ(Lookup(Table({{"::/0", 1}}), "0.0.0.0"), kNoPeer);
}

TEST(RouteTable, OwnsNothingWhenEmpty) {
  const RouteTable table{{}};
  EXPECT_EQ(Lookup(table, "10.0.0.1"), kNoPeer);
  EXPECT_EQ(table.Lookup(IpAddress{}), kNoPeer);
}

TEST(RouteTable, LetsTheLaterOfTwoEqualPrefixesCount) {
  EXPECT_EQ(Lookup(Table({{"10.0.0.0/8", 1}, {"10.9.9.9/8", 2}}), "10.0.0.1"), 2u);
}

TEST(RouteTable, AgreesWithAModelThatLooksAtEveryPrefix) {
  Random random(1);
  const auto random_address = [&](bool v6) {
    uint8_t bytes[16];
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(Below(random, 3));  // near each other
    return v6 ? IpAddress::V6(bytes) : IpAddress::V4(bytes);
  };
  std::vector<RouteTable::Route> routes;
  for (PeerSlot peer = 0; peer < 2000; ++peer) {
    const bool v6 = peer % 2 == 0;
    const int length = static_cast<int>(Below(random, v6 ? 129 : 33));
    const IpPrefix prefix{random_address(v6), length};
    const bool known = std::any_of(routes.begin(), routes.end(), [&](const auto& route) {
      return route.prefix.Network() == prefix.Network();
    });
    if (!known) routes.push_back({prefix, peer});
  }
  const RouteTable table(routes);
  for (int i = 0; i < 5000; ++i) {
    const IpAddress address = random_address(i % 2 == 0);
    const RouteTable::Route* longest = nullptr;
    for (const auto& route : routes) {
      if (!route.prefix.Contains(address)) continue;
      if (longest == nullptr || route.prefix.length > longest->prefix.length) longest = &route;
    }
    ASSERT_EQ(table.Lookup(address), longest == nullptr ? kNoPeer : longest->peer)
        << address.ToString();
  }
}

}  // namespace
}  // namespace braid::route_table_test
