// The network in which flows are turned round is nobody else's, and each worker's neighbour its
// own.
#include "slowpath/egress_network.h"

#include <gtest/gtest.h>

#include <set>

#include "base/limits.h"

namespace braid::egress_network_test {
namespace {

NetSnapshot With(const std::vector<const char*>& addresses) {
  NetSnapshot network;
  for (const char* text : addresses) {
    const IpPrefix prefix = *IpPrefix::Parse(text);
    network.addresses.push_back({1, prefix.address, prefix.Network()});
  }
  return network;
}

TEST(EgressNetwork, TheListenerAndAllNeighboursAreInIt) {
  const auto chosen = ChooseEgressNetwork(With({"192.0.2.1/24"}), true);
  ASSERT_TRUE(chosen.ok());
  ASSERT_EQ(chosen->addresses.size(), 2u);
  std::set<IpAddress> seen;
  for (const EgressNeighbours* of : {&chosen->v4, &chosen->v6}) {
    const IpPrefix& network = chosen->addresses[of == &chosen->v4 ? 0 : 1];
    EXPECT_EQ(network.address, of->listener);
    EXPECT_TRUE(seen.insert(of->listener).second);
    for (int worker = 0; worker < kMaxWorkers; ++worker) {
      EXPECT_TRUE(network.Contains(of->Of(worker)));
      EXPECT_TRUE(seen.insert(of->Of(worker)).second);
      EXPECT_EQ(of->WorkerOf(of->Of(worker), kMaxWorkers), worker);
    }
    EXPECT_EQ(of->WorkerOf(of->Of(2), 2), -1);
    EXPECT_EQ(of->WorkerOf(of->listener, kMaxWorkers), -1);
  }
  EXPECT_EQ(chosen->v4.WorkerOf(chosen->v6.first, kMaxWorkers), -1);
}

TEST(EgressNetwork, OneThatIsTakenIsPassedOver) {
  EXPECT_EQ(ChooseEgressNetwork({}, true)->v4.listener.ToString(), "169.254.96.1");
  const auto chosen = ChooseEgressNetwork(
      With({"169.254.96.77/16", "169.254.97.1/24", "fd62:7261:6964:96::9/64"}), true);
  ASSERT_TRUE(chosen.ok());
  EXPECT_EQ(chosen->v4.listener.ToString(), "169.254.98.1");
  EXPECT_EQ(chosen->v6.listener.ToString(), "fd62:7261:6964:97::1");
}

TEST(EgressNetwork, WithoutIpv6ThereIsNoneOfIt) {
  const auto chosen = ChooseEgressNetwork({}, false);
  ASSERT_TRUE(chosen.ok());
  EXPECT_EQ(chosen->addresses.size(), 1u);
  EXPECT_TRUE(chosen->v4.is_set());
  EXPECT_FALSE(chosen->v6.is_set());
}

TEST(EgressNetwork, WhereAllAreTakenItSaysSo) {
  NetSnapshot network;
  for (int number = 0; number < 256; ++number) {
    const IpPrefix prefix = *IpPrefix::Parse("169.254." + std::to_string(number) + ".1/24");
    network.addresses.push_back({1, prefix.address, prefix.Network()});
  }
  const auto chosen = ChooseEgressNetwork(network, true);
  ASSERT_FALSE(chosen.ok());
  EXPECT_NE(chosen.status().message().find("169.254.96.0/24"), std::string::npos);
}

}  // namespace
}  // namespace braid::egress_network_test
