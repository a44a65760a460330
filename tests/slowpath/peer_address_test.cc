#include "slowpath/peer_address.h"

#include <gtest/gtest.h>

namespace braid::peer_address_test {
namespace {

IpPrefix Prefix(const char* text) { return *IpPrefix::Parse(text); }

Config Of(const std::vector<const char*>& own, const std::vector<std::vector<const char*>>& peers) {
  Config config;
  for (const char* each : own) config.network.addresses.push_back(Prefix(each));
  for (const auto& owned : peers) {
    PeerConfig& peer = config.tunnel.peers.emplace_back();
    peer.public_key[0] = static_cast<uint8_t>(config.tunnel.peers.size());
    for (const char* each : owned) peer.allowed_ips.push_back(Prefix(each));
  }
  return config;
}

std::vector<std::string> Addresses(const Config& config, size_t peer = 0) {
  std::vector<std::string> texts;
  for (const IpAddress& each : PeerAddresses(config, config.tunnel.peers[peer])) {
    texts.push_back(each.ToString());
  }
  return texts;
}

using Texts = std::vector<std::string>;

TEST(PeerAddressTest, SingleAddressesOfThePeerAreIts) {
  const Config config =
      Of({"10.77.0.1/24", "fd77::1/64"}, {{"10.88.0.0/24", "10.77.0.2/32", "fd77::2/128"}});
  EXPECT_EQ(Addresses(config), (Texts{"10.77.0.2", "fd77::2"}));
}

TEST(PeerAddressTest, AHubIsTakenToBeTheFirstOfTheOwnNetwork) {
  EXPECT_EQ(Addresses(Of({"10.77.0.2/24", "fd77::2/64"}, {{"0.0.0.0/0", "::/0"}})),
            (Texts{"10.77.0.1", "fd77::1"}));
  EXPECT_EQ(Addresses(Of({"10.77.0.130/25"}, {{"10.77.0.0/24"}})), (Texts{"10.77.0.129"}));
}

TEST(PeerAddressTest, WhatIsAnothersOrOnesOwnIsNotIts) {
  // A longer prefix of another peer owns the address.
  const Config config = Of({"10.77.0.9/24"}, {{"10.77.0.0/24"}, {"10.77.0.1/32"}});
  EXPECT_EQ(Addresses(config, 0), Texts{});
  EXPECT_EQ(Addresses(config, 1), (Texts{"10.77.0.1"}));
  EXPECT_EQ(Addresses(Of({"10.77.0.1/24"}, {{"10.77.0.0/24"}})), Texts{});
  EXPECT_EQ(Addresses(Of({"10.77.0.2/24"}, {{"192.0.2.0/24"}})), Texts{});
  EXPECT_EQ(Addresses(Of({"10.77.0.2/32"}, {{"0.0.0.0/0"}})), Texts{});
}

}  // namespace
}  // namespace braid::peer_address_test
