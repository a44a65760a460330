// The sockets of a measurement: bound to the tunnel's device, so that nothing of it goes beside
// the tunnel or comes from beside it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/clock.h"
#include "io/unique_fd.h"

namespace braid {

// `device` may be empty: any. `port` may be 0: any. Non-blocking.
absl::StatusOr<UniqueFd> ListenForTcp(const Endpoint& at, const std::string& device, int backlog);
absl::StatusOr<UniqueFd> OpenMeasureUdp(const Endpoint& at, const std::string& device);
[[nodiscard]] absl::Status ConnectMeasureUdp(int fd, const Endpoint& to);

// Waits for the connection until `deadline_ns`, or until `stop_fd` (-1: none) becomes readable.
// DeadlineExceeded when nobody answers, Unavailable when the other end refuses, Cancelled.
absl::StatusOr<UniqueFd> ConnectTcp(const Endpoint& to, const std::string& device,
                                    TimeNs deadline_ns, int stop_fd);

Endpoint LocalEndpoint(int fd);

}  // namespace braid
