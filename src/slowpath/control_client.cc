#include "slowpath/control_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "slowpath/control_protocol.h"

namespace braid {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kRetryInterval{20};

absl::Status ConnectError(const std::string& path, int error) {
  constexpr char kStart[] =
      "start it with 'braid run --config FILE', or name its socket with --socket";
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::UnavailableError(
          absl::StrCat("no daemon runs at ", path, " (no such socket); ", kStart));
    case ECONNREFUSED:
      return absl::UnavailableError(
          absl::StrCat("no daemon runs at ", path, " (nobody listens there); ", kStart));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(absl::StrCat(
          "no permission for ", path, "; run this as root or as the user of the daemon"));
    case EAGAIN:
      return absl::ResourceExhaustedError(
          absl::StrCat("the daemon at ", path, " is too busy to answer; try again"));
    default:
      return absl::InternalError(
          absl::StrCat("cannot connect to ", path, ": ", std::strerror(error)));
  }
}

absl::StatusOr<int> Connect(const std::string& path, Clock::time_point deadline) {
  sockaddr_un address;
  if (auto status = FillControlAddress(path, address); !status.ok()) return status;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open a Unix socket");
  while (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    // The daemon's queue of new clients is full; no poll tells when it no longer is.
    if (error == EAGAIN && Clock::now() < deadline) {
      std::this_thread::sleep_for(kRetryInterval);
      continue;
    }
    close(fd);
    return ConnectError(path, error);
  }
  return fd;
}

absl::Status WaitFor(int fd, short events, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    if (left <= milliseconds::zero()) {
      return absl::DeadlineExceededError("the daemon did not answer in time; look at its log");
    }
    pollfd wait{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&wait, 1, static_cast<int>(left.count()));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "poll");
  }
}

// A daemon that refuses the connection may hang up before it has read the request; its reason is
// then waiting to be read, so that a broken pipe is no error here.
absl::Status Send(int fd, std::string_view bytes, Clock::time_point deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      if (auto status = WaitFor(fd, POLLOUT, deadline); !status.ok()) return status;
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return absl::OkStatus();
    } else if (errno != EINTR) {
      return absl::ErrnoToStatus(errno, "cannot write to the control socket");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReceiveLine(int fd, Clock::time_point deadline) {
  std::string line;
  std::array<char, 64 * 1024> chunk;
  while (line.size() <= kMaxControlReplyBytes) {
    const ssize_t got = recv(fd, chunk.data(), chunk.size(), 0);
    if (got > 0) {
      const std::string_view bytes(chunk.data(), static_cast<size_t>(got));
      const size_t end = bytes.find('\n');
      line.append(bytes.substr(0, end));
      if (end != bytes.npos) return line;
    } else if (got == 0 || errno == ECONNRESET) {
      return absl::UnavailableError("the daemon closed the connection without a whole answer");
    } else if (errno == EAGAIN) {
      if (auto status = WaitFor(fd, POLLIN, deadline); !status.ok()) return status;
    } else if (errno != EINTR) {
      return absl::ErrnoToStatus(errno, "cannot read from the control socket");
    }
  }
  return absl::ResourceExhaustedError("the daemon's answer is longer than any answer should be");
}

// Which socket a path names; none when it is missing.
struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileIdentity&) const = default;
};

FileIdentity Identify(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return {};
  return {info.st_dev, info.st_ino};
}

bool IsGone(const std::string& path, const FileIdentity& socket) {
  if (Identify(path) != socket) return true;
  const auto fd = Connect(path, Clock::now());
  if (fd.ok()) close(*fd);
  return !fd.ok() && absl::IsUnavailable(fd.status());
}

}  // namespace

absl::Status FillControlAddress(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  constexpr size_t kMaxPathBytes = sizeof(address.sun_path) - 1;
  if (path.empty()) return absl::InvalidArgumentError("the path of the control socket is empty");
  if (path.size() > kMaxPathBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the path of the control socket has ",
                                                   path.size(), " bytes, but only ", kMaxPathBytes,
                                                   " fit into a Unix address: ", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return absl::OkStatus();
}

absl::StatusOr<std::string> CallControl(const std::string& path, std::string_view verb,
                                        std::string_view params, milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  const auto fd = Connect(path, deadline);
  if (!fd.ok()) return fd.status();
  const absl::Cleanup close_socket = [&fd] { close(*fd); };
  if (auto status = Send(*fd, RenderControlRequest(verb, params), deadline); !status.ok()) {
    return status;
  }
  const auto line = ReceiveLine(*fd, deadline);
  if (!line.ok()) return line.status();
  return ParseControlReply(*line);
}

absl::Status StopDaemon(const std::string& path, milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  const FileIdentity socket = Identify(path);
  const auto reply = CallControl(path, "stop", R"({"scope":"daemon"})", timeout);
  if (!reply.ok()) return reply.status();
  while (!IsGone(path, socket)) {
    if (Clock::now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("the daemon agreed to stop, but its socket is still there after ",
                       timeout.count() / 1000, " s: ", path));
    }
    std::this_thread::sleep_for(kRetryInterval);
  }
  return absl::OkStatus();
}

}  // namespace braid
