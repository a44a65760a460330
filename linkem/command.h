// What linkem is told while it runs, by a line on standard input or of a trace file:
//
//   [to-left|to-right] set KEY VALUE [KEY VALUE…]
//   [to-left|to-right] down|up
//   status
//   quit
//
// A trace is lines of SECONDS COMMAND, in the order of time, comments after #; a last line
// SECONDS loop begins again at its first.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace braid::linkem {

struct Command {
  enum class Kind { kSet, kDown, kUp, kStatus, kQuit };

  Kind kind;
  bool to_left = true;
  bool to_right = true;
  std::string settings;  // of kSet, as SetLink takes them: that they are right has been checked
};

absl::StatusOr<Command> ParseCommand(std::string_view line);

struct TraceStep {
  DurationNs after_ns;  // since the trace began
  Command command;
};

struct Trace {
  std::vector<TraceStep> steps;
  DurationNs loop_ns = 0;  // 0: once
};

// `name` is the file's, for errors, which name the line as well.
absl::StatusOr<Trace> ParseTrace(const std::string& name, std::string_view text);
absl::StatusOr<Trace> ReadTrace(const std::string& file);

}  // namespace braid::linkem
