// Frames and super-frames, with and without VLAN tags, against packets built field by field.
#include "linkem/frame_cutter.h"

#include <gtest/gtest.h>

#include "support/packets.h"

namespace braid::linkem::frame_cutter_test {
namespace {

using testing::Buffer;
using testing::PacketSpec;

constexpr VlanTag kTag{0x8100, 0x2005};
const Buffer kAddresses = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
const Buffer kTagBytes = {0x81, 0x00, 0x20, 0x05};
const Buffer kInlineTagBytes = {0x88, 0xa8, 0x00, 0x07};

Buffer Joined(std::initializer_list<Buffer> parts) {
  Buffer joined;
  for (const Buffer& part : parts) joined.insert(joined.end(), part.begin(), part.end());
  return joined;
}

Buffer EtherType(bool v6) { return v6 ? Buffer{0x86, 0xdd} : Buffer{0x08, 0x00}; }

// As a packet socket tells it: offsets count from the frame's first byte.
Buffer AsRead(VnetHeader vnet, const Buffer& link_header, const Buffer& packet) {
  vnet.checksum_start = static_cast<uint16_t>(vnet.checksum_start + link_header.size());
  vnet.header_bytes = static_cast<uint16_t>(vnet.header_bytes + link_header.size());
  return testing::BehindVnetHeader(vnet, Joined({link_header, packet}));
}

Buffer FrameOf(const FramePiece& piece) {
  return Joined(
      {Buffer(piece.head.begin(), piece.head.end()), Buffer(piece.body.begin(), piece.body.end())});
}

// What the receiving kernel makes of a partial checksum.
void Finish(const FramePiece& piece, Buffer& frame) {
  ASSERT_EQ(piece.vnet.flags, VnetHeader::kNeedsChecksum);
  testing::FinishPartial(frame, piece.vnet.checksum_start,
                         size_t{piece.vnet.checksum_start} + piece.vnet.checksum_offset);
}

TEST(FrameCutter, CutsSuperFramesIntoWholeFramesBehindTheirTags) {
  constexpr size_t kSegmentBytes = 1400;
  constexpr size_t kPayloadBytes = 4 * kSegmentBytes + 100;
  for (const testing::Transport& transport : testing::kTransports) {
    for (const bool tagged : {false, true}) {
      for (const bool tagged_inline : {false, true}) {
        PacketSpec spec = testing::SpecOf(transport.v6, transport.protocol, kPayloadBytes);
        for (size_t i = 0; i < kPayloadBytes; ++i) spec.payload[i] = static_cast<uint8_t>(i / 7);
        Buffer super = testing::BuildPacket(spec);
        testing::MakePartial(spec, super);
        const Buffer inline_tag = tagged_inline ? kInlineTagBytes : Buffer();
        const Buffer end = Joined({inline_tag, EtherType(transport.v6)});
        Buffer read =
            AsRead(testing::VnetFor(spec, kSegmentBytes), Joined({kAddresses, end}), super);
        FrameCutter cutter;
        ASSERT_TRUE(cutter.Begin(read, tagged ? std::optional(kTag) : std::nullopt));
        const Buffer head = Joined({kAddresses, tagged ? kTagBytes : Buffer(), end});
        Buffer payload;
        for (FramePiece piece; cutter.Next(piece);) {
          Buffer frame = FrameOf(piece);
          ASSERT_EQ(frame.size(), piece.bytes());
          ASSERT_EQ(piece.vnet.gso_type, VnetHeader::kGsoNone);
          ASSERT_NO_FATAL_FAILURE(Finish(piece, frame));
          ASSERT_EQ(Buffer(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(head.size())),
                    head);
          const Buffer packet(frame.begin() + static_cast<ptrdiff_t>(head.size()), frame.end());
          ASSERT_TRUE(testing::ChecksumsAreRight(packet, spec.protocol, spec.l4_offset()));
          ASSERT_LE(packet.size(), spec.headers_bytes() + kSegmentBytes);
          payload.insert(payload.end(),
                         packet.begin() + static_cast<ptrdiff_t>(spec.headers_bytes()),
                         packet.end());
        }
        EXPECT_EQ(payload, spec.payload);
      }
    }
  }
}

TEST(FrameCutter, PassesOtherFramesAsTheyAre) {
  const Buffer arp = Joined({kAddresses, {0x08, 0x06}, Buffer(46, 0x11)});
  Buffer read = testing::BehindVnetHeader({}, arp);
  FrameCutter cutter;
  FramePiece piece;
  ASSERT_TRUE(cutter.Begin(read, {}));
  ASSERT_TRUE(cutter.Next(piece));
  EXPECT_EQ(FrameOf(piece), arp);
  EXPECT_EQ(piece.vnet.flags, 0);
  EXPECT_FALSE(cutter.Next(piece));
}

TEST(FrameCutter, PutsATagBackAndKeepsAPartialChecksum) {
  const PacketSpec spec = testing::SpecOf(false, testing::kUdp, 100);
  Buffer packet = testing::BuildPacket(spec);
  const Buffer whole = packet;
  testing::MakePartial(spec, packet);
  const Buffer type = EtherType(false);
  Buffer read = AsRead(testing::VnetFor(spec), Joined({kAddresses, type}), packet);
  FrameCutter cutter;
  FramePiece piece;
  ASSERT_TRUE(cutter.Begin(read, kTag));
  ASSERT_TRUE(cutter.Next(piece));
  Buffer frame = FrameOf(piece);
  ASSERT_NO_FATAL_FAILURE(Finish(piece, frame));
  EXPECT_EQ(frame, Joined({kAddresses, kTagBytes, type, whole}));
}

TEST(FrameCutter, AWholeChecksumIsNotTouched) {
  VnetHeader vnet{};
  vnet.flags = VnetHeader::kDataValid;
  const Buffer packet = testing::BuildPacket(testing::SpecOf(true, testing::kTcp, 10));
  Buffer read = testing::BehindVnetHeader(vnet, Joined({kAddresses, EtherType(true), packet}));
  FrameCutter cutter;
  FramePiece piece;
  ASSERT_TRUE(cutter.Begin(read, {}));
  ASSERT_TRUE(cutter.Next(piece));
  EXPECT_EQ(piece.vnet.flags, 0);
}

TEST(FrameCutter, RefusesWhatIsNoFrameAndWhatCannotBeCut) {
  FrameCutter cutter;
  Buffer runt(kVnetHeaderBytes + kEthernetHeaderBytes - 1);
  EXPECT_FALSE(cutter.Begin(runt, {}));

  const PacketSpec spec = testing::SpecOf(false, testing::kTcp, 3000);
  Buffer packet = testing::BuildPacket(spec);
  VnetHeader vnet = testing::VnetFor(spec, 1000);
  const Buffer link_header = Joined({kAddresses, EtherType(false)});
  Buffer wrong_type = AsRead(vnet, link_header, packet);
  wrong_type[1] = VnetHeader::kGsoTcpV6;
  EXPECT_FALSE(cutter.Begin(wrong_type, {}));

  Buffer many_tags = AsRead(
      vnet,
      Joined({kAddresses, kInlineTagBytes, kInlineTagBytes, kInlineTagBytes, EtherType(false)}),
      packet);
  EXPECT_FALSE(cutter.Begin(many_tags, {}));

  Buffer cut_off = AsRead(vnet, Joined({kAddresses, kInlineTagBytes}), {});
  EXPECT_FALSE(cutter.Begin(cut_off, {}));

  Buffer no_checksum = testing::BehindVnetHeader(vnet, Joined({link_header, packet}));
  StoreNative<uint16_t>(no_checksum.data() + 6, 3);  // checksum_start, within the link header
  EXPECT_FALSE(cutter.Begin(no_checksum, {}));
}

}  // namespace
}  // namespace braid::linkem::frame_cutter_test
