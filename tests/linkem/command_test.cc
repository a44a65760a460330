// What linkem is told, and how it tells that a line is wrong.
#include "linkem/command.h"

#include <gtest/gtest.h>

namespace braid::linkem::command_test {
namespace {

using Kind = Command::Kind;

TEST(Command, IsForBothDirectionsOrOne) {
  const struct {
    const char* line;
    Kind kind;
    bool to_left, to_right;
  } cases[] = {
      {"set rate 5mbit loss 1%", Kind::kSet, true, true},
      {" to-left  set rate 5mbit", Kind::kSet, true, false},
      {"to-right\tdown\r", Kind::kDown, false, true},
      {"up", Kind::kUp, true, true},
      {"status", Kind::kStatus, true, true},
      {"quit", Kind::kQuit, true, true},
  };
  for (const auto& one : cases) {
    const absl::StatusOr<Command> command = ParseCommand(one.line);
    ASSERT_TRUE(command.ok()) << command.status();
    EXPECT_EQ(command->kind, one.kind) << one.line;
    EXPECT_EQ(command->to_left, one.to_left) << one.line;
    EXPECT_EQ(command->to_right, one.to_right) << one.line;
  }
  EXPECT_EQ(ParseCommand("to-left set  rate 5mbit loss 1% ")->settings, "rate 5mbit loss 1%");
}

TEST(Command, MistakesAreExplained) {
  const struct {
    const char* line;
    const char* told;
  } cases[] = {
      {"", "is not a command"},
      {"stop", "\"stop\" is not a command; one of"},
      {"to-left", "is not a command"},
      {"to-left quit", "is not a command"},
      {"to-middle down", "is not a command"},
      {"set", "nothing to set"},
      {"set rate 5", "is not a rate"},
      {"down now", "nothing may stand behind \"down\""},
  };
  for (const auto& one : cases) {
    const absl::StatusOr<Command> command = ParseCommand(one.line);
    ASSERT_FALSE(command.ok()) << one.line;
    EXPECT_NE(std::string(command.status().message()).find(one.told), std::string::npos)
        << command.status();
  }
}

TEST(Trace, IsLinesOfSecondsAndCommands) {
  const absl::StatusOr<Trace> trace = ParseTrace("t",
                                                 "# a tunnel\n"
                                                 "\n"
                                                 "0 set rate 50mbit\n"
                                                 "1.5\tto-left down   # in the mountain\n"
                                                 "1.5 up\n"
                                                 "10 loop");
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->steps.size(), 3u);
  EXPECT_EQ(trace->steps[0].after_ns, 0u);
  EXPECT_EQ(trace->steps[1].after_ns, 1500 * kMillisecondNs);
  EXPECT_EQ(trace->steps[1].command.kind, Kind::kDown);
  EXPECT_FALSE(trace->steps[1].command.to_right);
  EXPECT_EQ(trace->loop_ns, 10 * kSecondNs);
}

TEST(Trace, MistakesNameFileAndLine) {
  const struct {
    const char* text;
    const char* told;
  } cases[] = {
      {"# nothing\n", "t: holds no"},
      {"0 up\nsoon down\n", "t:2: \"soon\" is not a number of seconds"},
      {"-1 up", "t:1: \"-1\" is not a number"},
      {"1 up\n0.5 down", "t:2: is earlier"},
      {"1 set rate 5", "t:1: rate: \"5\" is not a rate"},
      {"1 status", "t:1: status"},
      {"1 loop", "t:1: a loop needs"},
      {"0 up\n0 loop", "t:2: a loop needs"},
      {"0 up\n1 loop\n2 up", "t:3: nothing may stand behind the loop"},
  };
  for (const auto& one : cases) {
    const absl::StatusOr<Trace> trace = ParseTrace("t", one.text);
    ASSERT_FALSE(trace.ok()) << one.text;
    EXPECT_NE(std::string(trace.status().message()).find(one.told), std::string::npos)
        << trace.status();
  }
  EXPECT_FALSE(ReadTrace("/nonexistent/trace").ok());
}

}  // namespace
}  // namespace braid::linkem::command_test
