// Reads what leaves past the tunnel, and how: "proxy".
#pragma once

#include <string>

#include "slowpath/config.h"
#include "slowpath/config_node.h"

namespace braid {

// {"rules": [{"match": {…}, "to": …}], "groups": {"NAME": {…}}, "tcp_sessions": …}; names of files
// are of `folder`.
void ReadProxy(const Node& node, const std::string& folder, ProxyConfig& to);

// Of a password file: one line. Errors name the file, never what is in it.
[[nodiscard]] absl::StatusOr<std::string> ReadPasswordFile(const std::string& path);

}  // namespace braid
