#include "slowpath/measure_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>

#include "absl/status/status.h"

namespace braid {
namespace {

// Room for what comes while the thread that reads it has no core.
constexpr int kUdpBufferBytes = 4 << 20;

void Set(int fd, int level, int option, int value) {
  setsockopt(fd, level, option, &value, sizeof(value));
}

absl::StatusOr<UniqueFd> Open(const IpAddress& address, const std::string& device, int type) {
  UniqueFd fd(socket(address.socket_family(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "cannot open a socket");
  if (address.is_v6()) Set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (!device.empty() && setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, device.data(),
                                    static_cast<socklen_t>(device.size())) != 0) {
    const int error = errno;
    if (error == ENODEV) {
      return absl::NotFoundError("there is no device \"" + device +
                                 "\" here; run this in the network namespace of the daemon");
    }
    return absl::ErrnoToStatus(error, "cannot bind a socket to \"" + device + "\"");
  }
  return fd;
}

absl::Status Bind(int fd, const Endpoint& at) {
  sockaddr_storage address;
  const socklen_t length = at.To(address);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0) return absl::OkStatus();
  const int error = errno;
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(at.ToString() + " is in use by another program");
  }
  return absl::ErrnoToStatus(error, "cannot bind to " + at.ToString());
}

}  // namespace

absl::StatusOr<UniqueFd> ListenForTcp(const Endpoint& at, const std::string& device, int backlog) {
  auto fd = Open(at.address, device, SOCK_STREAM);
  if (!fd.ok()) return fd.status();
  Set(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (absl::Status status = Bind(fd->get(), at); !status.ok()) return status;
  if (listen(fd->get(), backlog) != 0) {
    return absl::ErrnoToStatus(errno, "cannot listen at " + at.ToString());
  }
  return fd;
}

absl::StatusOr<UniqueFd> OpenMeasureUdp(const Endpoint& at, const std::string& device) {
  auto fd = Open(at.address, device, SOCK_DGRAM);
  if (!fd.ok()) return fd.status();
  Set(fd->get(), SOL_SOCKET, SO_RCVBUF, kUdpBufferBytes);
  Set(fd->get(), SOL_SOCKET, SO_RCVBUFFORCE, kUdpBufferBytes);
  if (absl::Status status = Bind(fd->get(), at); !status.ok()) return status;
  return fd;
}

absl::Status ConnectMeasureUdp(int fd, const Endpoint& to) {
  sockaddr_storage address;
  const socklen_t length = to.To(address);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, "cannot send datagrams to " + to.ToString());
}

absl::StatusOr<UniqueFd> ConnectTcp(const Endpoint& to, const std::string& device,
                                    TimeNs deadline_ns, int stop_fd) {
  auto fd = Open(to.address, device, SOCK_STREAM);
  if (!fd.ok()) return fd.status();
  sockaddr_storage address;
  const socklen_t length = to.To(address);
  int error =
      connect(fd->get(), reinterpret_cast<const sockaddr*>(&address), length) == 0 ? 0 : errno;
  while (error == EINPROGRESS) {
    const TimeNs now_ns = MonotonicNowNs();
    if (now_ns >= deadline_ns) return absl::DeadlineExceededError(to.ToString() + " is silent");
    std::array<pollfd, 2> polled{pollfd{fd->get(), POLLOUT, 0}, pollfd{stop_fd, POLLIN, 0}};
    const auto wait_ms = static_cast<int>((deadline_ns - now_ns) / kMillisecondNs) + 1;
    if (poll(polled.data(), polled.size(), wait_ms) <= 0) continue;
    if (polled[1].revents != 0) return absl::CancelledError("stopped");
    socklen_t error_length = sizeof(error);
    getsockopt(fd->get(), SOL_SOCKET, SO_ERROR, &error, &error_length);
  }
  if (error == ECONNREFUSED) return absl::UnavailableError("nobody listens at " + to.ToString());
  if (error == ETIMEDOUT) return absl::DeadlineExceededError(to.ToString() + " is silent");
  if (error != 0) return absl::ErrnoToStatus(error, "cannot connect to " + to.ToString());
  return fd;
}

Endpoint LocalEndpoint(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return Endpoint::From(address);
}

}  // namespace braid
