// The daemon: keeps a tunnel running as its configuration wants it, and answers who asks. It runs
// until it is told to stop, and takes everything down again in reverse order.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "slowpath/config.h"

namespace braid {

// Blocks until SIGINT, SIGTERM or the control socket's `stop`. An error is one line that says what
// to do; nothing is left behind then either. `config` is what `file` says; it is read again upon
// SIGHUP and the verb `reload`.
[[nodiscard]] absl::Status RunDaemon(const std::string& file, Config config);

}  // namespace braid
