#include "slowpath/log.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace braid::log_test {
namespace {

constexpr char kTimePattern[] = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)";

class LogTest : public ::testing::Test {
 protected:
  ~LogTest() override { (void)SetUpLog("info", LogFormat::kText); }

  // What reaches standard error while `write` runs, cut into lines.
  template <typename Write>
  std::vector<std::string> Capture(const Write& write) {
    ::testing::internal::CaptureStderr();
    write();
    std::istringstream output(::testing::internal::GetCapturedStderr());
    std::vector<std::string> lines;
    for (std::string line; std::getline(output, line);) lines.push_back(line);
    return lines;
  }
};

TEST_F(LogTest, TextIsTimeLevelAndMessageOnOneLine) {
  ASSERT_TRUE(SetUpLog("info", LogFormat::kText).ok());
  const auto lines = Capture([] { spdlog::warn("path {} is down", "lte"); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_TRUE(std::regex_match(
      lines[0], std::regex(std::string(kTimePattern) + " warning: path lte is down")))
      << lines[0];
}

TEST_F(LogTest, JsonIsOneObjectALine) {
  ASSERT_TRUE(SetUpLog("info", LogFormat::kJson).ok());
  const auto lines = Capture([] {
    spdlog::info("ready");
    spdlog::error("say \"no\"\nand \\ \x01 go");
  });
  ASSERT_EQ(lines.size(), 2u);
  const auto ready = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(ready.size(), 3u);
  EXPECT_TRUE(std::regex_match(ready["time"].get<std::string>(), std::regex(kTimePattern)));
  EXPECT_EQ(ready["level"], "info");
  EXPECT_EQ(ready["message"], "ready");
  EXPECT_EQ(nlohmann::json::parse(lines[1])["message"], "say \"no\"\nand \\ \x01 go");
}

TEST_F(LogTest, JsonSurvivesBytesThatAreNoUtf8) {
  ASSERT_TRUE(SetUpLog("info", LogFormat::kJson).ok());
  const auto lines = Capture([] { spdlog::info("name \xff\xfe"); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(nlohmann::json::parse(lines[0])["message"], "name \xef\xbf\xbd\xef\xbf\xbd");
}

TEST_F(LogTest, TextCannotBeForgedByAMessage) {
  ASSERT_TRUE(SetUpLog("info", LogFormat::kText).ok());
  const auto lines = Capture([] { spdlog::info("a\n2024 error: b\x1b[2J"); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_TRUE(lines[0].ends_with("info: a\\n2024 error: b\\x1b[2J")) << lines[0];
}

TEST_F(LogTest, LevelHidesWhatIsLess) {
  struct Case {
    const char* level;
    size_t lines;
  };
  for (const auto& [level, expected] :
       {Case{"trace", 6}, Case{"debug", 5}, Case{"info", 4}, Case{"warning", 3}, Case{"warn", 3},
        Case{"error", 2}, Case{"critical", 1}, Case{"off", 0}}) {
    ASSERT_TRUE(SetUpLog(level, LogFormat::kText).ok());
    const auto lines = Capture([] {
      spdlog::trace("t");
      spdlog::debug("d");
      spdlog::info("i");
      spdlog::warn("w");
      spdlog::error("e");
      spdlog::critical("c");
    });
    EXPECT_EQ(lines.size(), expected) << level;
  }
}

TEST_F(LogTest, UnknownNamesAreRefusedWithTheKnownOnes) {
  EXPECT_EQ(SetUpLog("loud", LogFormat::kText).message(),
            "there is no log level \"loud\"; use trace, debug, info, warning, error, critical or "
            "off");
  EXPECT_FALSE(SetUpLog("", LogFormat::kText).ok());
  EXPECT_EQ(ParseLogFormat("xml").status().message(),
            "there is no log format \"xml\"; use text or json");
  EXPECT_EQ(*ParseLogFormat("text"), LogFormat::kText);
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
}

TEST_F(LogTest, ThreadsDoNotMixTheirLines) {
  ASSERT_TRUE(SetUpLog("info", LogFormat::kJson).ok());
  const auto lines = Capture([] {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < 200; ++i) spdlog::info("{}", std::string(100, 'x'));
      });
    }
  });
  ASSERT_EQ(lines.size(), 800u);
  for (const auto& line : lines) EXPECT_TRUE(nlohmann::json::accept(line)) << line;
}

TEST_F(LogTest, ChangesWhileOthersWrite) {
  ASSERT_TRUE(SetUpLog("info", LogFormat::kText).ok());
  const auto lines = Capture([] {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < 500; ++i) spdlog::warn("whole");
      });
    }
    for (int i = 0; i < 500; ++i) {
      EXPECT_TRUE(SetUpLog(i % 2 == 0 ? "debug" : "info", LogFormat::kText).ok());
    }
  });
  EXPECT_EQ(lines.size(), 1000u);
  for (const auto& line : lines) EXPECT_TRUE(line.ends_with(" warning: whole")) << line;
}

}  // namespace
}  // namespace braid::log_test
