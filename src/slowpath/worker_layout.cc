#include "slowpath/worker_layout.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "absl/strings/str_format.h"
#include "slowpath/config.h"
#include "slowpath/tunnel_links.h"

namespace braid {
namespace {

std::vector<int> CpusInOrder(const CpuTopology& topology, const std::vector<int>& near_nodes) {
  std::vector<std::tuple<int, bool, int>> ranked;  // thread of its core, far, number
  std::map<int, int> threads_of_core;
  for (const Cpu& cpu : topology.usable) {
    const bool near = near_nodes.empty() ||
                      std::find(near_nodes.begin(), near_nodes.end(), cpu.node) != near_nodes.end();
    ranked.emplace_back(threads_of_core[cpu.core]++, !near, cpu.number);
  }
  std::sort(ranked.begin(), ranked.end());
  std::vector<int> order;
  for (const auto& [thread, far, number] : ranked) order.push_back(number);
  return order;
}

struct Count {
  int workers;
  std::string reason;

  void Cap(int most, const std::string& why) {
    if (most >= workers) return;
    workers = most;
    reason = why;
  }
};

Count CountAutomatically(const CpuTopology& topology, int lanes) {
  const int cpus = static_cast<int>(topology.usable.size());
  const int cores = topology.cores();
  Count count{cores, absl::StrFormat("one for each of %d cores", cores)};
  if (cores == 1 && cpus == 1) count.reason = "one CPU may be used";
  if (cores == 1 && cpus > 1) {
    count = {cpus, absl::StrFormat("one for each of the %d threads of the only core", cpus)};
  }
  if (topology.quota_cpus) {
    const double most = std::max(1.0, std::ceil(*topology.quota_cpus));
    count.Cap(static_cast<int>(std::min(most, double{kMaxWorkers})),
              absl::StrFormat("the control group is given %.3g CPUs", *topology.quota_cpus));
  }
  count.Cap(lanes, absl::StrFormat("one for each of %d lanes", lanes));
  count.Cap(kMaxWorkers, absl::StrFormat("%d is the most", kMaxWorkers));
  return count;
}

}  // namespace

WorkerLayout ChooseWorkers(const CpuTopology& topology, const WorkerRequest& request) {
  const Count count = request.workers ? Count{*request.workers, "performance.workers says so"}
                                      : CountAutomatically(topology, request.lanes);
  WorkerLayout layout{{}, count.reason};
  const std::vector<int> order = CpusInOrder(topology, request.near_nodes);
  for (int k = 0; k < count.workers; ++k) {
    layout.cpus.push_back(request.pin ? order[static_cast<size_t>(k) % order.size()] : -1);
  }
  if (!request.pin) layout.reason += "; not pinned, as performance.pin says";
  return layout;
}

WorkerLayout ChooseWorkers(const Config& config) {
  const HostFiles files;
  const auto links = FindTunnelLinks(files, &config, LookUpAddresses());
  return ChooseWorkers(ReadCpuTopology(files, AffinityOfThisProcess()),
                       {.workers = config.performance.workers,
                        .lanes = config.tunnel.lanes,
                        .pin = config.performance.pin,
                        .near_nodes = NodesOf(files, links)});
}

}  // namespace braid
