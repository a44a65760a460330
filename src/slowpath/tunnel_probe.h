// What becomes of a configuration on this machine as it is now: its files, addresses, ports, names,
// ways to its servers, and the daemon if it runs. No judgement (that is diagnosis.h). Nothing is
// changed but the handshake counter, which only ever rises.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "slowpath/config.h"
#include "slowpath/handshake_probe.h"
#include "slowpath/kill_switch.h"
#include "slowpath/net_snapshot.h"

namespace braid {

// A client's path to one peer.
struct ProbedPath {
  std::string path, peer;
  bool usable = false;  // it has a link to leave by
  std::string problem;  // why it is not, or what is doubtful
  std::string device;   // empty: the kernel's routes decide
  std::optional<Endpoint> remote;
  std::optional<int> link_mtu;             // towards the remote; nothing: no route
  absl::StatusOr<HandshakeAnswer> answer;  // Cancelled: not asked, since the daemon runs
};

struct TunnelState {
  std::string file;
  std::vector<Mistake> mistakes, warnings;  // of the configuration and its key files
  std::optional<Config> config;             // nothing: none of what follows was looked at

  bool is_root = false;
  absl::Status state_dir;                // whether it can be written to
  std::optional<uint64_t> kept_counter;  // of handshakes, in nanoseconds of the wall clock
  uint64_t wall_ns = 0;
  size_t leftovers = 0;  // changes of a daemon with this device that died
  absl::StatusOr<KillSwitchState> kill_switch = KillSwitchState();
  NetSnapshot network;
  // The running daemon's, if its device is that of the configuration.
  std::optional<nlohmann::ordered_json> status;
  absl::Status daemon;  // why there is none

  std::vector<std::pair<Endpoint, absl::Status>> listens;  // whether it could be bound now
  std::vector<std::pair<std::string, absl::StatusOr<std::vector<IpAddress>>>> names;
  std::vector<ProbedPath> paths;
  std::vector<std::pair<IpAddress, absl::Status>> dns;  // asked only where the daemon runs
};

// Takes some seconds where servers do not answer.
TunnelState ProbeTunnel(const std::string& file, const Environment& environment);

}  // namespace braid
