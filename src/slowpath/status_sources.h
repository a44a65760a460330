// All that the daemon has to tell of itself, where it is: what the status, the metrics and the
// health are read from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/counters.h"
#include "slowpath/client_paths.h"
#include "slowpath/config.h"
#include "slowpath/egress_flows.h"
#include "slowpath/path_meter.h"
#include "slowpath/peers.h"
#include "slowpath/worker_group.h"

namespace braid {

// Borrowed for the call.
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
  const ThrottleConfig& throttle;  // as commands have changed it
  const EgressFlows* egress = nullptr;  // nullptr: nothing leaves past the tunnel
};

// Of the workers, the slow path and the kernel's queues.
uint64_t DropsFor(const StatusSources& sources, Drop reason);

}  // namespace braid
