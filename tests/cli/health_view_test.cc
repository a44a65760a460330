#include "cli/health_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/text_layout.h"

namespace braid::health_view_test {
namespace {

using Json = nlohmann::ordered_json;

const Json kDegraded = Json::parse(R"({"status": "degraded", "components": {
    "workers": {"status": "ok"},
    "connectivity": {"status": "degraded", "why": "path \"lte\" to \"hub\" is down: this machine has no interface \"wwan0\""},
    "network": {"status": "failed", "why": "no"}}})");

TEST(RenderHealth, HasALineForEachComponentAndSaysWhy) {
  EXPECT_EQ(RenderHealth(kDegraded, false),
            R"(braid          degraded
workers        ok
connectivity   degraded  path "lte" to "hub" is down: this machine has no
                         interface "wwan0"
network        FAILED    no
)");
}

TEST(RenderHealth, ColoursTheStatusAndNothingElse) {
  const std::string text = RenderHealth(kDegraded, true);
  EXPECT_NE(text.find("workers        \x1b[32mok\x1b[0m\n"), std::string::npos) << text;
  EXPECT_NE(text.find("connectivity   \x1b[33mdegraded\x1b[0m  path"), std::string::npos) << text;
  EXPECT_NE(text.find("network        \x1b[31mFAILED\x1b[0m    no\n"), std::string::npos) << text;
}

TEST(RenderHealth, NothingOfWhatItIsGivenSteersTheTerminalOrOverflowsIt) {
  const Json health = {
      {"status", "\x1b[31m" + std::string(60, 's')},
      {"components",
       {{std::string(60, 'n') + "\x07", {{"status", 7}, {"why", "\x1b" + std::string(60, 'w')}}},
        {"x", 7},
        {"y", nullptr}}}};
  std::istringstream lines(RenderHealth(health, false));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_EQ(line.find_first_of("\x1b\x07"), std::string::npos) << line;
    EXPECT_LE(Width(line), 90u) << line;
  }
  EXPECT_EQ(RenderHealth(Json::parse("[]"), false), "braid          -\n");
  EXPECT_EQ(RenderHealth(Json::parse(R"({"components": 7})"), false), "braid          -\n");
}

TEST(ExitCodeOfHealth, IsThatOfMonitoringPlugins) {
  EXPECT_EQ(ExitCodeOf(Json::parse(R"({"status": "ok"})")), 0);
  EXPECT_EQ(ExitCodeOf(kDegraded), 1);
  EXPECT_EQ(ExitCodeOf(Json::parse(R"({"status": "failed"})")), 2);
  for (const char* other : {"{}", "[]", "null", R"({"status": 0})", R"({"status": "fine"})"}) {
    EXPECT_EQ(ExitCodeOf(Json::parse(other)), 3) << other;
  }
}

}  // namespace
}  // namespace braid::health_view_test
