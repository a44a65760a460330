// systemd-resolved, over the system bus: which servers the tunnel's device has. It forgets them
// when the device goes, so there is nothing to take back.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "slowpath/config.h"

namespace braid {

// Whether programs ask it: what the C library reads is a link to a file of its.
bool IsResolvedUsed(const std::string& resolv_conf);

// Both wait for its answers, two seconds at most in all: DeadlineExceeded where it, or the bus, has
// given none.
[[nodiscard]] absl::Status SetResolvedServers(int link, const DnsConfig& dns);
// While the device stays: it has none any more.
[[nodiscard]] absl::Status RevertResolvedServers(int link);

}  // namespace braid
