// The configuration of a server that knows the whole swarm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace braid::swarm {

struct ServerConfigOptions {
  uint32_t clients = 0;
  std::string seed;
  std::string listen;
  std::string file;
  std::vector<std::string> extra_peers;  // PUBKEY=PREFIX
};

// Writes `file` and, beside it, the server's private key: the same name with ".key" behind it.
[[nodiscard]] absl::Status WriteServerConfig(const ServerConfigOptions& options);

}  // namespace braid::swarm
