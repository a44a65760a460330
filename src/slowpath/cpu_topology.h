// Which CPUs this process may use, how they belong together, and how much of them it is given.
#pragma once

#include <optional>
#include <vector>

#include "slowpath/host_files.h"

namespace braid {

struct Cpu {
  int number = 0;
  int core = 0;  // the lowest number among the hardware threads of its core
  int node = 0;  // of memory (NUMA)

  bool operator==(const Cpu&) const = default;
};

struct CpuTopology {
  std::vector<Cpu> usable;           // this process may run there; ascending, never empty
  std::vector<int> online;           // of the machine
  std::vector<int> isolated;         // from the scheduler, by the kernel's command line
  std::optional<double> quota_cpus;  // of the control group, in CPUs' worth of time
  int cores() const;                 // among the usable CPUs
  std::vector<int> nodes() const;    // the same; ascending
  bool has_siblings() const;         // two usable CPUs share a core
  std::optional<int> NodeOf(int cpu) const;
};

// The mask of this process. CPUs beyond those that cpu_set_t can name are left out.
std::vector<int> AffinityOfThisProcess();

// What cannot be read is taken to be plain: each CPU a core of its own, one node, no quota. An
// empty `affinity` is taken to be CPU 0.
CpuTopology ReadCpuTopology(const HostFiles& files, const std::vector<int>& affinity);

}  // namespace braid
