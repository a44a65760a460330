// How many workers there are and where, on machines of all shapes.
#include "slowpath/worker_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "slowpath/config.h"
#include "slowpath/tunnel_links.h"
#include "support/host_tree.h"

namespace braid::worker_layout_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HostTree;

std::vector<int> UpTo(int count) {
  std::vector<int> cpus(static_cast<size_t>(count));
  std::iota(cpus.begin(), cpus.end(), 0);
  return cpus;
}

class WorkerLayoutTest : public ::testing::Test {
 protected:
  WorkerLayout Choose(const std::vector<int>& affinity, const WorkerRequest& request = {}) {
    return ChooseWorkers(ReadCpuTopology(tree_.files(), affinity), request);
  }

  HostTree tree_;
};

TEST_F(WorkerLayoutTest, TwoCoresWithoutThreadsHaveAWorkerEach) {
  tree_.PutCpus(2, 1, 1);
  const WorkerLayout layout = Choose(UpTo(2));
  EXPECT_THAT(layout.cpus, ElementsAre(0, 1));
  EXPECT_THAT(layout.reason, HasSubstr("2 cores"));
}

TEST_F(WorkerLayoutTest, ThreadsOfACoreShareAWorker) {
  tree_.PutCpus(4, 2, 1);
  EXPECT_THAT(Choose(UpTo(8)).cpus, ElementsAre(0, 1, 2, 3));
}

TEST_F(WorkerLayoutTest, ThreadsThatAreNumberedNextToEachOtherShareOneToo) {
  const std::string folder = "/sys/devices/system/cpu/cpu";
  for (int cpu = 0; cpu < 4; ++cpu) {
    tree_.Put(folder + std::to_string(cpu) + "/topology/thread_siblings_list",
              cpu < 2 ? "0-1" : "2-3");
  }
  EXPECT_THAT(Choose(UpTo(4)).cpus, ElementsAre(0, 2));
}

TEST_F(WorkerLayoutTest, TheThreadsOfTheOnlyCoreHaveAWorkerEach) {
  tree_.PutCpus(1, 2, 1);
  const WorkerLayout layout = Choose(UpTo(2));
  EXPECT_THAT(layout.cpus, ElementsAre(0, 1));
  EXPECT_THAT(layout.reason, HasSubstr("only core"));
}

TEST_F(WorkerLayoutTest, OnlyUsableCpusCount) {
  tree_.PutCpus(4, 2, 1);
  EXPECT_THAT(Choose({1, 2, 5}).cpus, ElementsAre(1, 2));
  // The second thread of a core whose first one may not be used.
  EXPECT_THAT(Choose({1, 6}).cpus, ElementsAre(1, 6));
  EXPECT_THAT(Choose({3}).cpus, ElementsAre(3));
}

TEST_F(WorkerLayoutTest, CoresNearTheDeviceComeFirst) {
  tree_.PutCpus(8, 2, 2);
  EXPECT_THAT(Choose(UpTo(16), {.near_nodes = {1}}).cpus, ElementsAre(4, 5, 6, 7, 0, 1, 2, 3));
  EXPECT_THAT(Choose(UpTo(16), {.lanes = 3, .near_nodes = {1}}).cpus, ElementsAre(4, 5, 6));
  EXPECT_THAT(Choose(UpTo(16)).cpus, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST_F(WorkerLayoutTest, MoreThanCoresTakeTheOtherThreads) {
  tree_.PutCpus(2, 2, 1);
  EXPECT_THAT(Choose(UpTo(4), {.workers = 3}).cpus, ElementsAre(0, 1, 2));
  EXPECT_THAT(Choose(UpTo(4), {.workers = 6}).cpus, ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(Choose(UpTo(4), {.workers = 1}).cpus, ElementsAre(0));
}

TEST_F(WorkerLayoutTest, LanesAndTheLimitBound) {
  EXPECT_EQ(Choose(UpTo(200), {.lanes = 128}).workers(), kMaxWorkers);
  EXPECT_EQ(Choose(UpTo(32)).workers(), kDefaultLanes);
  EXPECT_EQ(Choose(UpTo(32), {.lanes = 1}).workers(), 1);
  // Who asks for more gets them.
  EXPECT_EQ(Choose(UpTo(4), {.workers = 2, .lanes = 1}).workers(), 2);
}

TEST_F(WorkerLayoutTest, WithoutPinningTheCountIsTheSame) {
  EXPECT_THAT(Choose(UpTo(2), {.pin = false}).cpus, ElementsAre(-1, -1));
}

TEST_F(WorkerLayoutTest, TheQuotaOfTheControlGroupBoundsRoundedUp) {
  tree_.PutCpus(4, 1, 1);
  tree_.Put("/proc/self/cgroup", "0::/system.slice/braid.service");
  tree_.Put("/sys/fs/cgroup/system.slice/braid.service/cpu.max", "max 100000");
  EXPECT_EQ(Choose(UpTo(4)).workers(), 4);
  tree_.Put("/sys/fs/cgroup/system.slice/cpu.max", "150000 100000");
  const WorkerLayout layout = Choose(UpTo(4));
  EXPECT_THAT(layout.cpus, ElementsAre(0, 1));
  EXPECT_THAT(layout.reason, HasSubstr("1.5 CPUs"));
  tree_.Put("/sys/fs/cgroup/system.slice/braid.service/cpu.max", "10000 100000");
  EXPECT_EQ(Choose(UpTo(4)).workers(), 1);
  EXPECT_EQ(Choose(UpTo(4), {.workers = 3}).workers(), 3);
}

TEST_F(WorkerLayoutTest, SoDoesThatOfVersionOne) {
  tree_.PutCpus(4, 1, 1);
  tree_.Put("/proc/self/cgroup", "4:cpu,cpuacct:/docker/1f\n2:cpuset:/\n0::/");
  tree_.Put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000");  // the container sees its own here
  tree_.Put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(Choose(UpTo(4)).workers(), 3);
  tree_.Put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
  EXPECT_EQ(Choose(UpTo(4)).workers(), 4);
}

TEST_F(WorkerLayoutTest, DamagedFilesAreTakenToBePlain) {
  tree_.PutCpus(2, 2, 1);
  const std::string topology = "/sys/devices/system/cpu/cpu";
  tree_.Put(topology + "0/topology/thread_siblings_list", "zero");
  tree_.Put(topology + "1/topology/thread_siblings_list", "7-9");  // CPU 1 is not among them
  tree_.Put(topology + "2/topology/thread_siblings_list", "");
  tree_.MakeUnreadable(topology + "3/topology/thread_siblings_list");
  tree_.Put("/sys/devices/system/node/online", "1000000");
  tree_.Put("/proc/self/cgroup", "nonsense\n0::/../..\n:\n");
  tree_.Put("/sys/fs/cgroup/cpu.max", "ten of hundred");
  const CpuTopology read = ReadCpuTopology(tree_.files(), UpTo(4));
  EXPECT_EQ(read.cores(), 4);
  EXPECT_FALSE(read.quota_cpus.has_value());
  EXPECT_THAT(Choose(UpTo(4)).cpus, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(Choose({}).workers(), 1);
}

TEST(WorkerLayoutHere, IsOfCpusThatThisProcessMayUse) {
  const std::vector<int> affinity = AffinityOfThisProcess();
  const WorkerLayout layout = ChooseWorkers(Config{});
  ASSERT_GE(layout.workers(), 1);
  for (const int cpu : layout.cpus) EXPECT_THAT(affinity, ::testing::Contains(cpu));
}

// --- Which devices the tunnel uses ---

class TunnelLinksTest : public ::testing::Test {
 protected:
  TunnelLinksTest() {
    lookup_.devices = {{Address("10.1.0.1"), "fibre"}, {Address("10.2.0.1"), "lte"}};
    lookup_.source_towards = [](const Endpoint& remote) {
      return remote.ToString() == "192.0.2.1:7700" ? Address("10.2.0.1") : IpAddress{};
    };
  }
  static IpAddress Address(const char* text) { return IpAddress::Parse(text).value(); }
  std::vector<std::string> Names(const Config* config) {
    std::vector<std::string> names;
    for (const auto& link : FindTunnelLinks(tree_.files(), config, lookup_)) {
      names.push_back(link.device);
    }
    return names;
  }
  void PutDefaultRoutes() {
    tree_.Put("/proc/net/route",
              "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
              "fibre\t00000000\t0100010A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
              "lan\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
              "half\t00000000\t0100010A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
              "broken");
    const std::string zero(32, '0');
    tree_.Put("/proc/net/ipv6_route",
              zero + " 00 " + zero + " 00 " + zero + " 00000400 00000002 00000000 00000003 six\n" +
                  zero + " 00 " + zero + " 00 " + zero + " ffffffff 00000001 00000000 00200200 lo");
  }

  HostTree tree_;
  AddressLookup lookup_;
};

TEST_F(TunnelLinksTest, AreThoseOfDefaultRoutes) {
  EXPECT_THAT(Names(nullptr), ElementsAre());
  PutDefaultRoutes();
  EXPECT_THAT(Names(nullptr), ElementsAre("fibre", "six"));
}

TEST_F(TunnelLinksTest, AndThoseThatTheConfigurationNames) {
  PutDefaultRoutes();
  Config client;
  PathConfig by_name, by_address, by_endpoint;
  by_name.interface = "wwan0";
  by_address.address = Address("10.1.0.1");
  by_endpoint.endpoint = HostPort{"192.0.2.1", 7700, Address("192.0.2.1")};
  client.tunnel.peers.emplace_back();
  client.tunnel.paths = {by_name, by_address, by_endpoint};
  EXPECT_THAT(Names(&client), ElementsAre("wwan0", "fibre", "lte", "six"));
  Config server;
  server.role = Role::kServer;
  server.tunnel.listen = {{Address("10.2.0.1"), 7700}, {Address("0.0.0.0"), 7700}};
  EXPECT_THAT(Names(&server), ElementsAre("lte", "fibre", "six"));
}

TEST_F(TunnelLinksTest, ButNotTheTunnelItself) {
  PutDefaultRoutes();
  Config config;
  config.network.device = "six";
  EXPECT_THAT(Names(&config), ElementsAre("fibre"));
}

TEST_F(TunnelLinksTest, AndThoseBelowABond) {
  PutDefaultRoutes();
  tree_.Put("/sys/class/net/fibre/lower_eth0/ifindex", "3");
  tree_.Put("/sys/class/net/fibre/lower_eth1/ifindex", "4");
  tree_.Put("/sys/class/net/eth1/lower_fibre/ifindex", "2");  // a circle ends
  EXPECT_THAT(Names(nullptr), ElementsAre("fibre", "eth0", "eth1", "six"));
}

TEST_F(TunnelLinksTest, TellTheirMemoryNodes) {
  PutDefaultRoutes();
  tree_.Put("/sys/class/net/fibre/device/numa_node", "1");
  tree_.Put("/sys/class/net/six/device/numa_node", "-1");
  EXPECT_THAT(NodesOf(tree_.files(), FindTunnelLinks(tree_.files(), nullptr, lookup_)),
              ElementsAre(1));
}

}  // namespace
}  // namespace braid::worker_layout_test
