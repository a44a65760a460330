// Marks of congestion in IP headers.
#include "bonding/ecn.h"

#include <gtest/gtest.h>

#include <array>

#include "support/ip_header.h"

namespace braid::ecn_test {
namespace {

using testing::Ipv4HeaderSum;
using testing::kMarked;
using testing::WriteIpv4Header;

TEST(MarkCongestion, MarksAnIpv4PacketAndKeepsItsChecksumRight) {
  for (int id = 0; id < 0x10000; ++id) {
    for (const uint8_t ecn : {testing::kEcn0, testing::kEcn1, kMarked}) {
      std::array<uint8_t, 40> packet{};
      WriteIpv4Header(packet, static_cast<uint8_t>(0xb8 | ecn), static_cast<uint16_t>(id));
      ASSERT_EQ(Ipv4HeaderSum(packet), 0xffff);
      ASSERT_TRUE(MarkCongestion(packet));
      ASSERT_EQ(packet[1], 0xb8 | kMarked);
      ASSERT_EQ(Ipv4HeaderSum(packet), 0xffff) << "id " << id;
    }
  }
}

TEST(MarkCongestion, LeavesAPacketWhoseEndsDoNotUnderstandIt) {
  std::array<uint8_t, 40> packet{};
  WriteIpv4Header(packet, 0xb8, 1);
  const auto before = packet;
  EXPECT_FALSE(MarkCongestion(packet));
  EXPECT_EQ(packet, before);
}

TEST(MarkCongestion, MarksAnIpv6Packet) {
  std::array<uint8_t, 40> packet{};
  StoreBe32(&packet[0], 0x6ba12345);  // traffic class 0xba, flow label 0x12345
  EXPECT_TRUE(MarkCongestion(packet));
  EXPECT_EQ(LoadBe32(&packet[0]), 0x6bb12345u);
  StoreBe32(&packet[0], 0x6b812345);
  EXPECT_FALSE(MarkCongestion(packet));
  EXPECT_EQ(LoadBe32(&packet[0]), 0x6b812345u);
}

TEST(MarkCongestion, LeavesWhatIsNoWholeHeader) {
  std::array<uint8_t, 19> packet{};
  packet[0] = 0x45;
  packet[1] = testing::kEcn0;
  EXPECT_FALSE(MarkCongestion(packet));
  EXPECT_EQ(packet[1], testing::kEcn0);
}

}  // namespace
}  // namespace braid::ecn_test
