// The lines of a measurement over its first TCP connection. Never waits: who does not read what it
// is told loses the connection.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "io/unique_fd.h"
#include "slowpath/measure_protocol.h"

namespace braid {

class MeasureChannel {
 public:
  explicit MeasureChannel(UniqueFd fd) : fd_(std::move(fd)) {}

  int fd() const { return fd_.get(); }
  [[nodiscard]] absl::Status Send(const MeasureLine& line);
  // The next line, or nothing when none has come yet. Unavailable when the other end has closed
  // the connection; InvalidArgument for what is no line of the protocol.
  absl::StatusOr<std::optional<MeasureLine>> Next();

 private:
  UniqueFd fd_;
  std::string buffer_;
};

}  // namespace braid
