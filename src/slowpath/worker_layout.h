// How many workers there are, and the CPU that each is pinned to. The daemon starts them so, and
// `braid tune` shows it.
//
// CPUs are taken in this order: of each core the first hardware thread, the cores of the network
// device's memory node before the others; then the second thread of each core, and so on. Within
// these steps the lower number comes first. Worker k has the k-th of them, at both ends of a tunnel
// on one machine the same.
//
// Without performance.workers there is one worker for each core: two threads of a core share its
// cipher units and caches, so that a second worker there adds little and takes from the first.
// Where all usable CPUs belong to one core, each of them has a worker, since there is no other core
// that could take in packets while the first one seals. Then at most as many as
//   - the control group's quota allows CPUs, rounded up: more would take the time from each other
//     and stand still together when it is used up;
//   - there are lanes: each is one worker's;
//   - kMaxWorkers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "slowpath/cpu_topology.h"

namespace braid {

struct Config;

struct WorkerRequest {
  std::optional<int> workers = std::nullopt;  // performance.workers, unless it is "auto"
  int lanes = kDefaultLanes;
  bool pin = true;
  std::vector<int> near_nodes = {};  // of the network devices
};

struct WorkerLayout {
  std::vector<int> cpus;  // by worker; -1: not pinned
  std::string reason;     // why so many, for people

  int workers() const { return static_cast<int>(cpus.size()); }
};

WorkerLayout ChooseWorkers(const CpuTopology& topology, const WorkerRequest& request);

// On this machine, as it is now.
WorkerLayout ChooseWorkers(const Config& config);

}  // namespace braid
