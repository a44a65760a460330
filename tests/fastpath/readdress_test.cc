// A packet with other addresses and ports is the packet that would have been built with them, and
// comes back to itself.
#include "fastpath/readdress.h"

#include <gtest/gtest.h>

#include "support/packets.h"

namespace braid::readdress_test {
namespace {

using testing::Below;
using testing::Buffer;
using testing::PacketSpec;
using testing::Random;

FlowKey KeyOf(const Buffer& packet) {
  InnerPacket inner;
  EXPECT_TRUE(ParseInner(packet, inner));
  return FlowKey::Of(packet, inner);
}

Buffer Readdressed(Buffer packet, const FlowKey& to, bool partial) {
  InnerPacket inner;
  EXPECT_TRUE(ParseInner(packet, inner));
  Readdress(packet, inner, to, partial);
  return packet;
}

class ReaddressTest : public ::testing::TestWithParam<testing::Transport> {};
INSTANTIATE_TEST_SUITE_P(Transports, ReaddressTest, ::testing::ValuesIn(testing::kTransports),
                         [](const auto& param) {
                           return std::string(param.param.protocol == testing::kTcp ? "Tcp"
                                                                                    : "Udp") +
                                  (param.param.v6 ? "6" : "4");
                         });

TEST_P(ReaddressTest, GivesWhatWouldHaveBeenBuilt) {
  Random random(7);
  for (int i = 0; i < 3000; ++i) {
    PacketSpec spec = testing::SpecOf(GetParam().v6, GetParam().protocol);
    spec.payload = testing::RandomBytes(random, Below(random, 60));
    spec.ip_options.resize(GetParam().v6 ? 0 : 4 * Below(random, 3), 1);
    PacketSpec other = spec;
    for (PacketSpec* one : {&spec, &other}) {
      one->source_host = static_cast<uint8_t>(random());
      one->destination_host = static_cast<uint8_t>(random());
      one->source_port = static_cast<uint16_t>(random());
      one->destination_port = static_cast<uint16_t>(random());
    }
    Buffer before = testing::BuildPacket(spec), after = testing::BuildPacket(other);
    const bool partial = Below(random, 2) == 0;
    if (partial) {
      testing::MakePartial(spec, before);
      testing::MakePartial(other, after);
    }
    const Buffer made = Readdressed(before, KeyOf(after), partial);
    // There are two zeroes in ones' complement; both are right where one is.
    if (partial) {
      Buffer finished = made;
      testing::FinishPartial(other, finished);
      testing::FinishPartial(other, after);
      ASSERT_EQ(finished, after) << i;
    } else {
      ASSERT_EQ(made, after) << i;
    }
    if (partial) testing::FinishPartial(spec, before);
    Buffer back = Readdressed(made, KeyOf(before), partial);
    if (partial) testing::FinishPartial(spec, back);
    ASSERT_EQ(back, before) << i;
  }
}

TEST(Readdress, LeavesAUdpChecksumOutThatIsNotThere) {
  PacketSpec spec = testing::SpecOf(false, testing::kUdp, 20);
  spec.udp_without_checksum = true;
  PacketSpec other = spec;
  other.source_host = 9;
  other.destination_port = 1;
  EXPECT_EQ(Readdressed(testing::BuildPacket(spec), KeyOf(testing::BuildPacket(other)), false),
            testing::BuildPacket(other));
}

}  // namespace
}  // namespace braid::readdress_test
