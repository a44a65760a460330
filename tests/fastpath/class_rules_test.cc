// The class that rules give to ports, of whole packets and fragments, with whatever headers.
#include "fastpath/class_rules.h"

#include <gtest/gtest.h>

#include "support/packets.h"

namespace braid::class_rules_test {
namespace {

using testing::Buffer;
using testing::PacketSpec;

constexpr auto kInteractive = TrafficClass::kInteractive;
constexpr auto kBulk = TrafficClass::kBulk;
constexpr auto kRealtime = TrafficClass::kRealtime;

std::optional<TrafficClass> Find(const ClassRules& rules, const PacketSpec& spec,
                                 uint16_t source_port, uint16_t destination_port) {
  Buffer packet = testing::BuildPacket(spec);
  InnerPacket inner;
  if (!ParseInner(packet, inner)) ADD_FAILURE() << "no packet";
  if (packet.size() >= inner.l4_offset + 4u) {
    StoreBe16(&packet[inner.l4_offset], source_port);
    StoreBe16(&packet[inner.l4_offset + 2u], destination_port);
  }
  return rules.Find(packet, inner);
}

ClassRules SomeRules() {
  return ClassRules(std::vector<ClassRule>{{testing::kUdp, {{5060, 5060}}, kInteractive},
                                           {testing::kUdp, {{100, 200}, {65535, 65535}}, kRealtime},
                                           {testing::kUdp, {{150, 5060}}, kBulk},
                                           {testing::kTcp, {{22, 22}}, kInteractive}});
}

TEST(ClassRules, MatchEitherPortOfTheirProtocol) {
  const ClassRules rules = SomeRules();
  for (const bool v6 : {false, true}) {
    const PacketSpec udp = testing::SpecOf(v6, testing::kUdp, 20);
    EXPECT_EQ(Find(rules, udp, 40000, 100), kRealtime);
    EXPECT_EQ(Find(rules, udp, 100, 40000), kRealtime);
    EXPECT_EQ(Find(rules, udp, 65535, 1), kRealtime);
    EXPECT_EQ(Find(rules, udp, 99, 5061), std::nullopt);
    EXPECT_EQ(Find(rules, udp, 22, 40000), std::nullopt);
    EXPECT_EQ(Find(rules, testing::SpecOf(v6, testing::kTcp), 22, 40000), kInteractive);
    EXPECT_EQ(Find(rules, testing::SpecOf(v6, testing::kTcp), 100, 5060), std::nullopt);
  }
}

TEST(ClassRules, TheFirstThatMatchesOneOfThePortsCounts) {
  const ClassRules rules = SomeRules();
  const PacketSpec udp = testing::SpecOf(false, testing::kUdp, 20);
  EXPECT_EQ(Find(rules, udp, 150, 40000), kRealtime);
  EXPECT_EQ(Find(rules, udp, 201, 40000), kBulk);
  EXPECT_EQ(Find(rules, udp, 201, 5060), kInteractive);
  EXPECT_EQ(Find(rules, udp, 5060, 201), kInteractive);
}

TEST(ClassRules, FindPortsBehindExtensionHeaders) {
  PacketSpec spec = testing::SpecOf(true, testing::kUdp, 20);
  spec.extensions = {{testing::kHopByHop, testing::PaddingExtension()},
                     {testing::kDestinationOptions, testing::PaddingExtension(16)}};
  EXPECT_EQ(Find(SomeRules(), spec, 40000, 5060), kInteractive);
}

TEST(ClassRules, LeaveEveryFragmentOfAPacketToItsDscp) {
  PacketSpec first = testing::SpecOf(false, testing::kUdp, 20);
  first.fragment_field = 0x2000;
  PacketSpec last = first;
  last.fragment_field = 100;
  for (const PacketSpec& spec : {first, last}) {
    EXPECT_EQ(Find(SomeRules(), spec, 5060, 5060), std::nullopt);
  }
  PacketSpec v6 = testing::SpecOf(true, testing::kUdp, 20);
  v6.extensions = {{testing::kFragment, Buffer(8)}};
  EXPECT_EQ(Find(SomeRules(), v6, 5060, 5060), std::nullopt);
}

TEST(ClassRules, ReadNothingBehindTheEndOfAPacket) {
  // 20 bytes of IPv4 and three more.
  Buffer packet = {0x45, 0, 0, 23, 0,  0, 0, 0, 64,   testing::kUdp, 0,   0,
                   10,   0, 0, 1,  10, 0, 0, 2, 0x13, 0xc4,          0x13};
  packet.shrink_to_fit();
  InnerPacket inner;
  ASSERT_TRUE(ParseInner(packet, inner));
  EXPECT_EQ(SomeRules().Find(packet, inner), std::nullopt);
}

TEST(ClassRules, AsManyAsThereMayBe) {
  std::vector<ClassRule> many;
  for (uint16_t i = 0; i < kMaxClassRules; ++i) {
    many.push_back({testing::kUdp, {{i, i}}, i + 1u == kMaxClassRules ? kRealtime : kBulk});
  }
  const ClassRules rules(many);
  const PacketSpec udp = testing::SpecOf(false, testing::kUdp, 20);
  EXPECT_EQ(Find(rules, udp, kMaxClassRules - 1, 40000), kRealtime);
  EXPECT_EQ(Find(rules, udp, kMaxClassRules, 40000), std::nullopt);
}

}  // namespace
}  // namespace braid::class_rules_test
