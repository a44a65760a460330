// What is read of an inner packet, and its checksums against the letter of RFC 1071.
#include "fastpath/inner_packet.h"

#include <gtest/gtest.h>

#include "support/packets.h"

namespace braid::inner_packet_test {
namespace {

using testing::Below;
using testing::Buffer;
using testing::BuildPacket;
using testing::PacketSpec;
using testing::PaddingExtension;
using testing::Random;
using testing::RandomBytes;

InnerPacket Parsed(const Buffer& packet) {
  InnerPacket inner{};
  EXPECT_TRUE(ParseInner(packet, inner));
  return inner;
}

bool Parses(Bytes packet) {
  InnerPacket inner;
  return ParseInner(packet, inner);
}

Buffer RoutingExtension(uint8_t segments_left) {
  Buffer extension(24);
  extension[1] = 2;
  extension[2] = 4;
  extension[3] = segments_left;
  return extension;
}

TEST(InnerPacket, FindsWhereTheHeadersEnd) {
  Random random(1);
  for (const bool v6 : {false, true}) {
    for (const uint8_t protocol : {testing::kTcp, testing::kUdp}) {
      for (int variant = 0; variant < 20; ++variant) {
        PacketSpec spec;
        spec.v6 = v6;
        spec.protocol = protocol;
        spec.ip_options.resize(Below(random, 11) * 4, 1);
        spec.tcp_options.resize(Below(random, 11) * 4, 1);
        for (int i = 0; i < variant % 4; ++i) {
          spec.extensions.emplace_back(i == 0 ? testing::kHopByHop : testing::kDestinationOptions,
                                       PaddingExtension(8 + Below(random, 5) * 8));
        }
        spec.payload = RandomBytes(random, Below(random, 100));
        const InnerPacket inner = Parsed(BuildPacket(spec));
        EXPECT_EQ(inner.v6, v6);
        EXPECT_FALSE(inner.fragment);
        EXPECT_EQ(inner.protocol, protocol);
        EXPECT_EQ(inner.l4_offset, spec.l4_offset());
        EXPECT_EQ(inner.headers_bytes(), spec.headers_bytes());
        EXPECT_EQ(inner.is_tcp(), protocol == testing::kTcp);
        EXPECT_EQ(inner.is_udp(), protocol == testing::kUdp);
        EXPECT_EQ(inner.checksum_offset(), spec.checksum_offset());
      }
    }
  }
}

TEST(InnerPacket, RefusesLengthsThatContradictTheSize) {
  Random random(2);
  for (const bool v6 : {false, true}) {
    PacketSpec spec;
    spec.v6 = v6;
    spec.payload = RandomBytes(random, 50);
    Buffer packet = BuildPacket(spec);
    for (size_t bytes = 0; bytes < packet.size(); ++bytes) {
      EXPECT_FALSE(Parses(Bytes(packet).first(bytes))) << bytes;
    }
    EXPECT_TRUE(Parses(packet));
    packet.push_back(0);
    EXPECT_FALSE(Parses(packet));
  }
}

TEST(InnerPacket, RefusesOtherVersionsAndHeaderLengths) {
  PacketSpec spec;
  spec.id = 0x1234;  // where IPv6 has its length
  Buffer packet = BuildPacket(spec);
  for (int first = 0; first < 256; ++first) {
    packet[0] = static_cast<uint8_t>(first);
    const bool good = first >> 4 == 4 && (first & 0xf) >= 5 && (first & 0xf) * 4 <= 40;
    EXPECT_EQ(Parses(packet), good) << first;
  }
}

TEST(InnerPacket, TakesNoFragmentForAWholePacket) {
  for (const uint16_t field : {0x2000, 0x0001, 0x1fff, 0x3000, 0x6000}) {
    PacketSpec spec;
    spec.fragment_field = field;
    const InnerPacket inner = Parsed(BuildPacket(spec));
    EXPECT_TRUE(inner.fragment) << field;
    EXPECT_FALSE(inner.is_tcp());
    EXPECT_EQ(inner.l4_header_bytes, 0);
  }
  for (const uint16_t field : {0x0000, 0x4000, 0x8000}) {
    PacketSpec spec;
    spec.fragment_field = field;
    EXPECT_TRUE(Parsed(BuildPacket(spec)).is_tcp()) << field;
  }
  PacketSpec spec;
  spec.v6 = true;
  spec.extensions = {{testing::kFragment, Buffer(8)}};
  const InnerPacket inner = Parsed(BuildPacket(spec));
  EXPECT_TRUE(inner.fragment);
  EXPECT_EQ(inner.l4_header_bytes, 0);
}

TEST(InnerPacket, LeavesTransportAloneWhoseDestinationIsInARoutingHeader) {
  PacketSpec spec;
  spec.v6 = true;
  spec.extensions = {{testing::kRouting, RoutingExtension(1)}};
  EXPECT_FALSE(Parsed(BuildPacket(spec)).is_tcp());
  spec.extensions = {{testing::kRouting, RoutingExtension(0)}};
  EXPECT_TRUE(Parsed(BuildPacket(spec)).is_tcp());
}

TEST(InnerPacket, TakesNoBrokenTransportHeaderForOne) {
  PacketSpec spec;
  spec.tcp_options.resize(8, 1);
  spec.payload.resize(4);
  Buffer packet = BuildPacket(spec);
  for (int words = 0; words < 16; ++words) {
    packet[20 + 12] = static_cast<uint8_t>(words << 4);
    EXPECT_EQ(Parsed(packet).is_tcp(), words >= 5 && words <= 8) << words;
  }
  spec.protocol = testing::kUdp;
  packet = BuildPacket(spec);
  for (int bytes = 0; bytes < 40; ++bytes) {
    StoreBe16(&packet[24], static_cast<uint16_t>(bytes));
    EXPECT_EQ(Parsed(packet).is_udp(), bytes == 12) << bytes;
  }
  for (const uint8_t protocol : {testing::kTcp, testing::kUdp}) {
    PacketSpec cut;
    cut.protocol = 253;
    cut.payload.resize(7);
    packet = BuildPacket(cut);
    packet[9] = protocol;
    EXPECT_EQ(Parsed(packet).l4_header_bytes, 0);
  }
}

TEST(InnerPacket, StopsAtExtensionHeadersThatAreCutOff) {
  for (const uint8_t length : {0, 1, 200, 255}) {
    PacketSpec spec;
    spec.v6 = true;
    spec.protocol = testing::kHopByHop;  // nothing behind it but these bytes
    spec.payload = {testing::kTcp, length, 0, 0, 0, 0, 0, 0};
    if (length == 0) spec.payload.resize(5);
    const InnerPacket inner = Parsed(BuildPacket(spec));
    EXPECT_EQ(inner.protocol, testing::kHopByHop);
    EXPECT_EQ(inner.l4_offset, 40);
    EXPECT_EQ(inner.l4_header_bytes, 0);
  }
}

TEST(InnerPacket, ReadsTheAddresses) {
  PacketSpec spec;
  EXPECT_EQ(InnerSource(BuildPacket(spec)).ToString(), "10.77.0.1");
  EXPECT_EQ(InnerDestination(BuildPacket(spec)).ToString(), "10.77.0.2");
  spec.v6 = true;
  EXPECT_EQ(InnerSource(BuildPacket(spec)).ToString(), "fd00::1");
  EXPECT_EQ(InnerDestination(BuildPacket(spec)).ToString(), "fd00::2");
}

TEST(Checksum, AgreesWithTheLetterOfTheRfc) {
  Random random(3);
  for (size_t bytes = 0; bytes < 300; ++bytes) {
    const Buffer buffer = RandomBytes(random, bytes);
    EXPECT_EQ(ChecksumFold(ChecksumAdd(buffer)), testing::OnesComplementSum(buffer)) << bytes;
  }
  const Buffer ones(65535, 0xff);
  EXPECT_EQ(ChecksumFold(ChecksumAdd(ones)), testing::OnesComplementSum(ones));
  EXPECT_EQ(ChecksumFold(UINT64_MAX), 0xffff);
}

TEST(Checksum, OfAPacketIsRightUntilABitFlips) {
  Random random(4);
  for (int i = 0; i < 200; ++i) {
    PacketSpec spec;
    spec.v6 = i % 2 == 0;
    spec.protocol = i % 4 < 2 ? testing::kTcp : testing::kUdp;
    spec.payload = RandomBytes(random, Below(random, 200));
    Buffer packet = BuildPacket(spec);
    const InnerPacket inner = Parsed(packet);
    ASSERT_TRUE(ChecksumIsValid(packet, inner));
    const size_t l4_bytes = packet.size() - inner.l4_offset;
    EXPECT_EQ(ChecksumFold(PseudoHeaderSum(packet, inner, static_cast<uint32_t>(l4_bytes))),
              testing::PseudoSum(packet, spec.protocol, l4_bytes));
    const size_t bit = Below(random, l4_bytes * 8);
    packet[inner.l4_offset + bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    EXPECT_FALSE(ChecksumIsValid(packet, inner));
  }
}

TEST(Checksum, FinishesWhatTheKernelLeftPartial) {
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    PacketSpec spec;
    spec.v6 = i % 2 == 0;
    spec.protocol = i % 4 < 2 ? testing::kTcp : testing::kUdp;
    spec.payload = RandomBytes(random, Below(random, 200));
    const Buffer whole = BuildPacket(spec);
    Buffer packet = whole;
    testing::MakePartial(spec, packet);
    FinishChecksum(packet, spec.l4_offset(), spec.l4_offset() + spec.checksum_offset());
    EXPECT_EQ(packet, whole);
  }
}

TEST(Checksum, OfUdpIsNeverZero) {
  PacketSpec spec;
  spec.protocol = testing::kUdp;
  spec.payload = {0, 0};
  Buffer packet = BuildPacket(spec);
  // Payload that makes the sum all ones.
  StoreBe16(&packet[28], LoadBe16(&packet[26]));
  testing::MakePartial(spec, packet);
  FinishChecksum(packet, 20, 26);
  EXPECT_EQ(LoadBe16(&packet[26]), 0xffff);
  EXPECT_TRUE(ChecksumIsValid(packet, Parsed(packet)));
}

TEST(Checksum, OfAnIpv4HeaderCoversItsOptions) {
  Random random(6);
  for (size_t words = 0; words <= 10; ++words) {
    PacketSpec spec;
    spec.ip_options = RandomBytes(random, words * 4);
    const Buffer whole = BuildPacket(spec);
    Buffer packet = whole;
    EXPECT_TRUE(Ipv4HeaderChecksumIsValid(packet.data()));
    packet[10] = 0x55;
    EXPECT_FALSE(Ipv4HeaderChecksumIsValid(packet.data()));
    SetIpv4HeaderChecksum(packet.data());
    EXPECT_EQ(packet, whole);
  }
}

Buffer MssOption(uint16_t mss, size_t padding_before = 0) {
  Buffer options(padding_before, 1);
  options.insert(options.end(), {2, 4, static_cast<uint8_t>(mss >> 8), static_cast<uint8_t>(mss)});
  while (options.size() % 4 != 0) options.push_back(1);
  return options;
}

TEST(ClampMss, LowersItToWhatTheTunnelCarries) {
  Random random(7);
  for (const bool v6 : {false, true}) {
    for (size_t padding = 0; padding < 6; ++padding) {
      for (const bool partial : {false, true}) {
        for (const uint16_t mss : {500, 1380, 1381, 1460, 8960, 65535}) {
          PacketSpec spec;
          spec.v6 = v6;
          spec.tcp_flags = testing::kSyn;
          spec.tcp_sequence = static_cast<uint32_t>(random());
          spec.tcp_options = MssOption(mss, padding);
          Buffer packet = BuildPacket(spec);
          const uint16_t largest = v6 ? 1360 : 1380;
          spec.tcp_options = MssOption(std::min(mss, largest), padding);
          Buffer expected = BuildPacket(spec);
          if (partial) {
            testing::MakePartial(spec, packet);
            testing::MakePartial(spec, expected);
          }
          ClampMss(packet, Parsed(packet), 1420, partial);
          EXPECT_EQ(packet, expected) << v6 << " " << padding << " " << partial << " " << mss;
        }
      }
    }
  }
}

TEST(ClampMss, ChangesNothingElse) {
  const auto expect_unchanged = [](const PacketSpec& spec) {
    const Buffer before = BuildPacket(spec);
    Buffer packet = before;
    ClampMss(packet, Parsed(packet), 1420, false);
    EXPECT_EQ(packet, before);
  };
  PacketSpec spec;
  spec.tcp_options = MssOption(1460);
  expect_unchanged(spec);  // no SYN
  spec.tcp_flags = testing::kSyn;
  for (const Buffer& options :
       {Buffer{}, Buffer{0, 2, 4, 255}, Buffer{2, 3, 255, 255}, Buffer{3, 0, 2, 4},
        Buffer{3, 1, 2, 4, 5, 180, 0, 0}, Buffer{8, 10, 0, 0}, Buffer{1, 1, 1, 2},
        Buffer{1, 2, 4, 255}, Buffer{3, 255, 2, 4, 255, 255, 0, 0}}) {
    spec.tcp_options = options;
    expect_unchanged(spec);
  }
  spec.tcp_options = MssOption(1460);
  spec.fragment_field = 0x2000;
  expect_unchanged(spec);
  spec.fragment_field = 0;
  spec.protocol = testing::kUdp;
  spec.tcp_options = {};
  expect_unchanged(spec);
}

}  // namespace
}  // namespace braid::inner_packet_test
