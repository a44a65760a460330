#include "slowpath/machine_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/packet_pool.h"
#include "io/backend.h"
#include "io/own_mark.h"
#include "io/tun_steering.h"
#include "io/udp.h"
#include "io/unique_fd.h"
#include "slowpath/ethtool.h"
#include "slowpath/network_plan.h"
#include "slowpath/nft.h"
#include "slowpath/policy_routes.h"
#include "slowpath/throwaway_network.h"
#include "slowpath/tuning.h"

namespace braid {
namespace {

constexpr char kTrialDevice[] = "doctor0";
constexpr int kTrialQueues = 2;
constexpr uint32_t kTrialTable = 47'009;

uint64_t EffectiveCapabilities(const HostFiles& files) {
  const std::string text = files.Read("/proc/self/status").value_or("");
  for (const auto line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, '\t');
    uint64_t set = 0;
    if (words.size() == 2 && words[0] == "CapEff:" && absl::SimpleHexAtoi(words[1], &set)) {
      return set;
    }
  }
  return 0;
}

absl::Status OpenTunNode() {
  const UniqueFd fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (fd) return absl::OkStatus();
  const int error = errno;
  return absl::ErrnoToStatus(error, "/dev/net/tun cannot be opened");
}

// As a worker does, on a thread of its own, since the pool belongs to one.
absl::Status TryUring() {
  absl::Status result;
  std::thread([&result] {
    auto pool = PacketPool::Create(kReceivePoolBuffers);
    if (!pool.ok()) {
      result = pool.status();
      return;
    }
    (*pool)->BindToThisThread();
    result = MakeUringBackend(**pool).status();
  }).join();
  return result;
}

void TryInNamespace(MachineState& state) {
  state.tun = absl::UnknownError("");
  const auto network = NetworkNamespace::Create();
  state.trial_network = network.status();
  if (!network.ok()) return;
  state.trial_network = network->Run([&state] {
    const auto device = OpenTun(kTrialDevice, kTrialQueues, true);
    state.tun = device.ok() ? Seen<TunOffloads>(device->offloads) : device.status();
    const auto program = LoadLaneSteering(kDefaultLanes, kTrialQueues);
    state.steering = program.status();
    if (program.ok() && device.ok()) {
      state.steering = AttachLaneSteering(device->queues.front().get(), program->get());
    }
    state.nat = MakeTable(
        NatTable(kTrialDevice, {{*IpPrefix::Parse("10.0.0.0/8"), kTrialDevice}}, NatGuard()));
    state.rules = AddRule({IpAddress::Family::kV4, kRulePriority, kOwnMark, kTrialTable});
    return absl::OkStatus();
  });
}

UdpFeatures TryUdp() {
  UdpSocketOptions options;
  options.address = *IpAddress::Parse("127.0.0.1");
  const auto socket = OpenUdp(options);
  if (!socket.ok()) return {};
  return {socket->gso, socket->gro, socket->gso ? ProbeMaxGsoDatagrams() : 0};
}

std::optional<bool> FindAesInstructions(const HostFiles& files) {
  const std::string text = files.Read("/proc/cpuinfo").value_or("");
  for (const auto line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> sides = absl::StrSplit(line, absl::MaxSplits(':', 1));
    const bool is_list = sides.size() == 2 && (sides[0].rfind("flags", 0) == 0 ||
                                               sides[0].rfind("Features", 0) == 0);  // x86, Arm
    if (!is_list) continue;
    for (const auto flag : absl::StrSplit(sides[1], ' ')) {
      if (flag == "aes") return true;
    }
    return false;
  }
  return std::nullopt;
}

std::optional<bool> IsClockSynchronised() {
  timex now{};
  const int state = adjtimex(&now);
  if (state < 0) return std::nullopt;
  return state != TIME_ERROR && (now.status & STA_UNSYNC) == 0;
}

void SurveyTuning(const HostFiles& files, const Config* config, MachineState& state) {
  state.workers = ChooseWorkers(config == nullptr ? Config() : *config);
  const auto ethtool = OpenEthtool();
  const auto links = FindTunnelLinks(files, config, LookUpAddresses());
  for (const Finding& finding :
       FindTuning(SurveyHost(files, *ethtool, ThisProcess(), links), state.workers)) {
    if (finding.verdict != Finding::Verdict::kCosts) continue;
    state.tuning_costs.push_back(finding.device.empty() ? finding.name
                                                        : finding.device + " " + finding.name);
  }
}

}  // namespace

MachineState ProbeMachine(const Config* config) {
  const HostFiles files;
  MachineState state;
  utsname name{};
  if (uname(&name) == 0) state.kernel = name.release;
  state.is_root = geteuid() == 0;
  state.capabilities = EffectiveCapabilities(files);
  state.tun_node = OpenTunNode();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) state.open_files_max = limit.rlim_cur;
  state.uring = TryUring();
  state.uring_disabled = files.ReadInteger("/proc/sys/kernel/io_uring_disabled");
  TryInNamespace(state);
  state.udp = TryUdp();
  state.has_v6 = files.ReadInteger("/proc/sys/net/ipv6/conf/default/disable_ipv6").value_or(1) == 0;
  state.aes_instructions = FindAesInstructions(files);
  SurveyTuning(files, config, state);
  state.clock_synchronised = IsClockSynchronised();
  state.clock_source =
      files.Read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  state.wall_ns = WallNowNs();
  return state;
}

}  // namespace braid
