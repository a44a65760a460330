// Makes what an interface hands over, a frame or a super-frame behind a vnet header, into frames as
// a wire carries them: super-frames of TCP and UDP are cut by the tunnel's own segmenter, and a
// VLAN tag that the kernel has taken out of the frame is put back. Partial checksums stay partial.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "fastpath/segmenter.h"
#include "io/vnet_header.h"

namespace braid::linkem {

inline constexpr size_t kEthernetHeaderBytes = 14;
inline constexpr size_t kVlanTagBytes = 4;

struct VlanTag {
  uint16_t protocol;  // 0x8100 or 0x88a8
  uint16_t control;   // priority and number
};

// One frame, in two parts behind each other.
struct FramePiece {
  VnetHeader vnet;
  Bytes head;  // of Ethernet, or its addresses and a tag
  Bytes body;

  size_t bytes() const { return head.size() + body.size(); }
};

class FrameCutter {
 public:
  // Takes what was read, which stays the caller's until the last Next() and is written over. False
  // when it is no frame, or a super-frame of a kind that cannot be cut.
  bool Begin(MutableBytes vnet_and_frame, const std::optional<VlanTag>& tag);

  // False when there are no more. A piece is valid until the next call.
  bool Next(FramePiece& piece);

 private:
  static constexpr size_t kMaxInlineTags = 2;
  static constexpr size_t kAddressesBytes = 12;

  void PutHead(Bytes from, const std::optional<VlanTag>& tag);

  std::array<uint8_t, kEthernetHeaderBytes + (kMaxInlineTags + 1) * kVlanTagBytes> head_;
  size_t head_bytes_ = 0;
  bool whole_ = false;  // one frame, which is given as it is
  bool whole_given_ = false;
  FramePiece whole_piece_;
  Segmenter segmenter_;
};

}  // namespace braid::linkem
