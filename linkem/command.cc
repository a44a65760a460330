#include "linkem/command.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "linkem/link_settings.h"

namespace braid::linkem {
namespace {

constexpr double kMaxTraceSeconds = 1e9;

// The first word, which is taken off `line`.
std::string TakeWord(std::string& line) {
  line = std::string(absl::StripAsciiWhitespace(line));
  const size_t end = line.find_first_of(" \t");
  std::string word = line.substr(0, end);
  line = end == std::string::npos ? "" : std::string(absl::StripAsciiWhitespace(line.substr(end)));
  return word;
}

std::optional<DurationNs> ParseSeconds(const std::string& word) {
  double seconds = 0;
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, seconds, std::chars_format::fixed);
  if (error != std::errc() || stop != end) return {};
  if (!std::isfinite(seconds) || std::signbit(seconds) || seconds > kMaxTraceSeconds) return {};
  return static_cast<DurationNs>(seconds * 1e9);
}

// One step, or the loop that ends the trace.
absl::Status AddLine(const std::string& seconds, std::string rest, Trace& trace) {
  const std::optional<DurationNs> after_ns = ParseSeconds(seconds);
  if (!after_ns) {
    return absl::InvalidArgumentError(
        absl::StrFormat("\"%s\" is not a number of seconds; a line is SECONDS COMMAND", seconds));
  }
  if (trace.loop_ns != 0) return absl::InvalidArgumentError("nothing may stand behind the loop");
  if (!trace.steps.empty() && *after_ns < trace.steps.back().after_ns) {
    return absl::InvalidArgumentError("is earlier than the line before");
  }
  if (rest == "loop") {
    if (trace.steps.empty() || *after_ns == 0) {
      return absl::InvalidArgumentError("a loop needs a line before it, and more than 0 seconds");
    }
    trace.loop_ns = *after_ns;
    return absl::OkStatus();
  }
  absl::StatusOr<Command> command = ParseCommand(rest);
  if (!command.ok()) return command.status();
  if (command->kind == Command::Kind::kStatus) {
    return absl::InvalidArgumentError("status is asked for on standard input only");
  }
  trace.steps.push_back({*after_ns, *std::move(command)});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Command> ParseCommand(std::string_view line) {
  std::string rest(line);
  std::string word = TakeWord(rest);
  Command command{};
  const bool one_way = word == "to-left" || word == "to-right";
  if (one_way) {
    command.to_left = word == "to-left";
    command.to_right = word == "to-right";
    word = TakeWord(rest);
  }
  if (word == "set") {
    LinkSettings checked;
    const absl::Status status = SetLink(checked, rest);
    if (!status.ok()) return status;
    command.kind = Command::Kind::kSet;
    command.settings = rest;
    return command;
  }
  if (word == "down") {
    command.kind = Command::Kind::kDown;
  } else if (word == "up") {
    command.kind = Command::Kind::kUp;
  } else if (word == "status" && !one_way) {
    command.kind = Command::Kind::kStatus;
  } else if (word == "quit" && !one_way) {
    command.kind = Command::Kind::kQuit;
  } else {
    return absl::InvalidArgumentError(absl::StrFormat(
        "\"%s\" is not a command; one of [to-left|to-right] set …, down, up; status; quit",
        std::string(absl::StripAsciiWhitespace(std::string(line)))));
  }
  if (!rest.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat("nothing may stand behind \"%s\"", word));
  }
  return command;
}

absl::StatusOr<Trace> ParseTrace(const std::string& name, std::string_view text) {
  Trace trace;
  int number = 0;
  const std::vector<std::string> lines = absl::StrSplit(std::string(text), '\n');
  for (std::string line : lines) {
    ++number;
    line.resize(std::min(line.find('#'), line.size()));
    const std::string seconds = TakeWord(line);
    if (seconds.empty()) continue;
    const absl::Status status = AddLine(seconds, line, trace);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s:%d: %s", name, number, std::string(status.message())));
    }
  }
  if (trace.steps.empty()) return absl::InvalidArgumentError(name + ": holds no SECONDS COMMAND");
  return trace;
}

absl::StatusOr<Trace> ReadTrace(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in.is_open() || in.bad()) {
    return absl::NotFoundError(absl::StrFormat("%s: cannot be read: %s", file, strerror(errno)));
  }
  return ParseTrace(file, text);
}

}  // namespace braid::linkem
