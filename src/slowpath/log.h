// The program's log: which messages, in which shape, always on standard error. Messages are written
// with spdlog::info() and its kin, from any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace braid {

enum class LogFormat : uint8_t {
  kText,  // 2024-05-01T12:00:00.123Z warning: the message
  kJson,  // {"time":"2024-05-01T12:00:00.123Z","level":"warning","message":"the message"}
};

absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name);

// `level` is the least that is written: trace, debug, info, warning, error, critical or off. Either
// format writes one line a message, whatever bytes the message holds. May be called again, while
// other threads write.
[[nodiscard]] absl::Status SetUpLog(std::string_view level, LogFormat format);

}  // namespace braid
