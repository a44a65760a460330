#include "slowpath/measure_channel.h"

#include <errno.h>
#include <sys/socket.h>

#include <array>

namespace braid {

absl::Status MeasureChannel::Send(const MeasureLine& line) {
  const std::string text = RenderMeasureLine(line);
  const ssize_t sent = send(fd_.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(text.size())) return absl::OkStatus();
  if (sent >= 0 || errno == EAGAIN) {
    return absl::DeadlineExceededError("the other end does not read what it is told");
  }
  return absl::UnavailableError("the other end has closed the connection");
}

absl::StatusOr<std::optional<MeasureLine>> MeasureChannel::Next() {
  while (true) {
    if (const size_t end = buffer_.find('\n'); end != buffer_.npos) {
      auto line = ParseMeasureLine(std::string_view(buffer_).substr(0, end));
      buffer_.erase(0, end + 1);
      if (!line.ok()) return line.status();
      return std::optional<MeasureLine>(*std::move(line));
    }
    if (buffer_.size() > kMaxMeasureLineBytes) {
      return absl::InvalidArgumentError("the line is too long");
    }
    std::array<char, kMaxMeasureLineBytes> chunk;
    const ssize_t got = recv(fd_.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (got > 0) {
      buffer_.append(chunk.data(), static_cast<size_t>(got));
    } else if (got < 0 && errno == EAGAIN) {
      return std::optional<MeasureLine>();
    } else if (got == 0 || errno != EINTR) {
      return absl::UnavailableError("the other end has closed the connection");
    }
  }
}

}  // namespace braid
