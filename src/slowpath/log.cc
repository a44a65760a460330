#include "slowpath/log.h"

#include <spdlog/formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <chrono>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace braid {
namespace {

constexpr std::pair<std::string_view, spdlog::level::level_enum> kLevels[] = {
    {"trace", spdlog::level::trace},       {"debug", spdlog::level::debug},
    {"info", spdlog::level::info},         {"warning", spdlog::level::warn},
    {"warn", spdlog::level::warn},         {"error", spdlog::level::err},
    {"critical", spdlog::level::critical}, {"off", spdlog::level::off},
};

// The first name of a level is the one that is written.
std::string_view LevelName(spdlog::level::level_enum level) {
  for (const auto& [name, known] : kLevels) {
    if (known == level) return name;
  }
  return "unknown";
}

std::optional<spdlog::level::level_enum> ParseLevel(std::string_view wanted) {
  for (const auto& [name, level] : kLevels) {
    if (name == wanted) return level;
  }
  return std::nullopt;
}

// RFC 3339 in UTC, with milliseconds.
std::string FormatTime(spdlog::log_clock::time_point when) {
  using std::chrono::milliseconds;
  const auto since_epoch = std::chrono::floor<milliseconds>(when.time_since_epoch()).count();
  const time_t seconds = static_cast<time_t>(since_epoch / 1000);
  tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> date;
  const size_t size = strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  return absl::StrCat(std::string(date.data(), size), ".",
                      absl::Dec(since_epoch % 1000, absl::kZeroPad3), "Z");
}

// A message may quote a name or a text from elsewhere; it must not forge a line or move a cursor.
void AppendPrintable(std::string& to, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == '\n') {
      to += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppend(&to, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      to += c;
    }
  }
}

std::string FormatText(std::string_view time, std::string_view level, std::string_view message) {
  std::string line;
  line.append(time).append(" ").append(level).append(": ");
  AppendPrintable(line, message);
  return line += '\n';
}

std::string FormatJson(std::string_view time, std::string_view level, std::string_view message) {
  const nlohmann::ordered_json line = {{"time", time}, {"level", level}, {"message", message}};
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
}

class Formatter : public spdlog::formatter {
 public:
  explicit Formatter(LogFormat format) : format_(format) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& to) override {
    const auto write = format_ == LogFormat::kJson ? FormatJson : FormatText;
    const std::string line = write(FormatTime(message.time), LevelName(message.level),
                                   {message.payload.data(), message.payload.size()});
    to.append(line.data(), line.data() + line.size());
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<Formatter>(format_);
  }

 private:
  const LogFormat format_;
};

}  // namespace

absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name) {
  if (name == "text") return LogFormat::kText;
  if (name == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(
      absl::StrCat("there is no log format \"", std::string(name), "\"; use text or json"));
}

absl::Status SetUpLog(std::string_view level, LogFormat format) {
  const auto least = ParseLevel(level);
  if (!least) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no log level \"", std::string(level),
                     "\"; use trace, debug, info, warning, error, critical or off"));
  }
  // One for the whole process, since other threads may be using it: what changes of it is atomic,
  // or locked by its sink.
  static const auto logger =
      std::make_shared<spdlog::logger>("braid", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_formatter(std::make_unique<Formatter>(format));
  logger->set_level(*least);
  if (spdlog::default_logger_raw() != logger.get()) spdlog::set_default_logger(logger);
  return absl::OkStatus();
}

}  // namespace braid
