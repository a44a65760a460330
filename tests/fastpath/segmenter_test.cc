// Segmentation against a reference that builds every packet from its fields, and hostile vnet
// headers.
#include "fastpath/segmenter.h"

#include <gtest/gtest.h>

#include <memory>

#include "support/packets.h"

namespace braid::segmenter_test {
namespace {

using testing::BehindVnetHeader;
using testing::Below;
using testing::Buffer;
using testing::BuildPacket;
using testing::kTransports;
using testing::PacketSpec;
using testing::PaddingExtension;
using testing::Random;
using testing::RandomBytes;
using testing::SpecOf;
using testing::Transport;
using testing::VnetFor;

// Memory of exactly the size, so that a sanitizer sees every byte read or written beyond.
struct ExactBytes {
  explicit ExactBytes(const Buffer& from) : size(from.size()), bytes(new uint8_t[from.size()]) {
    std::copy(from.begin(), from.end(), bytes.get());
  }
  MutableBytes span() { return {bytes.get(), size}; }

  size_t size;
  std::unique_ptr<uint8_t[]> bytes;
};

// What the kernel's own software segmentation gives, checksums partial.
std::vector<Buffer> ReferenceSegments(const PacketSpec& super, size_t gso_bytes) {
  std::vector<Buffer> segments;
  for (size_t at = 0; at < super.payload.size(); at += gso_bytes) {
    const size_t bytes = std::min(gso_bytes, super.payload.size() - at);
    const bool first = at == 0;
    const bool last = at + bytes == super.payload.size();
    PacketSpec spec = super;
    spec.payload.assign(super.payload.begin() + static_cast<ptrdiff_t>(at),
                        super.payload.begin() + static_cast<ptrdiff_t>(at + bytes));
    spec.id = static_cast<uint16_t>(super.id + segments.size());
    spec.tcp_sequence += static_cast<uint32_t>(at);
    if (!first) spec.tcp_flags &= static_cast<uint8_t>(~testing::kCwr);
    if (!last) spec.tcp_flags &= static_cast<uint8_t>(~(testing::kFin | testing::kPsh));
    segments.push_back(BuildPacket(spec));
    testing::MakePartial(spec, segments.back());
  }
  return segments;
}

void ExpectSegmentsOfReference(const PacketSpec& spec, size_t gso_bytes) {
  Buffer super = BuildPacket(spec);
  testing::MakePartial(spec, super);
  ExactBytes from_tun(BehindVnetHeader(VnetFor(spec, gso_bytes), super));
  const auto segmenter = std::make_unique<Segmenter>();
  ASSERT_TRUE(segmenter->Begin(from_tun.span()));
  const auto expected = ReferenceSegments(spec, gso_bytes);
  ASSERT_EQ(segmenter->segments(), expected.size());
  EXPECT_EQ(segmenter->segment_bytes(), expected.front().size());
  EXPECT_TRUE(segmenter->partial_checksum());
  for (size_t i = 0; i < expected.size(); ++i) {
    const MutableBytes got = segmenter->Next();
    Buffer segment(got.begin(), got.end());
    ASSERT_EQ(segment, expected[i]) << "segment " << i << " of " << expected.size();
    testing::FinishPartial(spec, segment);
    ASSERT_TRUE(testing::ChecksumsAreRight(segment, spec.protocol, spec.l4_offset()));
    std::fill(got.begin(), got.end(), 0xee);  // it is ours until the next call
  }
  EXPECT_TRUE(segmenter->Next().empty());
  EXPECT_TRUE(segmenter->Next().empty());
}

TEST(Segmenter, CutsSuperPacketsOfEverySize) {
  Random random(1);
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol);
    for (size_t bytes = 2; bytes < 400; ++bytes) {
      spec.payload = RandomBytes(random, bytes);
      ExpectSegmentsOfReference(spec, 1 + Below(random, bytes - 1));
      if (HasFatalFailure()) return;
    }
    for (int i = 0; i < 60; ++i) {
      spec.payload = RandomBytes(random, 400 + Below(random, 65535 - 60 - 400));
      ExpectSegmentsOfReference(spec, 200 + Below(random, 1400));
      if (HasFatalFailure()) return;
    }
    spec.payload = RandomBytes(random, 65535 - spec.headers_bytes());
    for (const size_t gso_bytes : {536, 1368, 1440, 8900, 65000}) {
      ExpectSegmentsOfReference(spec, gso_bytes);
      if (HasFatalFailure()) return;
    }
  }
}

// With segments smaller than the headers, each header reaches over more than one earlier payload.
TEST(Segmenter, CutsSegmentsSmallerThanTheirHeaders) {
  Random random(2);
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol);
    for (size_t gso_bytes = 1; gso_bytes < 80; ++gso_bytes) {
      spec.payload = RandomBytes(random, 500);
      ExpectSegmentsOfReference(spec, gso_bytes);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Segmenter, KeepsIpOptionsAndExtensionHeaders) {
  Random random(3);
  for (const Transport& transport : kTransports) {
    for (size_t words = 0; words <= 10; ++words) {
      PacketSpec spec = SpecOf(transport.v6, transport.protocol);
      if (transport.v6) {
        for (size_t i = 0; i < words % 4; ++i) {
          spec.extensions.emplace_back(i == 0 ? testing::kHopByHop : testing::kDestinationOptions,
                                       PaddingExtension(8 * (1 + Below(random, 8))));
        }
      } else {
        spec.ip_options = RandomBytes(random, words * 4);
      }
      if (transport.protocol == testing::kTcp)
        spec.tcp_options = RandomBytes(random, (10 - words) * 4);
      spec.payload = RandomBytes(random, 5000);
      ExpectSegmentsOfReference(spec, 1000 + words);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Segmenter, GivesCwrToTheFirstAndFinAndPshToTheLast) {
  Random random(4);
  for (const bool v6 : {false, true}) {
    for (int flags = 0; flags < 256; ++flags) {
      PacketSpec spec = SpecOf(v6, testing::kTcp);
      spec.tcp_flags = static_cast<uint8_t>(flags);
      spec.tcp_reserved = static_cast<uint8_t>(flags & 0xf);
      spec.tcp_urgent = 5;
      spec.payload = RandomBytes(random, 3000);
      ExpectSegmentsOfReference(spec, 1000);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Segmenter, CountsUpAcrossTheEndOfNumbers) {
  Random random(5);
  PacketSpec spec;
  spec.id = 0xfffe;
  spec.tcp_sequence = 0xffffff00;
  spec.payload = RandomBytes(random, 5000);
  ExpectSegmentsOfReference(spec, 700);
}

TEST(Segmenter, TakesTheEcnMarkOfTheVnetHeader) {
  PacketSpec spec;
  spec.tcp_flags |= testing::kCwr;
  spec.payload.resize(3000);
  VnetHeader vnet = VnetFor(spec, 1000);
  vnet.gso_type |= VnetHeader::kGsoEcn;
  ExactBytes from_tun(BehindVnetHeader(vnet, BuildPacket(spec)));
  Segmenter segmenter;
  ASSERT_TRUE(segmenter.Begin(from_tun.span()));
  EXPECT_EQ(segmenter.segments(), 3u);
}

TEST(Segmenter, PassesAWholePacketAsItIs) {
  Random random(6);
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol);
    spec.payload = RandomBytes(random, 100);
    const Buffer packet = BuildPacket(spec);
    ExactBytes from_tun(BehindVnetHeader(VnetHeader{}, packet));
    Segmenter segmenter;
    ASSERT_TRUE(segmenter.Begin(from_tun.span()));
    EXPECT_EQ(segmenter.segments(), 1u);
    EXPECT_EQ(segmenter.segment_bytes(), packet.size());
    EXPECT_FALSE(segmenter.partial_checksum());
    const Bytes next = segmenter.Next();
    EXPECT_TRUE(std::equal(next.begin(), next.end(), packet.begin(), packet.end()));
    EXPECT_TRUE(segmenter.Next().empty());
  }
}

TEST(Segmenter, PassesAPartialChecksumOfTheOutermostTransportHeader) {
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol);
    spec.payload.resize(100);
    Buffer packet = BuildPacket(spec);
    testing::MakePartial(spec, packet);
    ExactBytes from_tun(BehindVnetHeader(VnetFor(spec), packet));
    Segmenter segmenter;
    ASSERT_TRUE(segmenter.Begin(from_tun.span()));
    EXPECT_TRUE(segmenter.partial_checksum());
    const Bytes next = segmenter.Next();
    EXPECT_TRUE(std::equal(next.begin(), next.end(), packet.begin(), packet.end()));
  }
}

// A super-packet that is no larger than one segment is not touched: what its owner changes stays.
TEST(Segmenter, PassesASuperPacketOfOneSegmentAsItIs) {
  PacketSpec spec;
  spec.tcp_flags = testing::kSyn;
  spec.payload.resize(100);
  Buffer packet = BuildPacket(spec);
  testing::MakePartial(spec, packet);
  for (const size_t gso_bytes : {100, 101, 65535}) {
    ExactBytes from_tun(BehindVnetHeader(VnetFor(spec, gso_bytes), packet));
    Segmenter segmenter;
    ASSERT_TRUE(segmenter.Begin(from_tun.span()));
    EXPECT_EQ(segmenter.segments(), 1u);
    EXPECT_EQ(segmenter.segment_bytes(), packet.size());
    EXPECT_TRUE(segmenter.partial_checksum());
    segmenter.mutable_packet()[8] = 33;
    EXPECT_EQ(segmenter.Next()[8], 33);
  }
}

// VXLAN: the partial checksum is that of the packet inside.
TEST(Segmenter, FinishesAChecksumThatIsNotTheOutermost) {
  Random random(7);
  for (const Transport& transport : kTransports) {
    PacketSpec inside = SpecOf(transport.v6, transport.protocol);
    inside.payload = RandomBytes(random, 333);
    const Buffer whole = BuildPacket(inside);
    Buffer partial = whole;
    testing::MakePartial(inside, partial);

    PacketSpec outside = SpecOf(!transport.v6, testing::kUdp);
    outside.udp_without_checksum = true;
    const Buffer tunnel_header = RandomBytes(random, 22);
    const auto wrap = [&](const Buffer& carried) {
      outside.payload = tunnel_header;
      outside.payload.insert(outside.payload.end(), carried.begin(), carried.end());
      return BuildPacket(outside);
    };
    VnetHeader vnet = VnetFor(inside);
    vnet.checksum_start =
        static_cast<uint16_t>(vnet.checksum_start + outside.headers_bytes() + tunnel_header.size());
    ExactBytes from_tun(BehindVnetHeader(vnet, wrap(partial)));
    Segmenter segmenter;
    ASSERT_TRUE(segmenter.Begin(from_tun.span()));
    EXPECT_FALSE(segmenter.partial_checksum());
    const MutableBytes next = segmenter.Next();
    EXPECT_EQ(Buffer(next.begin(), next.end()), wrap(whole));
    // Whoever it is handed to finds nothing left to be done.
    ASSERT_TRUE(segmenter.Begin(from_tun.span()));
    const MutableBytes again = segmenter.Next();
    EXPECT_EQ(Buffer(again.begin(), again.end()), wrap(whole));
  }
}

TEST(Segmenter, FinishesTheChecksumOfAFragment) {
  PacketSpec spec;
  spec.protocol = testing::kUdp;
  spec.fragment_field = 0x2000;
  spec.payload.resize(64, 7);
  const Buffer whole = BuildPacket(spec);
  Buffer packet = whole;
  testing::MakePartial(spec, packet);
  ExactBytes from_tun(BehindVnetHeader(VnetFor(spec), packet));
  Segmenter segmenter;
  ASSERT_TRUE(segmenter.Begin(from_tun.span()));
  EXPECT_FALSE(segmenter.partial_checksum());
  const MutableBytes next = segmenter.Next();
  EXPECT_EQ(Buffer(next.begin(), next.end()), whole);
  ASSERT_TRUE(segmenter.Begin(from_tun.span()));
  const MutableBytes again = segmenter.Next();
  EXPECT_EQ(Buffer(again.begin(), again.end()), whole);
}

bool Begins(const VnetHeader& vnet, const Buffer& packet) {
  ExactBytes from_tun(BehindVnetHeader(vnet, packet));
  Segmenter segmenter;
  const bool begun = segmenter.Begin(from_tun.span());
  while (begun && !segmenter.Next().empty()) {
  }
  return begun;
}

TEST(Segmenter, RefusesWhatIsNoPacket) {
  Segmenter segmenter;
  for (size_t bytes = 0; bytes <= kVnetHeaderBytes; ++bytes) {
    ExactBytes from_tun{Buffer(bytes)};
    EXPECT_FALSE(segmenter.Begin(from_tun.span())) << bytes;
  }
  EXPECT_FALSE(Begins(VnetHeader{}, {0x00}));
  EXPECT_FALSE(Begins(VnetHeader{}, Buffer(100)));
  Buffer cut = BuildPacket(PacketSpec{});
  cut.pop_back();
  EXPECT_FALSE(Begins(VnetHeader{}, cut));
}

TEST(Segmenter, RefusesEveryGsoTypeThatDoesNotFitThePacket) {
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol);
    spec.payload.resize(3000);
    VnetHeader vnet = VnetFor(spec, 1000);
    const uint8_t right = vnet.gso_type;
    for (int type = 1; type < 256; ++type) {
      vnet.gso_type = static_cast<uint8_t>(type);
      EXPECT_EQ(Begins(vnet, BuildPacket(spec)), (type & 0x7f) == right) << type;
    }
  }
}

TEST(Segmenter, RefusesASuperPacketWithoutASegmentSizeOrPayload) {
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol);
    VnetHeader vnet = VnetFor(spec, 1000);
    EXPECT_FALSE(Begins(vnet, BuildPacket(spec)));
    spec.payload.resize(3000);
    EXPECT_TRUE(Begins(vnet, BuildPacket(spec)));
    vnet.gso_bytes = 0;
    EXPECT_FALSE(Begins(vnet, BuildPacket(spec)));
  }
}

TEST(Segmenter, RefusesToCutFragments) {
  PacketSpec spec;
  spec.payload.resize(3000);
  spec.fragment_field = 0x2000;
  EXPECT_FALSE(Begins(VnetFor(spec, 1000), BuildPacket(spec)));
}

TEST(Segmenter, RefusesAChecksumOutsideOfThePacketOrInItsHeaders) {
  PacketSpec spec;
  spec.payload.resize(50);
  const Buffer packet = BuildPacket(spec);
  VnetHeader vnet = VnetFor(spec);
  for (int start = 0; start < 200; ++start) {
    for (const int offset : {0, 1, 6, 16, 40, 88, 89, 1000, 65535}) {
      vnet.checksum_start = static_cast<uint16_t>(start);
      vnet.checksum_offset = static_cast<uint16_t>(offset);
      const bool inside = static_cast<size_t>(start) >= spec.headers_bytes() &&
                          static_cast<size_t>(start) < packet.size() &&
                          static_cast<size_t>(start + offset + 2) <= packet.size();
      const bool outermost = start == 20 && offset == 16;
      EXPECT_EQ(Begins(vnet, packet), inside || outermost) << start << " " << offset;
    }
  }
  vnet.checksum_start = vnet.checksum_offset = 65535;
  EXPECT_FALSE(Begins(vnet, packet));
}

TEST(Segmenter, StaysWithinThePacketWhateverTheVnetHeaderSays) {
  Random random(8);
  for (int i = 0; i < 20'000; ++i) {
    const Transport& transport = kTransports[Below(random, 4)];
    PacketSpec spec = SpecOf(transport.v6, transport.protocol);
    spec.payload.resize(Below(random, 300));
    Buffer from_tun = BehindVnetHeader(VnetFor(spec, Below(random, 100)), BuildPacket(spec));
    for (uint64_t flips = 1 + Below(random, 4); flips > 0; --flips) {
      from_tun[Below(random, kVnetHeaderBytes)] = static_cast<uint8_t>(random());
    }
    ExactBytes exact(from_tun);
    Segmenter segmenter;
    if (!segmenter.Begin(exact.span())) continue;
    for (MutableBytes next = segmenter.Next(); !next.empty(); next = segmenter.Next()) {
      ASSERT_GE(next.data(), exact.bytes.get() + kVnetHeaderBytes);
      ASSERT_LE(next.data() + next.size(), exact.bytes.get() + exact.size);
    }
  }
}

}  // namespace
}  // namespace braid::segmenter_test
