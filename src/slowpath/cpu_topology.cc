#include "slowpath/cpu_topology.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "slowpath/cpu_list.h"

namespace braid {
namespace {

constexpr char kCpuFolder[] = "/sys/devices/system/cpu/";
constexpr char kNodeFolder[] = "/sys/devices/system/node/";

int CoreOf(const HostFiles& files, int cpu) {
  const std::string folder = kCpuFolder + ("cpu" + std::to_string(cpu)) + "/topology/";
  const auto siblings = files.ReadCpuList(folder + "thread_siblings_list");
  if (!siblings.ok() || siblings->empty()) return cpu;
  // A core of which this CPU is none would be somebody else's.
  const bool of_it = std::binary_search(siblings->begin(), siblings->end(), cpu);
  return of_it ? siblings->front() : cpu;
}

std::map<int, int> NodesByCpu(const HostFiles& files) {
  std::map<int, int> nodes;
  const auto online = files.ReadCpuList(kNodeFolder + std::string("online"));
  if (!online.ok()) return nodes;
  for (const int node : *online) {
    const auto cpus = files.ReadCpuList(kNodeFolder + ("node" + std::to_string(node)) + "/cpulist");
    if (!cpus.ok()) continue;
    for (const int cpu : *cpus) nodes[cpu] = node;
  }
  return nodes;
}

// Control groups. A container may see its own group's files at the top of the mount and still be
// told a path that leads nowhere there, so every folder from the path up to the mount is looked at;
// each level's limit binds, hence the least counts.

std::optional<double> QuotaIn(const HostFiles& files, const std::string& folder) {
  if (const auto text = files.Read(folder + "cpu.max"); text.ok()) {  // version 2: "max 100000"
    double quota_us = 0, period_us = 0;
    const char* end = text->data() + text->size();
    const auto first = std::from_chars(text->data(), end, quota_us);
    if (first.ec != std::errc() || first.ptr == end) return std::nullopt;
    const auto second = std::from_chars(first.ptr + 1, end, period_us);
    if (second.ec != std::errc() || period_us <= 0 || quota_us <= 0) return std::nullopt;
    return quota_us / period_us;
  }
  const auto quota_us = files.ReadInteger(folder + "cpu.cfs_quota_us");
  const auto period_us = files.ReadInteger(folder + "cpu.cfs_period_us");
  if (!quota_us.ok() || !period_us.ok() || *quota_us <= 0 || *period_us <= 0) return std::nullopt;
  return static_cast<double>(*quota_us) / static_cast<double>(*period_us);
}

void TightenAlong(const HostFiles& files, const std::string& mount, std::string path,
                  std::optional<double>& least) {
  for (;;) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    const auto quota = QuotaIn(files, mount + path + "/");
    if (quota) least = std::min(least.value_or(*quota), *quota);
    if (path.empty()) return;
    const size_t slash = path.rfind('/');
    path.resize(slash == path.npos ? 0 : slash);
  }
}

bool Names(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (list.substr(0, comma) == name) return true;
    list.remove_prefix(comma == list.npos ? list.size() : comma + 1);
  }
  return false;
}

std::optional<double> ReadQuota(const HostFiles& files) {
  std::optional<double> least;
  const auto groups = files.Read("/proc/self/cgroup");
  if (!groups.ok()) return least;
  std::string_view rest = *groups;
  while (!rest.empty()) {  // "0::/system.slice/braid.service", "4:cpu,cpuacct:/docker/1f"
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? first : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string path(line.substr(second + 1));
    if (path.find("..") != path.npos) continue;  // of a group outside of what is mounted here
    if (controllers.empty()) {
      TightenAlong(files, "/sys/fs/cgroup", path, least);
      TightenAlong(files, "/sys/fs/cgroup/unified", path, least);
    } else if (Names(controllers, "cpu")) {
      TightenAlong(files, "/sys/fs/cgroup/cpu", path, least);
    }
  }
  return least;
}

}  // namespace

int CpuTopology::cores() const {
  std::set<int> cores;
  for (const Cpu& cpu : usable) cores.insert(cpu.core);
  return static_cast<int>(cores.size());
}

std::vector<int> CpuTopology::nodes() const {
  std::set<int> nodes;
  for (const Cpu& cpu : usable) nodes.insert(cpu.node);
  return {nodes.begin(), nodes.end()};
}

bool CpuTopology::has_siblings() const { return cores() < static_cast<int>(usable.size()); }

std::optional<int> CpuTopology::NodeOf(int cpu) const {
  for (const Cpu& one : usable) {
    if (one.number == cpu) return one.node;
  }
  return std::nullopt;
}

std::vector<int> AffinityOfThisProcess() {
  std::vector<int> cpus;
  // The kernel refuses a set that is smaller than its own.
  cpu_set_t* set = CPU_ALLOC(kMaxCpus);
  const size_t bytes = CPU_ALLOC_SIZE(kMaxCpus);
  CPU_ZERO_S(bytes, set);
  if (sched_getaffinity(0, bytes, set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
  }
  CPU_FREE(set);
  return cpus;
}

CpuTopology ReadCpuTopology(const HostFiles& files, const std::vector<int>& affinity) {
  CpuTopology topology;
  const std::map<int, int> nodes = NodesByCpu(files);
  for (const int number : affinity.empty() ? std::vector<int>{0} : affinity) {
    const auto node = nodes.find(number);
    topology.usable.push_back(
        {number, CoreOf(files, number), node == nodes.end() ? 0 : node->second});
  }
  topology.online = files.ReadCpuList(kCpuFolder + std::string("online")).value_or(affinity);
  topology.isolated =
      files.ReadCpuList(kCpuFolder + std::string("isolated")).value_or(std::vector<int>());
  topology.quota_cpus = ReadQuota(files);
  return topology;
}

}  // namespace braid
