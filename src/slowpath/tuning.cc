#include "slowpath/tuning.h"

#include <linux/ethtool.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/limits.h"
#include "slowpath/cpu_list.h"

namespace braid {
namespace {

using FindingVerdict = Finding::Verdict;

constexpr uint32_t kRingPackets = 1024;    // where a shorter one has lost packets
constexpr int64_t kBacklogPackets = 8192;  // where a shorter one has dropped packets
constexpr int64_t kControlBytes = 20480;   // what kernels have given a socket since 2.6
constexpr int64_t kDeepIdleUs = 50;
constexpr int64_t kLongFlushNs = 1'000'000;

bool IsAbsent(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsUnimplemented(status);
}

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// "no packet", "1 packet", "2 packets".
std::string Counted(int64_t count, const std::string& what) {
  if (count == 0) return "no " + what;
  return absl::StrFormat("%d %s%s", count, what, count == 1 ? "" : "s");
}

std::vector<int> Sorted(std::vector<int> cpus) {
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

class TuneFinder {
 public:
  TuneFinder(const HostSurvey& host, const WorkerLayout& layout);

  void Cpus();
  void Power();
  void Device(const DeviceSurvey& device);
  void NetCore();
  void Memory();
  void Kernel();
  std::vector<Finding> Take() { return std::move(findings_); }

 private:
  void Cores();
  void Isolation();
  void Quota();
  void Governor();
  void Boost();
  void Idle();

  void Channels(const DeviceSurvey& device);
  void Ring(const DeviceSurvey& device);
  void Offloads(const DeviceSurvey& device);
  void Offload(const DeviceSurvey& device, const std::string& shown,
               const std::vector<std::string>& names, bool wanted, const std::string& why);
  void SendChecksum(const DeviceSurvey& device);
  void Coalescing(const DeviceSurvey& device);
  void Spread(const DeviceSurvey& device);
  void Hash(const DeviceSurvey& device, const std::string& flows, const Seen<uint32_t>& fields);
  void ReceiveSteering(const DeviceSurvey& device);
  void TransmitSteering(const DeviceSurvey& device);
  void Polling(const DeviceSurvey& device);
  void Locality(const DeviceSurvey& device);
  void Interrupts(const DeviceSurvey& device);

  void AtLeast(const std::string& sysctl, int64_t least, const std::string& why_ok,
               const std::string& why);
  void Backlog(int64_t packets, int64_t dropped);

  Finding& Add(TuneGroup group, const std::string& device, const std::string& name,
               FindingVerdict verdict, const std::string& now, const std::string& why);
  void Ok(TuneGroup group, const std::string& device, const std::string& name,
          const std::string& now, const std::string& why = "") {
    Add(group, device, name, FindingVerdict::kOk, now, why);
  }
  void Unknown(TuneGroup group, const std::string& device, const std::string& name,
               const absl::Status& status) {
    Add(group, device, name, FindingVerdict::kUnknown, "", MessageOf(status));
  }
  Finding& Costs(TuneGroup group, const std::string& device, const std::string& name,
                 const std::string& now, const std::string& better, const std::string& why) {
    Finding& finding = Add(group, device, name, FindingVerdict::kCosts, now, why);
    finding.better = better;
    return finding;
  }

  const HostSurvey& host_;
  const WorkerLayout& layout_;
  const int workers_;
  std::vector<int> worker_cpus_;  // ascending; all that are usable when workers are not pinned
  std::vector<Finding> findings_;
};

TuneFinder::TuneFinder(const HostSurvey& host, const WorkerLayout& layout)
    : host_(host), layout_(layout), workers_(layout.workers()) {
  for (const int cpu : layout.cpus) {
    if (cpu >= 0) worker_cpus_.push_back(cpu);
  }
  if (worker_cpus_.empty()) {
    for (const Cpu& cpu : host.topology.usable) worker_cpus_.push_back(cpu.number);
  }
  worker_cpus_ = Sorted(std::move(worker_cpus_));
}

Finding& TuneFinder::Add(TuneGroup group, const std::string& device, const std::string& name,
                         FindingVerdict verdict, const std::string& now, const std::string& why) {
  findings_.push_back(
      {.group = group, .device = device, .name = name, .verdict = verdict, .now = now, .why = why});
  return findings_.back();
}

// --- CPUs ---

void TuneFinder::Cpus() {
  Cores();
  Isolation();
  Quota();
}

void TuneFinder::Cores() {
  const CpuTopology& topology = host_.topology;
  const size_t cpus = topology.usable.size();
  std::string now = absl::StrFormat("%d cores, %d CPUs", topology.cores(), cpus);
  if (topology.nodes().size() > 1) now += absl::StrFormat(", %d nodes", topology.nodes().size());
  if (cpus < topology.online.size()) {
    Ok(TuneGroup::kCpu, "", "cores", now,
       absl::StrFormat("of %d CPUs; the affinity or the cpuset of who asks leaves out the others",
                       topology.online.size()));
    return;
  }
  Ok(TuneGroup::kCpu, "", "cores", now,
     topology.has_siblings() ? "two threads of a core share its cipher units" : "");
}

void TuneFinder::Isolation() {
  const std::vector<int>& isolated = host_.topology.isolated;
  if (isolated.empty()) {
    Ok(TuneGroup::kCpu, "", "isolated CPUs", "none");
    return;
  }
  const bool used = std::any_of(isolated.begin(), isolated.end(), [&](int cpu) {
    return std::binary_search(worker_cpus_.begin(), worker_cpus_.end(), cpu);
  });
  Ok(TuneGroup::kCpu, "", "isolated CPUs", FormatCpuList(isolated),
     used ? "workers run there, alone"
          : "no worker runs there: the affinity has to name them (taskset, CPUAffinity=)");
}

void TuneFinder::Quota() {
  const auto& quota = host_.topology.quota_cpus;
  if (!quota) {
    Ok(TuneGroup::kCpu, "", "cgroup quota", "none");
    return;
  }
  const std::string now = absl::StrFormat("%.3g CPUs", *quota);
  if (*quota >= workers_) {
    Ok(TuneGroup::kCpu, "", "cgroup quota", now);
    return;
  }
  Costs(TuneGroup::kCpu, "", "cgroup quota", now, absl::StrFormat("%d CPUs, or none", workers_),
        absl::StrFormat("%d workers stand still together whenever it is used up", workers_));
}

// --- Power ---

void TuneFinder::Power() {
  Governor();
  Boost();
  Idle();
}

void TuneFinder::Governor() {
  if (host_.governors.empty()) {
    Ok(TuneGroup::kPower, "", "governor", "none", "clock rates are not this system's to choose");
    return;
  }
  std::set<std::string> now;
  std::vector<Change> changes;
  bool can = true;
  for (const GovernorSurvey& governor : host_.governors) {
    if (!governor.now.ok()) {
      Unknown(TuneGroup::kPower, "", "governor", governor.now.status());
      return;
    }
    now.insert(*governor.now);
    if (*governor.now == "performance") continue;
    can = can && governor.available.find("performance") != governor.available.npos;
    changes.push_back({FileSetting(governor.path), "performance"});
  }
  const std::string text = absl::StrJoin(now, " ");
  if (changes.empty()) {
    Ok(TuneGroup::kPower, "", "governor", text);
  } else if (!can) {
    Ok(TuneGroup::kPower, "", "governor", text, "the driver offers no \"performance\"");
  } else {
    Costs(TuneGroup::kPower, "", "governor", text, "performance",
          "a worker that slept begins at a low clock rate; takes more power")
        .changes = std::move(changes);
  }
}

void TuneFinder::Boost() {
  if (host_.no_turbo.ok()) {
    if (*host_.no_turbo == 0) return Ok(TuneGroup::kPower, "", "boost", "on");
    Costs(TuneGroup::kPower, "", "boost", "off", "on", "sealing is bound by the clock rate")
        .changes = {{FileSetting("/sys/devices/system/cpu/intel_pstate/no_turbo"), "0"}};
    return;
  }
  if (IsAbsent(host_.no_turbo.status()) && IsAbsent(host_.boost.status())) {
    return Ok(TuneGroup::kPower, "", "boost", "none", "not this system's to choose");
  }
  if (!host_.boost.ok()) {
    return Unknown(TuneGroup::kPower, "", "boost",
                   IsAbsent(host_.boost.status()) ? host_.no_turbo.status() : host_.boost.status());
  }
  if (*host_.boost != 0) return Ok(TuneGroup::kPower, "", "boost", "on");
  Costs(TuneGroup::kPower, "", "boost", "off", "on", "sealing is bound by the clock rate")
      .changes = {{FileSetting("/sys/devices/system/cpu/cpufreq/boost"), "1"}};
}

// Busy workers do not sleep, so what a deep state costs is delay. Who wants none of that pays with
// power and, where cores share a budget of it, with their clock rate: nothing to decide from here.
void TuneFinder::Idle() {
  if (!host_.idle.ok()) {
    if (IsAbsent(host_.idle.status())) {
      return Ok(TuneGroup::kPower, "", "idle states", "none");
    }
    return Unknown(TuneGroup::kPower, "", "idle states", host_.idle.status());
  }
  const std::string now = absl::StrFormat("%s, %d µs", host_.idle->name, host_.idle->latency_us);
  if (host_.idle->latency_us <= kDeepIdleUs) {
    return Ok(TuneGroup::kPower, "", "idle states", now);
  }
  Ok(TuneGroup::kPower, "", "idle states", now,
     host_.battery ? "delays the first packet after a pause; worth it on a battery"
                   : "delays the first packet after a pause; cpupower idle-set -D 50 ends that");
}

// --- A device ---

void TuneFinder::Device(const DeviceSurvey& device) {
  if (!device.files.ok()) {
    Unknown(TuneGroup::kNetDevice, device.name, "files", device.files);
  }
  Locality(device);
  Channels(device);
  Ring(device);
  Offloads(device);
  Coalescing(device);
  Spread(device);
  Hash(device, "udp4", device.udp4_hash);
  Hash(device, "udp6", device.udp6_hash);
  ReceiveSteering(device);
  TransmitSteering(device);
  Polling(device);
  Interrupts(device);
}

void TuneFinder::Locality(const DeviceSurvey& device) {
  if (!device.node) return;
  const auto near = std::count_if(worker_cpus_.begin(), worker_cpus_.end(), [&](int cpu) {
    return host_.topology.NodeOf(cpu) == device.node;
  });
  const std::string now =
      absl::StrFormat("node %d, %d of %d workers", *device.node, near, worker_cpus_.size());
  if (near > 0) {
    if (host_.topology.nodes().size() > 1) {
      Ok(TuneGroup::kNetDevice, device.name, "memory node", now);
    }
    return;
  }
  Costs(TuneGroup::kNetDevice, device.name, "memory node", now,
        absl::StrFormat("workers on node %d", *device.node),
        "each packet crosses between the nodes; start braid with an affinity that has CPUs there");
}

void TuneFinder::Channels(const DeviceSurvey& device) {
  if (!device.channels.ok()) {
    if (!IsAbsent(device.channels.status())) {
      return Unknown(TuneGroup::kNetDevice, device.name, "queues", device.channels.status());
    }
    if (!device.files.ok()) return;
    return Ok(TuneGroup::kNetDevice, device.name, "queues",
              absl::StrFormat("%d rx, %d tx", device.rx_queues.size(), device.tx_queues.size()),
              "not changeable");
  }
  const DeviceChannels& channels = *device.channels;
  struct Part {
    const char* name;
    uint32_t now, most;
  };
  std::string now, better, most;
  std::vector<Change> changes;
  for (const Part& part :
       {Part{"combined", channels.combined, channels.max_combined},
        Part{"rx", channels.rx, channels.max_rx}, Part{"tx", channels.tx, channels.max_tx}}) {
    if (part.most == 0) continue;
    // A device with both kinds uses the combined ones; the others are as they were meant.
    const bool counts = part.now > 0 || channels.combined == 0;
    const uint32_t wanted = std::min(part.most, static_cast<uint32_t>(workers_));
    const std::string space = now.empty() ? "" : ", ";
    now += absl::StrFormat("%s%d %s", space, part.now, part.name);
    most += absl::StrFormat("%s%d %s", space, part.most, part.name);
    if (!counts || part.now >= wanted) {
      better += absl::StrFormat("%s%d %s", space, part.now, part.name);
      continue;
    }
    better += absl::StrFormat("%s%d %s", space, wanted, part.name);
    changes.push_back({{Setting::Kind::kChannels, device.name, part.name}, std::to_string(wanted)});
  }
  if (changes.empty()) {
    const bool few = channels.combined + channels.rx < static_cast<uint32_t>(workers_);
    return Ok(TuneGroup::kNetDevice, device.name, "queues", now,
              few ? "it has no more" : "of " + most);
  }
  Costs(TuneGroup::kNetDevice, device.name, "queues", now, better,
        "a queue for each worker; the link may pause for a second when it is set")
      .changes = std::move(changes);
}

void TuneFinder::Ring(const DeviceSurvey& device) {
  if (!device.rings.ok()) {
    if (!IsAbsent(device.rings.status())) {
      Unknown(TuneGroup::kNetDevice, device.name, "rx ring", device.rings.status());
    }
    return;
  }
  const DeviceRings& rings = *device.rings;
  const std::string now = absl::StrFormat("%d of %d packets", rings.rx, rings.max_rx);
  if (!device.rx_lost.ok()) {
    return Unknown(TuneGroup::kNetDevice, device.name, "rx ring", device.rx_lost.status());
  }
  const std::string lost = Counted(*device.rx_lost, "packet") + " lost there";
  if (*device.rx_lost == 0) return Ok(TuneGroup::kNetDevice, device.name, "rx ring", now, lost);
  const uint32_t wanted = std::min(rings.max_rx, kRingPackets);
  if (rings.rx >= wanted) {
    return Ok(TuneGroup::kNetDevice, device.name, "rx ring", now,
              lost + "; it is long enough, the CPU that empties it was too slow");
  }
  Finding& finding = Costs(TuneGroup::kNetDevice, device.name, "rx ring", now,
                           absl::StrFormat("%d packets", wanted), lost);
  finding.seen_here = true;
  finding.changes = {{{Setting::Kind::kRing, device.name, "rx"}, std::to_string(wanted)}};
}

const DeviceFeature* Find(const std::vector<DeviceFeature>& features, const std::string& name) {
  const auto found = std::find_if(features.begin(), features.end(),
                                  [&](const DeviceFeature& one) { return one.name == name; });
  return found == features.end() ? nullptr : &*found;
}

void TuneFinder::Offload(const DeviceSurvey& device, const std::string& shown,
                         const std::vector<std::string>& names, bool wanted,
                         const std::string& why) {
  std::vector<Change> changes;
  bool exists = false, fixed = false;
  for (const std::string& name : names) {
    const DeviceFeature* feature = Find(*device.features, name);
    if (feature == nullptr) continue;
    exists = true;
    if (feature->on == wanted) continue;
    fixed = fixed || !feature->changeable;
    if (!feature->changeable) continue;
    changes.push_back({{Setting::Kind::kFeature, device.name, name}, wanted ? "on" : "off"});
  }
  if (!exists) return;
  const char* now = changes.empty() && !fixed ? (wanted ? "on" : "off") : (wanted ? "off" : "on");
  if (changes.empty()) {
    return Ok(TuneGroup::kNetDevice, device.name, shown, now, fixed ? "not changeable" : "");
  }
  Costs(TuneGroup::kNetDevice, device.name, shown, now, wanted ? "on" : "off", why).changes =
      std::move(changes);
}

void TuneFinder::SendChecksum(const DeviceSurvey& device) {
  constexpr const char* kNames[] = {"tx-checksum-ip-generic", "tx-checksum-ipv4",
                                    "tx-checksum-ipv6"};
  std::vector<std::string> names;
  for (const char* name : kNames) {
    const DeviceFeature* feature = Find(*device.features, name);
    if (feature == nullptr || (!feature->on && !feature->changeable)) continue;
    // The generic one stands for both of the others, and excludes them.
    if (!names.empty() && names.front() == kNames[0]) continue;
    names.push_back(name);
  }
  if (names.empty()) {
    return Ok(TuneGroup::kNetDevice, device.name, "tx checksum", "off", "not changeable");
  }
  Offload(device, "tx checksum", names, true,
          "the kernel sums up each datagram, and older ones refuse segmented sends");
}

void TuneFinder::Offloads(const DeviceSurvey& device) {
  if (!device.features.ok()) {
    return Unknown(TuneGroup::kNetDevice, device.name, "offloads", device.features.status());
  }
  if (device.physical || !device.files.ok()) {
    Offload(device, "GRO", {"rx-gro"}, true, "each datagram goes up the stack alone");
  } else {
    const DeviceFeature* gro = Find(*device.features, "rx-gro");
    Ok(TuneGroup::kNetDevice, device.name, "GRO", gro != nullptr && gro->on ? "on" : "off",
       "a virtual link hands over trains whole");
  }
  Offload(device, "GSO", {"tx-generic-segmentation"}, true, "trains are cut before the queue");
  SendChecksum(device);
  Offload(device, "rx checksum", {"rx-checksum"}, true, "the kernel sums up each datagram");
  Offload(device, "tx-udp-segmentation", {"tx-udp-segmentation"}, true,
          "the kernel cuts trains that the device could cut");
  Offload(device, "TSO", {"tx-tcp-segmentation", "tx-tcp6-segmentation"}, true,
          "the kernel cuts TCP that comes out of the tunnel and leaves here");
  if (!host_.forwards) return;
  Offload(device, "LRO", {"rx-lro"}, false, "what it joined cannot be forwarded into the tunnel");
  Offload(device, "rx-gro-list", {"rx-gro-list"}, false,
          "UDP that it joined enters the tunnel packet by packet");
  Offload(device, "rx-udp-gro-forwarding", {"rx-udp-gro-forwarding"}, true,
          "UDP that is forwarded enters the tunnel packet by packet");
}

void TuneFinder::Coalescing(const DeviceSurvey& device) {
  if (!device.physical) return;
  if (!device.coalescing.ok()) {
    if (!IsAbsent(device.coalescing.status())) {
      Unknown(TuneGroup::kNetDevice, device.name, "coalescing", device.coalescing.status());
    }
    return;
  }
  const DeviceCoalescing& coalescing = *device.coalescing;
  if (coalescing.adaptive_rx) {
    return Ok(TuneGroup::kNetDevice, device.name, "coalescing", "adaptive");
  }
  const std::string now =
      absl::StrFormat("%d µs, %s", coalescing.rx_usecs, Counted(coalescing.rx_frames, "frame"));
  const bool per_packet = coalescing.rx_usecs == 0 && coalescing.rx_frames <= 1;
  if (!per_packet || device.driver == "virtio_net") {
    return Ok(TuneGroup::kNetDevice, device.name, "coalescing", now,
              per_packet ? "the hypervisor decides" : "");
  }
  // Which of its values a driver takes cannot be told without trying, so this is left to people.
  Costs(TuneGroup::kNetDevice, device.name, "coalescing", now, "adaptive",
        "an interrupt for each packet; try: ethtool -C " + device.name + " adaptive-rx on");
}

void TuneFinder::Spread(const DeviceSurvey& device) {
  if (!device.indirection.ok()) {
    if (!IsAbsent(device.indirection.status())) {
      Unknown(TuneGroup::kNetDevice, device.name, "receive spread", device.indirection.status());
    }
    return;
  }
  const DeviceIndirection& table = *device.indirection;
  if (table.rx_queues < 2) return;
  std::vector<size_t> buckets(table.rx_queues);
  for (const uint32_t queue : table.queues) {
    if (queue < buckets.size()) ++buckets[queue];
  }
  const auto used = std::count_if(buckets.begin(), buckets.end(), [](size_t n) { return n > 0; });
  const std::string now = absl::StrFormat("%d of %d queues", used, table.rx_queues);
  const auto enough = std::min<size_t>(table.rx_queues, static_cast<size_t>(workers_));
  if (static_cast<size_t>(used) >= enough) {
    return Ok(TuneGroup::kNetDevice, device.name, "receive spread", now);
  }
  std::vector<uint32_t> even(table.queues.size());
  for (uint32_t i = 0; i < even.size(); ++i) even[i] = i % table.rx_queues;
  Costs(TuneGroup::kNetDevice, device.name, "receive spread", now,
        absl::StrFormat("%d of %d queues", table.rx_queues, table.rx_queues),
        "queues without a share of the packets leave their CPUs idle")
      .changes = {{{Setting::Kind::kSpread, device.name, "rx"}, absl::StrJoin(even, ",")}};
}

void TuneFinder::Hash(const DeviceSurvey& device, const std::string& flows,
                      const Seen<uint32_t>& fields) {
  const std::string name = flows + " receive hash";
  if (!fields.ok()) {
    if (!IsAbsent(fields.status()) && !absl::IsInvalidArgument(fields.status())) {
      Unknown(TuneGroup::kNetDevice, device.name, name, fields.status());
    }
    return;
  }
  // A driver that has no choice may answer with nothing.
  if (device.rx_queues.size() < 2 || *fields == 0) return;
  const auto letters = FormatHashFields(*fields);
  constexpr uint32_t kPorts = RXH_L4_B_0_1 | RXH_L4_B_2_3;
  constexpr uint32_t kAll = RXH_IP_SRC | RXH_IP_DST | kPorts;
  if (!letters) {
    return Ok(TuneGroup::kNetDevice, device.name, name, absl::StrFormat("%#x", *fields));
  }
  if ((*fields & kPorts) == kPorts) {
    return Ok(TuneGroup::kNetDevice, device.name, name, *letters);
  }
  Costs(TuneGroup::kNetDevice, device.name, name, *letters, *FormatHashFields(kAll),
        "lanes differ by their ports alone: without these a peer's lanes all come to one queue")
      .changes = {{{Setting::Kind::kHash, device.name, flows}, *FormatHashFields(kAll)}};
}

void TuneFinder::ReceiveSteering(const DeviceSurvey& device) {
  if (!device.files.ok() || device.rx_queues.empty() || workers_ < 2) return;
  std::vector<Change> changes;
  std::set<int> steered;
  bool any = false;
  for (const QueueSurvey& queue : device.rx_queues) {
    if (!queue.cpus.ok()) {
      if (IsAbsent(queue.cpus.status())) return;
      return Unknown(TuneGroup::kNetDevice, device.name, "RPS", queue.cpus.status());
    }
    any = any || !queue.cpus->empty();
    steered.insert(queue.cpus->begin(), queue.cpus->end());
    if (*queue.cpus == worker_cpus_) continue;
    changes.push_back(
        {DeviceFileSetting(device.name, absl::StrFormat("queues/rx-%d/rps_cpus", queue.index)),
         FormatCpuMask(worker_cpus_)});
  }
  const std::string now = any ? "CPUs " + FormatCpuList({steered.begin(), steered.end()}) : "off";
  const bool narrow = any && steered.size() < worker_cpus_.size();
  if (!any && !device.physical) {
    return Ok(TuneGroup::kNetDevice, device.name, "RPS", now,
              "packets stay on the CPU that sent them");
  }
  if (!narrow && (any || device.rx_queues.size() >= worker_cpus_.size())) {
    return Ok(TuneGroup::kNetDevice, device.name, "RPS", now,
              any ? "" : "as many queues as workers");
  }
  Costs(TuneGroup::kNetDevice, device.name, "RPS", now, "CPUs " + FormatCpuList(worker_cpus_),
        narrow ? "few CPUs take in the packets of all workers"
               : "fewer queues than workers: few CPUs take in all packets")
      .changes = std::move(changes);
}

void TuneFinder::TransmitSteering(const DeviceSurvey& device) {
  const size_t queues = device.tx_queues.size();
  if (!device.files.ok() || !device.physical || queues < 2 || workers_ < 2) return;
  std::vector<Change> changes;
  for (const QueueSurvey& queue : device.tx_queues) {
    if (!queue.cpus.ok()) {
      if (IsAbsent(queue.cpus.status())) return;
      return Unknown(TuneGroup::kNetDevice, device.name, "XPS", queue.cpus.status());
    }
    if (!queue.cpus->empty()) return Ok(TuneGroup::kNetDevice, device.name, "XPS", "on");
    std::vector<int> cpus;
    for (size_t k = 0; k < layout_.cpus.size(); ++k) {
      if (layout_.cpus[k] >= 0 && k % queues == static_cast<size_t>(queue.index)) {
        cpus.push_back(layout_.cpus[k]);
      }
    }
    if (cpus.empty()) continue;
    changes.push_back(
        {DeviceFileSetting(device.name, absl::StrFormat("queues/tx-%d/xps_cpus", queue.index)),
         FormatCpuMask(Sorted(std::move(cpus)))});
  }
  if (changes.empty()) return Ok(TuneGroup::kNetDevice, device.name, "XPS", "off");
  Costs(TuneGroup::kNetDevice, device.name, "XPS", "off", "a queue for each worker",
        "workers wait for each other at the queues")
      .changes = std::move(changes);
}

void TuneFinder::Polling(const DeviceSurvey& device) {
  if (device.threaded.ok()) {
    Ok(TuneGroup::kNetDevice, device.name, "threaded NAPI", *device.threaded != 0 ? "on" : "off",
       *device.threaded != 0
           ? "its threads compete with pinned workers; give them CPUs of their own"
           : "");
  } else if (!IsAbsent(device.threaded.status()) && device.files.ok()) {
    Unknown(TuneGroup::kNetDevice, device.name, "threaded NAPI", device.threaded.status());
  }
  if (!device.gro_flush_timeout_ns.ok() || !device.napi_defer_hard_irqs.ok()) return;
  const int64_t flush_ns = *device.gro_flush_timeout_ns;
  const std::string now =
      absl::StrFormat("defer %d, flush after %d µs", *device.napi_defer_hard_irqs, flush_ns / 1000);
  Ok(TuneGroup::kNetDevice, device.name, "NAPI timers", now,
     flush_ns >= kLongFlushNs ? "holds packets for long to join them: more delay" : "");
}

// --- Interrupts ---

// The queue that an interrupt is of: the last number in "eth0-TxRx-3", "virtio2-input.0" or
// "mlx5_comp3@pci:0000:01:00.0".
std::optional<size_t> QueueOf(const std::string& interrupt) {
  const std::string name = interrupt.substr(0, interrupt.find('@'));
  const size_t last = name.find_last_of("0123456789");
  if (last == name.npos) return std::nullopt;
  size_t first = last;
  while (first > 0 && name[first - 1] >= '0' && name[first - 1] <= '9') --first;
  if (last - first > 5) return std::nullopt;
  return std::stoul(name.substr(first, last - first + 1));
}

void TuneFinder::Interrupts(const DeviceSurvey& device) {
  if (!device.files.ok() || device.interrupts.empty()) return;
  std::set<size_t> queues;
  std::set<int> cpus;
  std::vector<Change> changes;
  for (size_t i = 0; i < device.interrupts.size(); ++i) {
    const InterruptSurvey& one = device.interrupts[i];
    const size_t queue = QueueOf(one.name).value_or(i);
    queues.insert(queue);
    const auto& at = one.delivered_to.empty() ? one.allowed : one.delivered_to;
    if (at.empty()) {
      return Unknown(
          TuneGroup::kIrq, device.name, "interrupts",
          absl::PermissionDeniedError(absl::StrFormat("/proc/irq/%d does not tell", one.number)));
    }
    cpus.insert(at.begin(), at.end());
    const int wanted = layout_.cpus[queue % layout_.cpus.size()];
    if (wanted < 0) continue;
    changes.push_back({FileSetting(absl::StrFormat("/proc/irq/%d/smp_affinity_list", one.number)),
                       std::to_string(wanted)});
  }
  const std::string now =
      absl::StrFormat("%s on CPUs %s", Counted(static_cast<int64_t>(queues.size()), "queue"),
                      FormatCpuList({cpus.begin(), cpus.end()}));
  if (cpus.size() >= std::min(queues.size(), worker_cpus_.size())) {
    return Ok(TuneGroup::kIrq, device.name, "interrupts", now,
              host_.irqbalance ? "irqbalance moves them about" : "");
  }
  Finding& finding =
      Costs(TuneGroup::kIrq, device.name, "interrupts", now, "CPUs " + FormatCpuList(worker_cpus_),
            "few CPUs take in the packets of all queues");
  if (host_.irqbalance) {
    finding.why += "; irqbalance would move them again: ban them there, or stop it";
  } else {
    finding.changes = std::move(changes);
  }
}

// --- What is the whole machine's ---

void TuneFinder::AtLeast(const std::string& sysctl, int64_t least, const std::string& why_ok,
                         const std::string& why) {
  const Seen<int64_t>& now = host_.sysctls.at(sysctl);
  const std::string name = sysctl.substr(sysctl.rfind('.') + 1);
  if (!now.ok()) return Unknown(TuneGroup::kNetCore, "", name, now.status());
  const std::string bytes = absl::StrFormat("%d bytes", *now);
  if (*now >= least || !why_ok.empty()) {
    return Ok(TuneGroup::kNetCore, "", name, bytes, *now >= least ? "" : why_ok);
  }
  Costs(TuneGroup::kNetCore, "", name, bytes, absl::StrFormat("%d bytes", least), why).changes = {
      {FileSetting("/proc/sys/net/core/" + name), std::to_string(least)}};
}

void TuneFinder::Backlog(int64_t packets, int64_t dropped) {
  const std::string now = absl::StrFormat("%d packets", packets);
  const std::string drops = Counted(dropped, "packet") + " dropped there";
  if (dropped == 0 || packets >= kBacklogPackets) {
    return Ok(TuneGroup::kNetCore, "", "netdev_max_backlog", now, drops);
  }
  Finding& finding = Costs(TuneGroup::kNetCore, "", "netdev_max_backlog", now,
                           absl::StrFormat("%d packets", kBacklogPackets), drops);
  finding.seen_here = true;
  finding.changes = {
      {FileSetting("/proc/sys/net/core/netdev_max_backlog"), std::to_string(kBacklogPackets)}};
}

void TuneFinder::NetCore() {
  const std::string forced = host_.forces_buffers ? "braid takes more for its own sockets" : "";
  const std::string small = "bursts overflow a worker's socket where it may not ask for more";
  AtLeast("net.core.rmem_max", kSocketBufferBytes, forced, small);
  AtLeast("net.core.wmem_max", kSocketBufferBytes, forced, small);
  AtLeast("net.core.optmem_max", kControlBytes, "", "control data of sends is refused");

  if (host_.udp_overflows.ok()) {
    Ok(TuneGroup::kNetCore, "", "full UDP sockets",
       Counted(*host_.udp_overflows, "datagram") + " thrown away", "of all programs, so far");
  } else {
    Unknown(TuneGroup::kNetCore, "", "full UDP sockets", host_.udp_overflows.status());
  }

  const Seen<int64_t>& backlog = host_.sysctls.at("net.core.netdev_max_backlog");
  if (!backlog.ok() || !host_.backlog_drops.ok()) {
    Unknown(TuneGroup::kNetCore, "", "netdev_max_backlog",
            backlog.ok() ? host_.backlog_drops.status() : backlog.status());
  } else {
    Backlog(*backlog, *host_.backlog_drops);
  }

  for (const char* name : {"busy_read", "busy_poll"}) {
    const Seen<int64_t>& now = host_.sysctls.at(std::string("net.core.") + name);
    if (!now.ok()) {
      Unknown(TuneGroup::kNetCore, "", name, now.status());
      continue;
    }
    Ok(TuneGroup::kNetCore, "", name, absl::StrFormat("%d µs", *now),
       *now == 0 ? "" : "workers that wait take CPU time; shorter delay, no more throughput");
  }

  const Seen<int64_t>& jit = host_.sysctls.at("net.core.bpf_jit_enable");
  if (!jit.ok()) return Unknown(TuneGroup::kNetCore, "", "bpf_jit_enable", jit.status());
  if (*jit != 0) return Ok(TuneGroup::kNetCore, "", "bpf_jit_enable", std::to_string(*jit));
  Costs(TuneGroup::kNetCore, "", "bpf_jit_enable", "0", "1",
        "the programs that pick a packet's worker are interpreted")
      .changes = {{FileSetting("/proc/sys/net/core/bpf_jit_enable"), "1"}};
}

void TuneFinder::Memory() {
  if (host_.huge_pages.ok()) {
    Ok(TuneGroup::kMemory, "", "huge pages", *host_.huge_pages, "braid asks for none");
  } else if (!IsAbsent(host_.huge_pages.status())) {
    Unknown(TuneGroup::kMemory, "", "huge pages", host_.huge_pages.status());
  }
  Ok(TuneGroup::kMemory, "", "locked memory",
     host_.locked_bytes_max ? absl::StrFormat("%d KiB", *host_.locked_bytes_max / 1024)
                            : "unlimited",
     "braid's rings are not counted there");
}

void TuneFinder::Kernel() {
  const Seen<int64_t>& disabled = host_.sysctls.at("kernel.io_uring_disabled");
  if (!disabled.ok() && !IsAbsent(disabled.status())) {
    Unknown(TuneGroup::kKernel, "", "io_uring", disabled.status());
  } else if (!disabled.ok() || *disabled == 0) {
    Ok(TuneGroup::kKernel, "", "io_uring", "permitted");
  } else if (*disabled == 1) {
    Ok(TuneGroup::kKernel, "", "io_uring", "for some",
       "for CAP_SYS_ADMIN and kernel.io_uring_group; else braid goes on with epoll");
  } else {
    // Somebody has decided so, for safety; it is not for this program to overrule.
    Costs(TuneGroup::kKernel, "", "io_uring", "forbidden", "permitted",
          "epoll reaches 0.93 of its rate; if you may: sysctl kernel.io_uring_disabled=0");
  }
  Ok(TuneGroup::kKernel, "", "mitigations",
     host_.dear_mitigations.empty() ? "no dear ones" : absl::StrJoin(host_.dear_mitigations, ", "),
     host_.dear_mitigations.empty() ? "" : "each system call costs more; that is their price");
}

}  // namespace

std::vector<Finding> FindTuning(const HostSurvey& host, const WorkerLayout& layout) {
  TuneFinder finder(host, layout);
  finder.Cpus();
  finder.Power();
  for (const DeviceSurvey& device : host.devices) finder.Device(device);
  finder.NetCore();
  finder.Memory();
  finder.Kernel();
  return finder.Take();
}

}  // namespace braid
