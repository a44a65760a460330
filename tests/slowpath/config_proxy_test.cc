// What leaves past the tunnel, as it is configured.
#include "slowpath/config_proxy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "slowpath/config_change.h"
#include "slowpath/config_json.h"
#include "slowpath/config_keys.h"

namespace braid::config_proxy_test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
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
  EXPECT_EQ(proxy->udp_sessions, 4096);
}

TEST(ConfigProxy, RulesHaveOneValueOrSeveral) {
  const auto proxy = Good(json::parse(R"({"tcp_sessions": 100, "udp_sessions": 200, "rules": [
    {"match": {"port": 25}, "to": "block", "silent": true},
    {"match": {"prefix": ["192.0.2.0/24", "2001:db8::1"], "protocol": "tcp",
               "port": [443, "8000-8100"], "source": "10.0.0.0/8"},
     "to": "direct", "early_accept": true},
    {"match": {"protocol": ["icmp", 132]}, "to": "tunnel"},
    {"to": "block"}]})"))
                         .proxy;
  ASSERT_TRUE(proxy);
  EXPECT_EQ(proxy->tcp_sessions, 100);
  EXPECT_EQ(proxy->udp_sessions, 200);
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

TEST(ConfigProxy, NamesAndNameServers) {
  const auto proxy = Good(json::parse(R"({
    "dns": {"servers": ["192.0.2.53", "[2001:db8::53]:5353"], "cache": false, "timeout_s": 2},
    "rules": [{"match": {"domain": "WWW.Example.com.", "domain_suffix": [".example.org", "net"]},
               "to": "direct"}]})"))
                         .proxy;
  ASSERT_TRUE(proxy);
  EXPECT_EQ(proxy->dns.servers, (std::vector{*Endpoint::Parse("192.0.2.53:53"),
                                             *Endpoint::Parse("[2001:db8::53]:5353")}));
  EXPECT_FALSE(proxy->dns.cache);
  EXPECT_EQ(proxy->dns.timeout_s, 2);
  EXPECT_EQ(proxy->rules[0].domains, (std::vector<std::string>{"www.example.com"}));
  EXPECT_EQ(proxy->rules[0].domain_suffixes, (std::vector<std::string>{"example.org", "net"}));
  const auto printed = json::parse(ToJson(Good(json::parse(R"({
    "dns": {"servers": ["192.0.2.53"]},
    "rules": [{"match": {"domain": "a.test"}, "to": "block"}]})")))
                                       .at("proxy")
                                       .dump());
  EXPECT_EQ(printed["dns"]["servers"], json::parse(R"(["192.0.2.53:53"])"));
  EXPECT_EQ(printed["rules"][0]["match"]["domain"], json::parse(R"(["a.test"])"));
  for (const auto& [text, pointer] :
       {std::pair(R"({"dns": {"servers": ["a.test"]}, "rules": []})", "/proxy/dns/servers/0"),
        std::pair(R"({"dns": {"servers": ["224.0.0.1"]}, "rules": []})", "/proxy/dns/servers/0"),
        std::pair(R"({"dns": {"timeout_s": 0}, "rules": []})", "/proxy/dns/timeout_s"),
        std::pair(R"({"rules": [{"match": {"domain": "a b"}, "to": "block"}]})",
                  "/proxy/rules/0/match/domain")}) {
    const LoadedConfig loaded = Load(json::parse(text));
    ASSERT_FALSE(loaded.mistakes.empty()) << text;
    EXPECT_EQ(loaded.mistakes.front().pointer, pointer);
  }
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
           Wrong{R"({"rules": [{"match": {"protocol": ["udp", 132]}, "to": "direct"}]})",
                 "/proxy/rules/0/to", "TCP and UDP alone"},
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
           Wrong{R"({"rules": [], "udp_sessions": 1048577})", "/proxy/udp_sessions", "1048576"},
       }) {
    const LoadedConfig loaded = Load(json::parse(wrong.proxy));
    ASSERT_FALSE(loaded.mistakes.empty()) << wrong.proxy;
    EXPECT_EQ(loaded.mistakes.front().pointer, wrong.pointer) << wrong.proxy;
    EXPECT_NE(loaded.mistakes.front().what.find(wrong.words), std::string::npos)
        << loaded.mistakes.front().what;
  }
}

TEST(ConfigProxy, IsShownAsItCanBeReadAgain) {
  const Config config = Good(json::parse(R"({"tcp_sessions": 100, "udp_sessions": 200, "rules": [
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

// --- Groups ---

// Of a proxy whose one group is "office".
json WithGroup(const std::string& group) {
  return {{"rules", json::array()}, {"groups", {{"office", json::parse(group)}}}};
}

UpstreamGroupConfig GoodGroup(const std::string& group) {
  const auto proxy = Good(WithGroup(group)).proxy;
  EXPECT_TRUE(proxy && proxy->groups.size() == 1);
  return proxy && proxy->groups.size() == 1 ? proxy->groups[0] : UpstreamGroupConfig();
}

std::string Numbers(size_t from, size_t to) {
  std::string list;
  for (size_t i = from; i < to; ++i) {
    list += (i == from ? "" : ", ") + std::string(R"({"address": "192.0.2.1:)") +
            std::to_string(1000 + i) + "\"}";
  }
  return list;
}

constexpr char kWholeGroup[] = R"({
  "strategy": "least_connections",
  "upstreams": [
    {"address": "192.0.2.7:1081", "weight": 1000, "username": "braid", "password_file": "socks"},
    {"address": "proxy.example.net:9050"}],
  "pool": {"initial": 5, "max": 50, "idle_s": 60, "cleanup_s": 7},
  "breaker": {"failures": 3, "open_s": 20, "trials": 4, "successes": 6},
  "health": {"every_s": 10, "timeout_s": 2, "connect": "[2001:db8::1]:443"},
  "pipelined": true,
  "names": true})";

TEST(ConfigProxy, AGroupHasUpstreamsAndAllElseByDefault) {
  const UpstreamGroupConfig group = GoodGroup(R"({"upstreams": [{"address": "192.0.2.7:1081"}]})");
  EXPECT_EQ(group.name, "office");
  ASSERT_EQ(group.upstreams.size(), 1u);
  EXPECT_EQ(group.upstreams[0],
            (UpstreamConfig{.address = {"192.0.2.7", 1081, *IpAddress::Parse("192.0.2.7")}}));
  EXPECT_EQ(group.upstreams[0].weight, 1);
  EXPECT_EQ(group.choice.strategy, UpstreamChoice::Strategy::kRoundRobin);
  EXPECT_EQ(group.choice.breaker,
            (CircuitBreaker::Options{
                .failures = 5, .open_ns = 10 * kSecondNs, .trials = 1, .successes = 2}));
  EXPECT_EQ(group.health, (UpstreamHealthConfig{.every_s = 30, .timeout_s = 5, .connect = {}}));
  EXPECT_EQ(group.pool, std::nullopt);
  EXPECT_FALSE(group.pipelined);
  EXPECT_FALSE(group.names);
}

TEST(ConfigProxy, EachKeyOfAGroupIsRead) {
  const UpstreamGroupConfig group = GoodGroup(kWholeGroup);
  ASSERT_EQ(group.upstreams.size(), 2u);
  EXPECT_EQ(group.upstreams[0],
            (UpstreamConfig{.address = {"192.0.2.7", 1081, *IpAddress::Parse("192.0.2.7")},
                            .weight = 1000,
                            .username = "braid",
                            .password_file = "/etc/braid/socks"}));
  EXPECT_EQ(group.upstreams[1], (UpstreamConfig{.address = {"proxy.example.net", 9050, {}}}));
  EXPECT_EQ(group.choice.strategy, UpstreamChoice::Strategy::kLeastConnections);
  EXPECT_EQ(group.pool,
            (WarmPoolOptions{
                .initial = 5, .max = 50, .idle_ns = 60 * kSecondNs, .cleanup_ns = 7 * kSecondNs}));
  EXPECT_EQ(group.choice.breaker,
            (CircuitBreaker::Options{
                .failures = 3, .open_ns = 20 * kSecondNs, .trials = 4, .successes = 6}));
  EXPECT_EQ(group.health.every_s, 10);
  EXPECT_EQ(group.health.timeout_s, 2);
  EXPECT_EQ(group.health.connect, (HostPort{"2001:db8::1", 443, *IpAddress::Parse("2001:db8::1")}));
  EXPECT_TRUE(group.pipelined);
  EXPECT_TRUE(group.names);
}

TEST(ConfigProxy, AnUpstreamsPortIsThatOfSocksWhereNoneIsSaid) {
  const UpstreamGroupConfig group = GoodGroup(R"({"upstreams": [
    {"address": "192.0.2.7"}, {"address": "2001:DB8::7"}, {"address": "[2001:db8::7]:1081"},
    {"address": "proxy"}]})");
  ASSERT_EQ(group.upstreams.size(), 4u);
  const IpAddress v6 = *IpAddress::Parse("2001:db8::7");
  EXPECT_EQ(group.upstreams[0].address,
            (HostPort{"192.0.2.7", 1080, *IpAddress::Parse("192.0.2.7")}));
  EXPECT_EQ(group.upstreams[1].address, (HostPort{"2001:db8::7", 1080, v6}));
  EXPECT_EQ(group.upstreams[2].address, (HostPort{"2001:db8::7", 1081, v6}));
  EXPECT_EQ(group.upstreams[3].address, (HostPort{"proxy", 1080, {}}));
}

TEST(ConfigProxy, StrategiesAreCalledAsTheyAre) {
  using Strategy = UpstreamChoice::Strategy;
  for (const auto& [name, strategy] : {std::pair("round_robin", Strategy::kRoundRobin),
                                       std::pair("least_connections", Strategy::kLeastConnections),
                                       std::pair("weighted", Strategy::kWeighted)}) {
    const json group = {{"strategy", name}, {"upstreams", {{{"address", "proxy"}}}}};
    EXPECT_EQ(GoodGroup(group.dump()).choice.strategy, strategy) << name;
  }
}

TEST(ConfigProxy, APoolThatIsOnlyNamedHasItsDefaults) {
  const auto pool_of = [](const std::string& pool) {
    return GoodGroup(R"({"upstreams": [{"address": "proxy"}], "pool": )" + pool + "}").pool;
  };
  const auto pool = pool_of("{}");
  ASSERT_TRUE(pool);
  EXPECT_EQ(
      *pool,
      (WarmPoolOptions{
          .initial = 100, .max = 1000, .idle_ns = 300 * kSecondNs, .cleanup_ns = 60 * kSecondNs}));
  // What there is to be from the beginning there may be.
  EXPECT_EQ(pool_of(R"({"initial": 5000})")->max, 5000u);
  EXPECT_EQ(pool_of(R"({"initial": 0, "max": 1})")->initial, 0u);
}

TEST(ConfigProxy, ARuleNamesAGroup) {
  const auto proxy = Good(json::parse(R"({
    "groups": {"office": {"upstreams": [{"address": "a"}]}, "a/b": {"upstreams": [{"address": "b"}]}},
    "rules": [{"match": {"protocol": "tcp", "port": 22}, "to": "a/b", "early_accept": true},
              {"match": {"protocol": "tcp"}, "to": "office"}]})"))
                         .proxy;
  ASSERT_TRUE(proxy);
  ASSERT_EQ(proxy->groups.size(), 2u);
  ASSERT_EQ(proxy->rules.size(), 2u);
  for (const EgressRule& rule : proxy->rules) EXPECT_EQ(rule.action.to, To::kGroup);
  EXPECT_EQ(proxy->groups[proxy->rules[0].action.group].name, "a/b");
  EXPECT_TRUE(proxy->rules[0].action.early_accept);
  EXPECT_EQ(proxy->groups[proxy->rules[1].action.group].name, "office");
  EXPECT_FALSE(proxy->rules[1].action.early_accept);
}

TEST(ConfigProxy, MistakesOfGroupsAreNamedAtTheirPlace) {
  struct Wrong {
    std::string group;
    const char* pointer;  // within the group
    const char* words;
  };
  const auto upstream = [](const std::string& members) {
    return R"({"upstreams": [{"address": "a"}, {)" + members + "}]}";
  };
  const auto beside = [](const std::string& members) {
    return R"({"upstreams": [{"address": "a"}], )" + members + "}";
  };
  for (const Wrong& wrong : {
           Wrong{"[]", "", "must be a section of keys and values, but is a list"},
           Wrong{"{}", "/upstreams", "is missing; write a list"},
           Wrong{R"({"upstreams": []})", "/upstreams", "must have at least one element"},
           Wrong{R"({"upstreams": [)" + Numbers(0, 65) + "]}", "/upstreams",
                 "has 65 elements; at most 64 are allowed"},
           Wrong{R"({"upstreams": ["a"]})", "/upstreams/0", "must be a section"},
           Wrong{upstream(""), "/upstreams/1/address", "is missing; write such as"},
           Wrong{upstream(R"("address": 1080)"), "/upstreams/1/address", "must be text"},
           Wrong{upstream(R"("address": "192.0.2.7:0")"), "/upstreams/1/address",
                 "must be an address or a name with a port, such as \"192.0.2.7:1080\""},
           Wrong{upstream(R"("address": "socks5://a")"), "/upstreams/1/address",
                 "must be an address or a name with a port"},
           Wrong{upstream(R"("address": "224.0.0.1:1080")"), "/upstreams/1/address",
                 "must not be a multicast address"},
           Wrong{upstream(R"("address": "::")"), "/upstreams/1/address",
                 "must be the address of a machine"},
           Wrong{upstream(R"("address": "a:1080")"), "/upstreams/1",
                 "stands here twice: give one of them the \"weight\" of both"},
           Wrong{upstream(R"("address": "b", "weight": 0)"), "/upstreams/1/weight",
                 "from 1 to 1000, but is 0"},
           Wrong{upstream(R"("address": "b", "weight": 1001)"), "/upstreams/1/weight",
                 "from 1 to 1000, but is 1001"},
           Wrong{upstream(R"("address": "b", "username": "u")"), "/upstreams/1/username",
                 "wants a \"password_file\" beside it"},
           Wrong{upstream(R"("address": "b", "password_file": "f")"), "/upstreams/1/password_file",
                 "wants a \"username\" beside it"},
           Wrong{upstream(R"("address": "b", "password_file": "f", "username": ")" +
                          std::string(256, 'u') + "\""),
                 "/upstreams/1/username", "is longer than the 255 bytes"},
           Wrong{upstream(R"("address": "b", "username": "u", "password_file": "")"),
                 "/upstreams/1/password_file", "must not be empty"},
           Wrong{upstream(R"("address": "b", "password": "p")"), "/upstreams/1/password",
                 "known here: \"address\", \"weight\", \"username\", \"password_file\""},
           Wrong{beside(R"("strategy": "random")"), "/strategy",
                 "must be one of \"round_robin\", \"least_connections\", \"weighted\""},
           Wrong{beside(R"("pool": true)"), "/pool", "must be a section"},
           Wrong{beside(R"("pool": {"initial": 10001})"), "/pool/initial", "from 0 to 10000"},
           Wrong{beside(R"("pool": {"initial": 1, "max": 0})"), "/pool/max", "from 1 to 10000"},
           Wrong{beside(R"("pool": {"max": 99})"), "/pool/max",
                 "is less than \"initial\", which is 100"},
           Wrong{beside(R"("pool": {"idle_s": 0})"), "/pool/idle_s", "from 1 to 86400"},
           Wrong{beside(R"("pool": {"cleanup_s": 86401})"), "/pool/cleanup_s", "from 1 to 86400"},
           Wrong{beside(R"("pool": {"size": 1})"), "/pool/size", "is not a known key"},
           Wrong{beside(R"("breaker": 5)"), "/breaker", "must be a section"},
           Wrong{beside(R"("breaker": {"failures": 0})"), "/breaker/failures", "from 1 to 1000"},
           Wrong{beside(R"("breaker": {"open_s": 0})"), "/breaker/open_s", "from 1 to 86400"},
           Wrong{beside(R"("breaker": {"trials": 1001})"), "/breaker/trials", "from 1 to 1000"},
           Wrong{beside(R"("breaker": {"successes": 1.5})"), "/breaker/successes",
                 "from 1 to 1000"},
           Wrong{beside(R"("breaker": {"fails": 1})"), "/breaker/fails", "\"failures\""},
           Wrong{beside(R"("health": [])"), "/health", "must be a section"},
           Wrong{beside(R"("health": {"every_s": 0})"), "/health/every_s", "from 1 to 86400"},
           Wrong{beside(R"("health": {"timeout_s": 61})"), "/health/timeout_s", "from 1 to 60"},
           Wrong{beside(R"("health": {"connect": "a"})"), "/health/connect",
                 "must be an address or host name with a port"},
           Wrong{beside(R"("health": {"url": "a"})"), "/health/url", "is not a known key"},
           Wrong{beside(R"("pipelined": "yes")"), "/pipelined", "must be true or false"},
           Wrong{beside(R"("names": 1)"), "/names", "must be true or false"},
           Wrong{beside(R"("upstream": [])"), "/upstream", "did you mean \"upstreams\"?"},
       }) {
    const LoadedConfig loaded = Load(WithGroup(wrong.group));
    ASSERT_EQ(loaded.mistakes.size(), 1u) << wrong.group;
    EXPECT_EQ(loaded.mistakes[0].pointer, std::string("/proxy/groups/office") + wrong.pointer);
    EXPECT_THAT(loaded.mistakes[0].what, HasSubstr(wrong.words));
  }
}

TEST(ConfigProxy, OneServerMayBeThereForSeveralUsers) {
  EXPECT_EQ(GoodGroup(R"({"upstreams": [
              {"address": "a"},
              {"address": "a", "username": "x", "password_file": "x"},
              {"address": "a", "username": "y", "password_file": "x"}]})")
                .upstreams.size(),
            3u);
}

TEST(ConfigProxy, AsManyUpstreamsAndGroupsAsThereMayBe) {
  EXPECT_EQ(GoodGroup(R"({"upstreams": [)" + Numbers(0, 64) + "]}").upstreams.size(), 64u);
  json proxy = {{"rules", json::array()}};
  const auto add_group = [&] {
    const std::string name = "g" + std::to_string(proxy["groups"].size());
    proxy["groups"][name] = {{"upstreams", {{{"address", "a"}}}}};
  };
  for (int i = 0; i < 256; ++i) add_group();
  EXPECT_EQ(Good(proxy).proxy->groups.size(), 256u);
  add_group();
  const LoadedConfig loaded = Load(proxy);
  ASSERT_EQ(loaded.mistakes.size(), 1u);
  EXPECT_EQ(loaded.mistakes[0],
            (Mistake{.pointer = "/proxy/groups", .what = "has too many groups"}));
}

TEST(ConfigProxy, NamesOfGroupsAreTextAndNoWayOfTheirOwn) {
  const std::string too_long(65, 'n');
  struct Wrong {
    std::string name;
    std::string words;
  };
  for (const Wrong& wrong :
       {Wrong{"", "must not be empty"}, Wrong{" office", "neither begin nor end with a space"},
        Wrong{too_long, "must have at most 64 bytes"}, Wrong{"a\nb", "control characters"},
        Wrong{"tunnel", "cannot be named tunnel, which is a way of its own"},
        Wrong{"direct", "cannot be named direct"}, Wrong{"block", "cannot be named block"}}) {
    const json groups = {{wrong.name, {{"upstreams", {{{"address", "a"}}}}}}};
    const LoadedConfig loaded = Load({{"rules", json::array()}, {"groups", groups}});
    ASSERT_EQ(loaded.mistakes.size(), 1u) << wrong.name;
    EXPECT_THAT(loaded.mistakes[0].pointer, StartsWith("/proxy/groups/"));
    EXPECT_THAT(loaded.mistakes[0].what, HasSubstr(wrong.words));
  }
  const LoadedConfig loaded = Load(json::parse(R"({"rules": [], "groups": {"a/b~c": {}}})"));
  ASSERT_EQ(loaded.mistakes.size(), 1u);
  EXPECT_EQ(loaded.mistakes[0].pointer, "/proxy/groups/a~1b~0c/upstreams");
  const LoadedConfig list = Load(json::parse(R"({"rules": [], "groups": []})"));
  ASSERT_EQ(list.mistakes.size(), 1u);
  EXPECT_EQ(list.mistakes[0].pointer, "/proxy/groups");
  EXPECT_THAT(list.mistakes[0].what, HasSubstr("must be a section such as {\"office\""));
}

TEST(ConfigProxy, ARuleToNoGroupSaysWhetherThereAreAny) {
  const json rules = json::parse(R"([{"match": {"protocol": "tcp"}, "to": "ofice"}])");
  LoadedConfig loaded = Load({{"rules", rules}});
  ASSERT_EQ(loaded.mistakes.size(), 1u);
  EXPECT_EQ(loaded.mistakes[0].pointer, "/proxy/rules/0/to");
  EXPECT_THAT(loaded.mistakes[0].what, HasSubstr("of which there are none"));
  json proxy = WithGroup(kWholeGroup);
  proxy["rules"] = rules;
  loaded = Load(proxy);
  ASSERT_EQ(loaded.mistakes.size(), 1u);
  EXPECT_EQ(loaded.mistakes[0].pointer, "/proxy/rules/0/to");
  EXPECT_THAT(loaded.mistakes[0].what, HasSubstr("the name of one of \"groups\""));
  EXPECT_THAT(loaded.mistakes[0].what, Not(HasSubstr("none")));
  // Of a rule to a group, as of one to anywhere but "block".
  proxy["rules"][0]["to"] = "office";
  proxy["rules"][0]["silent"] = true;
  loaded = Load(proxy);
  ASSERT_EQ(loaded.mistakes.size(), 1u);
  EXPECT_EQ(loaded.mistakes[0].pointer, "/proxy/rules/0/silent");
}

TEST(ConfigProxy, GroupsAreShownAsTheyCanBeReadAgain) {
  json proxy = WithGroup(kWholeGroup);
  proxy["groups"]["bare"] = json::parse(R"({"upstreams": [{"address": "2001:DB8::7"}]})");
  proxy["groups"]["warm"] = json::parse(R"({"upstreams": [{"address": "a"}], "pool": {},
                                            "strategy": "weighted"})");
  for (const char* to : {"warm", "office", "bare"}) {
    proxy["rules"].push_back({{"match", {{"protocol", "tcp"}}}, {"to", to}});
  }
  const Config config = Good(proxy);
  const json shown = json::parse(ToJson(config)["proxy"].dump());
  EXPECT_EQ(Good(shown).proxy, config.proxy);
  json whole = json::parse(kWholeGroup);
  whole["upstreams"][0]["password_file"] = "/etc/braid/socks";
  whole["upstreams"][1]["weight"] = 1;
  EXPECT_EQ(shown["groups"]["office"], whole);
  EXPECT_EQ(shown["groups"]["bare"], json::parse(R"({
    "strategy": "round_robin",
    "upstreams": [{"address": "[2001:db8::7]:1080", "weight": 1}],
    "breaker": {"failures": 5, "open_s": 10, "trials": 1, "successes": 2},
    "health": {"every_s": 30, "timeout_s": 5},
    "pipelined": false,
    "names": false})"));
  EXPECT_EQ(shown["groups"]["warm"]["pool"],
            json::parse(R"({"initial": 100, "max": 1000, "idle_s": 300, "cleanup_s": 60})"));
  EXPECT_EQ(shown["rules"][1]["to"], "office");
}

TEST(ConfigProxy, GroupsAreLive) {
  const Config one = Good(WithGroup(R"({"upstreams": [{"address": "a"}]})"));
  const Config other = Good(WithGroup(R"({"upstreams": [{"address": "b"}]})"));
  const auto differences = CompareConfigs(one, other);
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_EQ(differences[0].pointer, "/proxy/groups/office/upstreams");
  EXPECT_TRUE(differences[0].live);
}

// --- Passwords ---

class PasswordFile : public ::testing::Test {
 protected:
  PasswordFile() {
    char name[] = "/tmp/braid-password-test-XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ + "/password";
  }
  ~PasswordFile() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& text, mode_t mode = 0600) {
    std::ofstream(path_, std::ios::trunc) << text;
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
  }

  // The text of the error, which names the file.
  std::string Refusal() {
    const auto password = ReadPasswordFile(path_);
    if (password.ok()) return "accepted";
    const std::string text(password.status().message());
    EXPECT_THAT(text, StartsWith(path_ + ": "));
    return text;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(PasswordFile, HoldsOneLine) {
  const std::string longest(255, 'x');
  for (const std::string& password : {std::string("p"), std::string(" with spaces "), longest}) {
    for (const char* end : {"", "\n", "\r\n"}) {
      Write(password + end);
      const auto read = ReadPasswordFile(path_);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(*read, password);
    }
  }
}

TEST_F(PasswordFile, IsOfItsOwnerAlone) {
  for (const mode_t mode : {0640, 0604, 0620, 0666}) {
    Write("secret", mode);
    EXPECT_THAT(Refusal(), HasSubstr("which lets more than its owner in; run: chmod 600 " + path_));
  }
  Write("secret", 0400);
  EXPECT_EQ(Refusal(), "accepted");
}

TEST_F(PasswordFile, OfWhatIsNoneTheContentsAreNotTold) {
  struct Wrong {
    std::string text;
    const char* words;
  };
  for (const Wrong& wrong :
       {Wrong{"", "1 to 255 bytes on one line"}, Wrong{"\n", "1 to 255 bytes on one line"},
        Wrong{"secret\nsecret\n", "1 to 255 bytes on one line"},
        Wrong{"\nsecret", "1 to 255 bytes on one line"},
        Wrong{"secret\rsecret", "1 to 255 bytes on one line"},
        Wrong{"secret" + std::string(250, 'x'), "1 to 255 bytes on one line"},
        Wrong{"secret" + std::string(252, 'x'), "is larger than 257 bytes"}}) {
    Write(wrong.text);
    const std::string refusal = Refusal();
    EXPECT_THAT(refusal, HasSubstr(wrong.words));
    EXPECT_THAT(refusal, Not(HasSubstr("secret")));
  }
}

TEST_F(PasswordFile, MustBeAFileThatIsThere) {
  EXPECT_THAT(Refusal(), HasSubstr("cannot be opened"));
  std::filesystem::create_directory(path_);
  EXPECT_THAT(Refusal(), HasSubstr("is not a regular file"));
}

TEST_F(PasswordFile, IsLookedAtWithTheConfiguration) {
  const auto load = [this] {
    LoadedConfig loaded = Load(WithGroup(R"({"upstreams": [{"address": "a", "username": "u",
                                             "password_file": ")" +
                                         path_ + "\"}]}"));
    CheckPasswordFiles(loaded);
    return loaded;
  };
  Write("secret");
  const LoadedConfig good = load();
  ASSERT_EQ(good.password_files.size(), 1u);
  EXPECT_EQ(good.password_files[0].path, path_);
  EXPECT_TRUE(good.mistakes.empty());
  Write("secret", 0644);
  const LoadedConfig bad = load();
  ASSERT_EQ(bad.mistakes.size(), 1u);
  EXPECT_EQ(bad.mistakes[0].pointer, "/proxy/groups/office/upstreams/0/password_file");
  EXPECT_THAT(bad.mistakes[0].what, HasSubstr("has mode 0644"));
}

}  // namespace
}  // namespace braid::config_proxy_test
