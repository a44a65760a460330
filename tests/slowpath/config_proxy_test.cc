// What leaves past the tunnel, as it is configured.
#include "slowpath/config_proxy.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "slowpath/config_change.h"
#include "slowpath/config_json.h"

namespace braid::config_proxy_test {
namespace {

using nlohmann::json;
using To = EgressAction::To;

LoadedConfig Load(const json& proxy) {
  json tree = json::parse(R"({
    "mode": "client",
    "network": {"addresses": ["10.77.0.2/24"]},
    "security": {"private_key_file": "client.key"},
    "tunnel": {
      "peers": [{"name": "hub", "public_key": "TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=",
                 "endpoints": ["192.0.2.1:7700"], "allowed_ips": ["0.0.0.0/0"]}]}
  })");
  if (!proxy.is_null()) tree["proxy"] = proxy;
  return ParseConfig(tree.dump(), ConfigFormat::kJson, "/etc/braid", {});
}

Config Good(const json& proxy) {
  const LoadedConfig loaded = Load(proxy);
  EXPECT_TRUE(loaded.mistakes.empty()) << DescribeMistake("", loaded.mistakes.front());
  return loaded.config.value_or(Config());
}

TEST(ConfigProxy, NothingLeavesWhereNothingIsSaid) {
  EXPECT_EQ(Good(nullptr).proxy, std::nullopt);
  const auto proxy = Good(json::parse(R"({"rules": []})")).proxy;
  ASSERT_TRUE(proxy);
  EXPECT_TRUE(proxy->rules.empty());
  EXPECT_EQ(proxy->tcp_sessions, 20'000);
}

TEST(ConfigProxy, RulesHaveOneValueOrSeveral) {
  const auto proxy = Good(json::parse(R"({"tcp_sessions": 100, "rules": [
    {"match": {"port": 25}, "to": "block", "silent": true},
    {"match": {"prefix": ["192.0.2.0/24", "2001:db8::1"], "protocol": "tcp",
               "port": [443, "8000-8100"], "source": "10.0.0.0/8"},
     "to": "direct", "early_accept": true},
    {"match": {"protocol": ["icmp", 132]}, "to": "tunnel"},
    {"to": "block"}]})"))
                         .proxy;
  ASSERT_TRUE(proxy);
  EXPECT_EQ(proxy->tcp_sessions, 100);
  ASSERT_EQ(proxy->rules.size(), 4u);
  EXPECT_EQ(proxy->rules[0].ports, (std::vector<PortRange>{{25, 25}}));
  EXPECT_EQ(proxy->rules[0].action, (EgressAction{.to = To::kBlock, .silent = true}));
  const EgressRule& direct = proxy->rules[1];
  EXPECT_EQ(direct.prefixes,
            (std::vector{*IpPrefix::Parse("192.0.2.0/24"), *IpPrefix::Parse("2001:db8::1/128")}));
  EXPECT_EQ(direct.sources, (std::vector{*IpPrefix::Parse("10.0.0.0/8")}));
  EXPECT_EQ(direct.ports, (std::vector<PortRange>{{443, 443}, {8000, 8100}}));
  EXPECT_EQ(direct.protocols, (std::vector<uint8_t>{kProtocolTcp}));
  EXPECT_EQ(direct.action, (EgressAction{.to = To::kDirect, .early_accept = true}));
  EXPECT_EQ(proxy->rules[2].protocols, (std::vector<uint8_t>{kProtocolIcmp, kProtocolIcmpV6, 132}));
  EXPECT_EQ(proxy->rules[3], (EgressRule{.action = {.to = To::kBlock}}));
}

TEST(ConfigProxy, MistakesAreNamedAtTheirPlace) {
  struct Wrong {
    const char* proxy;
    const char* pointer;
    const char* words;
  };
  for (const Wrong& wrong : {
           Wrong{R"({})", "/proxy/rules", "list"},
           Wrong{R"({"rules": [{}]})", "/proxy/rules/0/to", "direct"},
           Wrong{R"({"rules": [{"to": "elsewhere"}]})", "/proxy/rules/0/to", "block"},
           Wrong{R"({"rules": [{"to": "direct"}]})", "/proxy/rules/0/to", "TCP alone"},
           Wrong{R"({"rules": [{"match": {"protocol": "udp"}, "to": "direct"}]})",
                 "/proxy/rules/0/to", "TCP alone"},
           Wrong{R"({"rules": [{"match": {"protocol": "sctp"}, "to": "block"}]})",
                 "/proxy/rules/0/match/protocol", "number"},
           Wrong{R"({"rules": [{"match": {"protocol": "icmp", "port": 1}, "to": "block"}]})",
                 "/proxy/rules/0/match/protocol", "no ports"},
           Wrong{R"({"rules": [{"match": {"port": [1, 0]}, "to": "block"}]})",
                 "/proxy/rules/0/match/port/1", "65535"},
           Wrong{R"({"rules": [{"match": {"prefix": []}, "to": "block"}]})",
                 "/proxy/rules/0/match/prefix", "one element"},
           Wrong{R"({"rules": [{"match": {"prefix": "example.com"}, "to": "block"}]})",
                 "/proxy/rules/0/match/prefix", "address"},
           Wrong{R"({"rules": [{"match": {"colour": "red"}, "to": "block"}]})",
                 "/proxy/rules/0/match/colour", "known"},
           Wrong{R"({"rules": [{"to": "tunnel", "silent": true}]})", "/proxy/rules/0/silent",
                 "block"},
           Wrong{R"({"rules": [{"to": "block", "early_accept": true}]})",
                 "/proxy/rules/0/early_accept", "direct"},
           Wrong{R"({"rules": [], "tcp_sessions": 1})", "/proxy/tcp_sessions", "16"},
       }) {
    const LoadedConfig loaded = Load(json::parse(wrong.proxy));
    ASSERT_FALSE(loaded.mistakes.empty()) << wrong.proxy;
    EXPECT_EQ(loaded.mistakes.front().pointer, wrong.pointer) << wrong.proxy;
    EXPECT_NE(loaded.mistakes.front().what.find(wrong.words), std::string::npos)
        << loaded.mistakes.front().what;
  }
}

TEST(ConfigProxy, IsShownAsItCanBeReadAgain) {
  const Config config = Good(json::parse(R"({"tcp_sessions": 100, "rules": [
    {"match": {"port": ["25", 80], "prefix": "192.0.2.0/24", "source": "fd00::/8",
               "protocol": ["udp", 6, "icmp"]}, "to": "block", "silent": true},
    {"match": {"protocol": "tcp"}, "to": "direct", "early_accept": true},
    {"to": "tunnel"}]})"));
  const auto shown = ToJson(config);
  EXPECT_EQ(Good(json::parse(shown["proxy"].dump())).proxy, config.proxy);
}

TEST(ConfigProxy, RulesAreLiveTheRestIsNot) {
  const Config none = Good(nullptr);
  const Config one = Good(json::parse(R"({"rules": [{"to": "block"}]})"));
  const Config two = Good(json::parse(R"({"rules": [{"to": "tunnel"}]})"));
  const Config more = Good(json::parse(R"({"rules": [{"to": "block"}], "tcp_sessions": 50})"));
  const auto all_live = [](const std::vector<ConfigDifference>& differences) {
    EXPECT_FALSE(differences.empty());
    for (const ConfigDifference& one_of_them : differences) {
      if (!one_of_them.live) return false;
    }
    return true;
  };
  EXPECT_TRUE(all_live(CompareConfigs(one, two)));
  EXPECT_FALSE(all_live(CompareConfigs(one, more)));
  EXPECT_FALSE(all_live(CompareConfigs(none, one)));
  EXPECT_FALSE(all_live(CompareConfigs(one, none)));
}

}  // namespace
}  // namespace braid::config_proxy_test
