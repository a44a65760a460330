#include "slowpath/config.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "slowpath/config_json.h"

namespace braid::config_test {

void PrintTo(const Mistake& mistake, std::ostream* out) { *out << DescribeMistake("", mistake); }

namespace {

using nlohmann::json;

constexpr char kKeyA[] = "TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=";
constexpr char kKeyB[] = "2dmHtAjl/XImvN/B6+z9SYNlI61D5ZcgvXPGr4PPHlU=";

json Client() {
  return json::parse(R"({
    "mode": "client",
    "network": {"addresses": ["10.77.0.2/24"]},
    "security": {"private_key_file": "client.key"},
    "tunnel": {"peers": [
      {"name": "hub", "public_key": "TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=",
       "endpoints": ["192.0.2.1:7700"], "allowed_ips": ["10.77.0.0/24"]}]}
  })");
}

json Server() {
  return json::parse(R"({
    "mode": "server",
    "network": {"addresses": ["10.77.0.1/24", "fd77::1/64"]},
    "security": {"private_key_file": "server.key"},
    "tunnel": {
      "listen": [{"address": "0.0.0.0", "port": 7700}],
      "peers": [{"name": "a", "public_key": "TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=",
                 "allowed_ips": ["10.77.0.2/32"]}]}
  })");
}

LoadedConfig Parse(const json& tree, const Environment& environment = {}) {
  return ParseConfig(tree.dump(), ConfigFormat::kJson, "/etc/braid", environment);
}

LoadedConfig ParseYaml(std::string_view text, const Environment& environment = {}) {
  return ParseConfig(text, ConfigFormat::kYaml, "/etc/braid", environment);
}

Config Good(const json& tree, const Environment& environment = {}) {
  LoadedConfig loaded = Parse(tree, environment);
  EXPECT_EQ(loaded.mistakes, std::vector<Mistake>());
  EXPECT_TRUE(loaded.config.has_value());
  return loaded.config.value_or(Config());
}

// `base` with the value at `pointer` replaced.
json With(json base, const std::string& pointer, json value) {
  base[json::json_pointer(pointer)] = std::move(value);
  return base;
}

json Without(json base, const std::string& pointer) {
  const json::json_pointer place(pointer);
  base[place.parent_pointer()].erase(place.back());
  return base;
}

void ExpectOneMistake(const LoadedConfig& loaded, const std::string& pointer,
                      const std::string& words = "") {
  EXPECT_FALSE(loaded.config.has_value());
  ASSERT_EQ(loaded.mistakes.size(), 1u) << ::testing::PrintToString(loaded.mistakes);
  EXPECT_EQ(loaded.mistakes[0].pointer, pointer);
  EXPECT_NE(loaded.mistakes[0].what.find(words), std::string::npos) << loaded.mistakes[0].what;
}

// ---- Values

TEST(ConfigTest, MinimalClientHasTheDefaults) {
  const Config config = Good(Client());
  EXPECT_EQ(config.role, Role::kClient);
  EXPECT_EQ(config.network.device, "braid0");
  EXPECT_EQ(config.network.addresses, std::vector{*IpPrefix::Parse("10.77.0.2/24")});
  EXPECT_FALSE(config.network.mtu.has_value());
  EXPECT_EQ(config.security.private_key_file, "/etc/braid/client.key");
  EXPECT_EQ(config.security.rekey_after_s, 120);
  EXPECT_EQ(config.security.rekey_after_packets, uint64_t{1} << 36);
  EXPECT_EQ(config.security.state_dir, "/var/lib/braid");
  ASSERT_EQ(config.tunnel.paths.size(), 1u);
  EXPECT_EQ(config.tunnel.paths[0].name, "default");
  EXPECT_FALSE(config.tunnel.paths[0].address.is_set());
  EXPECT_EQ(config.tunnel.paths[0].interface, "");
  EXPECT_FALSE(config.tunnel.paths[0].endpoint.has_value());
  EXPECT_EQ(config.tunnel.lanes, 16);
  EXPECT_EQ(config.tunnel.bonding.mode, BondingMode::kStripe);
  EXPECT_EQ(config.tunnel.ciphers, (std::vector{Cipher::kAes256Gcm, Cipher::kChaCha20Poly1305}));
  ASSERT_EQ(config.tunnel.peers.size(), 1u);
  EXPECT_EQ(config.tunnel.peers[0].keepalive_ms, 2000);
  EXPECT_EQ(config.tunnel.peers[0].preshared_key_file, "");
  EXPECT_EQ(config.control.socket, "/run/braid/braid.sock");
  EXPECT_FALSE(config.control.http.has_value());
  EXPECT_FALSE(config.performance.workers.has_value());
  EXPECT_EQ(config.performance.io, "auto");
  EXPECT_EQ(config.performance.aead, "auto");
  EXPECT_TRUE(config.performance.offloads);
  EXPECT_TRUE(config.performance.pin);
  EXPECT_EQ(config.performance.measure_port, 7799);
  EXPECT_EQ(config.log.level, "info");
  EXPECT_EQ(config.log.format, LogFormat::kText);
}

TEST(ConfigTest, PathsMayBeFoundByThemselves) {
  json tree = Client();
  EXPECT_FALSE(Good(tree).tunnel.auto_paths);
  tree["tunnel"]["paths"] = "auto";
  const Config config = Good(tree);
  EXPECT_TRUE(config.tunnel.auto_paths);
  EXPECT_TRUE(config.tunnel.paths.empty());
  EXPECT_TRUE(Good(Client(), {{"BRAID_TUNNEL__PATHS", "auto"}}).tunnel.auto_paths);
  // Nobody says where they lead.
  ExpectOneMistake(Parse(Without(tree, "/tunnel/peers/0/endpoints")), "/tunnel/peers/0/endpoints",
                   "at least one");
  tree = Client();
  tree["tunnel"]["paths"] = "all";
  ExpectOneMistake(Parse(tree), "/tunnel/paths", "\"auto\"");
}

TEST(ConfigTest, APathIsReadByItselfUnderTheSameRules) {
  const auto parse = [](const char* text) { return ParsePath(json::parse(text), "braid0"); };
  const auto path = parse(R"({"name": "lte", "interface": "wwan0", "endpoint": "[fd00::1]:7"})");
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(path->name, "lte");
  EXPECT_EQ(path->interface, "wwan0");
  EXPECT_EQ(path->endpoint->port, 7);
  for (const auto& [text, words] : std::vector<std::pair<const char*, const char*>>{
           {R"([])", "must be an object"},
           {R"({"name": "x"})", "\"interface\" to send from"},
           {R"({"interface": "eth0"})", "name"},
           {R"({"name": "x", "interface": "braid0"})", "the tunnel's own device"},
           {R"({"name": "x", "interface": "eth0", "speed": 1})", "speed is not a known key"},
           {R"({"name": "x", "address": "10.0.0.1", "endpoint": "[fd00::1]:7"})", "same family"}}) {
    const auto wrong = parse(text);
    EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(wrong.status().message()).find(words), std::string::npos)
        << wrong.status();
  }
}

TEST(ConfigTest, EveryKeyOfAClientIsRead) {
  json tree = Client();
  tree.merge_patch(json::parse(R"({
    "network": {"device": "tun7", "mtu": 1420},
    "security": {"rekey_after_s": 5, "rekey_after_packets": 1000, "state_dir": "state"},
    "tunnel": {
      "paths": [
        {"name": "fibre", "address": "10.20.1.1", "endpoint": "10.20.1.2:7700"},
        {"name": "lte", "interface": "wwan0", "quota": {"gb": 0.5, "reset_day": 31}},
        {"name": "six", "address": "2001:db8::1", "endpoint": "[2001:db8::2]:1"}],
      "lanes": 128, "bonding": {"mode": "redundant"}, "ciphers": ["chacha20-poly1305"]},
    "control": {"socket": "b.sock", "http": {"address": "127.0.0.1:7780"}},
    "performance": {"workers": 64, "io": "epoll", "aead": "sodium", "offloads": false,
                    "pin": false, "measure_port": 65535},
    "log": {"level": "debug", "format": "json"}})"));
  tree["tunnel"]["peers"][0]["preshared_key_file"] = "/keys/psk";
  tree["tunnel"]["peers"][0]["keepalive_s"] = 0.5;
  tree["tunnel"]["peers"][0]["endpoints"] = {"hub.example.org:7700", "[fd00::1]:65535"};
  const Config config = Good(tree);
  EXPECT_EQ(config.network.device, "tun7");
  EXPECT_EQ(config.network.mtu, 1420);
  EXPECT_EQ(config.security.rekey_after_s, 5);
  EXPECT_EQ(config.security.rekey_after_packets, 1000u);
  EXPECT_EQ(config.security.state_dir, "/etc/braid/state");
  ASSERT_EQ(config.tunnel.paths.size(), 3u);
  EXPECT_EQ(config.tunnel.paths[0].address, *IpAddress::Parse("10.20.1.1"));
  EXPECT_EQ(config.tunnel.paths[0].endpoint,
            (HostPort{"10.20.1.2", 7700, *IpAddress::Parse("10.20.1.2")}));
  EXPECT_EQ(config.tunnel.paths[1].interface, "wwan0");
  EXPECT_EQ(config.tunnel.paths[1].quota, (QuotaConfig{500'000'000, 31}));
  EXPECT_EQ(config.tunnel.paths[0].quota, std::nullopt);
  EXPECT_EQ(config.tunnel.paths[2].endpoint,
            (HostPort{"2001:db8::2", 1, *IpAddress::Parse("2001:db8::2")}));
  const PeerConfig& peer = config.tunnel.peers[0];
  EXPECT_EQ(peer.endpoints,
            (std::vector{HostPort{"hub.example.org", 7700, IpAddress()},
                         HostPort{"fd00::1", 65535, *IpAddress::Parse("fd00::1")}}));
  EXPECT_EQ(peer.preshared_key_file, "/keys/psk");
  EXPECT_EQ(peer.keepalive_ms, 500);
  EXPECT_EQ(config.tunnel.lanes, 128);
  EXPECT_EQ(config.tunnel.bonding.mode, BondingMode::kRedundant);
  EXPECT_EQ(config.tunnel.ciphers, std::vector{Cipher::kChaCha20Poly1305});
  EXPECT_EQ(config.control.socket, "/etc/braid/b.sock");
  EXPECT_EQ(config.control.http, (HttpConfig{.address = *Endpoint::Parse("127.0.0.1:7780")}));
  EXPECT_EQ(config.performance.workers, 64);
  EXPECT_EQ(config.performance.io, "epoll");
  EXPECT_EQ(config.performance.aead, "sodium");
  EXPECT_FALSE(config.performance.offloads);
  EXPECT_FALSE(config.performance.pin);
  EXPECT_EQ(config.performance.measure_port, 65535);
  EXPECT_EQ(config.log.level, "debug");
  EXPECT_EQ(config.log.format, LogFormat::kJson);
}

// What is shown of a configuration is all of it.
void ExpectItIsShownWhole(const Config& config) {
  const json shown = json::parse(ToJson(config).dump());
  const LoadedConfig again = Parse(shown);
  EXPECT_EQ(again.mistakes, std::vector<Mistake>()) << shown.dump(1);
  ASSERT_TRUE(again.config.has_value());
  EXPECT_TRUE(*again.config == config) << shown.dump(1);
}

TEST(ConfigTest, IsShownSoThatItCanBeReadAgain) {
  ExpectItIsShownWhole(Good(Client()));
  ExpectItIsShownWhole(Good(Server()));
  json client = Client();
  client.merge_patch(json::parse(R"({
    "network": {"device": "tun7", "mtu": 1420, "kill_switch": true,
                "routes": {"default": true, "include": ["10.9.0.0/16"],
                           "exclude": ["203.0.113.0/24"]},
                "nat": [{"source": "192.168.1.0/24", "out": "tun7"}],
                "dns": {"servers": ["10.77.0.1"], "domains": ["corp.example"]}},
    "tunnel": {
      "paths": [
        {"name": "fibre", "address": "10.20.1.1", "endpoint": "10.20.1.2:7700",
         "rate_mbps": 33.3, "weight": 0.7},
        {"name": "lte", "interface": "wwan0", "quota": {"gb": 0.3, "reset_day": 31},
         "standby": true, "endpoint": "[2001:db8::2]:1"}],
      "bonding": {"mode": "preferred", "pin_flows": true, "repair": "off", "fec": 0.15,
                  "reorder_max_ms": 90,
                  "classes": [{"protocol": "tcp", "ports": [22, "80-90"],
                               "class": "interactive"}]}},
    "log": {"level": "debug", "format": "json"}})"));
  client["tunnel"]["peers"][0]["preshared_key_file"] = "/keys/psk";
  client["tunnel"]["peers"][0]["keepalive_s"] = 0.5;
  client["tunnel"]["peers"][0]["allowed_ips"] = {"0.0.0.0/0", "::/0"};
  ExpectItIsShownWhole(Good(client));
  client["tunnel"]["paths"] = "auto";
  ExpectItIsShownWhole(Good(client));
}

TEST(ConfigTest, ClassesOfPortsAreRead) {
  const json rules = json::parse(R"([
    {"protocol": "udp", "ports": [5060, "16384-32767", "9"], "class": "realtime"},
    {"protocol": "tcp", "ports": [22], "class": "interactive"}])");
  EXPECT_EQ(
      Good(With(Client(), "/tunnel/bonding/classes", rules)).tunnel.class_rules,
      (std::vector<ClassRule>{{17, {{5060, 5060}, {16384, 32767}, {9, 9}}, TrafficClass::kRealtime},
                              {6, {{22, 22}}, TrafficClass::kInteractive}}));
}

json EverythingThrough() {
  return With(Client(), "/tunnel/peers/0/allowed_ips", {"0.0.0.0/0", "::/0"});
}

TEST(ConfigTest, TheNetworkAroundTheTunnelIsRead) {
  json tree = EverythingThrough();
  tree["network"].update(json::parse(R"({
    "routes": {"default": true, "include": ["10.9.0.0/16"], "exclude": ["lan", "203.0.113.0/24"]},
    "nat": [{"source": "192.168.1.0/24", "out": "braid0"}],
    "dns": {"servers": ["10.77.0.1", "fd77::1"], "domains": ["Corp.Example."]}})"));
  const NetworkConfig network = Good(tree).network;
  ASSERT_TRUE(network.routes && network.dns);
  EXPECT_TRUE(network.routes->everything);
  EXPECT_TRUE(network.routes->exclude_lan);
  EXPECT_EQ(network.routes->include, std::vector{*IpPrefix::Parse("10.9.0.0/16")});
  EXPECT_EQ(network.routes->exclude, std::vector{*IpPrefix::Parse("203.0.113.0/24")});
  EXPECT_EQ(network.nat, (std::vector<NatConfig>{{*IpPrefix::Parse("192.168.1.0/24"), "braid0"}}));
  EXPECT_EQ(network.dns->servers.size(), 2u);
  EXPECT_EQ(network.dns->domains, std::vector<std::string>{"corp.example"});
  EXPECT_FALSE(network.kill_switch);
  EXPECT_TRUE(Good(With(tree, "/network/kill_switch", true)).network.kill_switch);
  EXPECT_FALSE(
      Good(With(tree, "/network/routes/exclude", json::array())).network.routes->exclude_lan);
}

TEST(ConfigTest, RoutesIntoTheTunnelNeedAPeerThatCarriesThem) {
  ExpectOneMistake(Parse(With(Client(), "/network/routes/default", true)),
                   "/network/routes/default", "0.0.0.0/0");
  ExpectOneMistake(Parse(With(Client(), "/network/routes/include", {"10.78.0.0/16"})),
                   "/network/routes/include/0", "allowed_ips");
  ExpectOneMistake(Parse(With(EverythingThrough(), "/network/routes/include", {"::/0"})),
                   "/network/routes/include/0", "default");
  const LoadedConfig one_family =
      Parse(With(With(Client(), "/tunnel/peers/0/allowed_ips", {"0.0.0.0/0"}),
                 "/network/routes/default", true));
  ASSERT_TRUE(one_family.config.has_value());
  ASSERT_EQ(one_family.warnings.size(), 1u);
  EXPECT_NE(one_family.warnings[0].what.find("IPv6"), std::string::npos);
}

TEST(ConfigTest, WhatIsWrongAroundTheTunnelIsNamed) {
  ExpectOneMistake(Parse(With(Server(), "/network/kill_switch", true)), "/network/kill_switch",
                   "client");
  ExpectOneMistake(Parse(With(Client(), "/network/dns", json::object())), "/network/dns/servers");
  ExpectOneMistake(
      Parse(With(Client(), "/network/dns", {{"servers", {"10.77.0.1"}}, {"domains", {"a..b"}}})),
      "/network/dns/domains/0", "domain");
  ExpectOneMistake(Parse(With(Client(), "/network/nat", {{{"source", "10.0.0.0/8"}}})),
                   "/network/nat/0/out");
  ExpectOneMistake(
      Parse(With(Client(), "/network/nat", {{{"source", "10.0.0.0/8"}, {"out", "eth*"}}})),
      "/network/nat/0/out", "nftables");
}

TEST(ConfigTest, EveryNameOfAChoiceIsKnown) {
  const std::pair<const char*, std::vector<const char*>> choices[] = {
      {"/tunnel/bonding/mode", {"stripe", "preferred", "redundant"}},
      {"/tunnel/bonding/fec", {"off", "auto"}},
      {"/performance/io", {"auto", "io_uring", "epoll"}},
      {"/performance/aead", {"auto", "ipsec-mb", "sodium"}},
      {"/performance/workers", {"auto"}},
      {"/network/mtu", {"auto"}},
      {"/log/level", {"debug", "info", "warning", "error"}},
      {"/log/format", {"text", "json"}}};
  for (const auto& [pointer, names] : choices) {
    for (const char* name : names) Good(With(Client(), pointer, name));
    ExpectOneMistake(Parse(With(Client(), pointer, "AUTO")), pointer);
    ExpectOneMistake(Parse(With(Client(), pointer, json::array())), pointer);
  }
  EXPECT_EQ(Good(With(Client(), "/tunnel/bonding/mode", "preferred")).tunnel.bonding.mode,
            BondingMode::kPreferred);
}

TEST(ConfigTest, FecIsOffOrByLossesOrARatio) {
  constexpr char kFec[] = "/tunnel/bonding/fec";
  EXPECT_EQ(Good(Client()).tunnel.bonding.fec, FecMode::kOff);
  EXPECT_EQ(Good(With(Client(), kFec, "off")).tunnel.bonding.fec, FecMode::kOff);
  EXPECT_EQ(Good(With(Client(), kFec, "auto")).tunnel.bonding.fec, FecMode::kAuto);
  for (const double ratio : {0.01, 0.1, 1.0}) {
    const BondOptions bonding = Good(With(Client(), kFec, ratio)).tunnel.bonding;
    EXPECT_EQ(bonding.fec, FecMode::kRatio);
    EXPECT_EQ(bonding.fec_ratio, ratio);
  }
  EXPECT_EQ(Good(With(Client(), kFec, 1)).tunnel.bonding.fec_ratio, 1);
  for (const json& wrong : {json(0), json(0.009), json(1.01), json(-1), json("0.1"), json(true)}) {
    const LoadedConfig loaded = Parse(With(Client(), kFec, wrong));
    ExpectOneMistake(loaded, kFec);
    EXPECT_EQ(
        loaded.mistakes[0].what,
        "must be \"off\", \"auto\" or a number from 0.01 to 1: how much parity for each packet")
        << wrong;
  }
}

TEST(ConfigTest, ServerListensAndItsPeersHaveNoEndpoints) {
  const json listen = {{{"address", "0.0.0.0"}, {"port", 1}}, {{"address", "::"}, {"port", 65535}}};
  const Config config = Good(With(Server(), "/tunnel/listen", listen));
  EXPECT_EQ(config.role, Role::kServer);
  EXPECT_TRUE(config.tunnel.paths.empty());
  EXPECT_EQ(config.tunnel.listen, (std::vector{Endpoint{*IpAddress::Parse("0.0.0.0"), 1},
                                               Endpoint{*IpAddress::Parse("::"), 65535}}));
}

TEST(ConfigTest, HostBitsOfAllowedIpsAreClearedWithAWarning) {
  const LoadedConfig loaded =
      Parse(With(Server(), "/tunnel/peers/0/allowed_ips", {"10.1.2.3/16", "fd00::1"}));
  ASSERT_TRUE(loaded.config.has_value());
  EXPECT_EQ(loaded.config->tunnel.peers[0].allowed_ips,
            (std::vector{*IpPrefix::Parse("10.1.0.0/16"), *IpPrefix::Parse("fd00::1/128")}));
  ASSERT_EQ(loaded.warnings.size(), 1u);
  EXPECT_EQ(loaded.warnings[0].pointer, "/tunnel/peers/0/allowed_ips/0");
}

TEST(ConfigTest, HttpOffTheLoopbackHasTlsAndAToken) {
  const json http = {{"address", "0.0.0.0:7780"},
                     {"token_file", "http.token"},
                     {"tls", {{"certificate_file", "/tls/braid.crt"}, {"key_file", "braid.key"}}},
                     {"hosts", {"Braid.Example.", "192.0.2.7", "2001:DB8::7"}},
                     {"origins", {"https://Panel.example:8443", "http://[::1]:3000"}}};
  const LoadedConfig loaded = Parse(With(Client(), "/control/http", http));
  ASSERT_TRUE(loaded.config.has_value());
  EXPECT_TRUE(loaded.warnings.empty());
  const HttpConfig& config = *loaded.config->control.http;
  EXPECT_EQ(config.address, Endpoint::Parse("0.0.0.0:7780"));
  EXPECT_EQ(config.token_file, "/etc/braid/http.token");
  EXPECT_EQ(config.tls, (TlsFiles{"/tls/braid.crt", "/etc/braid/braid.key"}));
  EXPECT_EQ(config.hosts, (std::vector<std::string>{"braid.example", "192.0.2.7", "2001:db8::7"}));
  EXPECT_EQ(config.origins,
            (std::vector<std::string>{"https://panel.example:8443", "http://[::1]:3000"}));
  ASSERT_EQ(loaded.http_files.size(), 2u);
  EXPECT_EQ(loaded.http_files[0].pointer, "/control/http/token_file");
  EXPECT_EQ(loaded.http_files[0].path, "/etc/braid/http.token");
  EXPECT_EQ(loaded.http_files[0].certificate_path, "");
  EXPECT_EQ(loaded.http_files[1].pointer, "/control/http/tls/key_file");
  EXPECT_EQ(loaded.http_files[1].path, "/etc/braid/braid.key");
  EXPECT_EQ(loaded.http_files[1].certificate_path, "/tls/braid.crt");

  json without = http;
  without.erase("tls");
  ExpectOneMistake(Parse(With(Client(), "/control/http", without)), "/control/http/tls");
  without = http;
  without.erase("token_file");
  ExpectOneMistake(Parse(With(Client(), "/control/http", without)), "/control/http/token_file");
}

TEST(ConfigTest, WarnsOfAServerWithoutPeers) {
  const LoadedConfig loaded = Parse(Without(Server(), "/tunnel/peers"));
  EXPECT_TRUE(loaded.config.has_value());
  EXPECT_EQ(loaded.warnings.size(), 1u);
}

TEST(ConfigTest, NamesTheKeyFilesEvenWhenOtherThingsAreWrong) {
  json tree = With(Client(), "/tunnel/lanes", 0);
  tree["tunnel"]["peers"][0]["preshared_key_file"] = "../psk";
  const LoadedConfig loaded = Parse(tree);
  ASSERT_EQ(loaded.key_files.size(), 2u);
  EXPECT_EQ(loaded.key_files[0].pointer, "/security/private_key_file");
  EXPECT_EQ(loaded.key_files[0].path, "/etc/braid/client.key");
  EXPECT_EQ(loaded.key_files[1].pointer, "/tunnel/peers/0/preshared_key_file");
  EXPECT_EQ(loaded.key_files[1].path, "/etc/psk");
}

// ---- Mistakes

struct WrongValue {
  const char* pointer;
  const char* value;       // JSON
  const char* where = "";  // when it is not at `pointer`
};

void PrintTo(const WrongValue& wrong, std::ostream* out) {
  *out << wrong.pointer << " = " << wrong.value;
}

class WrongClientTest : public ::testing::TestWithParam<WrongValue> {};

TEST_P(WrongClientTest, IsReportedAtItsPlace) {
  const WrongValue& wrong = GetParam();
  const json value = json::parse(wrong.value);
  const std::string where = *wrong.where != '\0' ? wrong.where : wrong.pointer;
  ExpectOneMistake(Parse(With(Client(), wrong.pointer, value)), where);
}

INSTANTIATE_TEST_SUITE_P(
    Values, WrongClientTest,
    ::testing::Values(
        WrongValue{"/mode", "\"peer\""}, WrongValue{"/mode", "1"}, WrongValue{"/network", "[]"},
        WrongValue{"/network", "null"}, WrongValue{"/network/device", "\"sixteen-letters-\""},
        WrongValue{"/network/device", "\"a/b\""}, WrongValue{"/network/device", "\"a b\""},
        WrongValue{"/network/device", "\"tun%d\""}, WrongValue{"/network/device", "\"..\""},
        WrongValue{"/network/device", "\"\""}, WrongValue{"/network/device", "\"a\\u0000b\""},
        WrongValue{"/network/device", "7"}, WrongValue{"/network/addresses", "[]"},
        WrongValue{"/network/addresses", "\"10.0.0.1/24\""},
        WrongValue{"/network/addresses/0", "\"10.0.0.1/33\""},
        WrongValue{"/network/addresses/0", "\"10.0.0.256/24\""},
        WrongValue{"/network/addresses/0", "\"0.0.0.0/0\""},
        WrongValue{"/network/addresses/0", "\"224.0.0.1/24\""},
        WrongValue{"/network/addresses/0", "\"::ffff:10.0.0.1/128\""},
        WrongValue{"/network/addresses/1", "\"10.77.0.2/16\""}, WrongValue{"/network/mtu", "1279"},
        WrongValue{"/network/mtu", "65468"}, WrongValue{"/network/mtu", "-1"},
        WrongValue{"/network/mtu", "1420.5"}, WrongValue{"/network/mtu", "\"1420\""},
        WrongValue{"/security/rekey_after_s", "0"}, WrongValue{"/security/rekey_after_s", "121"},
        WrongValue{"/security/rekey_after_packets", "999"},
        WrongValue{"/security/rekey_after_packets", "18446744073709551615"},
        WrongValue{"/security/state_dir", "\"\""}, WrongValue{"/security/private_key_file", "1"},
        WrongValue{"/security/private_key_file",
                   "\"TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=\""}));

INSTANTIATE_TEST_SUITE_P(
    Tunnel, WrongClientTest,
    ::testing::Values(
        WrongValue{"/tunnel/listen", R"([{"address": "0.0.0.0", "port": 1}])"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "interface": "e", "quota": 50}])",
                   "/tunnel/paths/0/quota"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "interface": "e", "quota": {}}])",
                   "/tunnel/paths/0/quota/gb"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "interface": "e", "quota": {"gb": 0}}])",
                   "/tunnel/paths/0/quota/gb"},
        WrongValue{"/tunnel/paths",
                   R"([{"name": "a", "interface": "e", "quota": {"gb": 1, "reset_day": 32}}])",
                   "/tunnel/paths/0/quota/reset_day"},
        WrongValue{"/tunnel/bonding/classes", "{}"},
        WrongValue{"/tunnel/bonding/classes", "[7]", "/tunnel/bonding/classes/0"},
        WrongValue{"/tunnel/bonding/classes", R"([{"ports": [1], "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/protocol"},
        WrongValue{"/tunnel/bonding/classes",
                   R"([{"protocol": "icmp", "ports": [1], "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/protocol"},
        WrongValue{"/tunnel/bonding/classes", R"([{"protocol": "udp", "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/ports"},
        WrongValue{"/tunnel/bonding/classes",
                   R"([{"protocol": "udp", "ports": [0], "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/ports/0"},
        WrongValue{"/tunnel/bonding/classes",
                   R"([{"protocol": "udp", "ports": [1, "9-8"], "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/ports/1"},
        WrongValue{"/tunnel/bonding/classes",
                   R"([{"protocol": "udp", "ports": ["1-65536"], "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/ports/0"},
        WrongValue{"/tunnel/bonding/classes",
                   R"([{"protocol": "udp", "ports": ["1-2-3"], "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/ports/0"},
        WrongValue{"/tunnel/bonding/classes",
                   R"([{"protocol": "udp", "ports": ["-3"], "class": "bulk"}])",
                   "/tunnel/bonding/classes/0/ports/0"},
        WrongValue{"/tunnel/bonding/classes",
                   R"([{"protocol": "udp", "ports": [1], "class": "fast"}])",
                   "/tunnel/bonding/classes/0/class"},
        WrongValue{"/tunnel/lanes", "0"}, WrongValue{"/tunnel/lanes", "129"},
        WrongValue{"/tunnel/ciphers", "[]"}, WrongValue{"/tunnel/ciphers", "[\"aes-256-gcm\"]"},
        WrongValue{"/tunnel/ciphers", "[\"rot13\"]", "/tunnel/ciphers/0"},
        WrongValue{"/tunnel/ciphers", "[\"chacha20-poly1305\", \"chacha20-poly1305\"]",
                   "/tunnel/ciphers/1"},
        WrongValue{"/tunnel/paths", "[]"}, WrongValue{"/tunnel/paths", "{}"},
        WrongValue{"/tunnel/paths", "\"all\""}, WrongValue{"/tunnel/paths", "7"},
        WrongValue{"/tunnel/paths", "[1]", "/tunnel/paths/0"},
        WrongValue{"/tunnel/paths", R"([{"name": "a"}])", "/tunnel/paths/0"},
        WrongValue{"/tunnel/paths", R"([{"interface": "eth0"}])", "/tunnel/paths/0/name"},
        WrongValue{"/tunnel/paths", R"([{"name": " a", "interface": "eth0"}])",
                   "/tunnel/paths/0/name"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "interface": "eth0", "address": "1.2.3.4"}])",
                   "/tunnel/paths/0/interface"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "interface": "braid0"}])",
                   "/tunnel/paths/0/interface"},
        WrongValue{"/tunnel/paths",
                   R"([{"name": "a", "interface": "e"}, {"name": "a", "interface": "f"}])",
                   "/tunnel/paths/1/name"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "address": "0.0.0.0"}])",
                   "/tunnel/paths/0/address"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "address": "::ffff:1.2.3.4"}])",
                   "/tunnel/paths/0/address"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "address": "fd00::1"}])",
                   "/tunnel/peers/0/endpoints"},
        WrongValue{"/tunnel/paths",
                   R"([{"name": "a", "address": "1.2.3.4", "endpoint": "[fd00::1]:1"}])",
                   "/tunnel/paths/0/endpoint"},
        WrongValue{"/tunnel/paths", R"([{"name": "a", "interface": "e", "endpoint": "x"}])",
                   "/tunnel/paths/0/endpoint"}));

INSTANTIATE_TEST_SUITE_P(
    Peers, WrongClientTest,
    ::testing::Values(WrongValue{"/tunnel/peers", "[]"}, WrongValue{"/tunnel/peers", "7"},
                      WrongValue{"/tunnel/peers/0/name", "\"\""},
                      WrongValue{"/tunnel/peers/0/public_key", "\"AAAA\""},
                      WrongValue{"/tunnel/peers/0/public_key",
                                 "\"TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI= \""},
                      WrongValue{"/tunnel/peers/0/preshared_key_file",
                                 "\"TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=\""},
                      WrongValue{"/tunnel/peers/0/endpoints", "[]"},
                      WrongValue{"/tunnel/peers/0/endpoints", "\"192.0.2.1:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"192.0.2.1\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"192.0.2.1:0\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"192.0.2.1:65536\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"192.0.2.256:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"hub:+7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"-hub:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"hub..org:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"fd00::1:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"0.0.0.0:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"[::]:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"239.1.2.3:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"255.255.255.255:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"[ff02::1]:7700\""},
                      WrongValue{"/tunnel/peers/0/endpoints/0", "\"[::ffff:192.0.2.1]:7700\""},
                      WrongValue{"/tunnel/peers/0/allowed_ips", "{}"},
                      WrongValue{"/tunnel/peers/0/allowed_ips/0", "\"everything\""},
                      WrongValue{"/tunnel/peers/0/allowed_ips/0", "\"::ffff:10.0.0.0/104\""},
                      WrongValue{"/tunnel/peers/0/allowed_ips/1", "\"10.77.0.0/24\""},
                      WrongValue{"/tunnel/peers/0/keepalive_s", "-1"},
                      WrongValue{"/tunnel/peers/0/keepalive_s", "60.5"},
                      WrongValue{"/tunnel/peers/0/keepalive_s", "0.001"},
                      WrongValue{"/tunnel/peers/0/keepalive_s", "\"2\""}));

INSTANTIATE_TEST_SUITE_P(Rest, WrongClientTest,
                         ::testing::Values(WrongValue{"/control/socket", "\"\""},
                                           WrongValue{"/control/http", "{}",
                                                      "/control/http/address"},
                                           WrongValue{"/control/http/address", "\"127.0.0.1\""},
                                           WrongValue{"/control/http/address", "\"localhost:80\""},
                                           WrongValue{"/control/http/address", "\"[ff02::1]:80\""},
                                           WrongValue{"/performance/workers", "0"},
                                           WrongValue{"/performance/workers", "65"},
                                           WrongValue{"/performance/measure_port", "65536"},
                                           WrongValue{"/performance/measure_port", "-1"},
                                           WrongValue{"/performance/measure_port", "\"auto\""},
                                           WrongValue{"/performance/offloads", "1"},
                                           WrongValue{"/performance/pin", "\"true\""}));

TEST(ConfigMistakeTest, MissingKeysAreReportedWhereTheyWouldStand) {
  for (const char* pointer : {"/mode", "/network/addresses", "/security/private_key_file",
                              "/tunnel/peers", "/tunnel/peers/0/name", "/tunnel/peers/0/public_key",
                              "/tunnel/peers/0/allowed_ips", "/tunnel/peers/0/endpoints"}) {
    ExpectOneMistake(Parse(Without(Client(), pointer)), pointer);
  }
  for (const char* pointer :
       {"/tunnel/listen", "/tunnel/listen/0/address", "/tunnel/listen/0/port"}) {
    ExpectOneMistake(Parse(Without(Server(), pointer)), pointer, "is missing");
  }
}

TEST(ConfigMistakeTest, EndpointsMayBeLeftToThePaths) {
  json tree = Without(Client(), "/tunnel/peers/0/endpoints");
  tree["tunnel"]["paths"] = {{{"name", "a"}, {"interface", "e"}, {"endpoint", "192.0.2.1:1"}}};
  Good(tree);
  tree["tunnel"]["paths"].push_back({{"name", "b"}, {"interface", "f"}});
  ExpectOneMistake(Parse(tree), "/tunnel/peers/0/endpoints", "path \"b\"");
}

TEST(ConfigMistakeTest, FamiliesOfPathsMayBeMixed) {
  json tree = With(Client(), "/tunnel/paths", json::parse(R"([{"name": "a", "address": "10.0.0.1"},
                                   {"name": "b", "address": "fd00::1"}])"));
  tree["tunnel"]["peers"][0]["endpoints"] = {"192.0.2.1:7700", "[2001:db8::1]:7700"};
  const TunnelConfig tunnel = Good(tree).tunnel;
  ASSERT_EQ(tunnel.paths.size(), 2u);
  EXPECT_EQ(tunnel.paths[0].address, *IpAddress::Parse("10.0.0.1"));
  EXPECT_EQ(tunnel.paths[1].address, *IpAddress::Parse("fd00::1"));
  ASSERT_EQ(tunnel.peers.size(), 1u);
  EXPECT_EQ(tunnel.peers[0].endpoints,
            (std::vector{HostPort{"192.0.2.1", 7700, *IpAddress::Parse("192.0.2.1")},
                         HostPort{"2001:db8::1", 7700, *IpAddress::Parse("2001:db8::1")}}));
}

TEST(ConfigMistakeTest, ServerHasNoPathsAndNoEndpoints) {
  const json paths = {{{"name", "a"}, {"interface", "eth0"}}};
  ExpectOneMistake(Parse(With(Server(), "/tunnel/paths", paths)), "/tunnel/paths");
  ExpectOneMistake(Parse(With(Server(), "/tunnel/peers/0/endpoints", {"192.0.2.1:1"})),
                   "/tunnel/peers/0/endpoints");
}

TEST(ConfigMistakeTest, ListensOnceOnEachAddress) {
  json tree = Server();
  tree["tunnel"]["listen"].push_back(tree["tunnel"]["listen"][0]);
  ExpectOneMistake(Parse(tree), "/tunnel/listen/1", "/tunnel/listen/0");
  ExpectOneMistake(Parse(With(Server(), "/tunnel/listen/0/port", 0)), "/tunnel/listen/0/port");
  ExpectOneMistake(Parse(With(Server(), "/tunnel/listen/0/port", 65536)), "/tunnel/listen/0/port");
  ExpectOneMistake(Parse(With(Server(), "/tunnel/listen/0/address", "ff02::1")),
                   "/tunnel/listen/0/address");
}

TEST(ConfigMistakeTest, PeersShareNeitherNameNorKeyNorPrefix) {
  json tree = Server();
  tree["tunnel"]["peers"].push_back(
      {{"name", "b"}, {"public_key", kKeyB}, {"allowed_ips", {"10.77.0.3/32"}}});
  Good(tree);
  ExpectOneMistake(Parse(With(tree, "/tunnel/peers/1/name", "a")), "/tunnel/peers/1/name",
                   "/tunnel/peers/0/name");
  ExpectOneMistake(Parse(With(tree, "/tunnel/peers/1/public_key", kKeyA)),
                   "/tunnel/peers/1/public_key", "/tunnel/peers/0/public_key");
  ExpectOneMistake(Parse(With(tree, "/tunnel/peers/1/allowed_ips/0", "10.77.0.2")),
                   "/tunnel/peers/1/allowed_ips/0", "/tunnel/peers/0/allowed_ips/0");
  // A longer prefix inside another's is routing, not a conflict.
  Good(With(tree, "/tunnel/peers/1/allowed_ips/0", "10.77.0.0/24"));
}

TEST(ConfigMistakeTest, UnknownKeysAreToldTheNearestOne) {
  ExpectOneMistake(Parse(With(Client(), "/network/Device", "x")), "/network/Device",
                   "did you mean \"device\"?");
  ExpectOneMistake(Parse(With(Client(), "/tunel", 1)), "/tunel", "did you mean \"tunnel\"?");
  ExpectOneMistake(Parse(With(Client(), "/tunnel/peers/0/allowed_ip", 1)),
                   "/tunnel/peers/0/allowed_ip", "did you mean \"allowed_ips\"?");
  ExpectOneMistake(Parse(With(Client(), "/log/zzzzzzzzz", 1)), "/log/zzzzzzzzz",
                   "known here: \"level\", \"format\"");
  json tree = Client();
  tree["a/b~c"] = 1;
  ExpectOneMistake(Parse(tree), "/a~1b~0c");
}

TEST(ConfigMistakeTest, AllAreReportedAtOnce) {
  json tree = Client();
  tree.merge_patch(json::parse(R"({"network": {"mtu": 1, "devise": "x"}, "log": {"level": 3},
                                   "tunnel": {"lanes": "many"}, "performance": []})"));
  tree["security"].clear();
  std::vector<std::string> pointers;
  for (const Mistake& mistake : Parse(tree).mistakes) pointers.push_back(mistake.pointer);
  EXPECT_EQ(pointers, (std::vector<std::string>{"/network/devise", "/network/mtu",
                                                "/security/private_key_file", "/tunnel/lanes",
                                                "/performance", "/log/level"}));
}

TEST(ConfigMistakeTest, TheirNumberIsBounded) {
  json tree = Client();
  for (int i = 0; i < 5000; ++i) tree["unknown" + std::to_string(i)] = 1;
  EXPECT_EQ(Parse(tree).mistakes.size(), kMaxConfigMistakes + 1);
}

TEST(ConfigMistakeTest, HttpIsReadStrictly) {
  const std::pair<std::string, std::string> cases[] = {
      {R"({"port": 1})", "/port"},
      {R"({"token_file": ""})", "/token_file"},
      {R"({"token_file": "0123456789abcdef0123456789ABCDEF"})", "/token_file"},
      {R"({"token_file": "q2Rk+V/0ysmKc1pX8d7wZQJ4nB3eTfLh="})", "/token_file"},
      {R"({"token_file": "eyJhbGciOiJIUzI1NiJ9.dozjgNryP4J3jVmNHl0w"})", "/token_file"},
      {R"({"token_file": "AbCdEfGhIjKlMnOpQrStUvWxYz"})", "/token_file"},
      {R"({"tls": []})", "/tls"},
      {R"({"tls": {"certificate_file": "a"}})", "/tls/key_file"},
      {R"({"tls": {"key_file": "a"}})", "/tls/certificate_file"},
      {R"({"tls": {"certificate_file": "a", "key_file": "b", "ca": "c"}})", "/tls/ca"},
      {R"({"hosts": "braid.example"})", "/hosts"},
      {R"({"hosts": ["a.example", "b.example:80"]})", "/hosts/1"},
      {R"({"hosts": ["*.example"]})", "/hosts/0"},
      {R"({"origins": ["*"]})", "/origins/0"},
      {R"({"origins": ["panel.example"]})", "/origins/0"},
      {R"({"origins": ["https://panel.example/"]})", "/origins/0"},
      {R"({"origins": ["https://panel.example:443"]})", "/origins/0"},
      {R"({"origins": ["ftp://panel.example"]})", "/origins/0"},
  };
  for (const auto& [text, place] : cases) {
    json http = json::parse(text);
    http["address"] = "127.0.0.1:7780";
    SCOPED_TRACE(text);
    ExpectOneMistake(Parse(With(Client(), "/control/http", http)), "/control/http" + place);
  }
}

TEST(ConfigMistakeTest, NeverRepeatsWhatMayBeASecret) {
  const std::string secret = "8Bn9ABcdEfGhIjKlMnOpQrStUvWxYz0123456789abc=";
  json tree = Client();
  tree["security"] = {{"private_key_file", secret}, {"private_key", secret}};
  tree["tunnel"]["peers"][0]["public_key"] = secret + "x";
  tree["tunnel"]["peers"][0]["preshared_key_file"] = secret;
  LoadedConfig loaded = Parse(tree);
  EXPECT_EQ(loaded.mistakes.size(), 4u);
  EXPECT_TRUE(loaded.key_files.empty());
  const LoadedConfig broken = ParseConfig("{\"a\": " + secret + "}", ConfigFormat::kJson, "/", {});
  loaded.mistakes.insert(loaded.mistakes.end(), broken.mistakes.begin(), broken.mistakes.end());
  for (const Mistake& mistake : loaded.mistakes) {
    EXPECT_EQ(DescribeMistake("f", mistake).find(secret.substr(0, 8)), std::string::npos);
  }
}

TEST(ConfigMistakeTest, AreDescribedOnOneLine) {
  EXPECT_EQ(DescribeMistake("c.json", {.pointer = "/a/0", .what = "is wrong"}),
            "c.json: /a/0: is wrong");
  EXPECT_EQ(DescribeMistake("c.json", {.what = "is wrong", .line = 3, .column = 7}),
            "c.json:3:7: is wrong");
  EXPECT_EQ(DescribeMistake("c.json", {.pointer = "/a", .what = "is wrong", .variable = "BRAID_A"}),
            "c.json: /a: is wrong (BRAID_A in the environment)");
  json tree = Client();
  tree["new\nline\x1b"] = 1;
  EXPECT_EQ(DescribeMistake("c", Parse(tree).mistakes.at(0)).find_first_of("\n\x1b"),
            std::string::npos);
}

// ---- Syntax

Mistake SyntaxMistake(std::string_view text, ConfigFormat format) {
  const LoadedConfig loaded = ParseConfig(text, format, "/", {});
  EXPECT_FALSE(loaded.config.has_value());
  EXPECT_EQ(loaded.mistakes.size(), 1u);
  return loaded.mistakes.empty() ? Mistake() : loaded.mistakes[0];
}

TEST(ConfigSyntaxTest, MistakesOfJsonHaveLineAndColumn) {
  const Mistake mistake = SyntaxMistake("{\"a\": 1,\n  \"b\": x}", ConfigFormat::kJson);
  EXPECT_EQ(mistake.pointer, "");
  EXPECT_EQ(mistake.line, 2);
  EXPECT_EQ(mistake.column, 8);
  EXPECT_EQ(SyntaxMistake("", ConfigFormat::kJson).line, 1);
  EXPECT_EQ(SyntaxMistake("{\"a\": 1e999}", ConfigFormat::kJson).line, 1);
  EXPECT_EQ(SyntaxMistake("{\"a\": \"\xff\"}", ConfigFormat::kJson).line, 1);
  EXPECT_EQ(SyntaxMistake("{} {}", ConfigFormat::kJson).line, 1);
}

TEST(ConfigSyntaxTest, MistakesOfYamlHaveLineAndColumn) {
  const Mistake mistake = SyntaxMistake("a: 1\nb: [2\nc: 3", ConfigFormat::kYaml);
  EXPECT_EQ(mistake.pointer, "");
  EXPECT_GE(mistake.line, 2);
  EXPECT_GE(mistake.column, 1);
  EXPECT_EQ(SyntaxMistake("a: 1\n---\nb: 1\n", ConfigFormat::kYaml).line, 2);
  EXPECT_EQ(SyntaxMistake("a: 1\n? [x]\n: 1\n", ConfigFormat::kYaml).line, 2);
}

TEST(ConfigSyntaxTest, TheTopIsASection) {
  for (const char* text : {"[]", "7", "null", "\"client\""}) {
    EXPECT_EQ(SyntaxMistake(text, ConfigFormat::kJson).pointer, "");
    EXPECT_EQ(SyntaxMistake(text, ConfigFormat::kYaml).pointer, "");
  }
  EXPECT_EQ(SyntaxMistake("", ConfigFormat::kYaml).pointer, "");
}

TEST(ConfigSyntaxTest, AKeyGivenTwiceIsAMistake) {
  std::string text = Client().dump();
  text.insert(1, "\"mode\":\"server\",");
  ExpectOneMistake(ParseConfig(text, ConfigFormat::kJson, "/", {}), "/mode", "twice");
  ExpectOneMistake(ParseYaml("log: {level: info, level: info}\n"
                             "mode: server\n"
                             "network: {addresses: [10.0.0.1/24]}\n"
                             "security: {private_key_file: k}\n"
                             "tunnel: {listen: [{address: 0.0.0.0, port: 1}]}\n"),
                   "/log/level", "twice");
}

TEST(ConfigSyntaxTest, DepthIsBounded) {
  for (const ConfigFormat format : {ConfigFormat::kJson, ConfigFormat::kYaml}) {
    const std::string deep = "{\"a\":" + std::string(70, '[') + std::string(70, ']') + "}";
    EXPECT_NE(SyntaxMistake(deep, format).what.find("64 levels"), std::string::npos);
  }
  EXPECT_FALSE(ParseYaml(std::string(500000, '[')).config.has_value());
}

TEST(ConfigSyntaxTest, AliasesCannotNestDeeperThanText) {
  std::string text = "a0: &a0 [[[[[[[[[[x]]]]]]]]]]\n";
  for (int i = 1; i < 20; ++i) {
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [[[[[[[[[[*a" +
            std::to_string(i - 1) + "]]]]]]]]]]\n";
  }
  EXPECT_NE(SyntaxMistake(text, ConfigFormat::kYaml).what.find("64 levels"), std::string::npos);
}

TEST(ConfigSyntaxTest, SizeIsBounded) {
  const std::string large(kMaxConfigBytes + 1, ' ');
  for (const ConfigFormat format : {ConfigFormat::kJson, ConfigFormat::kYaml}) {
    EXPECT_NE(SyntaxMistake(large, format).what.find("larger"), std::string::npos);
  }
}

// It would never end, else.
TEST(ConfigSyntaxTest, ABillionLaughsAreRefused) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    const std::string alias = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + alias;
    for (int j = 0; j < 8; ++j) text += ", " + alias;
    text += "]\n";
  }
  EXPECT_NE(SyntaxMistake(text, ConfigFormat::kYaml).what.find("too large"), std::string::npos);

  std::string long_text = "a: &a " + std::string(100000, 'x') + "\nb: [*a";
  for (int i = 0; i < 1000; ++i) long_text += ", *a";
  EXPECT_NE(SyntaxMistake(long_text + "]", ConfigFormat::kYaml).what.find("too large"),
            std::string::npos);
}

TEST(ConfigSyntaxTest, AnAliasCannotHoldItself) {
  EXPECT_NE(SyntaxMistake("a: &a [*a]", ConfigFormat::kYaml).what.find("inside"),
            std::string::npos);
}

TEST(ConfigSyntaxTest, TagsAreRefusedExceptOnText) {
  EXPECT_EQ(SyntaxMistake("mode: !!binary AAAA", ConfigFormat::kYaml).pointer, "/mode");
  EXPECT_EQ(SyntaxMistake("mode: !x {}", ConfigFormat::kYaml).pointer, "/mode");
}

// ---- YAML

constexpr char kServerYaml[] = R"(
mode: server
network: &network
  addresses:
    - 10.77.0.1/24
    - "fd77::1/64"
security: {private_key_file: 'server.key'}
tunnel:
  listen: [{address: 0.0.0.0, port: 7700}]
  peers:
    - name: a
      public_key: TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=   # a comment
      allowed_ips:
        - 10.77.0.2/32
)";

TEST(ConfigYamlTest, MeansTheSameAsJson) {
  const LoadedConfig yaml = ParseYaml(kServerYaml);
  EXPECT_EQ(yaml.mistakes, std::vector<Mistake>());
  EXPECT_EQ(yaml.config, Parse(Server()).config);
}

TEST(ConfigYamlTest, JsonIsYaml) {
  for (const json& tree : {Client(), Server(), With(Client(), "/tunnel/lanes", 0)}) {
    for (const int indent : {-1, 2}) {
      const LoadedConfig yaml = ParseYaml(tree.dump(indent));
      const LoadedConfig from_json = Parse(tree);
      EXPECT_EQ(yaml.mistakes, from_json.mistakes);
      EXPECT_EQ(yaml.config, from_json.config);
    }
  }
}

TEST(ConfigYamlTest, PlainScalarsHaveTypesAndQuotedOnesAreText) {
  const std::string base = kServerYaml;
  const auto performance = [&](const std::string& text) {
    return ParseYaml(base + "performance: " + text);
  };
  EXPECT_EQ(performance("{workers: 3, pin: false, offloads: True}").config.value().performance,
            (PerformanceConfig{.workers = 3, .offloads = true, .pin = false}));
  ExpectOneMistake(performance("{workers: '3'}"), "/performance/workers");
  ExpectOneMistake(performance("{workers: !!str 3}"), "/performance/workers");
  ExpectOneMistake(performance("{workers: 0x3}"), "/performance/workers");
  ExpectOneMistake(performance("{workers: 03}"), "/performance/workers");
  ExpectOneMistake(performance("{pin: yes}"), "/performance/pin", "\"yes\"");
  ExpectOneMistake(performance("{pin: 'true'}"), "/performance/pin");
  ExpectOneMistake(performance("{pin: }"), "/performance/pin", "empty");
  ExpectOneMistake(ParseYaml(base + "control: {socket: 12}"), "/control/socket", "quotes");
}

TEST(ConfigYamlTest, AliasesRepeatWhatTheyName) {
  const LoadedConfig loaded = ParseYaml(
      "mode: client\n"
      "network: {addresses: &mine [10.77.0.2/24]}\n"
      "security: {private_key_file: client.key}\n"
      "tunnel:\n"
      "  peers:\n"
      "    - {name: hub, public_key: TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=,\n"
      "       endpoints: [192.0.2.1:7700], allowed_ips: *mine}\n");
  ASSERT_TRUE(loaded.config.has_value()) << ::testing::PrintToString(loaded.mistakes);
  EXPECT_EQ(loaded.config, Parse(Client()).config);
}

// ---- Environment

TEST(ConfigEnvironmentTest, OverridesAndAddsValues) {
  const Config config = Good(Client(), {{"BRAID_TUNNEL__LANES", "8"},
                                        {"BRAID_NETWORK__DEVICE", "tun9"},
                                        {"BRAID_LOG__LEVEL", "debug"},
                                        {"BRAID_PERFORMANCE__PIN", "false"},
                                        {"BRAID_TUNNEL__PEERS__0__NAME", "\"77\""},
                                        {"BRAID_NETWORK__ADDRESSES__1", "fd77::2/64"},
                                        {"BRAID_TUNNEL__CIPHERS", "[\"chacha20-poly1305\"]"}});
  EXPECT_EQ(config.tunnel.lanes, 8);
  EXPECT_EQ(config.network.device, "tun9");
  EXPECT_EQ(config.log.level, "debug");
  EXPECT_FALSE(config.performance.pin);
  EXPECT_EQ(config.tunnel.peers[0].name, "77");
  EXPECT_EQ(config.network.addresses.size(), 2u);
  EXPECT_EQ(config.tunnel.ciphers.size(), 1u);
}

TEST(ConfigEnvironmentTest, CanGiveEverything) {
  Environment environment = {{"BRAID_MODE", "server"},
                             {"BRAID_SECURITY__PRIVATE_KEY_FILE", "server.key"},
                             {"BRAID_TUNNEL__LISTEN__0__ADDRESS", "0.0.0.0"},
                             {"BRAID_TUNNEL__LISTEN__0__PORT", "7700"},
                             {"BRAID_TUNNEL__PEERS", Server()["tunnel"]["peers"].dump()}};
  for (int i = 0; i < 12; ++i) {
    environment["BRAID_NETWORK__ADDRESSES__" + std::to_string(i)] =
        "10.0.0." + std::to_string(i + 1) + "/24";
  }
  const Config config = Good(json::object(), environment);
  ASSERT_EQ(config.network.addresses.size(), 12u);
  EXPECT_EQ(config.network.addresses[10], *IpPrefix::Parse("10.0.0.11/24"));
  EXPECT_EQ(config.tunnel, Good(Server()).tunnel);
}

TEST(ConfigEnvironmentTest, WorksOnYamlToo) {
  EXPECT_EQ(ParseYaml(kServerYaml, {{"BRAID_TUNNEL__LANES", "8"}}).config.value().tunnel.lanes, 8);
}

TEST(ConfigEnvironmentTest, LeavesOtherVariablesAlone) {
  EXPECT_EQ(Good(Client(), {{"BRAID_VECTORS", "/x"}, {"BRAID_TEST_ROOT", "1"}, {"PATH", "/bin"}}),
            Good(Client()));
}

void ExpectVariable(const LoadedConfig& loaded, const std::string& pointer,
                    const std::string& variable) {
  ExpectOneMistake(loaded, pointer);
  ASSERT_FALSE(loaded.mistakes.empty());
  EXPECT_EQ(loaded.mistakes[0].variable, variable);
}

TEST(ConfigEnvironmentTest, MistakesNameTheVariable) {
  const std::pair<std::pair<const char*, const char*>, const char*> cases[] = {
      {{"BRAID_TUNNEL__LANES", "0"}, "/tunnel/lanes"},
      {{"BRAID_TUNNEL__LANES", "null"}, "/tunnel/lanes"},
      {{"BRAID_TUNEL__LANES", "1"}, "/tunel"},
      {{"BRAID_LOG", "{\"level\": \"x\"}"}, "/log/level"},
      {{"BRAID_LOG", "{\"level\": \"info\", \"level\": \"info\"}"}, "/log/level"},
      {{"BRAID_MODE__X", "1"}, "/mode"},
      {{"BRAID_NETWORK__ADDRESSES__2", "10.0.0.1/24"}, "/network/addresses"},
      {{"BRAID_NETWORK__ADDRESSES__LAST", "10.0.0.1/24"}, "/network/addresses"},
      {{"BRAID_NETWORK__ADDRESSES__1", "x"}, "/network/addresses/1"},
      {{"BRAID_TUNNEL__PATHS", "[{\"interface\": \"eth0\"}]"}, "/tunnel/paths/0/name"},
      {{"BRAID_TUNNEL__PATHS__0__INTERFACE", "eth0"}, "/tunnel/paths/0/name"},
      {{"BRAID_", "1"}, ""},
      {{"BRAID_LOG__", "1"}, ""},
      {{"BRAID_LOG___LEVEL", "1"}, ""},
      {{"BRAID_LOG__LEVEL", "\xff"}, ""}};
  for (const auto& [variable, pointer] : cases) {
    ExpectVariable(Parse(Client(), {{variable.first, variable.second}}), pointer, variable.first);
  }
}

TEST(ConfigEnvironmentTest, MistakesOfTheFileNameNoVariable) {
  const LoadedConfig loaded =
      Parse(With(Client(), "/tunnel/lanes", 0), {{"BRAID_TUNNEL__BONDING__MODE", "stripe"}});
  ExpectVariable(loaded, "/tunnel/lanes", "");
  // The variable makes the section, but something else is missing in it.
  ExpectVariable(Parse(Without(Server(), "/tunnel"), {{"BRAID_TUNNEL__LANES", "1"}}),
                 "/tunnel/listen", "");
}

// ---- Files

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest() {
    char name[] = "/tmp/braid-config-test-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~ConfigFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
    return folder_ + "/" + name;
  }

  std::string folder_;
};

TEST_F(ConfigFileTest, ExtensionTellsTheFormat) {
  const LoadedConfig from_json = LoadConfig(Write("a.json", Server().dump()), {});
  ASSERT_TRUE(from_json.config.has_value());
  EXPECT_EQ(from_json.config->security.private_key_file, folder_ + "/server.key");
  for (const char* name : {"a.yaml", "a.yml", "a.YAML"}) {
    EXPECT_EQ(LoadConfig(Write(name, kServerYaml), {}).config, from_json.config);
  }
  ExpectOneMistake(LoadConfig(Write("a.conf", Server().dump()), {}), "", ".json");
}

TEST_F(ConfigFileTest, TheExtensionMayBeLeftOut) {
  ExpectOneMistake(LoadConfig(folder_ + "/office", {}), "", "office.yaml, .yml or .json");
  const std::string file = Write("office.json", Server().dump());
  const LoadedConfig loaded = LoadConfig(folder_ + "/office", {});
  EXPECT_TRUE(loaded.config.has_value());
  EXPECT_EQ(loaded.file, file);
  // A name may have a dot in it.
  Write("site.a.yml", kServerYaml);
  EXPECT_EQ(LoadConfig(folder_ + "/site.a", {}).file, folder_ + "/site.a.yml");
  Write("office.yaml", kServerYaml);
  ExpectOneMistake(LoadConfig(folder_ + "/office", {}), "", "could be");
  EXPECT_TRUE(LoadConfig(file, {}).config.has_value());
}

TEST_F(ConfigFileTest, UnreadableFilesAreMistakes) {
  ExpectOneMistake(LoadConfig(folder_ + "/none.json", {}), "", "No such file");
  std::filesystem::create_directory(folder_ + "/folder.json");
  ExpectOneMistake(LoadConfig(folder_ + "/folder.json", {}), "", "regular file");
  ASSERT_EQ(mkfifo((folder_ + "/pipe.json").c_str(), 0600), 0);
  ExpectOneMistake(LoadConfig(folder_ + "/pipe.json", {}), "", "regular file");
  ExpectOneMistake(LoadConfig(Write("big.json", std::string(kMaxConfigBytes + 1, ' ')), {}), "",
                   "larger");
}

TEST_F(ConfigFileTest, ASocketThatIsTooLongWithItsFolderIsAMistake) {
  const std::string folder = folder_ + "/" + std::string(100, 'x');
  std::filesystem::create_directory(folder);
  const std::string path = folder + "/a.json";
  std::ofstream(path) << With(Client(), "/control/socket", "s").dump();
  ExpectOneMistake(LoadConfig(path, {}), "/control/socket", "too long");
}

}  // namespace
}  // namespace braid::config_test
