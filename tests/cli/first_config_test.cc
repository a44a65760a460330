#include "cli/first_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "slowpath/config.h"

namespace braid::first_config_test {
namespace {

IpPrefix Prefix(const std::string& text) { return *IpPrefix::Parse(text); }
IpAddress Address(const std::string& text) { return *IpAddress::Parse(text); }

Key KeyOf(uint8_t byte) {
  Key key;
  key.fill(byte);
  return key;
}

InnerNetworks Inner() { return {Prefix("10.77.0.0/24"), Prefix("fd77::/64")}; }

FirstClient Client() {
  return {.name = "laptop",
          .public_key = KeyOf(1),
          .inner = Inner(),
          .server_public_key = KeyOf(2),
          .endpoints = {"vpn.example.net:7700"}};
}

// Loads it as "braid check" does, without any mistake or warning.
Config Loaded(const std::string& text) {
  const LoadedConfig loaded = ParseConfig(text, ConfigFormat::kYaml, "/etc/braid", {});
  for (const auto* list : {&loaded.mistakes, &loaded.warnings}) {
    for (const Mistake& mistake : *list) ADD_FAILURE() << DescribeMistake(text, mistake);
  }
  return loaded.config.value_or(Config());
}

TEST(FirstConfig, ThePairFitsTogether) {
  const Config server = Loaded(ServerText({.inner = Inner()}, Client()));
  const Config client = Loaded(ClientText(Client()));
  EXPECT_EQ(server.role, Role::kServer);
  EXPECT_EQ(client.role, Role::kClient);
  EXPECT_EQ(server.network.addresses, (std::vector{Prefix("10.77.0.1/24"), Prefix("fd77::1/64")}));
  EXPECT_EQ(client.network.addresses, (std::vector{Prefix("10.77.0.2/24"), Prefix("fd77::2/64")}));
  ASSERT_EQ(server.tunnel.peers.size(), 1u);
  ASSERT_EQ(client.tunnel.peers.size(), 1u);
  const PeerConfig& of_server = server.tunnel.peers.front();
  EXPECT_EQ(of_server.name, "laptop");
  EXPECT_EQ(of_server.public_key, KeyOf(1));
  EXPECT_EQ(of_server.allowed_ips, (std::vector{Prefix("10.77.0.2/32"), Prefix("fd77::2/128")}));
  EXPECT_EQ(of_server.preshared_key_file, "/etc/braid/laptop.psk");
  const PeerConfig& of_client = client.tunnel.peers.front();
  EXPECT_EQ(of_client.public_key, KeyOf(2));
  EXPECT_EQ(of_client.preshared_key_file, "/etc/braid/client.psk");
  EXPECT_EQ(of_client.endpoints.front().host, "vpn.example.net");
  EXPECT_EQ(of_client.allowed_ips, (std::vector{Prefix("10.77.0.0/24"), Prefix("fd77::/64")}));
  EXPECT_FALSE(client.network.routes);
  EXPECT_EQ(server.tunnel.listen.size(), 2u);
}

TEST(FirstConfig, EverythingGoesThroughWhereThatIsWanted) {
  FirstClient draft = Client();
  draft.default_route = draft.kill_switch = draft.auto_paths = true;
  draft.dns_servers = {"10.77.0.1", "fd77::1"};
  const Config client = Loaded(ClientText(draft));
  ASSERT_TRUE(client.network.routes);
  EXPECT_TRUE(client.network.routes->everything);
  EXPECT_TRUE(client.network.kill_switch);
  EXPECT_TRUE(client.tunnel.auto_paths);
  EXPECT_EQ(client.network.dns->servers, (std::vector{Address("10.77.0.1"), Address("fd77::1")}));
  EXPECT_EQ(client.tunnel.peers.front().allowed_ips,
            (std::vector{Prefix("0.0.0.0/0"), Prefix("::/0")}));
  const Config server = Loaded(ServerText({.inner = Inner(), .nat_device = "eth0"}, draft));
  EXPECT_EQ(server.network.nat, (std::vector<NatConfig>{{Prefix("10.77.0.0/24"), "eth0"},
                                                        {Prefix("fd77::/64"), "eth0"}}));
}

TEST(FirstConfig, AMachineWithoutIpv6HasNone) {
  FirstClient draft = Client();
  draft.inner.v6.reset();
  const FirstServer server{.inner = draft.inner, .port = 443, .listens_v6 = false};
  const Config loaded = Loaded(ServerText(server, draft));
  EXPECT_EQ(loaded.network.addresses, std::vector{Prefix("10.77.0.1/24")});
  ASSERT_EQ(loaded.tunnel.listen.size(), 1u);
  EXPECT_EQ(loaded.tunnel.listen.front().port, 443);
  EXPECT_EQ(Loaded(ClientText(draft)).network.addresses, std::vector{Prefix("10.77.0.2/24")});
}

TEST(FirstConfig, TheInnerNetworksAreNoneOfTheMachines) {
  const auto chosen = [](const std::vector<IpPrefix>& taken) {
    const auto inner = ChooseInnerNetworks(taken, true);
    return inner.ok() ? inner->v4.ToString() + " " + inner->v6->ToString()
                      : std::string(inner.status().message());
  };
  EXPECT_EQ(chosen({}), "10.77.0.0/24 fd77::/64");
  EXPECT_EQ(chosen({Prefix("10.77.0.128/25"), Prefix("192.168.1.0/24")}), "10.78.0.0/24 fd77::/64");
  EXPECT_EQ(chosen({Prefix("10.76.0.0/14"), Prefix("fd77::/48")}), "10.80.0.0/24 fd78::/64");
  EXPECT_EQ(chosen({Prefix("10.0.0.0/8")}), "172.27.77.0/24 fd77::/64");
  EXPECT_NE(chosen({Prefix("0.0.0.0/0")}).find("--inner"), std::string::npos);
}

TEST(FirstConfig, AnAddressIsFoundByWhichOthersMayReachThisMachine) {
  NetSnapshot network;
  network.links = {
      {.index = 1, .name = "lo"}, {.index = 2, .name = "eth0"}, {.index = 3, .name = "wan"}};
  network.addresses = {{2, Address("192.168.1.5"), Prefix("192.168.1.0/24")},
                       {3, Address("fe80::1"), Prefix("fe80::/64")},
                       {3, Address("2a01:4f8::5"), Prefix("2a01:4f8::/64")}};
  EXPECT_FALSE(FindOwnAddress(network));  // nothing leads out
  network.default_routes = {{.link = 2, .family = IpAddress::Family::kV4}};
  const auto lan = FindOwnAddress(network);
  ASSERT_TRUE(lan);
  EXPECT_EQ(lan->address, Address("192.168.1.5"));
  EXPECT_EQ(lan->device, "eth0");
  EXPECT_FALSE(lan->is_public);
  network.default_routes.push_back({.link = 3, .family = IpAddress::Family::kV6});
  EXPECT_EQ(FindOwnAddress(network)->address, Address("2a01:4f8::5"));
  network.addresses.push_back({3, Address("8.8.4.4"), Prefix("8.8.4.0/24")});
  network.default_routes.push_back({.link = 3, .family = IpAddress::Family::kV4});
  EXPECT_EQ(FindOwnAddress(network)->address, Address("8.8.4.4"));
  EXPECT_TRUE(FindOwnAddress(network)->is_public);
}

TEST(FirstConfig, NamesAreThoseOfFiles) {
  for (const char* good : {"laptop", "a", "Branch-2.office_x"}) {
    EXPECT_TRUE(CheckClientName(good).ok()) << good;
  }
  for (const char* bad :
       {"", ".", "..", "-x", "a/b", "a b", "a\"", "ü", "a23456789012345678901234567890123"}) {
    EXPECT_FALSE(CheckClientName(bad).ok()) << bad;
  }
}

TEST(FirstConfig, FurtherClientsGetTheNextNumberAndAllElseStays) {
  FirstClient draft = Client();
  draft.inner.v4 = Prefix("10.77.0.16/28");
  const std::string first = ServerText({.inner = draft.inner, .nat_device = "eth0"}, draft);
  std::string text = first;
  for (uint32_t number = 3; number <= 14; ++number) {
    const Config before = Loaded(text);
    draft.name = absl::StrCat("c", number);
    draft.public_key = KeyOf(static_cast<uint8_t>(number));
    const auto free = FreeNumber(before, draft.inner);
    ASSERT_TRUE(free.ok()) << free.status();
    ASSERT_EQ(*free, number);
    draft.number = *free;
    const auto changed = AddClient(text, draft);
    ASSERT_TRUE(changed.ok()) << changed.status() << text;
    text = *changed;
  }
  const Config last = Loaded(text);
  EXPECT_EQ(last.tunnel.peers.size(), 13u);
  EXPECT_TRUE(absl::IsResourceExhausted(FreeNumber(last, draft.inner).status()));
  // The first lines are still those that were written.
  EXPECT_EQ(text.substr(0, first.size()), first);
}

TEST(FirstConfig, APeerIsAddedInTheMannerOfTheOthers) {
  constexpr char kHead[] =
      "mode: server\n"
      "security: {private_key_file: k}\n"
      "tunnel:\n";
  constexpr char kPeer[] = "name: a, public_key: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
  const auto added = [&](const std::string& tunnel) {
    FirstClient draft = Client();
    draft.public_key = KeyOf(9);
    draft.number = 3;
    const std::string text = kHead + tunnel;
    Loaded(text);
    const auto changed = AddClient(text, draft);
    if (!changed.ok()) return std::string();
    EXPECT_EQ(Loaded(*changed).tunnel.peers.back().name, "laptop");
    return *changed;
  };
  const std::string tail =
      "  listen: [{address: 0.0.0.0, port: 7700}]\n"
      "network: {addresses: [10.77.0.1/24]}\n";
  const std::string peer = absl::StrCat("{", kPeer, ", allowed_ips: [10.77.0.2/32]}");
  // Dashes that are not indented, comments between, a section behind, no newline at the end.
  EXPECT_NE(added("  peers:\n  - " + peer + "\n  # the last one\n" + tail), "");
  EXPECT_NE(added("  peers:\n\n      - " + peer + "\n\n" + tail), "");
  const std::string listen_first = "  listen: [{address: 0.0.0.0, port: 7700}]\n";
  EXPECT_NE(
      added(listen_first + "  peers:\n    - " + peer + "\nnetwork: {addresses: [10.77.0.1/24]}"),
      "");
  // What is written otherwise is left to people.
  EXPECT_EQ(added("  peers: [" + peer + "]\n" + tail), "");
}

TEST(FirstConfig, WhatIsAddedByHandSaysTheSame) {
  FirstClient draft = Client();
  const std::string text = absl::StrCat(
      "mode: server\nnetwork: {addresses: [10.77.0.1/24]}\nsecurity: {private_key_file: k}\n"
      "tunnel: {listen: [{address: 0.0.0.0, port: 7700}], peers: [",
      PeerJson(draft), "]}\n");
  EXPECT_EQ(Loaded(text).tunnel.peers, Loaded(ServerText({.inner = Inner()}, draft)).tunnel.peers);
}

TEST(FirstConfig, OwnersOfWholeNetworksLeaveHostsToOthers) {
  Config server = Loaded(ServerText({.inner = Inner()}, Client()));
  server.tunnel.peers.front().allowed_ips = {Prefix("0.0.0.0/0"), Prefix("10.77.0.0/24"),
                                             Prefix("10.77.0.2/31")};
  EXPECT_EQ(*FreeNumber(server, Inner()), 4u);
}

}  // namespace
}  // namespace braid::first_config_test
