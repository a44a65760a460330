// What a swarm can be made to do. Each mode returns what it measured, as JSON; report.h shows it.
#pragma once

#include <sys/types.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "swarm.h"
#include "traffic.h"

namespace braid::swarm {

using Json = nlohmann::ordered_json;

// What is looked at beside the swarm itself.
struct ServerProbe {
  pid_t pid = 0;               // 0: not known
  std::string control_socket;  // empty: not known
};

// How quickly handshakes are begun.
struct Pace {
  double per_second = 1000;  // 0: as fast as they are answered
  uint32_t window = 256;     // that many at once where there is no rate
};

struct HandshakesMode {
  Pace pace;
  double seconds = 10;
  double warmup_s = 1;
  double again_s = 0.1;  // a client pauses so long between two
};

struct IdleMode {
  Pace pace;
  double seconds = 30;  // 0: until a signal
};

struct SendCase {
  uint32_t active = 1;
  uint32_t flows = 1;
};

struct SendMode {
  Pace pace;
  std::vector<SendCase> cases;  // in turn within each round
  int rounds = 1;
  double seconds = 5;
  double warmup_s = 1;
  double per_second = 0;  // packets; 0: as fast as it goes
  uint32_t batch = 64;    // packets between two looks at the sockets
  size_t inner_bytes = 64;
  Endpoint to;
  Pattern pattern = Pattern::kTurn;
};

absl::StatusOr<Json> RunHandshakes(Swarm& swarm, const ServerProbe& server,
                                   const HandshakesMode& mode);
absl::StatusOr<Json> RunIdle(Swarm& swarm, const ServerProbe& server, const IdleMode& mode);
absl::StatusOr<Json> RunSend(Swarm& swarm, const ServerProbe& server, const SendMode& mode);

}  // namespace braid::swarm
