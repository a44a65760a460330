// The daemon: puts all parts together, runs until it is told to stop, and takes everything down
// again in reverse order.
#pragma once

#include "absl/status/status.h"
#include "slowpath/config.h"

namespace braid {

// Blocks until SIGINT, SIGTERM or the control socket's `stop`. An error is one line that says what
// to do; nothing is left behind then either.
[[nodiscard]] absl::Status RunDaemon(const Config& config);

}  // namespace braid
