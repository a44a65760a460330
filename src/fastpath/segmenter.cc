#include "fastpath/segmenter.h"

#include <algorithm>
#include <cstring>

namespace braid {
bool Segmenter::Begin(MutableBytes from_tun) {
  if (from_tun.size() <= kVnetHeaderBytes) return false;
  const auto vnet = LoadNative<VnetHeader>(from_tun.data());
  packet_ = from_tun.subspan(kVnetHeaderBytes);
  next_segment_ = 0;
  if (!ParseInner(packet_, inner_)) return false;
  return vnet.gso_type == VnetHeader::kGsoNone ? BeginPacket(vnet) : BeginSuperPacket(vnet);
}

bool Segmenter::BeginPacket(const VnetHeader& vnet) {
  segments_ = 1;
  segment_payload_bytes_ = 0;
  partial_checksum_ = false;
  return (vnet.flags & VnetHeader::kNeedsChecksum) == 0 || FinishForeignChecksum(vnet);
}

// Only the outermost transport header's partial checksum may travel as such. Another one, such as
// that of a packet inside VXLAN, is finished here. One in the headers that were parsed is refused:
// it would change what was read of them.
bool Segmenter::FinishForeignChecksum(const VnetHeader& vnet) {
  if (inner_.l4_header_bytes != 0 && vnet.checksum_start == inner_.l4_offset &&
      vnet.checksum_offset == inner_.checksum_offset()) {
    partial_checksum_ = true;
    return true;
  }
  const size_t checksum_at = size_t{vnet.checksum_start} + vnet.checksum_offset;
  if (vnet.checksum_start < inner_.headers_bytes()) return false;
  if (vnet.checksum_start >= packet_.size() || checksum_at + 2 > packet_.size()) return false;
  FinishChecksum(packet_, vnet.checksum_start, checksum_at);
  // Whoever it is handed to has nothing to finish.
  StoreNative(packet_.data() - kVnetHeaderBytes, VnetHeader{});
  return true;
}

bool Segmenter::BeginSuperPacket(const VnetHeader& vnet) {
  const uint8_t type = vnet.gso_type & static_cast<uint8_t>(~VnetHeader::kGsoEcn);
  const uint8_t tcp_type = inner_.v6 ? VnetHeader::kGsoTcpV6 : VnetHeader::kGsoTcpV4;
  const bool known =
      (inner_.is_tcp() && type == tcp_type) || (inner_.is_udp() && type == VnetHeader::kGsoUdpL4);
  if (!known) return false;
  const size_t headers_bytes = inner_.headers_bytes();
  if (headers_bytes > kMaxHeadersBytes || vnet.gso_bytes == 0) return false;
  if (packet_.size() <= headers_bytes) return false;
  payload_bytes_ = packet_.size() - headers_bytes;
  if (payload_bytes_ <= vnet.gso_bytes) return BeginPacket(vnet);  // nothing to cut
  segment_payload_bytes_ = vnet.gso_bytes;
  segments_ = (payload_bytes_ + segment_payload_bytes_ - 1) / segment_payload_bytes_;
  partial_checksum_ = true;
  TakeTemplate();
  return true;
}

// The headers with the fields that differ from segment to segment taken out of their checksums.
void Segmenter::TakeTemplate() {
  std::memcpy(headers_.data(), packet_.data(), inner_.headers_bytes());
  if (!inner_.v6) {
    first_identification_ = LoadBe16(&headers_[4]);
    for (const size_t field : {2, 4, 10}) StoreBe16(&headers_[field], 0);
    ip_header_sum_ = ChecksumAdd({headers_.data(), inner_.l4_offset});
  }
  pseudo_header_sum_ = PseudoHeaderSum({headers_.data(), inner_.headers_bytes()}, inner_, 0);
}

size_t Segmenter::segment_bytes() const {
  return segment_payload_bytes_ == 0 ? packet_.size()
                                     : inner_.headers_bytes() + segment_payload_bytes_;
}

MutableBytes Segmenter::Next() {
  if (next_segment_ == segments_) return {};
  if (segment_payload_bytes_ == 0) {
    ++next_segment_;
    return packet_;
  }
  const size_t headers_bytes = inner_.headers_bytes();
  const size_t payload_at = next_segment_ * segment_payload_bytes_;
  const size_t payload_bytes = std::min(segment_payload_bytes_, payload_bytes_ - payload_at);
  uint8_t* segment = packet_.data() + payload_at;  // its payload stands headers_bytes further
  WriteHeaders(segment, payload_bytes);
  ++next_segment_;
  return {segment, headers_bytes + payload_bytes};
}

void Segmenter::WriteHeaders(uint8_t* to, size_t payload_bytes) {
  const size_t headers_bytes = inner_.headers_bytes();
  std::memcpy(to, headers_.data(), headers_bytes);
  const auto bytes = static_cast<uint16_t>(headers_bytes + payload_bytes);
  if (inner_.v6) {
    StoreBe16(to + 4, static_cast<uint16_t>(bytes - 40));
  } else {
    const auto identification = static_cast<uint16_t>(first_identification_ + next_segment_);
    StoreBe16(to + 2, bytes);
    StoreBe16(to + 4, identification);
    const uint64_t sum = ip_header_sum_ + ChecksumOfField(bytes) + ChecksumOfField(identification);
    StoreBe16(to + 10, static_cast<uint16_t>(~ChecksumFold(sum)));
  }
  uint8_t* l4 = to + inner_.l4_offset;
  const auto l4_bytes = static_cast<uint16_t>(bytes - inner_.l4_offset);
  if (inner_.protocol == kProtocolTcp) {
    const size_t payload_at = next_segment_ * segment_payload_bytes_;
    StoreBe32(l4 + 4, static_cast<uint32_t>(LoadBe32(l4 + 4) + payload_at));
    if (next_segment_ != 0) l4[13] &= static_cast<uint8_t>(~kTcpCwr);
    if (next_segment_ + 1 != segments_) l4[13] &= static_cast<uint8_t>(~(kTcpFin | kTcpPsh));
  } else {
    StoreBe16(l4 + 4, l4_bytes);
  }
  const uint64_t pseudo = pseudo_header_sum_ + ChecksumOfField(l4_bytes);
  StoreBe16(l4 + inner_.checksum_offset(), ChecksumFold(pseudo));
}

}  // namespace braid
