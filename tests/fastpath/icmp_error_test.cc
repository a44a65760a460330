// "Too big" errors: their bytes, and to whom none is sent.
#include "fastpath/icmp_error.h"

#include <gtest/gtest.h>

#include <array>

#include "support/packets.h"

namespace braid::icmp_error_test {
namespace {

using testing::Buffer;
using testing::BuildPacket;
using testing::PacketSpec;

// The error about `packet`, empty when none may be sent.
Buffer TooBig(const Buffer& packet, uint16_t mtu = 1420) {
  InnerPacket inner;
  EXPECT_TRUE(ParseInner(packet, inner));
  std::array<uint8_t, 640> to;
  to.fill(0xee);
  const size_t bytes = WriteIcmpError(packet, inner, {IcmpError::What::kTooBig, mtu}, to);
  EXPECT_LE(bytes, to.size());
  for (size_t i = bytes; i < to.size(); ++i) EXPECT_EQ(to[i], 0xee);
  return {to.begin(), to.begin() + static_cast<ptrdiff_t>(bytes)};
}

PacketSpec BigPacket(bool v6) {
  PacketSpec spec;
  spec.v6 = v6;
  spec.payload.resize(2000, 0x42);
  return spec;
}

TEST(IcmpError, TellsAnIpv4SenderTheMtu) {
  const Buffer packet = BuildPacket(BigPacket(false));
  const Buffer error = TooBig(packet, 1300);
  InnerPacket inner;
  ASSERT_TRUE(ParseInner(error, inner));
  EXPECT_LE(error.size(), 576u);  // RFC 1812
  EXPECT_EQ(inner.protocol, kProtocolIcmp);
  EXPECT_TRUE(testing::Ipv4HeaderIsRight(error));
  EXPECT_EQ(InnerSource(error), InnerDestination(packet));
  EXPECT_EQ(InnerDestination(error), InnerSource(packet));
  EXPECT_EQ(error[20], 3);
  EXPECT_EQ(error[21], 4);
  EXPECT_EQ(LoadBe16(&error[24]), 0);
  EXPECT_EQ(LoadBe16(&error[26]), 1300);
  EXPECT_EQ(testing::OnesComplementSum(Bytes(error).subspan(20)), 0xffff);
  EXPECT_TRUE(std::equal(error.begin() + 28, error.end(), packet.begin()));
  EXPECT_GE(error.size(), 28u + 20 + 8);
}

TEST(IcmpError, TellsAnIpv6SenderTheMtu) {
  const Buffer packet = BuildPacket(BigPacket(true));
  const Buffer error = TooBig(packet, 1300);
  InnerPacket inner;
  ASSERT_TRUE(ParseInner(error, inner));
  EXPECT_LE(error.size(), 1280u);  // RFC 4443
  EXPECT_EQ(inner.protocol, kProtocolIcmpV6);
  EXPECT_EQ(InnerSource(error), InnerDestination(packet));
  EXPECT_EQ(InnerDestination(error), InnerSource(packet));
  EXPECT_EQ(error[40], 2);
  EXPECT_EQ(error[41], 0);
  EXPECT_EQ(LoadBe32(&error[44]), 1300u);
  EXPECT_TRUE(testing::ChecksumsAreRight(error, kProtocolIcmpV6, 40));
  EXPECT_TRUE(std::equal(error.begin() + 48, error.end(), packet.begin()));
}

TEST(IcmpError, QuotesAShortPacketWhole) {
  for (const bool v6 : {false, true}) {
    for (const size_t payload_bytes : {0, 1, 7}) {
      PacketSpec spec = BigPacket(v6);
      spec.payload.resize(payload_bytes);
      const Buffer packet = BuildPacket(spec);
      const Buffer error = TooBig(packet);
      ASSERT_EQ(error.size(), packet.size() + (v6 ? 48 : 28));
      EXPECT_EQ(testing::OnesComplementSum(
                    Bytes(error).subspan(v6 ? 40 : 20),
                    v6 ? testing::PseudoSum(error, kProtocolIcmpV6, error.size() - 40) : 0),
                0xffff);
    }
  }
}

TEST(IcmpError, AnswersNoIcmpErrorButAnEcho) {
  for (int type = 0; type < 256; ++type) {
    PacketSpec spec = BigPacket(false);
    spec.protocol = kProtocolIcmp;
    spec.payload[0] = static_cast<uint8_t>(type);
    EXPECT_EQ(!TooBig(BuildPacket(spec)).empty(), type == 0 || type == 8) << type;
    spec.v6 = true;
    spec.protocol = kProtocolIcmpV6;
    EXPECT_EQ(!TooBig(BuildPacket(spec)).empty(), type >= 128) << type;
  }
}

TEST(IcmpError, AnswersTheFirstFragmentOnly) {
  PacketSpec spec = BigPacket(false);
  for (const uint16_t field : {0x0001, 0x2001, 0x1fff}) {
    spec.fragment_field = field;
    EXPECT_TRUE(TooBig(BuildPacket(spec)).empty());
  }
  spec.fragment_field = 0x2000;
  EXPECT_FALSE(TooBig(BuildPacket(spec)).empty());
}

TEST(IcmpError, AnswersNothingToOrFromNoSingleHost) {
  struct Case {
    bool v6;
    bool source;  // else the destination is changed
    const char* address;
  };
  for (const Case& c :
       {Case{false, false, "224.0.0.1"}, Case{false, false, "239.255.255.255"},
        Case{false, false, "255.255.255.255"}, Case{false, true, "0.0.0.0"},
        Case{false, true, "224.0.0.1"}, Case{false, true, "255.255.255.255"},
        Case{true, false, "ff02::1"}, Case{true, true, "::"}, Case{true, true, "ff02::1"}}) {
    Buffer packet = BuildPacket(BigPacket(c.v6));
    const IpAddress address = *IpAddress::Parse(c.address);
    const ptrdiff_t at = c.v6 ? (c.source ? 8 : 24) : (c.source ? 12 : 16);
    std::copy_n(address.bytes.begin(), address.bits() / 8, packet.begin() + at);
    EXPECT_TRUE(TooBig(packet).empty()) << c.address;
  }
}

}  // namespace
}  // namespace braid::icmp_error_test
