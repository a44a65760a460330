// What this machine, its kernel and this process can do for a tunnel: tried in network namespaces
// that only this process knows, so that nothing of the machine changes. No judgement (that is
// diagnosis.h). What could not be tried keeps the error that says why.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "io/tun.h"
#include "slowpath/config.h"
#include "slowpath/host_survey.h"
#include "slowpath/worker_layout.h"

namespace braid {

struct UdpFeatures {
  bool gso = false;
  bool gro = false;
  int max_gso_datagrams = 0;
};

struct MachineState {
  std::string kernel;  // "6.1.0-18-amd64"
  bool is_root = false;
  uint64_t capabilities = 0;  // that this process has, by number
  absl::Status tun_node;      // whether /dev/net/tun opens
  uint64_t open_files_max = 0;

  absl::Status uring;
  Seen<int64_t> uring_disabled;  // the sysctl; NotFound before Linux 6.6
  absl::Status trial_network;    // not OK: none of the next four could be tried
  Seen<TunOffloads> tun;         // of a device with two queues
  absl::Status steering;
  absl::Status nat;    // nftables
  absl::Status rules;  // policy routing
  UdpFeatures udp;
  bool has_v6 = false;

  std::optional<bool> aes_instructions;  // nothing: this kind of machine does not say
  WorkerLayout workers;
  std::vector<std::string> tuning_costs;  // names of what `braid tune` would set

  std::optional<bool> clock_synchronised;
  Seen<std::string> clock_source;
  uint64_t wall_ns = 0;

  bool Has(int capability) const { return (capabilities >> capability & 1) != 0; }
};

// `config`: for whose workers and links; may be null. Takes some tenths of a second.
MachineState ProbeMachine(const Config* config);

}  // namespace braid
