#include <linux/capability.h>

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "slowpath/diagnosis.h"

namespace braid {
namespace {

using Verdict = Diagnosis::Verdict;

constexpr uint64_t kWantedOpenFiles = 1024;
constexpr uint64_t kEarliestWallNs = 1'704'067'200ull * 1'000'000'000;  // 2024-01-01

// What one check comes to; the table below says what it is called.
struct Judgement {
  Verdict verdict = Verdict::kOk;
  std::string found = {};
  std::string advice = {};
};

// Where the kernel was asked for something: its refusal for want of rights says nothing of it.
Judgement Unseen(const MachineState& machine, const absl::Status& why) {
  return {Verdict::kUnknown, Why(why), machine.is_root ? "" : kLookAsRoot};
}

// Needed by what the configuration asks for; a pity elsewhere.
Verdict Missing(bool needed) { return needed ? Verdict::kFail : Verdict::kWarn; }

Judgement Rights(const MachineState& machine, const Config*) {
  const bool can_steer = machine.Has(CAP_BPF) || machine.Has(CAP_SYS_ADMIN);
  if (machine.Has(CAP_NET_ADMIN)) {
    if (can_steer) return {Verdict::kOk, "CAP_NET_ADMIN and CAP_BPF"};
    return {Verdict::kWarn, "without CAP_BPF: workers hand packets to each other",
            "give it to this container or service: --cap-add BPF, or AmbientCapabilities= in its "
            "unit"};
  }
  const std::string found =
      can_steer ? "without CAP_NET_ADMIN" : "without CAP_NET_ADMIN and CAP_BPF";
  if (!machine.is_root) {
    return {Verdict::kUnknown, found + ", as befits this user; the daemon needs more", kLookAsRoot};
  }
  return {Verdict::kFail, found,
          "give them to this container or service: --cap-add NET_ADMIN --cap-add BPF, or "
          "AmbientCapabilities= in its unit"};
}

Judgement TunNode(const MachineState& machine, const Config*) {
  if (machine.tun_node.ok()) return {Verdict::kOk, "/dev/net/tun opens"};
  if (absl::IsNotFound(machine.tun_node)) {
    return {Verdict::kFail, Why(machine.tun_node),
            "load the module: modprobe tun; in a container: --device /dev/net/tun"};
  }
  if (!machine.is_root) return Unseen(machine, machine.tun_node);
  return {Verdict::kFail, Why(machine.tun_node),
          "let the daemon open it: --device /dev/net/tun of a container, DeviceAllow= of a unit"};
}

Judgement OpenFileLimit(const MachineState& machine, const Config*) {
  const std::string found = absl::StrCat(machine.open_files_max, " files");
  if (machine.open_files_max >= kWantedOpenFiles) return {Verdict::kOk, found};
  return {Verdict::kWarn, found,
          absl::StrCat("allow ", kWantedOpenFiles, ": ulimit -n, or LimitNOFILE= of the unit")};
}

Judgement Uring(const MachineState& machine, const Config* config) {
  if (machine.uring.ok()) return {Verdict::kOk, "io_uring works"};
  const bool needed = config != nullptr && config->performance.io == "io_uring";
  const bool is_off = machine.uring_disabled.ok() && *machine.uring_disabled != 0;
  return {Missing(needed), Why(machine.uring) + "; epoll is used in its place",
          is_off ? "allow it: sysctl -w kernel.io_uring_disabled=0"
                 : "a container's seccomp profile may refuse it; epoll costs some throughput"};
}

Judgement Tun(const MachineState& machine, const Config*) {
  if (!machine.trial_network.ok()) return Unseen(machine, machine.trial_network);
  if (!machine.tun.ok()) {
    return {Verdict::kFail, Why(machine.tun.status()),
            "the kernel needs CONFIG_TUN with several queues; see the line of /dev/net/tun"};
  }
  const TunOffloads& offloads = *machine.tun;
  if (!offloads.tso) {
    return {Verdict::kWarn, "several queues, but no TCP super-packets",
            "every packet is handled alone; a newer kernel gives them"};
  }
  return {Verdict::kOk, offloads.uso
                            ? "several queues, super-packets of TCP and UDP"
                            : "several queues, super-packets of TCP; of UDP since Linux 6.2"};
}

Judgement Steering(const MachineState& machine, const Config*) {
  if (!machine.trial_network.ok()) return Unseen(machine, machine.trial_network);
  if (machine.steering.ok()) return {Verdict::kOk, "BPF chooses the worker"};
  return {Verdict::kWarn, Why(machine.steering) + "; workers hand packets to each other",
          "give CAP_BPF, or CAP_SYS_ADMIN before Linux 5.8"};
}

Judgement UdpOffloads(const MachineState& machine, const Config*) {
  if (machine.udp.gso && machine.udp.gro) {
    return {Verdict::kOk, absl::StrCat("segmentation, ", machine.udp.max_gso_datagrams,
                                       " datagrams at once, and coalescing")};
  }
  return {Verdict::kWarn,
          machine.udp.gso ? "no coalescing (UDP_GRO)"
                          : "no segmentation (UDP_SEGMENT) and maybe no coalescing",
          "Linux 5.0 and later have both; without them every datagram costs a call"};
}

Judgement Nat(const MachineState& machine, const Config* config) {
  if (!machine.trial_network.ok()) return Unseen(machine, machine.trial_network);
  if (machine.nat.ok()) return {Verdict::kOk, "nftables with NAT"};
  const bool needed =
      config != nullptr && (!config->network.nat.empty() || config->network.kill_switch);
  return {Missing(needed), Why(machine.nat),
          "network.nat and network.kill_switch need it: modprobe nf_tables nft_chain_nat "
          "nft_masq, or a kernel with CONFIG_NF_TABLES and CONFIG_NFT_MASQ"};
}

Judgement Rules(const MachineState& machine, const Config* config) {
  if (!machine.trial_network.ok()) return Unseen(machine, machine.trial_network);
  if (machine.rules.ok()) return {Verdict::kOk, "routing by rules"};
  const bool needed = config != nullptr && config->network.routes.has_value();
  return {Missing(needed), Why(machine.rules),
          "network.routes needs a kernel with CONFIG_IP_MULTIPLE_TABLES"};
}

Judgement V6(const MachineState& machine, const Config* config) {
  if (machine.has_v6) return {Verdict::kOk, "on"};
  const auto is_v6 = [](const IpPrefix& prefix) { return prefix.address.is_v6(); };
  const auto listens_v6 = [](const Endpoint& listen) { return listen.address.is_v6(); };
  const bool needed =
      config != nullptr &&
      (std::any_of(config->network.addresses.begin(), config->network.addresses.end(), is_v6) ||
       std::any_of(config->tunnel.listen.begin(), config->tunnel.listen.end(), listens_v6));
  if (!needed) return {Verdict::kOk, "off, and not asked for"};
  return {Verdict::kFail, "off, but the configuration has IPv6 addresses",
          "take them out, or: sysctl -w net.ipv6.conf.all.disable_ipv6=0 "
          "net.ipv6.conf.default.disable_ipv6=0"};
}

Judgement Aes(const MachineState& machine, const Config*) {
  if (!machine.aes_instructions) return {Verdict::kUnknown, "this machine does not say", ""};
  if (*machine.aes_instructions) return {Verdict::kOk, "in hardware"};
  return {Verdict::kWarn, "no instructions for it",
          "ChaCha20-Poly1305 is faster here: tunnel.ciphers: [chacha20-poly1305]"};
}

Judgement Workers(const MachineState& machine, const Config*) {
  return {Verdict::kOk, absl::StrCat(machine.workers.workers(), ": ", machine.workers.reason)};
}

Judgement Tuning(const MachineState& machine, const Config*) {
  if (machine.tuning_costs.empty()) return {Verdict::kOk, "nothing costs throughput"};
  constexpr size_t kNamed = 4;
  std::vector<std::string> names = machine.tuning_costs;
  if (names.size() > kNamed) {
    names.resize(kNamed);
    names.push_back(absl::StrCat(machine.tuning_costs.size() - kNamed, " more"));
  }
  return {Verdict::kWarn, "costs throughput: " + absl::StrJoin(names, ", "),
          "see them: braid tune; set them: braid tune --apply"};
}

Judgement Synchronised(const MachineState& machine, const Config*) {
  if (machine.wall_ns < kEarliestWallNs) {
    return {Verdict::kWarn, "the clock was never set: it shows a time before 2024",
            "set it: timedatectl set-ntp true; months of quotas and log lines go by it"};
  }
  if (!machine.clock_synchronised) return {Verdict::kUnknown, "the kernel does not say", ""};
  if (*machine.clock_synchronised) return {Verdict::kOk, "the clock is kept right"};
  return {Verdict::kWarn, "nothing keeps the clock right",
          "timedatectl set-ntp true, or install chrony; handshakes count by it, and a clock that "
          "goes back makes a peer wait"};
}

Judgement ClockSource(const MachineState& machine, const Config*) {
  if (!machine.clock_source.ok()) {
    return {Verdict::kUnknown, Why(machine.clock_source.status()), ""};
  }
  const std::string& source = *machine.clock_source;
  if (source != "hpet" && source != "acpi_pm" && source != "jiffies") {
    return {Verdict::kOk, source};
  }
  return {Verdict::kWarn, source + ", which is slow to read",
          "every packet's time is read; see \"dmesg | grep -i tsc\" for why it is not tsc"};
}

struct Check {
  const char* group;
  const char* name;
  Judgement (*judge)(const MachineState& machine, const Config* config);
};

constexpr Check kChecks[] = {
    {"permissions", "rights", Rights},
    {"permissions", "tun device", TunNode},
    {"permissions", "open files", OpenFileLimit},
    {"kernel", "io_uring", Uring},
    {"kernel", "tun", Tun},
    {"kernel", "steering", Steering},
    {"kernel", "udp offloads", UdpOffloads},
    {"kernel", "nftables", Nat},
    {"kernel", "rules", Rules},
    {"kernel", "ipv6", V6},
    {"cpu", "aes", Aes},
    {"cpu", "workers", Workers},
    {"cpu", "tuning", Tuning},
    {"clock", "synchronised", Synchronised},
    {"clock", "source", ClockSource},
};

}  // namespace

std::vector<Diagnosis> DiagnoseMachine(const MachineState& machine, const Config* config) {
  std::vector<Diagnosis> all;
  for (const Check& check : kChecks) {
    Judgement outcome = check.judge(machine, config);
    all.push_back({check.group, check.name, outcome.verdict, std::move(outcome.found),
                   std::move(outcome.advice)});
  }
  return all;
}

}  // namespace braid
