// What is found on machines of all kinds, read from trees of files.
#include "slowpath/tuning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/ethtool.h>

#include <functional>
#include <numeric>

#include "support/fake_ethtool.h"
#include "support/host_tree.h"

namespace braid::tuning_test {
namespace {

using ::testing::ElementsAre;
using testing::FakeEthtool;
using ::testing::HasSubstr;
using testing::HostTree;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Verdict = Finding::Verdict;

constexpr uint32_t kAddresses = RXH_IP_SRC | RXH_IP_DST;
constexpr uint32_t kAllFields = kAddresses | RXH_L4_B_0_1 | RXH_L4_B_2_3;

class TuningTest : public ::testing::Test {
 protected:
  TuningTest() { tree_.PutKernel(); }

  void PutMachine(int cores, int threads, int nodes) {
    tree_.PutCpus(cores, threads, nodes);
    surveyor_.affinity.resize(static_cast<size_t>(cores * threads));
    std::iota(surveyor_.affinity.begin(), surveyor_.affinity.end(), 0);
  }
  FakeEthtool::Device& PutDevice(const std::string& name, int queues, bool physical) {
    tree_.PutDevice(name, queues, physical);
    links_.push_back({name, "default route"});
    ethtool_.devices[name].features = FakeEthtool::GoodFeatures();
    return ethtool_.devices[name];
  }
  void PutInterrupt(int number, const std::string& name, const std::string& cpus) {
    interrupts_ +=
        " " + std::to_string(number) + ":   10   20  PCI-MSIX  1-edge      " + name + "\n";
    tree_.Put("/proc/interrupts", "      CPU0   CPU1\n" + interrupts_ + "NMI:   0   0   Non-mask");
    tree_.Put("/proc/irq/" + std::to_string(number) + "/smp_affinity_list", "0-3");
    tree_.Put("/proc/irq/" + std::to_string(number) + "/effective_affinity_list", cpus);
    tree_.Put("/sys/class/net/eth0/device/msi_irqs/" + std::to_string(number), "msix");
  }

  std::vector<Finding> Find() {
    const HostSurvey host = SurveyHost(tree_.files(), ethtool_, surveyor_, links_);
    WorkerRequest request;
    request.near_nodes = NodesOf(tree_.files(), links_);
    return FindTuning(host, ChooseWorkers(host.topology, request));
  }
  Finding Find(const std::string& name) {
    for (Finding& finding : Find()) {
      if (finding.name == name) return finding;
    }
    return {.name = "(nothing about " + name + ")", .verdict = Verdict::kUnknown};
  }
  std::vector<std::string> Costs() {
    std::vector<std::string> names;
    for (const Finding& finding : Find()) {
      if (finding.verdict == Verdict::kCosts) names.push_back(finding.name);
    }
    return names;
  }
  // Sets what was found, as --apply does, without an undo file.
  void Apply() {
    const HostFiles files = tree_.files();
    HostSettings settings(files, ethtool_);
    for (const Finding& finding : Find()) {
      for (const Change& change : finding.changes) {
        const absl::Status status = settings.Write(change.setting, change.value);
        EXPECT_TRUE(status.ok()) << status;
      }
    }
  }
  static std::vector<std::string> Values(const Finding& finding) {
    std::vector<std::string> values;
    for (const Change& change : finding.changes) values.push_back(change.value);
    return values;
  }

  HostTree tree_;
  FakeEthtool ethtool_;
  Surveyor surveyor_;
  std::vector<TunnelLink> links_;
  std::string interrupts_;
};

TEST_F(TuningTest, AMachineThatIsWellSetCostsNothing) {
  PutMachine(2, 1, 1);
  FakeEthtool::Device& device = PutDevice("eth0", 2, true);
  device.channels = DeviceChannels{0, 0, 2, 0, 0, 2};
  device.udp4_hash = device.udp6_hash = kAllFields;
  tree_.Put("/sys/class/net/eth0/queues/tx-0/xps_cpus", "1");
  tree_.Put("/sys/class/net/eth0/queues/tx-1/xps_cpus", "2");
  PutInterrupt(30, "eth0-TxRx-0", "0");
  PutInterrupt(31, "eth0-TxRx-1", "1");
  EXPECT_THAT(Costs(), IsEmpty());
  for (const Finding& finding : Find()) {
    EXPECT_NE(finding.verdict, Verdict::kUnknown) << finding.name << ": " << finding.why;
  }
}

TEST_F(TuningTest, AServerOfTwoSocketsOutOfTheBox) {
  PutMachine(8, 2, 2);
  FakeEthtool::Device& device = PutDevice("eth0", 4, true);
  tree_.Put("/sys/class/net/eth0/device/numa_node", "1");
  device.channels = DeviceChannels{0, 0, 4, 0, 0, 63};
  device.udp4_hash = kAddresses;
  device.udp6_hash = kAllFields;
  device.indirection = DeviceIndirection{{0, 1, 0, 1, 0, 1, 0, 1}, 4};
  ethtool_.FeatureOf("eth0", "tx-udp-segmentation").on = false;
  for (int queue = 0; queue < 4; ++queue) {
    PutInterrupt(30 + queue, "mlx5_comp" + std::to_string(queue) + "@pci:0000:01:00.0", "0");
  }
  PutInterrupt(29, "mlx5_async@pci:0000:01:00.0", "0");

  EXPECT_THAT(Find("cores").now, HasSubstr("8 cores, 16 CPUs, 2 nodes"));
  EXPECT_THAT(Find("memory node").now, HasSubstr("node 1, 4 of 8"));
  EXPECT_THAT(Values(Find("queues")), ElementsAre("8"));
  EXPECT_THAT(Values(Find("tx-udp-segmentation")), ElementsAre("on"));
  EXPECT_THAT(Values(Find("receive spread")), ElementsAre("0,1,2,3,0,1,2,3"));
  EXPECT_THAT(Values(Find("udp4 receive hash")), ElementsAre("sdfn"));
  EXPECT_EQ(Find("udp6 receive hash").verdict, Verdict::kOk);
  EXPECT_THAT(Values(Find("RPS")), ElementsAre("ff", "ff", "ff", "ff"));
  // Those of the workers near the device first, each queue's to its worker.
  EXPECT_THAT(Values(Find("XPS")), ElementsAre("11", "22", "44", "88"));
  EXPECT_THAT(Values(Find("interrupts")), ElementsAre("4", "5", "6", "7"));
  EXPECT_EQ(Find("interrupts").changes[0].setting, FileSetting("/proc/irq/30/smp_affinity_list"));

  Apply();
  EXPECT_EQ(Find("queues").verdict, Verdict::kOk);
  EXPECT_EQ(Find("RPS").verdict, Verdict::kOk);
  EXPECT_EQ(Find("XPS").verdict, Verdict::kOk);
  EXPECT_EQ(Find("receive spread").verdict, Verdict::kOk);
  EXPECT_EQ(tree_.Get("/proc/irq/33/smp_affinity_list"), "7");
  EXPECT_EQ(tree_.Get("/proc/irq/29/smp_affinity_list"), "0-3");
}

TEST_F(TuningTest, WorkersFarFromTheDevice) {
  PutMachine(8, 1, 2);
  PutDevice("eth0", 4, true);
  tree_.Put("/sys/class/net/eth0/device/numa_node", "1");
  surveyor_.affinity = {0, 1, 2, 3, 4};
  EXPECT_EQ(Find("memory node").verdict, Verdict::kOk);
  surveyor_.affinity = {0, 1, 2, 3};
  EXPECT_EQ(Find("memory node").verdict, Verdict::kCosts);
  EXPECT_EQ(Find("cores").now, "4 cores, 4 CPUs");
  EXPECT_THAT(Find("cores").why, HasSubstr("of 8 CPUs"));
}

TEST_F(TuningTest, ALaptop) {
  PutMachine(4, 2, 1);
  tree_.Put("/sys/class/power_supply/BAT0/type", "Battery");
  for (const char* policy : {"0", "1", "9"}) {
    const std::string folder = std::string("/sys/devices/system/cpu/cpufreq/policy") + policy;
    tree_.Put(folder + "/affected_cpus", policy);  // 9 is no CPU of it
    tree_.Put(folder + "/scaling_governor",
              policy == std::string("1") ? "performance" : "powersave");
    tree_.Put(folder + "/scaling_available_governors", "performance powersave");
  }
  tree_.Put("/sys/devices/system/cpu/intel_pstate/no_turbo", "1");
  const std::string idle = "/sys/devices/system/cpu/cpu0/cpuidle/state";
  tree_.Put(idle + "0/name", "POLL");
  tree_.Put(idle + "0/latency", "0");
  tree_.Put(idle + "2/name", "C10");
  tree_.Put(idle + "2/latency", "890");
  const Finding governor = Find("governor");
  ASSERT_THAT(governor.changes, SizeIs(1));
  EXPECT_EQ(governor.changes[0].setting.name,
            "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor");
  EXPECT_EQ(governor.group, TuneGroup::kPower);
  EXPECT_THAT(Values(Find("boost")), ElementsAre("0"));
  EXPECT_EQ(Find("boost").group, TuneGroup::kPower);
  // Never changed: what it costs is delay, and what it saves is the battery.
  EXPECT_EQ(Find("idle states").verdict, Verdict::kOk);
  EXPECT_THAT(Find("idle states").now, HasSubstr("C10, 890"));
  EXPECT_THAT(Find("idle states").why, HasSubstr("battery"));
  tree_.Put(idle + "2/disable", "1");
  EXPECT_THAT(Find("idle states").now, HasSubstr("POLL"));
}

TEST_F(TuningTest, BoostOfOtherDrivers) {
  PutMachine(2, 1, 1);
  EXPECT_EQ(Find("boost").now, "none");
  tree_.Put("/sys/devices/system/cpu/cpufreq/boost", "0");
  EXPECT_THAT(Values(Find("boost")), ElementsAre("1"));
  tree_.Put("/sys/devices/system/cpu/cpufreq/boost", "1");
  EXPECT_EQ(Find("boost").now, "on");
}

TEST_F(TuningTest, AVirtualMachineWithOneQueue) {
  PutMachine(2, 1, 1);
  FakeEthtool::Device& device = PutDevice("eth0", 1, true);
  tree_.Remove("/sys/class/net/eth0/queues/tx-0/xps_cpus");
  device.driver = "virtio_net";
  device.channels = DeviceChannels{0, 0, 1, 0, 0, 1};
  device.rings = DeviceRings{256, 256, 256, 256};
  device.coalescing = DeviceCoalescing{0, 1, false};
  PutInterrupt(38, "virtio2-input.0", "1");
  PutInterrupt(39, "virtio2-output.0", "0");
  PutInterrupt(37, "virtio2-config", "0");
  EXPECT_THAT(Costs(), ElementsAre("RPS"));
  EXPECT_THAT(Values(Find("RPS")), ElementsAre("3"));
  EXPECT_FALSE(Find("RPS").seen_here);
  EXPECT_THAT(Find("queues").why, HasSubstr("no more"));
  EXPECT_THAT(Find("coalescing").why, HasSubstr("hypervisor"));
  device.driver = "e1000";
  EXPECT_EQ(Find("coalescing").verdict, Verdict::kCosts);
  EXPECT_THAT(Find("coalescing").changes, IsEmpty());
  Apply();
  EXPECT_EQ(Find("RPS").verdict, Verdict::kOk);
}

TEST_F(TuningTest, AVirtualLinkIsLeftAloneUnlessSomebodyNarrowedIt) {
  PutMachine(2, 1, 1);
  PutDevice("veth0", 2, false);
  ethtool_.FeatureOf("veth0", "rx-gro").on = false;
  EXPECT_THAT(Costs(), IsEmpty());
  tree_.Put("/sys/class/net/veth0/queues/rx-1/rps_cpus", "2");
  EXPECT_THAT(Values(Find("RPS")), ElementsAre("3", "3"));
  EXPECT_THAT(Find("RPS").now, HasSubstr("1"));
}

TEST_F(TuningTest, OffloadsThatTheDeviceCouldDo) {
  PutMachine(2, 1, 1);
  PutDevice("eth0", 2, true);
  tree_.Put("/sys/class/net/eth0/queues/tx-0/xps_cpus", "1");
  for (const char* name :
       {"rx-gro", "tx-generic-segmentation", "tx-checksum-ip-generic", "tx-tcp6-segmentation"}) {
    ethtool_.FeatureOf("eth0", name).on = false;
  }
  EXPECT_THAT(Costs(), ElementsAre("GRO", "GSO", "tx checksum", "TSO"));
  EXPECT_EQ(Find("TSO").changes[0].setting.name, "tx-tcp6-segmentation");
  for (const char* name : {"rx-gro", "tx-generic-segmentation", "tx-checksum-ip-generic"}) {
    ethtool_.FeatureOf("eth0", name).changeable = false;
  }
  EXPECT_THAT(Costs(), ElementsAre("TSO"));
  EXPECT_EQ(Find("GRO").why, "not changeable");
  // A card with a checksum for each family.
  ethtool_.FeatureOf("eth0", "tx-checksum-ipv4").changeable = true;
  EXPECT_THAT(Costs(), ElementsAre("tx checksum", "TSO"));
  Apply();
  EXPECT_THAT(Costs(), IsEmpty());
}

TEST_F(TuningTest, WhatMattersToThoseWhoForwardOnly) {
  PutMachine(2, 1, 1);
  PutDevice("eth0", 2, false);
  ethtool_.FeatureOf("eth0", "rx-lro").on = true;
  ethtool_.FeatureOf("eth0", "rx-gro-list").on = true;
  ethtool_.FeatureOf("eth0", "rx-udp-gro-forwarding").on = false;
  EXPECT_THAT(Costs(), IsEmpty());
  tree_.Put("/proc/sys/net/ipv6/conf/all/forwarding", "1");
  EXPECT_THAT(Costs(), ElementsAre("LRO", "rx-gro-list", "rx-udp-gro-forwarding"));
  Apply();
  EXPECT_FALSE(ethtool_.FeatureOf("eth0", "rx-lro").on);
  EXPECT_THAT(Costs(), IsEmpty());
}

TEST_F(TuningTest, LossesThatWereCountedHere) {
  PutMachine(2, 1, 1);
  FakeEthtool::Device& device = PutDevice("eth0", 2, false);
  device.rings = DeviceRings{256, 256, 4096, 4096};
  EXPECT_THAT(Costs(), IsEmpty());
  tree_.Put("/sys/class/net/eth0/statistics/rx_missed_errors", "40");
  tree_.Put("/sys/class/net/eth0/statistics/rx_fifo_errors", "2");
  tree_.Put("/proc/net/softnet_stat", "01 00000000 0\n02 0000001f 0");
  EXPECT_THAT(Costs(), ElementsAre("rx ring", "netdev_max_backlog"));
  EXPECT_TRUE(Find("rx ring").seen_here);
  EXPECT_THAT(Find("rx ring").why, HasSubstr("42 packets"));
  EXPECT_THAT(Find("netdev_max_backlog").why, HasSubstr("31 packets"));
  // The counters stay; what was set is enough.
  Apply();
  EXPECT_EQ(device.rings->rx, 1024u);
  EXPECT_THAT(Costs(), IsEmpty());
  tree_.Put("/proc/net/snmp6", "Udp6RcvbufErrors 5");
  EXPECT_THAT(Find("full UDP sockets").now, HasSubstr("5 datagrams"));
}

TEST_F(TuningTest, InterruptsThatIrqbalanceWouldMoveAgain) {
  PutMachine(4, 1, 1);
  PutDevice("eth0", 4, true);
  tree_.Put("/sys/class/net/eth0/queues/tx-0/xps_cpus", "1");
  for (int queue = 0; queue < 4; ++queue) {
    PutInterrupt(30 + queue, "eth0-TxRx-" + std::to_string(queue), "2");
  }
  EXPECT_THAT(Values(Find("interrupts")), ElementsAre("0", "1", "2", "3"));
  tree_.Put("/proc/4711/comm", "irqbalance");
  EXPECT_EQ(Find("interrupts").verdict, Verdict::kCosts);
  EXPECT_THAT(Find("interrupts").changes, IsEmpty());
  EXPECT_THAT(Find("interrupts").why, HasSubstr("irqbalance"));
}

TEST_F(TuningTest, SocketBuffersMatterWhereTheyCannotBeForced) {
  PutMachine(2, 1, 1);
  tree_.Put("/proc/sys/net/core/rmem_max", "212992");
  surveyor_.forces_buffers = true;
  EXPECT_THAT(Costs(), IsEmpty());
  surveyor_.forces_buffers = false;
  EXPECT_THAT(Costs(), ElementsAre("rmem_max"));
  Apply();
  EXPECT_EQ(tree_.Get("/proc/sys/net/core/rmem_max"), std::to_string(kSocketBufferBytes));
}

TEST_F(TuningTest, TheKernelsSwitches) {
  PutMachine(2, 1, 1);
  tree_.Put("/proc/sys/net/core/bpf_jit_enable", "0");
  tree_.Put("/proc/sys/kernel/io_uring_disabled", "2");
  tree_.Put("/sys/devices/system/cpu/vulnerabilities/meltdown", "Mitigation: PTI");
  EXPECT_THAT(Costs(), ElementsAre("bpf_jit_enable", "io_uring"));
  EXPECT_THAT(Find("io_uring").changes, IsEmpty()) << "that was somebody's decision";
  EXPECT_THAT(Find("mitigations").now, HasSubstr("PTI"));
  EXPECT_EQ(Find("mitigations").verdict, Verdict::kOk);
  tree_.Remove("/proc/sys/kernel/io_uring_disabled");  // before Linux 6.6
  EXPECT_EQ(Find("io_uring").now, "permitted");
}

TEST_F(TuningTest, AQuotaThatStopsAllWorkersTogether) {
  PutMachine(4, 1, 1);
  tree_.Put("/sys/fs/cgroup/cpu.max", "150000 100000");
  EXPECT_THAT(Costs(), ElementsAre("cgroup quota"));
  EXPECT_EQ(Find("cgroup quota").better, "2 CPUs, or none");
}

TEST_F(TuningTest, AContainerThatShowsAlmostNothing) {
  HostTree empty;
  surveyor_.affinity = {0, 1};
  links_ = {{"eth0", "default route"}};
  const HostSurvey host = SurveyHost(empty.files(), ethtool_, surveyor_, links_);
  const auto findings = FindTuning(host, ChooseWorkers(host.topology, {}));
  for (const Finding& finding : findings) {
    EXPECT_NE(finding.verdict, Verdict::kCosts) << finding.name;
    EXPECT_THAT(finding.changes, IsEmpty()) << finding.name;
    if (finding.verdict == Verdict::kUnknown) {
      EXPECT_FALSE(finding.why.empty()) << finding.name;
    }
  }
}

TEST_F(TuningTest, FilesThatMayNotBeReadAreToldOf) {
  PutMachine(2, 1, 1);
  PutDevice("eth0", 1, true);
  for (const char* path :
       {"/proc/sys/net/core/rmem_max", "/sys/class/net/eth0/queues/rx-0/rps_cpus",
        "/sys/class/net/eth0/threaded", "/proc/sys/kernel/io_uring_disabled"}) {
    tree_.MakeUnreadable(path);
  }
  for (const char* name : {"rmem_max", "RPS", "threaded NAPI", "io_uring"}) {
    EXPECT_EQ(Find(name).verdict, Verdict::kUnknown) << name;
    EXPECT_THAT(Find(name).why, HasSubstr("directory")) << name;
  }
}

TEST_F(TuningTest, DamagedFilesAreToldOf) {
  PutMachine(2, 1, 1);
  PutDevice("eth0", 1, true);
  tree_.Put("/proc/sys/net/core/rmem_max", "plenty");
  tree_.Put("/sys/class/net/eth0/queues/rx-0/rps_cpus", "all of them");
  tree_.Put("/sys/class/net/eth0/threaded", "");
  tree_.Put("/proc/interrupts", "garbage\n99999999999999: x\n 7\n:");
  tree_.Put("/proc/net/softnet_stat", "\n\nzz");
  tree_.Put("/proc/net/snmp", "Udp:\nUdp: 1 2 3\nUdp");
  for (const char* name : {"rmem_max", "RPS", "threaded NAPI"}) {
    EXPECT_EQ(Find(name).verdict, Verdict::kUnknown) << name;
  }
  EXPECT_THAT(Find("rmem_max").why, HasSubstr("\"plenty\""));
}

TEST_F(TuningTest, FilesOfAnotherNetworkNamespaceAreNotBelieved) {
  PutMachine(2, 1, 1);
  PutDevice("eth0", 1, true);
  surveyor_.device_indices = {{"lo", 1}, {"eth0", 2}};
  tree_.Put("/sys/class/net/lo/ifindex", "1");
  EXPECT_EQ(Find("RPS").verdict, Verdict::kCosts);
  surveyor_.device_indices = {{"lo", 1}, {"eth0", 7}};
  EXPECT_EQ(Find("files").verdict, Verdict::kUnknown);
  EXPECT_THAT(Find("files").why, HasSubstr("another network namespace"));
  EXPECT_THAT(Find("RPS").name, HasSubstr("nothing about"));
}

}  // namespace
}  // namespace braid::tuning_test
