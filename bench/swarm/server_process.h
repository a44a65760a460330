// What a server spends: the CPU time of each of its threads and its memory, from /proc, and the
// packets it took, from its control socket.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace braid::swarm {

struct CpuTimes {
  // Of all that carry packets, and of all others: handshakes, timers, control.
  double workers_s = 0;
  double others_s = 0;
  std::map<std::string, double> by_thread_s;  // threads of one name are summed

  double total_s() const { return workers_s + others_s; }
  CpuTimes operator-(const CpuTimes& before) const;
};

struct MemoryUse {
  uint64_t resident_bytes = 0;
  uint64_t proportional_bytes = 0;
};

[[nodiscard]] absl::StatusOr<CpuTimes> ReadCpuTimes(pid_t pid);
[[nodiscard]] absl::StatusOr<MemoryUse> ReadMemoryUse(pid_t pid);

// What a server has counted since it was started.
struct ServerCounts {
  uint64_t established = 0;  // peers
  uint64_t rx_packets = 0;   // inner packets of all peers
  std::map<std::string, uint64_t> drops;

  ServerCounts operator-(const ServerCounts& before) const;  // `established` stays
};
[[nodiscard]] absl::StatusOr<ServerCounts> ReadServerCounts(const std::string& control_socket);

}  // namespace braid::swarm
