// What `braid status --json` shows, put together from the peers and the workers' counters.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "slowpath/client_paths.h"
#include "slowpath/config.h"
#include "slowpath/path_meter.h"
#include "slowpath/peers.h"
#include "slowpath/worker_group.h"

namespace braid {

// Everything that the status is about. Borrowed for the call.
struct StatusSources {
  const Config& config;
  const Peers& peers;
  const WorkerGroup& workers;
  const PathMeters& meters;
  const TunOffloads& offloads;
  const AeadSuite& aeads;
  const DropCounters& stray_drops;  // between the slow lane's sockets and the workers
  uint64_t tun_queue_drops;         // as the kernel counts them
  uint64_t socket_queue_drops;      // as well
  bool steered_by_bpf;
  int mtu;
  const std::vector<std::string>& warnings;
  TimeNs started_ns;
  TimeNs now_ns;
  const ClientPaths* paths;  // nullptr: of a server
  const PathQuotas& quotas;
  const ThrottleConfig* throttle = nullptr;  // as commands have changed it; nullptr: as configured
};

nlohmann::ordered_json DescribeStatus(const StatusSources& sources);

}  // namespace braid
