// What this process uses of its machine, as the kernel counts it.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "slowpath/host_files.h"

namespace braid {

// What the kernel does not tell is 0.
struct ProcessUsage {
  uint64_t resident_bytes = 0;
  uint64_t virtual_bytes = 0;
  DurationNs cpu_ns = 0;    // of all threads, user and system
  double started_s = 0;     // since 1970
  uint64_t open_files = 0;  // descriptors
  uint64_t most_files = 0;  // that it may have open
};

ProcessUsage UsageOfThisProcess(const HostFiles& files = HostFiles());

// Parts of it, for those who ask often: the whole also reads what is counted of all CPUs.
uint64_t ResidentBytes(const HostFiles& files = HostFiles());
struct OpenFiles {
  uint64_t now = 0;
  uint64_t most = 0;
};
OpenFiles OpenFilesOfThisProcess(const HostFiles& files = HostFiles());

}  // namespace braid
