// The flow hash: the same in both directions, the same for all fragments, and well spread. That the
// kernel's program computes the same is tests/io/tun_steering_test.cc's.
#include "base/flow_hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "support/packets.h"

namespace braid::flow_hash_test {
namespace {

using testing::BuildPacket;
using testing::PacketSpec;

PacketSpec Reversed(PacketSpec spec) {
  std::swap(spec.source_host, spec.destination_host);
  std::swap(spec.source_port, spec.destination_port);
  return spec;
}

TEST(FlowHash, IsTheSameInBothDirections) {
  testing::Random random(1);
  for (int i = 0; i < 1000; ++i) {
    PacketSpec spec;
    spec.v6 = i % 2 == 0;
    spec.protocol = i % 3 == 0 ? testing::kUdp : testing::kTcp;
    spec.source_host = static_cast<uint8_t>(random());
    spec.destination_host = static_cast<uint8_t>(random());
    spec.source_port = static_cast<uint16_t>(random());
    spec.destination_port = static_cast<uint16_t>(random());
    EXPECT_EQ(FlowHash(BuildPacket(spec)), FlowHash(BuildPacket(Reversed(spec))));
  }
}

TEST(FlowHash, IsTheSameForEveryPacketOfAFlow) {
  for (const bool v6 : {false, true}) {
    PacketSpec spec;
    spec.v6 = v6;
    const uint32_t hash = FlowHash(BuildPacket(spec));
    spec.payload.resize(1000);
    spec.tcp_sequence = 12345;
    spec.id = 99;
    spec.ttl = 3;
    spec.service = 3;
    spec.flow_label = 77;
    spec.tcp_flags |= testing::kPsh;
    EXPECT_EQ(FlowHash(BuildPacket(spec)), hash);
    spec.ip_options = {1, 1, 1, 0};  // moves the ports of IPv4
    if (!v6) {
      EXPECT_EQ(FlowHash(BuildPacket(spec)), hash);
    }
    spec.source_port ^= 1;
    EXPECT_NE(FlowHash(BuildPacket(spec)), hash);
  }
}

TEST(FlowHash, LooksAtNoPortsInFragments) {
  PacketSpec spec;
  spec.protocol = testing::kUdp;
  spec.fragment_field = 0x2000;  // the first: more to come
  const uint32_t hash = FlowHash(BuildPacket(spec));
  spec.fragment_field = 0x00b9;  // the last
  spec.source_port = 1;
  EXPECT_EQ(FlowHash(BuildPacket(spec)), hash);
  spec.fragment_field = 0x4000;
  EXPECT_NE(FlowHash(BuildPacket(spec)), hash);
}

TEST(FlowHash, LooksForNoPortsBehindExtensionHeaders) {
  PacketSpec spec;
  spec.v6 = true;
  spec.extensions = {{testing::kHopByHop, testing::PaddingExtension()}};
  const uint32_t hash = FlowHash(BuildPacket(spec));
  spec.source_port = 1;
  EXPECT_EQ(FlowHash(BuildPacket(spec)), hash);
}

TEST(FlowHash, UsesThePortsOfTcpUdpAndSctpOnly) {
  for (int protocol = 0; protocol < 256; ++protocol) {
    const bool uses = protocol == 6 || protocol == 17 || protocol == 132;
    EXPECT_EQ(FlowHashUsesPorts(static_cast<uint8_t>(protocol)), uses) << protocol;
  }
}

TEST(FlowHash, OfWhatIsCutOffIsZero) {
  for (const bool v6 : {false, true}) {
    PacketSpec spec;
    spec.v6 = v6;
    const auto packet = BuildPacket(spec);
    const size_t needed = spec.l4_offset() + 4;
    for (size_t bytes = 0; bytes < needed; ++bytes) {
      EXPECT_EQ(FlowHash(Bytes(packet).first(bytes)), 0u) << bytes;
    }
    EXPECT_NE(FlowHash(Bytes(packet).first(needed)), 0u);
  }
}

// Neighbouring ports and neighbouring addresses: what a site's flows look like.
TEST(FlowHash, SpreadsNearFlowsOverAllLanes) {
  constexpr int kLanes = 16;
  constexpr int kFlows = 16'000;
  for (const bool v6 : {false, true}) {
    for (const bool by_port : {false, true}) {
      std::array<int, kLanes> flows{};
      for (int i = 0; i < kFlows; ++i) {
        PacketSpec spec;
        spec.v6 = v6;
        if (by_port) {
          spec.source_port = static_cast<uint16_t>(1024 + i);
        } else {
          spec.source_host = static_cast<uint8_t>(i / 250);
          spec.destination_host = static_cast<uint8_t>(i % 250);
        }
        ++flows[FlowHash(BuildPacket(spec)) % kLanes];
      }
      const auto [least, most] = std::minmax_element(flows.begin(), flows.end());
      EXPECT_GT(*least, kFlows / kLanes * 7 / 10) << v6 << by_port;
      EXPECT_LT(*most, kFlows / kLanes * 13 / 10) << v6 << by_port;
    }
  }
}

}  // namespace
}  // namespace braid::flow_hash_test
