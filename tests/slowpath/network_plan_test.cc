// What the tunnel wants of networks that are written down here.
#include "slowpath/network_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace braid::network_plan_test {
namespace {

IpPrefix Prefix(const char* text) { return IpPrefix::Parse(text).value(); }

// eth0 203.0.113.5/24 to the world; lan0 192.168.1.1/24, 2001:db8:1::1/64; braid0 10.77.0.2/24.
class NetworkPlanTest : public ::testing::Test {
 protected:
  NetworkPlanTest() {
    network_.links = {{1, "lo", true, true, 65536},
                      {2, "eth0", true, false, 1500},
                      {3, "lan0", true, false, 1500},
                      {4, "braid0", true, false, 1420}};
    Add(1, "127.0.0.1/8");
    Add(2, "203.0.113.5/24");
    Add(3, "192.168.1.1/24");
    Add(3, "2001:db8:1::1/64");
    Add(4, "10.77.0.2/24");
    config_.network.routes.emplace();
    PeerConfig& peer = config_.tunnel.peers.emplace_back();
    peer.allowed_ips = {Prefix("0.0.0.0/0"), Prefix("::/0")};
  }

  void Add(int link, const char* text) {
    const IpPrefix prefix = Prefix(text);
    network_.addresses.push_back({link, prefix.address, prefix.Network()});
  }

  std::vector<HostChange> Plan() {
    return PlanNetwork({.config = config_,
                        .network = network_,
                        .table = 47009,
                        .has_v6 = has_v6_,
                        .draws_traffic = draws_traffic_});
  }
  // Where the route for exactly this prefix leads: "braid0", "past"; "" where there is none.
  std::string Way(const char* prefix) {
    for (const HostChange& change : Plan()) {
      const auto* route = std::get_if<OwnRoute>(&change);
      if (route == nullptr || route->to != Prefix(prefix)) continue;
      return route->type == OwnRoute::Type::kThrow ? "past" : route->device;
    }
    return "";
  }
  RoutesConfig& routes() { return *config_.network.routes; }

  Config config_;
  NetSnapshot network_;
  bool has_v6_ = true;
  bool draws_traffic_ = true;
};

TEST_F(NetworkPlanTest, EverythingGoesThroughButTheLan) {
  routes().everything = true;
  EXPECT_EQ(Way("0.0.0.0/0"), "braid0");
  EXPECT_EQ(Way("::/0"), "braid0");
  EXPECT_EQ(Way("192.168.1.0/24"), "past");
  EXPECT_EQ(Way("2001:db8:1::/64"), "past");
  EXPECT_EQ(Way("fe80::/10"), "past");
  EXPECT_EQ(Way("255.255.255.255/32"), "past");
  EXPECT_EQ(Way("10.77.0.0/24"), "") << "the tunnel's own network is no LAN";
  EXPECT_EQ(Way("127.0.0.0/8"), "");
}

TEST_F(NetworkPlanTest, IPv6ThatTheTunnelsDeviceMayNotHaveIsSeenToLeave) {
  routes().everything = true;
  const auto is_left = [this] {
    return IsV6Left({.config = config_,
                     .network = network_,
                     .has_v6 = has_v6_,
                     .draws_traffic = draws_traffic_,
                     .guard = {}});
  };
  has_v6_ = false;
  EXPECT_FALSE(is_left()) << "there is no way for it";
  network_.default_routes = {{.link = 2, .family = IpAddress::Family::kV6}};
  EXPECT_TRUE(is_left());
  config_.network.kill_switch = true;
  EXPECT_FALSE(is_left()) << "it is kept in";
  config_.network.kill_switch = false;
  draws_traffic_ = false;
  EXPECT_FALSE(is_left()) << "all of it leaves";
  draws_traffic_ = true;
  config_.tunnel.peers[0].allowed_ips = {Prefix("0.0.0.0/0")};
  EXPECT_FALSE(is_left()) << "it is not wanted there";
}

TEST_F(NetworkPlanTest, WhatStaysOutComesFirstAndTheRulesLast) {
  routes().everything = true;
  const std::vector<HostChange> changes = Plan();
  const auto is_throw = [](const HostChange& change) {
    const auto* route = std::get_if<OwnRoute>(&change);
    return route != nullptr && route->type == OwnRoute::Type::kThrow;
  };
  EXPECT_TRUE(std::is_partitioned(changes.begin(), changes.end(), is_throw));
  EXPECT_TRUE(std::is_partitioned(changes.begin(), changes.end(), [](const HostChange& change) {
    return std::holds_alternative<OwnRoute>(change);
  }));
  EXPECT_TRUE(std::holds_alternative<OwnRule>(changes.back()));
}

TEST_F(NetworkPlanTest, AFamilyThatNoPeerCarriesStaysAsItIs) {
  routes().everything = true;
  config_.tunnel.peers[0].allowed_ips = {Prefix("0.0.0.0/0")};
  EXPECT_EQ(Way("0.0.0.0/0"), "braid0");
  EXPECT_EQ(Way("::/0"), "");
  for (const HostChange& change : Plan()) {
    const auto* rule = std::get_if<OwnRule>(&change);
    if (rule != nullptr) {
      EXPECT_EQ(rule->family, IpAddress::Family::kV4);
    }
  }
}

// A router that says it has half of the world on its link.
TEST_F(NetworkPlanTest, ANetworkThatIsNoLanDrawsNothingOut) {
  routes().everything = true;
  Add(2, "0.0.0.0/1");
  EXPECT_EQ(Way("0.0.0.0/1"), "");
  EXPECT_EQ(Way("203.0.113.0/24"), "past") << "a small one may be one";
  EXPECT_FALSE(IsLan(Prefix("203.0.0.0/20")));
  EXPECT_TRUE(IsLan(Prefix("10.0.0.0/8")));
  EXPECT_FALSE(IsLan(Prefix("0.0.0.0/0")));
  EXPECT_FALSE(IsLan(Prefix("8.0.0.0/7")));
}

TEST_F(NetworkPlanTest, TheLanGoesThroughWhereItIsNotExcluded) {
  routes().everything = true;
  routes().exclude_lan = false;
  EXPECT_EQ(Way("192.168.1.0/24"), "");
  EXPECT_EQ(Way("0.0.0.0/0"), "braid0");
}

TEST_F(NetworkPlanTest, WhereTheDeviceMayHaveNoIpv6NoneIsDrawn) {
  routes().everything = true;
  has_v6_ = false;
  EXPECT_EQ(Way("::/0"), "");
  EXPECT_EQ(Way("0.0.0.0/0"), "braid0");
}

TEST_F(NetworkPlanTest, WhatIsWantedThroughByNameIsNotALan) {
  routes().include = {Prefix("192.168.1.0/24")};
  EXPECT_EQ(Way("192.168.1.0/24"), "braid0");
}

TEST_F(NetworkPlanTest, NothingIsDrawnBeforeTheTunnelCarries) {
  routes().everything = true;
  draws_traffic_ = false;
  EXPECT_TRUE(Plan().empty());
}

TEST_F(NetworkPlanTest, ForNatForwardTheSourcesLinkAndTheOneItLeavesBy) {
  config_.network.nat = {{Prefix("192.168.0.0/16"), "braid0"}};
  EXPECT_EQ(ForwardingDevices(config_, network_), (std::vector<std::string>{"braid0", "lan0"}));
  config_.network.nat = {{Prefix("10.77.0.0/24"), "eth0"}};
  EXPECT_EQ(ForwardingDevices(config_, network_), (std::vector<std::string>{"braid0", "eth0"}));
}

}  // namespace
}  // namespace braid::network_plan_test
