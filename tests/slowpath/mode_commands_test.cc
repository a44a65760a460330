#include "slowpath/mode_commands.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace braid::mode_commands_test {
namespace {

using nlohmann::json;

TEST(ModeCommands, AModeIsGivenAloneOrAskedFor) {
  EXPECT_EQ(ReadMode(json::parse(R"({"mode": "preferred"})")).value(), BondingMode::kPreferred);
  EXPECT_EQ(ReadMode(json::object()).value(), std::nullopt);
  for (const char* text : {R"({"mode": "fast"})", R"({"mode": 1})", R"({"mode": null})",
                           R"({"mode": "stripe", "peer": "hub"})", R"({"name": "stripe"})"}) {
    const auto mode = ReadMode(json::parse(text));
    ASSERT_FALSE(mode.ok()) << text;
    EXPECT_NE(mode.status().message().find("\"mode\" must be"), std::string::npos);
  }
}

TEST(ModeCommands, AModeByCommandStandsUntilTheConfigurationSaysAnother) {
  BondOptions before, now, next;
  now.mode = BondingMode::kRedundant;
  next.reorder_max_ns = kSecondNs;
  const BondOptions kept = BondAfterReload(now, before, next);
  EXPECT_EQ(kept.mode, BondingMode::kRedundant);
  EXPECT_EQ(kept.reorder_max_ns, kSecondNs);
  next.mode = BondingMode::kPreferred;
  EXPECT_EQ(BondAfterReload(now, before, next), next);
}

}  // namespace
}  // namespace braid::mode_commands_test
