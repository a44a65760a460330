// A SOCKS5 server as people write it down: socks5://[USER[:PASSWORD]@]HOST[:PORT]
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "slowpath/config.h"

namespace braid {

struct ProxyUrl {
  HostPort server;       // port 1080, if nothing else is said
  std::string username;  // empty: none
  std::optional<std::string> password;

  bool operator==(const ProxyUrl&) const = default;
};

// In user name and password "%40" stands for "@", as in any URL. Errors never tell what was given:
// there may be a password in it.
[[nodiscard]] absl::StatusOr<ProxyUrl> ParseProxyUrl(std::string_view text);

}  // namespace braid
