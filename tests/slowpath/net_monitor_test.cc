// What is known of a real network, in one of the test's own, and that changes of it are told.
#include "slowpath/net_monitor.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstdlib>
#include <fstream>

#include "slowpath/host_files.h"
#include "support/network.h"

namespace braid::net_monitor_test {
namespace {

using testing::InFreshNetwork;

Endpoint At(const char* text) { return Endpoint::Parse(text).value(); }
IpAddress Address(const char* text) { return IpAddress::Parse(text).value(); }

void Ip(const std::string& command) {
  ASSERT_EQ(std::system(("ip " + command + " >/dev/null").c_str()), 0) << command;
}

// one 10.1.0.1/24 ── its other end; two 10.2.0.1/24 ── its other end
void MakeLinks() {
  for (const char* command :
       {"link add name one type veth peer name one-far",
        "link add name two type veth peer name two-far", "addr add 10.1.0.1/24 dev one",
        "addr add 10.2.0.1/24 dev two", "link set one-far up", "link set two-far up",
        "link set one up", "link set two up", "link show dev one", "link show dev two"}) {
    Ip(command);
  }
}

NetSnapshot Read() {
  auto network = ReadNetSnapshot();
  EXPECT_TRUE(network.ok()) << network.status();
  return network.value_or(NetSnapshot{});
}

TEST(NetSnapshot, HasLinksAddressesAndDefaultRoutes) {
  InFreshNetwork([] {
    MakeLinks();
    Ip("route add default via 10.1.0.2 metric 7");
    Ip("route add default via 10.2.0.2 table 300");
    Ip("route add unreachable default metric 900");
    const NetSnapshot network = Read();
    const NetLink* one = network.Find("one");
    const NetLink* two = network.Find("two");
    ASSERT_TRUE(one != nullptr && two != nullptr);
    EXPECT_EQ(network.Find(one->index), one);
    EXPECT_TRUE(one->up);
    EXPECT_FALSE(one->loopback);
    EXPECT_EQ(one->mtu, 1500);
    EXPECT_TRUE(network.Find("lo")->loopback);
    const NetAddress expected{one->index, Address("10.1.0.1"),
                              IpPrefix::Parse("10.1.0.0/24").value()};
    EXPECT_EQ(std::count(network.addresses.begin(), network.addresses.end(), expected), 1);
    const std::vector<NetDefaultRoute> routes = {{one->index, IpAddress::Family::kV4, 254, 7},
                                                 {two->index, IpAddress::Family::kV4, 300, 0}};
    std::vector<NetDefaultRoute> found = network.default_routes;
    std::sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.table < b.table; });
    EXPECT_EQ(found, routes);
    Ip("link set one down");
    EXPECT_FALSE(Read().Find("one")->up);
    EXPECT_EQ(Read().Find("gone"), nullptr);
  });
}

TEST(NetSnapshot, AMultipathRouteLeadsToEachOfItsLinks) {
  InFreshNetwork([] {
    MakeLinks();
    Ip("route add default nexthop via 10.1.0.2 dev one nexthop via 10.2.0.2 dev two");
    const NetSnapshot network = Read();
    ASSERT_EQ(network.default_routes.size(), 2u);
    EXPECT_EQ(network.default_routes[0].link, network.Find("one")->index);
    EXPECT_EQ(network.default_routes[1].link, network.Find("two")->index);
  });
}

TEST(NetSnapshot, ATentativeAddressCannotBeUsedYet) {
  InFreshNetwork([] {
    MakeLinks();
    Ip("link set one-far down");  // nobody answers, and nothing ends the wait
    Ip("addr add fd01::1/64 dev one");
    Ip("addr add fd02::1/64 dev two nodad");
    const NetSnapshot network = Read();
    const auto has = [&](const char* address) {
      return std::any_of(network.addresses.begin(), network.addresses.end(),
                         [&](const NetAddress& one) { return one.address == Address(address); });
    };
    EXPECT_FALSE(has("fd01::1"));
    EXPECT_TRUE(has("fd02::1"));
  });
}

TEST(LookUpRoute, TellsTheLinkAndTakesNoGuessForARoute) {
  InFreshNetwork([] {
    MakeLinks();
    Ip("route add default via 10.1.0.2");
    const NetSnapshot network = Read();
    const int one = network.Find("one")->index;
    const int two = network.Find("two")->index;
    const Endpoint far = At("198.51.100.1:7700");
    EXPECT_EQ(LookUpRoute(far, {}, 0), one);
    EXPECT_EQ(LookUpRoute(far, {}, one), one);
    EXPECT_EQ(LookUpRoute(far, Address("10.2.0.1"), 0), one);
    EXPECT_EQ(LookUpRoute(far, {}, two), std::nullopt);
    EXPECT_EQ(LookUpRoute(At("10.2.0.9:1"), {}, two), two) << "on the link itself";
    EXPECT_EQ(LookUpRoute(At("[2001:db8::1]:1"), {}, 0), std::nullopt);
    // A rule for the device is obeyed, and a metric does not matter.
    Ip("route add default via 10.2.0.2 table 300");
    EXPECT_EQ(LookUpRoute(far, {}, two), std::nullopt);
    Ip("rule add oif two lookup 300");
    EXPECT_EQ(LookUpRoute(far, {}, two), two);
    Ip("rule del oif two lookup 300");
    Ip("route add default via 10.2.0.2 metric 5000");
    EXPECT_EQ(LookUpRoute(far, Address("10.2.0.1"), two), two);
    Ip("route add unreachable 198.51.100.1/32");
    EXPECT_EQ(LookUpRoute(far, {}, 0), std::nullopt);
  });
}

TEST(LinkMtuTowards, IsThatOfTheLinkOrOfTheRoute) {
  InFreshNetwork([] {
    MakeLinks();
    Ip("link set two mtu 1400");
    Ip("route add default via 10.1.0.2");
    Ip("route add default via 10.2.0.2 metric 9");
    const int two = Read().Find("two")->index;
    const Endpoint far = At("198.51.100.1:7700");
    EXPECT_EQ(LinkMtuTowards(far, {}, 0), 1500);
    EXPECT_EQ(LinkMtuTowards(far, Address("10.2.0.1"), two), 1400);
    EXPECT_EQ(LinkMtuTowards(At("10.99.0.1:1"), {}, two), 1400);
    Ip("route add 198.51.100.1/32 via 10.1.0.2 mtu 1300");
    EXPECT_EQ(LinkMtuTowards(far, {}, 0), 1300);
    EXPECT_EQ(LinkMtuTowards(At("[2001:db8::1]:1"), {}, 0), std::nullopt);
  });
}

class Following {
 public:
  Following() : monitor_(io_, [this](const NetSnapshot& network) { told_.push_back(network); }) {
    EXPECT_TRUE(monitor_.Start().ok());
  }
  ~Following() {
    monitor_.Close();
    io_.poll();
  }

  // Until something was told, and a while longer; how often.
  size_t Wait() {
    told_.clear();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (told_.empty() && std::chrono::steady_clock::now() < end) {
      io_.run_for(std::chrono::milliseconds(10));
    }
    io_.run_for(3 * NetMonitor::kCoalesce);
    return told_.size();
  }
  // Nothing is told within a while.
  bool IsQuiet() {
    told_.clear();
    io_.run_for(3 * NetMonitor::kCoalesce);
    return told_.empty();
  }

  NetMonitor& monitor() { return monitor_; }
  const NetSnapshot& last() const { return told_.back(); }

 private:
  boost::asio::io_context io_;
  NetMonitor monitor_;
  std::vector<NetSnapshot> told_;
};

TEST(NetMonitor, TellsOfLinksAddressesAndRoutesAtOnceForAll) {
  InFreshNetwork([] {
    Following following;
    EXPECT_EQ(following.monitor().network().Find("one"), nullptr);
    MakeLinks();
    ASSERT_GE(following.Wait(), 1u);
    EXPECT_NE(following.last().Find("one"), nullptr);
    EXPECT_EQ(following.monitor().network(), following.last());
    following.Wait();  // what else comes of IPv6 at its own pace

    Ip("route add default via 10.1.0.2");
    ASSERT_GE(following.Wait(), 1u);
    ASSERT_EQ(following.last().default_routes.size(), 1u);
    // The kernel does not tell of routes that go with their link.
    Ip("link set one down");
    ASSERT_GE(following.Wait(), 1u);
    EXPECT_TRUE(following.last().default_routes.empty());
    EXPECT_FALSE(following.last().Find("one")->up);
    Ip("addr del 10.2.0.1/24 dev two");
    ASSERT_GE(following.Wait(), 1u);
    Ip("link del two");
    ASSERT_GE(following.Wait(), 1u);
    EXPECT_EQ(following.last().Find("two"), nullptr);
    // Another route, or rule, may lead elsewhere.
    Ip("rule add oif one lookup 300");
    EXPECT_EQ(following.Wait(), 1u);
    EXPECT_TRUE(following.IsQuiet());
    // So may the settings of a device.
    for (const char* setting :
         {"ipv4/conf/one/forwarding", "ipv6/conf/all/forwarding", "ipv4/conf/one/rp_filter"}) {
      const std::string path = std::string("/proc/sys/net/") + setting;
      std::ofstream(path) << (HostFiles().Read(path).value() == "0" ? 1 : 0);
      EXPECT_EQ(following.Wait(), 1u) << setting;
    }
  });
}

TEST(NetMonitor, FindsOutWhatTheKernelHadNoRoomToTell) {
  InFreshNetwork([] {
    MakeLinks();
    Following following;
    const int bytes = 1;  // the kernel takes its least
    ASSERT_EQ(setsockopt(following.monitor().fd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)),
              0);
    for (int i = 2; i < 60; ++i) {
      Ip("addr add 10.1.0." + std::to_string(i) + "/24 dev one");
    }
    ASSERT_GE(following.Wait(), 1u);
    const auto& addresses = following.last().addresses;
    EXPECT_TRUE(std::any_of(addresses.begin(), addresses.end(), [](const NetAddress& one) {
      return one.address == Address("10.1.0.59");
    }));
  });
}

}  // namespace
}  // namespace braid::net_monitor_test
