#include "slowpath/path_commands.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace braid::path_commands_test {
namespace {

using nlohmann::json;

Config ClientOf(std::vector<HostPort> endpoints) {
  Config config;
  PeerConfig peer;
  peer.name = "hub";
  peer.endpoints = std::move(endpoints);
  config.tunnel.peers.push_back(std::move(peer));
  config.tunnel.paths.push_back({"fibre", {}, "lo", {}});
  return config;
}

HostPort At(const char* text) {
  const Endpoint endpoint = Endpoint::Parse(text).value();
  return {endpoint.address.ToString(), endpoint.port, endpoint.address};
}

TEST(PathCommands, APathThatCannotReachAPeerNeedsAnEndpoint) {
  const auto add = [](const char* text, const Config& config) {
    return ReadPathToAdd(json::parse(text), config).status().code();
  };
  const Config v4 = ClientOf({At("192.0.2.1:7700")});
  const Config none = ClientOf({});
  const Config named = ClientOf({{"hub.example.org", 7700, {}}});
  constexpr char kSix[] = R"({"name": "six", "address": "fd00::1"})";
  constexpr char kLte[] = R"({"name": "lte", "interface": "wwan0"})";
  constexpr char kOwn[] = R"({"name": "own", "address": "fd00::1", "endpoint": "[fd00::2]:1"})";
  EXPECT_EQ(add(kSix, v4), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(add(kLte, none), absl::StatusCode::kInvalidArgument);
  for (const char* path : {kSix, kLte}) EXPECT_EQ(add(path, named), absl::StatusCode::kOk);
  EXPECT_EQ(add(kLte, v4), absl::StatusCode::kOk);
  for (const Config& config : {v4, none}) EXPECT_EQ(add(kOwn, config), absl::StatusCode::kOk);
  EXPECT_EQ(add("[]", v4), absl::StatusCode::kInvalidArgument);
}

TEST(PathCommands, APathIsEndedByItsNameAlone) {
  EXPECT_EQ(ReadPathToRemove(json::parse(R"({"name": "lte"})")).value(), "lte");
  for (const char* text : {"{}", R"({"name": 7})", R"({"name": "a", "force": true})"}) {
    EXPECT_FALSE(ReadPathToRemove(json::parse(text)).ok()) << text;
  }
}

TEST(PathCommands, WhatWasAddedIsTold) {
  ClientPaths paths(ClientOf({At("192.0.2.1:7700")}));
  paths.Follow(
      {},
      [](const PathConfig&) {
        return BindingChoice{std::nullopt, "no such link"};
      },
      [](uint8_t) { return true; });
  const auto told = std::get<std::string>(DescribeAddedPath(paths, "fibre"));
  EXPECT_EQ(json::parse(told),
            json::parse(R"({"name": "fibre", "open": false, "problem": "no such link"})"));
  EXPECT_TRUE(std::holds_alternative<ControlError>(DescribeAddedPath(paths, "other")));
}

TEST(PathCommands, EndpointsAreShownAsTheyAreWritten) {
  EXPECT_EQ(DescribeEndpoint(At("[fd00::1]:7")), "[fd00::1]:7");
  EXPECT_EQ(DescribeEndpoint({"hub.example.org", 7700, {}}), "hub.example.org:7700");
}

TEST(PathCommands, OptionsAreChangedOneByOne) {
  const auto change = ParsePathChange(json::parse(R"({"name": "lte", "rate_mbps": 8})"));
  ASSERT_TRUE(change.ok());
  BondPathOptions options{2, 0, true};
  change->ApplyTo(options);
  EXPECT_EQ(options, (BondPathOptions{2, 1'000'000, true}));
  ParsePathChange(json::parse(R"({"name": "lte", "rate_mbps": "auto", "standby": false})"))
      ->ApplyTo(options);
  EXPECT_EQ(options, (BondPathOptions{2, 0, false}));
}

TEST(PathCommands, AChangeThatCannotBeNamesWhatIsWrong) {
  const std::pair<const char*, const char*> kWrong[] = {
      {"[]", "the path must be a section"},
      {R"({"name": "lte"})", "the path must have a \"weight\""},
      {R"({"weight": 2})", "name is missing"},
      {R"({"name": "lte", "weight": 0})", "weight must be a number from"},
      {R"({"name": "lte", "rate_mbps": "fast"})", "rate_mbps must be \"auto\" or a number"},
      {R"({"name": "lte", "standby": 1})", "standby must be true or false"},
      {R"({"name": "lte", "standby": true, "interface": "eth0"})", "interface is not a known key"}};
  for (const auto& [text, what] : kWrong) {
    const auto change = ParsePathChange(json::parse(text));
    ASSERT_FALSE(change.ok()) << text;
    EXPECT_NE(std::string(change.status().message()).find(what), std::string::npos)
        << change.status();
  }
}

}  // namespace
}  // namespace braid::path_commands_test
