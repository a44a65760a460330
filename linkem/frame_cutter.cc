#include "linkem/frame_cutter.h"

#include <net/ethernet.h>

#include <cstring>

namespace braid::linkem {
namespace {

constexpr uint16_t kEtherTypeQinQ = 0x88a8;

// Of a frame that holds its tags; 0 when it ends within.
size_t LinkHeaderBytes(Bytes frame, size_t max_tags) {
  size_t bytes = kEthernetHeaderBytes;
  for (size_t tags = 0; tags <= max_tags && frame.size() >= bytes; ++tags) {
    const uint16_t type = LoadBe16(frame.data() + bytes - 2);
    if (type != ETHERTYPE_VLAN && type != kEtherTypeQinQ) return bytes;
    bytes += kVlanTagBytes;
  }
  return 0;
}

}  // namespace

// `from` begins with the addresses.
void FrameCutter::PutHead(Bytes from, const std::optional<VlanTag>& tag) {
  uint8_t* to = head_.data();
  std::memcpy(to, from.data(), kAddressesBytes);
  to += kAddressesBytes;
  if (tag) {
    StoreBe16(to, tag->protocol);
    StoreBe16(to + 2, tag->control);
    to += kVlanTagBytes;
  }
  std::memcpy(to, from.data() + kAddressesBytes, from.size() - kAddressesBytes);
  to += from.size() - kAddressesBytes;
  head_bytes_ = static_cast<size_t>(to - head_.data());
}

bool FrameCutter::Begin(MutableBytes vnet_and_frame, const std::optional<VlanTag>& tag) {
  if (vnet_and_frame.size() < kVnetHeaderBytes + kEthernetHeaderBytes) return false;
  auto vnet = LoadNative<VnetHeader>(vnet_and_frame.data());
  const MutableBytes frame = vnet_and_frame.subspan(kVnetHeaderBytes);
  const size_t tag_bytes = tag ? kVlanTagBytes : 0;
  whole_ = vnet.gso_type == VnetHeader::kGsoNone;
  whole_given_ = false;
  if (whole_) {
    PutHead(frame.first(kAddressesBytes), tag);
    whole_piece_ = {{}, {head_.data(), head_bytes_}, frame.subspan(kAddressesBytes)};
    if ((vnet.flags & VnetHeader::kNeedsChecksum) != 0) {
      whole_piece_.vnet.flags = VnetHeader::kNeedsChecksum;
      whole_piece_.vnet.checksum_start = static_cast<uint16_t>(vnet.checksum_start + tag_bytes);
      whole_piece_.vnet.checksum_offset = vnet.checksum_offset;
    }
    return true;
  }
  const size_t link_bytes = LinkHeaderBytes(frame, kMaxInlineTags);
  if (link_bytes == 0 || vnet.checksum_start < link_bytes) return false;
  PutHead(frame.first(link_bytes), tag);
  // The segmenter takes the vnet header right in front of the packet, where the link's header was.
  vnet.checksum_start = static_cast<uint16_t>(vnet.checksum_start - link_bytes);
  vnet.header_bytes = static_cast<uint16_t>(vnet.header_bytes - link_bytes);
  const size_t packet_at = kVnetHeaderBytes + link_bytes;
  StoreNative(vnet_and_frame.data() + packet_at - kVnetHeaderBytes, vnet);
  return segmenter_.Begin(vnet_and_frame.subspan(packet_at - kVnetHeaderBytes));
}

bool FrameCutter::Next(FramePiece& piece) {
  if (whole_) {
    if (whole_given_) return false;
    whole_given_ = true;
    piece = whole_piece_;
    return true;
  }
  const MutableBytes segment = segmenter_.Next();
  if (segment.empty()) return false;
  piece = {{}, {head_.data(), head_bytes_}, segment};
  if (segmenter_.partial_checksum()) {
    const InnerPacket& inner = segmenter_.inner();
    piece.vnet.flags = VnetHeader::kNeedsChecksum;
    piece.vnet.checksum_start = static_cast<uint16_t>(head_bytes_ + inner.l4_offset);
    piece.vnet.checksum_offset = inner.checksum_offset();
  }
  return true;
}

}  // namespace braid::linkem
