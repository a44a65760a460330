// This machine's network as the configuration wants it, in a network of the test's own.
#include "slowpath/host_network.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "slowpath/host_files.h"
#include "slowpath/kill_switch.h"
#include "slowpath/policy_routes.h"
#include "slowpath/small_file.h"
#include "support/network.h"

struct nl_sock;
struct nl_msg;

// How often the kernel was asked through rtnetlink: libnl's own, counted.
std::atomic<int> rtnetlink_requests{0};
extern "C" int nl_send_auto(nl_sock* socket, nl_msg* message) {
  ++rtnetlink_requests;
  static auto* const next =
      reinterpret_cast<int (*)(nl_sock*, nl_msg*)>(dlsym(RTLD_NEXT, "nl_send_auto"));
  return next(socket, message);
}

namespace braid::host_network_test {
namespace {

using testing::InFreshNetwork;

constexpr uint32_t kTable = 47'009;
constexpr int kPrefixes = 2000;

void Shell(const std::string& command) {
  ASSERT_EQ(std::system((command + " >/dev/null").c_str()), 0) << command;
}

class HostNetworkTest : public ::testing::Test {
 protected:
  HostNetworkTest() {
    std::string name = (std::filesystem::temp_directory_path() / "braid-host-XXXXXX").string();
    config_.security.state_dir = mkdtemp(name.data());
    config_.network.device = "braid0";
  }
  ~HostNetworkTest() override { std::filesystem::remove_all(config_.security.state_dir); }

  // In a network of braid0 alone.
  void Begin() {
    Shell("ip tuntap add braid0 mode tun");
    Shell("ip link set braid0 up");
    auto journal = Journal::Open(JournalPath(config_.security.state_dir, "braid0"));
    ASSERT_TRUE(journal.ok()) << journal.status();
    network_.emplace(config_, host_, *std::move(journal), [](const std::string&) {});
  }

  absl::Status Follow() {
    const auto network = ReadNetSnapshot();
    return network.ok() ? network_->Follow(*network, {.has_carried = true}) : network.status();
  }

  Config config_;
  ThisHost host_;
  std::optional<HostNetwork> network_;
};

TEST_F(HostNetworkTest, AFewQuestionsTellWhatIsMissingOfThousandsOfRoutes) {
  RoutesConfig& routes = config_.network.routes.emplace();
  for (int i = 0; i < kPrefixes; ++i) {
    routes.include.push_back(*IpPrefix::Parse("10." + std::to_string(i / 256) + "." +
                                              std::to_string(i % 256) + ".0/24"));
  }
  InFreshNetwork([this] {
    Begin();
    ASSERT_EQ(Follow(), absl::OkStatus());
    const auto all = OwnRoutesIn(IpAddress::Family::kV4, kTable);
    ASSERT_GE(all->size(), size_t{kPrefixes});
    rtnetlink_requests = 0;
    ASSERT_EQ(Follow(), absl::OkStatus());
    EXPECT_LE(rtnetlink_requests, 5) << "routes and rules once";
    // What is not there is asked for once more, to be made.
    Shell("ip route del 10.1.2.0/24 table 47009");
    Shell("ip route del 10.7.0.0/24 table 47009");
    Shell("ip rule del priority 32000");
    rtnetlink_requests = 0;
    ASSERT_EQ(Follow(), absl::OkStatus());
    EXPECT_LE(rtnetlink_requests, 5 + 3);
    EXPECT_EQ(*OwnRoutesIn(IpAddress::Family::kV4, kTable), *all);
    EXPECT_EQ(OwnRules(IpAddress::Family::kV4)->size(), 1u);
    ASSERT_EQ(network_->TakeBack(), absl::OkStatus());
    EXPECT_TRUE(OwnRoutesIn(IpAddress::Family::kV4, kTable)->empty());
    EXPECT_TRUE(OwnRules(IpAddress::Family::kV4)->empty());
  });
}

TEST_F(HostNetworkTest, ATableThatSomebodyHasChangedIsMadeAnew) {
  config_.network.nat = {{*IpPrefix::Parse("10.1.0.0/24"), "braid0"}};
  InFreshNetwork([this] {
    Begin();
    ASSERT_EQ(Follow(), absl::OkStatus());
    const NftTable table{"inet", "braid_braid0", ""};
    const std::string made = *ShowTable(table);
    ASSERT_NE(made.find("masquerade"), made.npos);
    for (const char* change : {"nft flush ruleset", "nft flush table inet braid_braid0",
                               "nft flush chain inet braid_braid0 postrouting",
                               "nft add rule inet braid_braid0 postrouting accept",
                               "nft add chain inet braid_braid0 other",
                               "nft add chain inet braid_braid0 postrouting '{ policy drop; }'"}) {
      Shell(change);
      EXPECT_NE(*ShowTable(table), made) << change;
      ASSERT_EQ(Follow(), absl::OkStatus());
      EXPECT_EQ(*ShowTable(table), made) << change;
    }
    // One that nobody has changed is left as it is: the kernel would number it anew.
    const std::string numbered = config_.security.state_dir + "/numbered";
    Shell("(nft -a list ruleset > " + numbered + ")");
    Shell("grep -q handle " + numbered);
    ASSERT_EQ(Follow(), absl::OkStatus());
    Shell("nft -a list ruleset | diff - " + numbered);
    ASSERT_EQ(network_->TakeBack(), absl::OkStatus());
  });
}

// While IPv6 is forwarded, routes of router advertisements are taken by those that took them
// before.
TEST_F(HostNetworkTest, ADeviceThatComesWhileForwardingIsLeftAsItWouldHaveBeenWithoutIt) {
  config_.network.nat = {{*IpPrefix::Parse("fd00:1::/64"), "braid0"}};
  InFreshNetwork([this] {
    const auto accept_ra_of = [](const std::string& device) {
      return HostFiles().Read("/proc/sys/net/ipv6/conf/" + device + "/accept_ra").value_or("none");
    };
    const auto set = [](const std::string& device, const char* value) {
      std::ofstream("/proc/sys/net/ipv6/conf/" + device + "/accept_ra") << value;
    };
    set("default", "1");
    Shell("ip tuntap add mine mode tap");
    set("mine", "2");
    Shell("ip tuntap add early mode tap");
    Begin();
    ASSERT_EQ(Follow(), absl::OkStatus());
    Shell("ip tuntap add late mode tap");
    EXPECT_EQ(accept_ra_of("late"), "2");
    ASSERT_EQ(Follow(), absl::OkStatus());
    // One that somebody has set otherwise stays so; one that comes anew is as it would have been.
    Shell("ip tuntap add wished mode tap");
    set("wished", "0");
    Shell("ip tuntap del early mode tap");
    Shell("ip tuntap add early mode tap");
    ASSERT_EQ(Follow(), absl::OkStatus());
    ASSERT_EQ(network_->TakeBack(), absl::OkStatus());
    EXPECT_EQ(accept_ra_of("default"), "1");
    EXPECT_EQ(accept_ra_of("mine"), "2");
    EXPECT_EQ(accept_ra_of("early"), "1");
    EXPECT_EQ(accept_ra_of("late"), "1");
    EXPECT_EQ(accept_ra_of("wished"), "0");
    EXPECT_EQ(HostFiles().Read("/proc/sys/net/ipv6/conf/all/forwarding").value_or(""), "0");
  });
}

TEST_F(HostNetworkTest, TheKillSwitchIsHeldAsItWasEngaged) {
  config_.network.kill_switch = true;
  InFreshNetwork([this] {
    Begin();
    const std::string& folder = config_.security.state_dir;
    ASSERT_EQ(EngageKillSwitch(folder, "braid0"), absl::OkStatus());
    const NftTable table = **KeptKillSwitch(folder);
    const std::string made = *ShowTable(table);
    Shell("nft flush chain inet braid_kill_switch output");
    ASSERT_EQ(Follow(), absl::OkStatus());
    EXPECT_EQ(*ShowTable(table), made);
    Shell("nft delete table inet braid_kill_switch");
    ASSERT_EQ(Follow(), absl::OkStatus());
    EXPECT_EQ(*ShowTable(table), made);
    // Another daemon's tunnel is let out as well from then on.
    ASSERT_EQ(EngageKillSwitch(folder, "braid1"), absl::OkStatus());
    const std::string of_both = *ShowTable(table);
    ASSERT_EQ(Follow(), absl::OkStatus());
    EXPECT_EQ(*ShowTable(table), of_both);
    // Once it was lifted it stays so.
    ASSERT_EQ(LiftKillSwitch(folder), absl::OkStatus());
    ASSERT_EQ(Follow(), absl::OkStatus());
    EXPECT_EQ(*ShowTable(table), "");
  });
}

// Not behind what cannot be made now.
TEST_F(HostNetworkTest, TheKillSwitchComesBackWhileTheTunnelCannot) {
  config_.network.kill_switch = true;
  config_.network.routes.emplace().include = {*IpPrefix::Parse("10.1.0.0/24"),
                                              *IpPrefix::Parse("fd01::/64")};
  InFreshNetwork([this] {
    Begin();
    const std::string& folder = config_.security.state_dir;
    ASSERT_EQ(EngageKillSwitch(folder, "braid0"), absl::OkStatus());
    ASSERT_EQ(Follow(), absl::OkStatus());
    const NftTable table = **KeptKillSwitch(folder);
    Shell("ip link set braid0 down");
    Shell("nft flush ruleset");
    EXPECT_FALSE(Follow().ok()) << "no route leads by a device that is down";
    EXPECT_TRUE(*HasTable(table));
    Shell("ip link set braid0 up");
    EXPECT_EQ(Follow(), absl::OkStatus());
    // Then there is no IPv6 to be routed, so that goes.
    std::ofstream("/proc/sys/net/ipv6/conf/braid0/disable_ipv6") << "1";
    Shell("nft flush ruleset");
    EXPECT_EQ(Follow(), absl::OkStatus());
    EXPECT_TRUE(*HasTable(table));
    EXPECT_TRUE(OwnRules(IpAddress::Family::kV6)->empty());
    EXPECT_EQ(network_->TakeBack(), absl::OkStatus());
  });
}

TEST_F(HostNetworkTest, OfWhatCannotBeMadeAnewTheRestIs) {
  config_.network.routes.emplace().include = {*IpPrefix::Parse("10.1.0.0/24")};
  config_.network.nat = {{*IpPrefix::Parse("10.2.0.0/24"), "braid0"}};
  InFreshNetwork([this] {
    Begin();
    ASSERT_EQ(Follow(), absl::OkStatus());
    Shell("ip link set braid0 down");
    Shell("ip rule del priority 32000");
    EXPECT_FALSE(Follow().ok());
    EXPECT_EQ(OwnRules(IpAddress::Family::kV4)->size(), 1u) << "it stands behind the routes";
    Shell("ip link set braid0 up");
    EXPECT_EQ(Follow(), absl::OkStatus());
    EXPECT_EQ(network_->TakeBack(), absl::OkStatus());
  });
}

TEST_F(HostNetworkTest, WhoEngagesAtTheSameTimeIsNotLost) {
  InFreshNetwork([this] {
    const std::string& folder = config_.security.state_dir;
    std::vector<std::thread> all;
    for (int i = 0; i < 8; ++i) {
      all.emplace_back([&folder, i] {
        EXPECT_EQ(EngageKillSwitch(folder, "braid" + std::to_string(i)), absl::OkStatus());
      });
    }
    for (std::thread& one : all) one.join();
    EXPECT_EQ(LookAtKillSwitch(folder)->kept_for.size(), 8u);
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      EXPECT_EQ(file.path().filename().string().find(".new"), std::string::npos) << file.path();
    }
    ASSERT_EQ(LiftKillSwitch(folder), absl::OkStatus());
  });
}

TEST_F(HostNetworkTest, OneThatCannotBeReadIsNotTakenForDamaged) {
  InFreshNetwork([this] {
    const std::string& folder = config_.security.state_dir;
    ASSERT_EQ(EngageKillSwitch(folder, "braid0"), absl::OkStatus());
    const std::string file = folder + "/kill-switch.json";
    std::filesystem::permissions(file, std::filesystem::perms(0644));
    EXPECT_TRUE(absl::IsPermissionDenied(EngageKillSwitch(folder, "braid1")));
    std::filesystem::permissions(file, std::filesystem::perms(0600));
    EXPECT_EQ(LookAtKillSwitch(folder)->kept_for, std::set<std::string>{"braid0"});
    // What is as it is to be is not written.
    const FileVersion before = VersionOf(file);
    ASSERT_EQ(EngageKillSwitch(folder, "braid0"), absl::OkStatus());
    EXPECT_EQ(VersionOf(file), before);
    std::ofstream(file) << "{";
    ASSERT_EQ(EngageKillSwitch(folder, "braid1"), absl::OkStatus());
    EXPECT_EQ(LookAtKillSwitch(folder)->kept_for, std::set<std::string>{"braid1"});
    ASSERT_EQ(EngageKillSwitch(folder, "braid2"), absl::OkStatus());
    ASSERT_EQ(ReleaseFromKillSwitch(folder, "braid1"), absl::OkStatus());
    EXPECT_TRUE(absl::IsNotFound(ReleaseFromKillSwitch(folder, "braid1")));
    EXPECT_TRUE(absl::IsFailedPrecondition(ReleaseFromKillSwitch(folder, "braid2")));
    EXPECT_EQ(*HasTable(**KeptKillSwitch(folder)), true);
    ASSERT_EQ(LiftKillSwitch(folder), absl::OkStatus());
  });
}

}  // namespace
}  // namespace braid::host_network_test
