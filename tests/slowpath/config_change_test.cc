#include "slowpath/config_change.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/limits.h"
#include "slowpath/config_json.h"

namespace braid::config_change_test {
namespace {

using json = nlohmann::json;

Config Client(const json& patch = json::array()) {
  json tree = json::parse(R"({
    "mode": "client",
    "network": {"addresses": ["10.77.0.2/24"]},
    "security": {"private_key_file": "client.key"},
    "tunnel": {
      "paths": [{"name": "fibre", "interface": "eth0"}, {"name": "lte", "interface": "wwan0"}],
      "peers": [{"name": "hub", "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                 "endpoints": ["192.0.2.1:7700"], "allowed_ips": ["10.77.0.0/24"]}]}})");
  tree = tree.patch(patch);
  LoadedConfig loaded = ParseConfig(tree.dump(), ConfigFormat::kJson, "/etc/braid", {});
  EXPECT_EQ(loaded.mistakes, std::vector<Mistake>());
  return loaded.config.value_or(Config());
}

ConfigDifference Only(const json& patch) {
  const auto differences = CompareConfigs(Client(), Client(patch));
  EXPECT_EQ(differences.size(), 1u);
  return differences.empty() ? ConfigDifference() : differences[0];
}

TEST(ConfigChangeTest, TheSameDoesNotDiffer) {
  EXPECT_TRUE(CompareConfigs(Client(), Client()).empty());
}

TEST(ConfigChangeTest, AValueIsToldByItsPointer) {
  EXPECT_EQ(Only(json::parse(R"([{"op": "add", "path": "/log", "value": {"level": "debug"}}])")),
            (ConfigDifference{"/log/level", "\"info\"", "\"debug\"", true}));
}

TEST(ConfigChangeTest, PathsAndPeersAreToldByName) {
  EXPECT_EQ(Only(json::parse(R"([{"op": "add", "path": "/tunnel/paths/1/weight", "value": 2}])")),
            (ConfigDifference{"/tunnel/paths/lte/weight", "1.0", "2.0", true}));
  const ConfigDifference gone =
      Only(json::parse(R"([{"op": "remove", "path": "/tunnel/paths/0"}])"));
  EXPECT_EQ(gone.pointer, "/tunnel/paths/fibre");
  EXPECT_TRUE(gone.live);
  EXPECT_TRUE(gone.after.empty());
  EXPECT_EQ(json::parse(gone.before).at("interface"), "eth0");
}

TEST(ConfigChangeTest, AnotherOrderOfPathsIsNoDifference) {
  EXPECT_TRUE(CompareConfigs(Client(), Client(json::parse(
                                           R"([{"op": "move", "from": "/tunnel/paths/1",
                                                "path": "/tunnel/paths/0"}])")))
                  .empty());
}

// A search through all for each would take minutes.
TEST(ConfigChangeTest, AsManyPeersAsThereMayBeAreComparedAtOnce) {
  Config before = Client();
  before.tunnel.peers.resize(kMaxPeers, before.tunnel.peers.at(0));
  for (size_t i = 0; i < before.tunnel.peers.size(); ++i) {
    before.tunnel.peers[i].name = "peer" + std::to_string(i);
    before.throttle.peers[before.tunnel.peers[i].name].send = RateLimit{1000, 1000};
  }
  Config after = before;
  std::reverse(after.tunnel.peers.begin(), after.tunnel.peers.end());
  after.tunnel.peers[0].keepalive_ms = 5000;
  after.throttle.peers.erase("peer7");
  // With a look at each for each this would take longer than a test may.
  const auto differences = CompareConfigs(before, after);
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0].pointer,
            "/tunnel/peers/peer" + std::to_string(kMaxPeers - 1) + "/keepalive_s");
  EXPECT_EQ(differences[1].pointer, "/throttle/peers/peer7");
}

TEST(ConfigChangeTest, WhatCannotChangeWhileItRunsIsTold) {
  for (const char* patch : {
           R"([{"op": "add", "path": "/network/device", "value": "braid7"}])",
           R"([{"op": "add", "path": "/network/mtu", "value": 1400}])",
           R"([{"op": "replace", "path": "/network/addresses/0", "value": "10.77.0.3/24"}])",
           R"([{"op": "replace", "path": "/security/private_key_file", "value": "other.key"}])",
           R"([{"op": "add", "path": "/tunnel/lanes", "value": 7}])",
           R"([{"op": "add", "path": "/performance", "value": {"io": "epoll"}}])",
           R"([{"op": "add", "path": "/control", "value": {"socket": "/run/other.sock"}}])",
       }) {
    EXPECT_FALSE(Only(json::parse(patch)).live) << patch;
  }
}

TEST(ConfigChangeTest, AnotherKeyInTheSameFileIsToldAsItsName) {
  PeerConfig peer;
  peer.name = "a/b";
  peer.preshared_key_file = "/etc/braid/a.psk";
  const ConfigDifference told = OtherPresharedKey(peer);
  EXPECT_EQ(told.pointer, "/tunnel/peers/a~1b/preshared_key_file");
  EXPECT_EQ(told.before, "\"/etc/braid/a.psk\"");
  EXPECT_NE(told.after, told.before);
  EXPECT_TRUE(told.live);
}

TEST(ConfigChangeTest, JsonShowsWhatIsNotThereAsNull) {
  const auto shown = ToJson(CompareConfigs(
      Client(), Client(json::parse(R"([{"op": "remove", "path": "/tunnel/paths/0"}])"))));
  ASSERT_EQ(shown.size(), 1u);
  EXPECT_TRUE(shown[0].at("after").is_null());
  EXPECT_EQ(shown[0].at("needs_restart"), false);
}

}  // namespace
}  // namespace braid::config_change_test
