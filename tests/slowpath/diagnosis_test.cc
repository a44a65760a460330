#include "slowpath/diagnosis.h"

#include <gtest/gtest.h>
#include <linux/capability.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace braid::diagnosis_test {
namespace {

using Json = nlohmann::ordered_json;
using Verdict = Diagnosis::Verdict;

IpPrefix Prefix(const std::string& text) { return *IpPrefix::Parse(text); }
IpAddress Address(const std::string& text) { return *IpAddress::Parse(text); }
Endpoint Remote(const std::string& text) { return *Endpoint::Parse(text); }

// A machine on which all is well.
MachineState GoodMachine() {
  MachineState machine;
  machine.kernel = "6.6.0";
  machine.is_root = true;
  machine.capabilities = ~uint64_t{0};
  machine.open_files_max = 4096;
  machine.uring_disabled = absl::NotFoundError("");
  machine.tun = TunOffloads{true, true, true};
  machine.udp = {true, true, 64};
  machine.has_v6 = true;
  machine.aes_instructions = true;
  machine.workers = {{0}, "one"};
  machine.clock_synchronised = true;
  machine.clock_source = std::string("tsc");
  machine.wall_ns = 1'800'000'000ull * 1'000'000'000;
  return machine;
}

Config Client() {
  Config config;
  config.role = Role::kClient;
  config.network.addresses = {Prefix("10.77.0.2/24")};
  config.security.state_dir = "/state";
  return config;
}

// A client that does not run, with one path by which the server shakes hands.
TunnelState GoodTunnel() {
  TunnelState tunnel;
  tunnel.file = "client.yaml";
  tunnel.is_root = true;
  tunnel.config = Client();
  tunnel.wall_ns = 1'800'000'000ull * 1'000'000'000;
  tunnel.daemon = absl::UnavailableError("no daemon");
  tunnel.network.links = {{.index = 1, .name = "eth0", .up = true, .mtu = 1500}};
  tunnel.network.addresses = {{1, Address("192.168.1.5"), Prefix("192.168.1.0/24")}};
  tunnel.paths.push_back({.path = "fibre",
                          .peer = "hub",
                          .usable = true,
                          .device = "eth0",
                          .remote = Remote("192.0.2.1:7700"),
                          .link_mtu = 1500,
                          .answer = HandshakeAnswer{.rtt_ms = 12}});
  return tunnel;
}

const Diagnosis* Find(const std::vector<Diagnosis>& all, const std::string& name, Verdict verdict) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const Diagnosis& one) {
    return one.name == name && one.verdict == verdict;
  });
  return found == all.end() ? nullptr : &*found;
}

TEST(Diagnosis, WhereAllIsWellNothingIsSaidToBeDone) {
  std::vector<Diagnosis> all = DiagnoseMachine(GoodMachine(), nullptr);
  const std::vector<Diagnosis> more = DiagnoseTunnel(GoodTunnel());
  all.insert(all.end(), more.begin(), more.end());
  for (const Diagnosis& one : all) {
    EXPECT_EQ(one.verdict, Verdict::kOk) << one.name << ": " << one.found;
    EXPECT_EQ(one.advice, "") << one.name;
    EXPECT_NE(one.found, "") << one.name;
  }
}

TEST(Diagnosis, EachFaultOfTheMachineIsFoundWithWhatToDo) {
  struct Case {
    const char* name;
    Verdict verdict;
    std::function<void(MachineState&)> spoil;
    const char* advice;
  };
  const Case cases[] = {
      {"rights", Verdict::kFail, [](auto& m) { m.capabilities &= ~(uint64_t{1} << CAP_NET_ADMIN); },
       "--cap-add"},
      {"rights", Verdict::kWarn,
       [](auto& m) { m.capabilities &= ~(uint64_t{1} << CAP_BPF | uint64_t{1} << CAP_SYS_ADMIN); },
       "--cap-add BPF"},
      {"rights", Verdict::kUnknown,
       [](auto& m) {
         m.capabilities = 0;
         m.is_root = false;
       },
       "sudo"},
      {"tun device", Verdict::kFail, [](auto& m) { m.tun_node = absl::NotFoundError("none"); },
       "modprobe tun"},
      {"tun device", Verdict::kUnknown,
       [](auto& m) {
         m.tun_node = absl::PermissionDeniedError("no");
         m.is_root = false;
       },
       "sudo"},
      {"open files", Verdict::kWarn, [](auto& m) { m.open_files_max = 256; }, "ulimit -n"},
      {"io_uring", Verdict::kWarn,
       [](auto& m) {
         m.uring = absl::PermissionDeniedError("no");
         m.uring_disabled = 2;
       },
       "io_uring_disabled=0"},
      {"tun", Verdict::kFail, [](auto& m) { m.tun = absl::InternalError("no"); }, "CONFIG_TUN"},
      {"tun", Verdict::kWarn, [](auto& m) { m.tun = TunOffloads{}; }, "kernel"},
      {"tun", Verdict::kUnknown,
       [](auto& m) {
         m.trial_network = absl::PermissionDeniedError("no");
         m.is_root = false;
       },
       "sudo"},
      {"steering", Verdict::kWarn, [](auto& m) { m.steering = absl::InternalError("no"); },
       "CAP_BPF"},
      {"udp offloads", Verdict::kWarn, [](auto& m) { m.udp.gro = false; }, "Linux 5.0"},
      {"nftables", Verdict::kWarn, [](auto& m) { m.nat = absl::InternalError("no"); },
       "modprobe nf_tables"},
      {"rules", Verdict::kWarn, [](auto& m) { m.rules = absl::InternalError("no"); },
       "CONFIG_IP_MULTIPLE_TABLES"},
      {"aes", Verdict::kWarn, [](auto& m) { m.aes_instructions = false; }, "chacha20-poly1305"},
      {"tuning", Verdict::kWarn,
       [](auto& m) {
         m.tuning_costs = {"a", "b", "c", "d", "e"};
       },
       "braid tune"},
      {"synchronised", Verdict::kWarn, [](auto& m) { m.clock_synchronised = false; },
       "timedatectl"},
      {"synchronised", Verdict::kWarn, [](auto& m) { m.wall_ns = 0; }, "timedatectl"},
      {"source", Verdict::kWarn, [](auto& m) { m.clock_source = std::string("hpet"); }, "dmesg"},
  };
  for (const Case& c : cases) {
    MachineState machine = GoodMachine();
    c.spoil(machine);
    const auto all = DiagnoseMachine(machine, nullptr);
    const Diagnosis* found = Find(all, c.name, c.verdict);
    ASSERT_NE(found, nullptr) << c.name;
    EXPECT_NE(found->advice.find(c.advice), std::string::npos) << found->advice;
    EXPECT_NE(found->found, "");
  }
}

// As the unit has it: a socket is bound to a device when it is new.
TEST(Diagnosis, RawSocketsAreNotNeeded) {
  MachineState machine = GoodMachine();
  machine.capabilities = uint64_t{1} << CAP_NET_ADMIN | uint64_t{1} << CAP_BPF;
  EXPECT_NE(Find(DiagnoseMachine(machine, nullptr), "rights", Verdict::kOk), nullptr);
}

TEST(Diagnosis, WhatTheConfigurationNeedsFailsWhereItIsMissing) {
  MachineState machine = GoodMachine();
  machine.nat = machine.rules = machine.uring = absl::InternalError("no");
  machine.has_v6 = false;
  Config config = Client();
  for (const char* name : {"nftables", "rules", "io_uring"}) {
    EXPECT_NE(Find(DiagnoseMachine(machine, &config), name, Verdict::kWarn), nullptr) << name;
  }
  EXPECT_NE(Find(DiagnoseMachine(machine, &config), "ipv6", Verdict::kOk), nullptr);
  config.network.kill_switch = true;
  config.network.routes = RoutesConfig{};
  config.performance.io = "io_uring";
  config.network.addresses.push_back(Prefix("fd77::2/64"));
  for (const char* name : {"nftables", "rules", "io_uring", "ipv6"}) {
    EXPECT_NE(Find(DiagnoseMachine(machine, &config), name, Verdict::kFail), nullptr) << name;
  }
}

TEST(Diagnosis, EachFaultOfTheTunnelIsFoundWithWhatToDo) {
  struct Case {
    const char* name;
    Verdict verdict;
    std::function<void(TunnelState&)> spoil;
    const char* advice;
  };
  const Case cases[] = {
      {"file", Verdict::kFail,
       [](auto& t) {
         t.mistakes = {{.pointer = "/mode", .what = "is wrong"}};
         t.config.reset();
       },
       "braid check"},
      {"file", Verdict::kUnknown,
       [](auto& t) { t.mistakes = {{.what = "key: cannot be opened: Permission denied"}}; },
       "sudo"},
      {"file", Verdict::kWarn, [](auto& t) { t.warnings = {{.what = "doubtful"}}; }, ""},
      {"state folder", Verdict::kWarn,
       [](auto& t) { t.state_dir = absl::PermissionDeniedError("/state"); }, "state_dir"},
      {"clock", Verdict::kWarn, [](auto& t) { t.kept_counter = t.wall_ns + 3600'000'000'000ull; },
       "timedatectl"},
      {"leftovers", Verdict::kWarn, [](auto& t) { t.leftovers = 2; }, "braid cleanup"},
      {"kill switch", Verdict::kWarn,
       [](auto& t) {
         t.kill_switch = {{"braid0"}, true};
       },
       "braid cleanup --all"},
      {"kill switch", Verdict::kWarn,
       [](auto& t) {
         t.kill_switch = {{}, true};
       },
       "braid cleanup --all"},
      {"kill switch", Verdict::kFail,
       [](auto& t) {
         t.kill_switch = {{"braid0"}, false};
       },
       "braid kill-switch load"},
      {"kill switch", Verdict::kFail,
       [](auto& t) { t.kill_switch = absl::DataLossError("damaged"); }, "start the daemon"},
      {"kill switch", Verdict::kUnknown,
       [](auto& t) {
         t.kill_switch = absl::PermissionDeniedError("no");
         t.is_root = false;
       },
       "sudo"},
      {"daemon", Verdict::kUnknown,
       [](auto& t) { t.daemon = absl::PermissionDeniedError("socket"); }, "sudo"},
      {"device", Verdict::kFail,
       [](auto& t) { t.network.links.push_back({.index = 2, .name = "braid0"}); },
       "ip link del braid0"},
      {"addresses", Verdict::kFail,
       [](auto& t) {
         t.network.addresses.push_back({1, Address("10.77.0.9"), Prefix("10.77.0.0/16")});
       },
       "other inner addresses"},
      {"port 7700", Verdict::kFail,
       [](auto& t) {
         t.listens = {{Remote("0.0.0.0:7700"), absl::AlreadyExistsError("in use")}};
       },
       "ss -ulpn"},
      {"vpn.example", Verdict::kFail,
       [](auto& t) {
         t.names = {{"vpn.example", absl::NotFoundError("no such name")}};
       },
       "/etc/resolv.conf"},
      {"fibre", Verdict::kFail,
       [](auto& t) {
         t.paths[0].usable = false;
         t.paths[0].problem = "interface \"eth0\" is down";
       },
       "connect the link"},
      {"fibre", Verdict::kWarn, [](auto& t) { t.paths[0].problem = "doubtful"; }, ""},
      {"fibre", Verdict::kFail, [](auto& t) { t.paths[0].remote.reset(); }, "family"},
      {"fibre", Verdict::kFail, [](auto& t) { t.paths[0].link_mtu.reset(); },
       "ip route get 192.0.2.1"},
      {"fibre", Verdict::kFail,
       [](auto& t) { t.paths[0].answer = absl::DeadlineExceededError("no answer"); },
       "braid pubkey"},
      {"fibre", Verdict::kFail,
       [](auto& t) { t.paths[0].answer = absl::UnavailableError("refused"); }, "start the server"},
      {"fibre", Verdict::kWarn, [](auto& t) { t.paths[0].answer = HandshakeAnswer{.busy = true}; },
       ""},
      {"fibre mtu", Verdict::kFail, [](auto& t) { t.paths[0].link_mtu = 1300; }, "1280"},
      {"fibre mtu", Verdict::kWarn, [](auto& t) { t.config->network.mtu = 1500; },
       "leave network.mtu out"},
      {"paths", Verdict::kFail, [](auto& t) { t.paths.clear(); }, "tunnel.paths"},
      {"network.dns", Verdict::kUnknown,
       [](auto& t) {
         t.config->network.dns = DnsConfig{{Address("10.77.0.1")}, {}};
       },
       ""},
      {"dns 10.77.0.1", Verdict::kFail,
       [](auto& t) {
         t.config->network.dns = DnsConfig{{Address("10.77.0.1")}, {}};
         t.dns = {{Address("10.77.0.1"), absl::DeadlineExceededError("no answer")}};
       },
       "network.dns"},
  };
  for (const Case& c : cases) {
    TunnelState tunnel = GoodTunnel();
    c.spoil(tunnel);
    const auto all = DiagnoseTunnel(tunnel);
    const Diagnosis* found = Find(all, c.name, c.verdict);
    ASSERT_NE(found, nullptr) << c.name << " " << c.advice;
    EXPECT_NE(found->advice.find(c.advice), std::string::npos) << found->advice;
    EXPECT_EQ(found->advice.empty(), std::string(c.advice).empty()) << found->advice;
    EXPECT_NE(found->found, "");
  }
}

TEST(Diagnosis, WhatMayBeAHiddenDaemonsIsNoFault) {
  TunnelState tunnel = GoodTunnel();
  tunnel.is_root = false;
  tunnel.daemon = absl::PermissionDeniedError("socket");
  tunnel.network.links.push_back({.index = 2, .name = "braid0"});
  tunnel.listens = {{Remote("0.0.0.0:7700"), absl::AlreadyExistsError("in use")}};
  const auto all = DiagnoseTunnel(tunnel);
  for (const char* name : {"daemon", "device", "port 7700"}) {
    EXPECT_NE(Find(all, name, Verdict::kUnknown), nullptr) << name;
  }
}

TEST(Diagnosis, ADaemonThatRunsTellsOfItsPaths) {
  TunnelState tunnel = GoodTunnel();
  tunnel.network.links.push_back({.index = 2, .name = "braid0"});
  tunnel.paths[0].answer = absl::CancelledError("not asked");
  const auto with = [&](bool established, const char* state, int mtu) {
    const Json path = {{"name", "fibre"}, {"state", state}, {"rtt_ms", 12.5}, {"mtu", mtu}};
    const Json peer = {{"name", "hub"}, {"established", established}, {"paths", {path}}};
    tunnel.status =
        Json{{"pid", 7}, {"device", "braid0"}, {"peers", {peer}}, {"warnings", Json::array()}};
    return DiagnoseTunnel(tunnel);
  };
  const auto good = with(true, "up", 1432);
  EXPECT_NE(Find(good, "fibre", Verdict::kOk), nullptr);
  EXPECT_NE(Find(good, "device", Verdict::kOk), nullptr);
  EXPECT_TRUE(std::all_of(good.begin(), good.end(),
                          [](const Diagnosis& one) { return one.verdict == Verdict::kOk; }));
  EXPECT_NE(Find(with(true, "down", 1432), "fibre", Verdict::kFail), nullptr);
  EXPECT_NE(Find(with(false, "up", 1432), "fibre", Verdict::kFail), nullptr);
  EXPECT_NE(Find(with(true, "up", 1380), "fibre mtu", Verdict::kWarn), nullptr);
  // The other end counts with IPv6's header.
  EXPECT_NE(Find(with(true, "up", 1412), "fibre mtu", Verdict::kOk), nullptr);
  tunnel.config->tunnel.peers.resize(2);
  EXPECT_NE(Find(with(true, "up", 1432), "fibre → hub", Verdict::kOk), nullptr);
  tunnel.config->tunnel.peers.clear();
  // One of another version may tell other things.
  tunnel.status = Json{{"device", "braid0"}, {"peers", 5}, {"warnings", 5}};
  EXPECT_EQ(Find(DiagnoseTunnel(tunnel), "fibre", Verdict::kFail), nullptr);
}

}  // namespace
}  // namespace braid::diagnosis_test
