#include "slowpath/settings.h"

#include <gtest/gtest.h>
#include <linux/ethtool.h>

#include "support/fake_ethtool.h"
#include "support/host_tree.h"
#include "support/network.h"

namespace braid::settings_test {
namespace {

using testing::FakeEthtool;
using testing::HostTree;
using Kind = Setting::Kind;

TEST(Settings, OnlyThoseOfTheListMayBeChanged) {
  for (const Setting& setting :
       {FileSetting("/proc/sys/net/core/rmem_max"), FileSetting("/proc/irq/38/smp_affinity_list"),
        FileSetting("/sys/devices/system/cpu/cpufreq/policy12/scaling_governor"),
        DeviceFileSetting("eth0", "queues/rx-0/rps_cpus"),
        DeviceFileSetting("eth0.7", "queues/tx-31/xps_cpus"),
        Setting{Kind::kFeature, "eth0", "rx-gro"}, Setting{Kind::kChannels, "eth0", "combined"},
        Setting{Kind::kRing, "eth0", "rx"}, Setting{Kind::kHash, "eth0", "udp6"},
        Setting{Kind::kSpread, "eth0", "rx"}}) {
    EXPECT_TRUE(IsTunable(setting)) << setting.Describe();
  }
  for (const Setting& setting :
       {FileSetting("/etc/passwd"), FileSetting("/proc/sys/kernel/io_uring_disabled"),
        FileSetting("/proc/sys/net/core/../../kernel/panic"), FileSetting(""),
        FileSetting("/proc/irq/38/../../sys/kernel/panic"),
        FileSetting("/sys/class/net/eth0/queues/rx-0/rps_cpus"),
        DeviceFileSetting("../eth0", "queues/rx-0/rps_cpus"),
        DeviceFileSetting("..", "queues/rx-0/rps_cpus"),
        DeviceFileSetting("eth0", "queues/rx-0/../../mtu"), DeviceFileSetting("eth0", "threaded"),
        Setting{Kind::kFile, "eth0", "/sys/class/net/eth1/queues/rx-0/rps_cpus"},
        Setting{Kind::kFeature, "eth0", "highdma"}, Setting{Kind::kFeature, "", "rx-gro"},
        Setting{Kind::kChannels, "eth0", "other"}, Setting{Kind::kRing, "eth0", "rx-mini"},
        Setting{Kind::kHash, "eth0", "tcp4"}, Setting{Kind::kSpread, "eth0", "tx"}}) {
    EXPECT_FALSE(IsTunable(setting)) << setting.Describe();
  }
}

TEST(Settings, WhatMayNotBeChangedIsNotWritten) {
  HostTree tree;
  tree.Put("/proc/sys/kernel/panic", "0");
  FakeEthtool ethtool;
  const HostFiles files = tree.files();
  HostSettings settings(files, ethtool);
  EXPECT_TRUE(absl::IsPermissionDenied(settings.Write(FileSetting("/proc/sys/kernel/panic"), "1")));
  EXPECT_EQ(tree.Get("/proc/sys/kernel/panic"), "0");
}

TEST(Settings, EachKindIsReadAsItIsWritten) {
  HostTree tree;
  tree.PutDevice("eth0", 1, true);
  tree.Put("/proc/sys/net/core/rmem_max", "1");
  FakeEthtool ethtool;
  auto& device = ethtool.devices["eth0"];
  device.features = FakeEthtool::GoodFeatures();
  device.channels = DeviceChannels{1, 2, 3, 8, 8, 8};
  device.rings = DeviceRings{256, 512, 1024, 1024};
  device.indirection = DeviceIndirection{{0, 0}, 2};
  device.udp4_hash = device.udp6_hash = RXH_IP_SRC;
  const HostFiles files = tree.files();
  HostSettings settings(files, ethtool);
  const std::pair<Setting, const char*> cases[] = {
      {FileSetting("/proc/sys/net/core/rmem_max"), "4096"},
      {DeviceFileSetting("eth0", "queues/rx-0/rps_cpus"), "ff,00000000"},
      {{Kind::kFeature, "eth0", "rx-gro"}, "off"},
      {{Kind::kChannels, "eth0", "tx"}, "4"},
      {{Kind::kRing, "eth0", "rx"}, "1024"},
      {{Kind::kSpread, "eth0", "rx"}, "0,1"},
      {{Kind::kHash, "eth0", "udp6"}, "sdfn"},
  };
  for (const auto& [setting, value] : cases) {
    ASSERT_TRUE(IsTunable(setting)) << setting.Describe();
    ASSERT_TRUE(settings.Write(setting, value).ok()) << setting.Describe();
    EXPECT_EQ(settings.Read(setting).value_or("?"), value) << setting.Describe();
    if (setting.kind == Kind::kFile) continue;
    EXPECT_TRUE(absl::IsInvalidArgument(settings.Write(setting, "1,x"))) << setting.Describe();
    EXPECT_EQ(settings.Read(setting).value_or("?"), value) << setting.Describe();
  }
  // The others of the same command stay.
  EXPECT_EQ(device.channels->rx, 1u);
  EXPECT_EQ(device.channels->combined, 3u);
  EXPECT_EQ(device.rings->tx, 512u);
  EXPECT_EQ(*device.udp4_hash, uint32_t{RXH_IP_SRC});
}

TEST(Settings, TheSameValueMayBeWrittenInManyWays) {
  const Setting mask = DeviceFileSetting("eth0", "queues/rx-0/rps_cpus");
  EXPECT_TRUE(SameValue(mask, "3", "00000000,00000003"));
  EXPECT_FALSE(SameValue(mask, "3", "1"));
  EXPECT_FALSE(SameValue(mask, "x", "y"));
  const Setting list = FileSetting("/proc/irq/3/smp_affinity_list");
  EXPECT_TRUE(SameValue(list, "0-1", "0,1"));
  EXPECT_FALSE(SameValue(list, "0-1", "0-2"));
  EXPECT_TRUE(SameValue({Kind::kHash, "eth0", "udp4"}, "sdfn", "nfds"));
  EXPECT_FALSE(SameValue({Kind::kHash, "eth0", "udp4"}, "sd", "sdfn"));
  EXPECT_FALSE(SameValue(FileSetting("/proc/sys/net/core/rmem_max"), "1", "01"));
}

// The kernel's own answers, on the loopback device of a fresh network namespace.
TEST(Ethtool, ReadsAndSetsARealDevice) {
  testing::InFreshNetwork([] {
    const auto ethtool = OpenEthtool();
    const HostFiles files;
    HostSettings settings(files, *ethtool);
    const Setting tso{Kind::kFeature, "lo", "tx-tcp-segmentation"};
    ASSERT_EQ(settings.Read(tso).value_or("?"), "on");
    for (const char* value : {"off", "on", "off"}) {
      ASSERT_TRUE(settings.Write(tso, value).ok());
      EXPECT_EQ(settings.Read(tso).value_or("?"), value);
    }
    // The loopback device sums nothing, and lets nobody change that.
    const absl::Status fixed = settings.Write({Kind::kFeature, "lo", "rx-checksum"}, "off");
    EXPECT_FALSE(fixed.ok());
    EXPECT_TRUE(absl::IsUnimplemented(ethtool->Channels("lo").status()));
    EXPECT_TRUE(absl::IsNotFound(ethtool->Features("nowhere").status()));
    EXPECT_FALSE(ethtool->Driver("a-name-that-is-far-too-long").ok());
  });
}

}  // namespace
}  // namespace braid::settings_test
