// Reads where a daemon is spoken to: its control socket, and the HTTP API.
#pragma once

#include <string>

#include "slowpath/config.h"
#include "slowpath/config_node.h"

namespace braid {

// `folder` is where relative file names begin.
void ReadControl(const Section& control, const std::string& folder, Report& report,
                 ControlConfig& to);

}  // namespace braid
