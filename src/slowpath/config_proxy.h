// Reads what leaves past the tunnel, and how: "proxy".
#pragma once

#include "slowpath/config.h"
#include "slowpath/config_node.h"

namespace braid {

// {"rules": [{"match": {…}, "to": …}], "tcp_sessions": …}
void ReadProxy(const Node& node, ProxyConfig& to);

}  // namespace braid
