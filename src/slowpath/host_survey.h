// What this machine is like as a host of the data plane: read from /proc, /sys and ethtool, nothing
// changed, no judgement (that is tuning.h). What could not be seen keeps the error that says why.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "slowpath/cpu_topology.h"
#include "slowpath/ethtool.h"
#include "slowpath/host_files.h"
#include "slowpath/tunnel_links.h"

namespace braid {

template <typename T>
using Seen = absl::StatusOr<T>;

struct QueueSurvey {
  int index = 0;
  Seen<std::vector<int>> cpus;  // RPS of a receive queue, XPS of a transmit queue
};

struct InterruptSurvey {
  int number = 0;
  std::string name;               // as /proc/interrupts has it
  std::vector<int> allowed;       // CPUs
  std::vector<int> delivered_to;  // of these; empty when it cannot be told
};

struct DeviceSurvey {
  std::string name;
  std::string why;        // it is looked at
  bool physical = false;  // has hardware, or a hypervisor's, behind it
  std::string driver;
  std::optional<int> node;
  absl::Status files;  // not OK: none of what comes from /sys is this device's
  std::vector<QueueSurvey> rx_queues, tx_queues;
  std::vector<InterruptSurvey> interrupts;  // of its queues
  Seen<int64_t> threaded, napi_defer_hard_irqs, gro_flush_timeout_ns;
  Seen<int64_t> rx_lost;  // for want of buffers, since it is there
  Seen<std::vector<DeviceFeature>> features;
  Seen<DeviceChannels> channels;
  Seen<DeviceRings> rings;
  Seen<DeviceCoalescing> coalescing;
  Seen<DeviceIndirection> indirection;
  Seen<uint32_t> udp4_hash, udp6_hash;
};

struct GovernorSurvey {
  std::string path;
  Seen<std::string> now;
  std::string available;
};

struct IdleSurvey {
  std::string name;  // of the deepest state that is not disabled
  int64_t latency_us = 0;
};

struct HostSurvey {
  CpuTopology topology;
  std::vector<DeviceSurvey> devices;
  bool forwards = false;  // between its interfaces
  bool irqbalance = false;

  std::vector<GovernorSurvey> governors;  // of the usable CPUs
  Seen<int64_t> boost, no_turbo;
  Seen<IdleSurvey> idle;
  bool battery = false;

  std::map<std::string, Seen<int64_t>> sysctls;  // "net.core.rmem_max"
  bool forces_buffers = false;   // who asks may have larger socket buffers than those maxima
  Seen<int64_t> udp_overflows;   // datagrams that full sockets threw away, of all programs
  Seen<int64_t> backlog_drops;   // packets that full backlogs threw away
  Seen<std::string> huge_pages;  // transparent ones
  std::optional<uint64_t> locked_bytes_max;  // nothing: unlimited
  std::vector<std::string> dear_mitigations;
};

// What only the process itself can tell.
struct Surveyor {
  std::vector<int> affinity;
  std::map<std::string, int> device_indices;  // all of this network namespace; empty: unknown
  bool forces_buffers = false;
  std::optional<uint64_t> locked_bytes_max;
};
Surveyor ThisProcess();

// Whether what /sys shows as `device` is that of this network namespace: not so when the namespace
// was entered and /sys was not mounted again. `indices` as in Surveyor.
[[nodiscard]] absl::Status CheckDeviceFiles(const HostFiles& files, const std::string& device,
                                            const std::map<std::string, int>& indices);

HostSurvey SurveyHost(const HostFiles& files, Ethtool& ethtool, const Surveyor& surveyor,
                      const std::vector<TunnelLink>& links);

}  // namespace braid
