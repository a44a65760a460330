// Limits of rates as they are configured, and as they are changed while the tunnel runs.
#include "slowpath/config_throttle.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace braid::config_throttle_test {
namespace {

using nlohmann::json;

constexpr uint64_t kMbitBytes = 1'000'000 / 8;

LoadedConfig Load(const json& throttle) {
  json tree = json::parse(R"({
    "mode": "server",
    "network": {"addresses": ["10.77.0.1/24"]},
    "security": {"private_key_file": "server.key"},
    "tunnel": {
      "listen": [{"address": "0.0.0.0", "port": 7700}],
      "peers": [{"name": "office", "public_key": "TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=",
                 "allowed_ips": ["10.77.0.2/32"]},
                {"name": "a/b", "public_key": "2dmHtAjl/XImvN/B6+z9SYNlI61D5ZcgvXPGr4PPHlU=",
                 "allowed_ips": ["10.77.0.3/32"]}]}
  })");
  tree["throttle"] = throttle;
  return ParseConfig(tree.dump(), ConfigFormat::kJson, "/etc/braid", {});
}

ThrottleConfig Good(const json& throttle) {
  const LoadedConfig loaded = Load(throttle);
  EXPECT_TRUE(loaded.mistakes.empty()) << DescribeMistake("", loaded.mistakes.front());
  return loaded.config.value_or(Config()).throttle;
}

RateLimit Mbps(uint64_t mbps) { return RateLimit::WithDefaultBurst(mbps * kMbitBytes); }

TEST(ConfigThrottle, NothingIsLimitedWhereNothingIsSaid) {
  EXPECT_EQ(Good(json::object()), ThrottleConfig());
}

TEST(ConfigThrottle, ALimitHoldsBothWaysUnlessTheyAreToldApart) {
  const ThrottleConfig throttle = Good(json::parse(R"({
    "total": {"rate_mbps": 400, "burst_kb": 64},
    "peers": {"office": {"rate_mbps": 50},
              "a/b": {"send": {"rate_mbps": 20.5, "burst_kb": 5}}}})"));
  EXPECT_EQ(throttle.total.send, (RateLimit{400 * kMbitBytes, 64'000}));
  EXPECT_EQ(throttle.total.receive, throttle.total.send);
  EXPECT_EQ(throttle.peers.at("office").send, Mbps(50));
  EXPECT_EQ(throttle.peers.at("office").receive, Mbps(50));
  EXPECT_EQ(throttle.peers.at("a/b").send, (RateLimit{41 * kMbitBytes / 2, 5000}));
  EXPECT_EQ(throttle.peers.at("a/b").receive, std::nullopt);
}

TEST(ConfigThrottle, MistakesAreNamedAtTheirPlace) {
  struct Wrong {
    const char* throttle;
    const char* pointer;
    const char* words;
  };
  for (const Wrong& wrong : {
           Wrong{R"(5)", "/throttle", "section"},
           Wrong{R"({"totals": {}})", "/throttle/totals", "did you mean \"total\"?"},
           Wrong{R"({"total": {}})", "/throttle/total/rate_mbps", "a number such as 50"},
           Wrong{R"({"total": 5})", "/throttle/total", "section"},
           Wrong{R"({"total": {"rate_mbps": 0}})", "/throttle/total/rate_mbps", "from 0.1"},
           Wrong{R"({"total": {"rate_mbps": -1}})", "/throttle/total/rate_mbps", "from 0.1"},
           Wrong{R"({"total": {"rate_mbps": "50"}})", "/throttle/total/rate_mbps", "number"},
           Wrong{R"({"total": {"rate_mbps": 200000}})", "/throttle/total/rate_mbps", "100000"},
           Wrong{R"({"total": {"rate_mbps": 5, "burst_kb": 0}})", "/throttle/total/burst_kb",
                 "from 1"},
           Wrong{R"({"total": {"rate_mbps": 5, "send": {"rate_mbps": 5}}})",
                 "/throttle/total/rate_mbps", "belongs into"},
           Wrong{R"({"total": {"receive": {"burst_kb": 5}}})", "/throttle/total/receive/rate_mbps",
                 "a number such as 50"},
           Wrong{R"({"peers": []})", "/throttle/peers", "section"},
           Wrong{R"({"peers": {"offise": {"rate_mbps": 5}}})", "/throttle/peers/offise",
                 "is not the name of a peer"},
           Wrong{R"({"peers": {"c/d": {"rate_mbps": 5}}})", "/throttle/peers/c~1d",
                 "is not the name of a peer"},
           Wrong{R"({"peers": {"a/b": {"rate_mbps": 5, "burst": 1}}})",
                 "/throttle/peers/a~1b/burst", "\"burst_kb\""},
       }) {
    const LoadedConfig loaded = Load(json::parse(wrong.throttle));
    ASSERT_EQ(loaded.mistakes.size(), 1u) << wrong.throttle;
    EXPECT_EQ(loaded.mistakes[0].pointer, wrong.pointer);
    EXPECT_NE(loaded.mistakes[0].what.find(wrong.words), std::string::npos)
        << loaded.mistakes[0].what;
  }
}

class ThrottleChange : public ::testing::Test {
 protected:
  absl::StatusOr<ThrottleConfig> Change(const char* change) const {
    return ChangeThrottle(json::parse(change), throttle_, {"office", "shop"});
  }

  ThrottleConfig throttle_ = {{Mbps(400), Mbps(400)}, {{"office", {Mbps(50), Mbps(50)}}}};
};

TEST_F(ThrottleChange, WhatIsNotNamedStays) {
  EXPECT_EQ(Change("{}").value(), throttle_);
  const ThrottleConfig more = Change(R"({"peers": {"shop": {"rate_mbps": 20}}})").value();
  EXPECT_EQ(more.total, throttle_.total);
  EXPECT_EQ(more.peers.at("office"), throttle_.peers.at("office"));
  EXPECT_EQ(more.peers.at("shop").send, Mbps(20));
  const ThrottleConfig total = Change(R"({"total": {"send": {"rate_mbps": 9}}})").value();
  EXPECT_EQ(total.total.send, Mbps(9));
  EXPECT_EQ(total.total.receive, std::nullopt);
  EXPECT_EQ(total.peers, throttle_.peers);
}

TEST_F(ThrottleChange, NullEndsALimit) {
  EXPECT_TRUE(Change(R"({"peers": {"office": null, "shop": null}})").value().peers.empty());
  EXPECT_EQ(Change(R"({"total": null})").value().total, ThrottleLimits());
}

TEST_F(ThrottleChange, MistakesNameTheMember) {
  for (const auto& [change, message] :
       {std::pair{R"({"peers": {"hub": {"rate_mbps": 20}}})",
                  "peers/hub is not the name of a peer"},
        std::pair{R"({"peers": {"shop": {"rate_mbps": -20}}})",
                  "peers/shop/rate_mbps must be a number from 0.1 to 100000, but is -20"},
        std::pair{R"({"name": "shop"})",
                  "name is not a known key; known here: \"total\", \"peers\""}}) {
    const auto changed = Change(change);
    ASSERT_FALSE(changed.ok()) << change;
    EXPECT_EQ(changed.status().message(), message);
  }
}

}  // namespace
}  // namespace braid::config_throttle_test
