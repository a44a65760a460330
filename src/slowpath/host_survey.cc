#include "slowpath/host_survey.h"

#include <net/if.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <sstream>
#include <string_view>

#include "base/limits.h"
#include "io/unique_fd.h"

namespace braid {
namespace {

constexpr char kDevices[] = "/sys/class/net/";
constexpr char kCpus[] = "/sys/devices/system/cpu/";

constexpr const char* kSysctls[] = {
    "net.core.rmem_max",           "net.core.wmem_max",        "net.core.optmem_max",
    "net.core.netdev_max_backlog", "net.core.busy_read",       "net.core.busy_poll",
    "net.core.bpf_jit_enable",     "kernel.io_uring_disabled",
};

std::string SysctlPath(std::string name) {
  std::replace(name.begin(), name.end(), '.', '/');
  return "/proc/sys/" + name;
}

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != text.npos;
}

// --- Devices ---

std::vector<QueueSurvey> SurveyQueues(const HostFiles& files, const std::string& device,
                                      const std::string& prefix, const char* mask) {
  std::vector<QueueSurvey> queues;
  const std::string folder = kDevices + device + "/queues/";
  for (const std::string& name : files.List(folder)) {
    if (name.rfind(prefix, 0) != 0) continue;
    int index = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + prefix.size(), end, index);
    if (parsed.ec != std::errc() || parsed.ptr != end) continue;
    queues.push_back({index, files.ReadCpuMask(folder + name + "/" + mask)});
  }
  return queues;
}

std::map<int, std::string> InterruptNames(const HostFiles& files) {
  std::map<int, std::string> names;
  std::istringstream text(files.Read("/proc/interrupts").value_or(""));
  for (std::string line; std::getline(text, line);) {
    int number = 0;
    const char* begin = line.data() + std::min(line.find_first_not_of(' '), line.size());
    const auto parsed = std::from_chars(begin, line.data() + line.size(), number);
    if (parsed.ec != std::errc() || *parsed.ptr != ':') continue;
    const size_t space = line.rfind(' ');
    if (space != line.npos) names[number] = line.substr(space + 1);
  }
  return names;
}

// Those of the queues, not those by which a card reports a link or a fault.
bool IsOfQueue(const std::string& name) {
  constexpr std::string_view kOthers[] = {"config", "async", "cmd",   "ctrl", "admin", "misc",
                                          "mgmnt",  "pages", "event", "fw",   "link",  "mbox"};
  return std::none_of(std::begin(kOthers), std::end(kOthers),
                      [&](std::string_view other) { return Contains(name, other); });
}

std::vector<InterruptSurvey> SurveyInterrupts(const HostFiles& files, const std::string& device) {
  std::vector<InterruptSurvey> interrupts;
  const std::map<int, std::string> names = InterruptNames(files);
  // A virtio device has those of the PCI device that it is part of.
  std::vector<std::string> numbers;
  for (const char* folder : {"/device/msi_irqs", "/device/../msi_irqs"}) {
    if (numbers.empty()) numbers = files.List(kDevices + device + folder);
  }
  for (const std::string& text : numbers) {
    int number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    const auto name = names.find(number);
    if (parsed.ec != std::errc() || name == names.end() || !IsOfQueue(name->second)) continue;
    const std::string folder = "/proc/irq/" + text + "/";
    interrupts.push_back(
        {number, name->second,
         files.ReadCpuList(folder + "smp_affinity_list").value_or(std::vector<int>()),
         files.ReadCpuList(folder + "effective_affinity_list").value_or(std::vector<int>())});
  }
  return interrupts;
}

Seen<int64_t> SumOf(const Seen<int64_t>& a, const Seen<int64_t>& b) {
  if (!a.ok()) return a;
  if (!b.ok()) return b;
  return *a + *b;
}

DeviceSurvey SurveyDevice(const HostFiles& files, Ethtool& ethtool, const Surveyor& surveyor,
                          const TunnelLink& link) {
  const std::string& name = link.device;
  const std::string folder = kDevices + name;
  DeviceSurvey device;
  device.name = name;
  device.why = link.why;
  device.files = CheckDeviceFiles(files, name, surveyor.device_indices);
  device.driver = ethtool.Driver(name).value_or("");
  device.features = ethtool.Features(name);
  device.channels = ethtool.Channels(name);
  device.rings = ethtool.Rings(name);
  device.coalescing = ethtool.Coalescing(name);
  device.indirection = ethtool.Indirection(name);
  device.udp4_hash = ethtool.HashFields(name, HashedFlows::kUdp4);
  device.udp6_hash = ethtool.HashFields(name, HashedFlows::kUdp6);
  if (!device.files.ok()) {
    device.threaded = device.napi_defer_hard_irqs = device.gro_flush_timeout_ns = device.rx_lost =
        device.files;
    return device;
  }
  device.physical = files.Exists(folder + "/device");
  const auto node = files.ReadInteger(folder + "/device/numa_node");
  if (node.ok() && *node >= 0) device.node = static_cast<int>(*node);
  device.rx_queues = SurveyQueues(files, name, "rx-", "rps_cpus");
  device.tx_queues = SurveyQueues(files, name, "tx-", "xps_cpus");
  device.interrupts = SurveyInterrupts(files, name);
  device.threaded = files.ReadInteger(folder + "/threaded");
  device.napi_defer_hard_irqs = files.ReadInteger(folder + "/napi_defer_hard_irqs");
  device.gro_flush_timeout_ns = files.ReadInteger(folder + "/gro_flush_timeout");
  device.rx_lost = SumOf(files.ReadInteger(folder + "/statistics/rx_missed_errors"),
                         files.ReadInteger(folder + "/statistics/rx_fifo_errors"));
  return device;
}

// --- Power ---

std::vector<GovernorSurvey> SurveyGovernors(const HostFiles& files, const CpuTopology& topology) {
  std::vector<GovernorSurvey> governors;
  const std::string folder = kCpus + std::string("cpufreq/");
  for (const std::string& name : files.List(folder)) {
    if (name.rfind("policy", 0) != 0) continue;
    // Blanks stand between these numbers.
    std::istringstream cpus(files.Read(folder + name + "/affected_cpus").value_or(""));
    bool usable = false;
    for (int cpu = 0; cpus >> cpu;) usable = usable || topology.NodeOf(cpu).has_value();
    if (!usable) continue;
    const std::string path = folder + name + "/scaling_governor";
    governors.push_back({path, files.Read(path),
                         files.Read(folder + name + "/scaling_available_governors").value_or("")});
  }
  return governors;
}

Seen<IdleSurvey> SurveyIdle(const HostFiles& files, const CpuTopology& topology) {
  const std::string folder =
      kCpus + ("cpu" + std::to_string(topology.usable.front().number)) + "/cpuidle/";
  std::optional<IdleSurvey> deepest;
  for (const std::string& state : files.List(folder)) {
    const auto latency_us = files.ReadInteger(folder + state + "/latency");
    if (!latency_us.ok() || files.ReadInteger(folder + state + "/disable").value_or(0) != 0) {
      continue;
    }
    if (!deepest || *latency_us > deepest->latency_us) {
      deepest = {files.Read(folder + state + "/name").value_or(state), *latency_us};
    }
  }
  if (!deepest) return absl::NotFoundError(folder + " has no states");
  return *deepest;
}

bool HasBattery(const HostFiles& files) {
  const std::string folder = "/sys/class/power_supply/";
  for (const std::string& name : files.List(folder)) {
    // That of a mouse or a headset says "Device".
    if (files.Read(folder + name + "/type").value_or("") == "Battery" &&
        files.Read(folder + name + "/scope").value_or("") != "Device") {
      return true;
    }
  }
  return false;
}

// --- The rest ---

bool IsRunning(const HostFiles& files, const std::string& program) {
  for (const std::string& name : files.List("/proc")) {
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    if (files.Read("/proc/" + name + "/comm").value_or("") == program) return true;
  }
  return false;
}

// Two lines, of names and of numbers: "Udp: InDatagrams NoPorts …".
Seen<int64_t> UdpOverflows(const HostFiles& files) {
  const auto v4 = files.Read("/proc/net/snmp");
  if (!v4.ok()) return v4.status();
  int64_t overflows = 0;
  std::istringstream lines(*v4);
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("Udp:", 0) != 0) continue;
    std::istringstream fields(line);
    std::vector<std::string> words;
    for (std::string word; fields >> word;) words.push_back(word);
    if (names.empty()) {
      names = std::move(words);
      continue;
    }
    for (size_t i = 0; i < std::min(names.size(), words.size()); ++i) {
      if (names[i] == "RcvbufErrors") overflows += strtoll(words[i].c_str(), nullptr, 10);
    }
  }
  std::istringstream v6(files.Read("/proc/net/snmp6").value_or(""));
  for (std::string name, value; v6 >> name >> value;) {
    if (name == "Udp6RcvbufErrors") overflows += strtoll(value.c_str(), nullptr, 10);
  }
  return overflows;
}

// A line for each CPU, in hexadecimal: packets, those dropped, ….
Seen<int64_t> BacklogDrops(const HostFiles& files) {
  const auto text = files.Read("/proc/net/softnet_stat");
  if (!text.ok()) return text.status();
  int64_t drops = 0;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string packets, dropped;
    fields >> packets >> dropped;
    drops += strtoll(dropped.c_str(), nullptr, 16);
  }
  return drops;
}

// Those that make each entry into the kernel, or the return from it, dearer.
std::vector<std::string> DearMitigations(const HostFiles& files) {
  constexpr std::pair<const char*, std::string_view> kDear[] = {
      {"meltdown", "PTI"},          {"retbleed", "untrained return thunk"},
      {"retbleed", "IBRS"},         {"spec_rstack_overflow", "Safe RET"},
      {"mds", "Clear CPU buffers"}, {"tsa", "Clear CPU buffers"},
  };
  std::vector<std::string> dear;
  for (const auto& [name, sign] : kDear) {
    const std::string text =
        files.Read(kCpus + (std::string("vulnerabilities/") + name)).value_or("");
    // Kernels write it in both ways.
    if (Contains(text, sign) || (sign == "Safe RET" && Contains(text, "safe RET"))) {
      dear.push_back(std::string(name) + " (" + std::string(sign) + ")");
    }
  }
  return dear;
}

}  // namespace

Surveyor ThisProcess() {
  Surveyor surveyor;
  surveyor.affinity = AffinityOfThisProcess();
  const std::unique_ptr<struct if_nameindex, decltype(&if_freenameindex)> all(if_nameindex(),
                                                                              if_freenameindex);
  for (const auto* one = all.get(); one != nullptr && one->if_name != nullptr; ++one) {
    surveyor.device_indices[one->if_name] = static_cast<int>(one->if_index);
  }
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  surveyor.forces_buffers = fd && setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE,
                                             &kSocketBufferBytes, sizeof(kSocketBufferBytes)) == 0;
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    surveyor.locked_bytes_max = limit.rlim_cur;
  }
  return surveyor;
}

absl::Status CheckDeviceFiles(const HostFiles& files, const std::string& device,
                              const std::map<std::string, int>& indices) {
  if (!files.Exists(kDevices + device) && indices.count(device) == 0) {
    return absl::NotFoundError(kDevices + device + " is not there");
  }
  size_t seen = 0;
  bool foreign = false;
  for (const std::string& name : files.List(kDevices)) {
    const auto index = files.ReadInteger(kDevices + name + "/ifindex");
    if (!index.ok()) continue;  // "bonding_masters" is no device
    const auto known = indices.find(name);
    foreign = foreign || known == indices.end() || known->second != *index;
    ++seen;
  }
  if (indices.empty() || (!foreign && seen == indices.size())) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "/sys shows the devices of another network namespace; enter it with \"ip netns exec\"");
}

HostSurvey SurveyHost(const HostFiles& files, Ethtool& ethtool, const Surveyor& surveyor,
                      const std::vector<TunnelLink>& links) {
  HostSurvey host;
  host.topology = ReadCpuTopology(files, surveyor.affinity);
  for (const TunnelLink& link : links) {
    host.devices.push_back(SurveyDevice(files, ethtool, surveyor, link));
  }
  host.forwards = files.ReadInteger(SysctlPath("net.ipv4.ip_forward")).value_or(0) == 1 ||
                  files.ReadInteger(SysctlPath("net.ipv6.conf.all.forwarding")).value_or(0) == 1;
  host.irqbalance = IsRunning(files, "irqbalance");
  host.governors = SurveyGovernors(files, host.topology);
  host.boost = files.ReadInteger(kCpus + std::string("cpufreq/boost"));
  host.no_turbo = files.ReadInteger(kCpus + std::string("intel_pstate/no_turbo"));
  host.idle = SurveyIdle(files, host.topology);
  host.battery = HasBattery(files);
  for (const char* name : kSysctls) host.sysctls[name] = files.ReadInteger(SysctlPath(name));
  host.forces_buffers = surveyor.forces_buffers;
  host.udp_overflows = UdpOverflows(files);
  host.backlog_drops = BacklogDrops(files);
  host.huge_pages = files.ReadSelected("/sys/kernel/mm/transparent_hugepage/enabled");
  host.locked_bytes_max = surveyor.locked_bytes_max;
  host.dear_mitigations = DearMitigations(files);
  return host;
}

}  // namespace braid
