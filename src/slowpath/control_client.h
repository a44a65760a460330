// The client's end of the control socket: blocking, one request a connection, for the command line.
#pragma once

#include <sys/un.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace braid {

inline constexpr std::string_view kDefaultControlSocket = "/run/braid/braid.sock";
inline constexpr std::chrono::seconds kControlCallTimeout{30};
inline constexpr size_t kMaxControlReplyBytes = size_t{256} << 20;  // the status of kMaxPeers

// InvalidArgument when the path is empty or longer than a Unix address holds.
[[nodiscard]] absl::Status FillControlAddress(const std::string& path, sockaddr_un& address);

// Sends one request and returns the result as JSON text. `params` is a JSON object as text. An
// error of the daemon has the payload kControlErrorPayload; every other one is a single line that
// says what to do: Unavailable when no daemon answers, PermissionDenied, DeadlineExceeded.
absl::StatusOr<std::string> CallControl(const std::string& path, std::string_view verb,
                                        std::string_view params = "{}",
                                        std::chrono::milliseconds timeout = kControlCallTimeout);

// Asks the daemon to stop and waits until its socket is gone: removed, replaced by that of the
// next daemon, or no longer answered.
[[nodiscard]] absl::Status StopDaemon(const std::string& path, std::chrono::milliseconds timeout);

}  // namespace braid
