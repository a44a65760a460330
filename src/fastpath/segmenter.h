// Cuts what TUN read, a packet or a super-packet of TCP or UDP, into packets that fit, without
// moving payload: the headers of each segment are written over the end of the payload before it,
// which by then has been sealed into another buffer and is no longer needed.
//
// The result is what the kernel's own segmentation gives (net/ipv4/tcp_offload.c, udp_offload.c):
// IPv4 identification counting up, sequence numbers, CWR on the first segment only, PSH and FIN on
// the last only; transport checksums partial.
#pragma once

#include <array>

#include "base/bytes.h"
#include "base/counters.h"
#include "fastpath/inner_packet.h"
#include "io/vnet_header.h"

namespace braid {

class Segmenter {
 public:
  // Takes the vnet header and packet at `from_tun`, which stays the caller's and must live until
  // the last Next(). False when it is no packet that could be sent.
  bool Begin(MutableBytes from_tun);

  // The packet's headers, as far as they are the same in every segment.
  Bytes packet() const { return packet_; }
  const InnerPacket& inner() const { return inner_; }
  // Of the first, which is the largest.
  size_t segment_bytes() const;
  // All but the last have segment_bytes().
  size_t segments() const { return segments_; }
  // Whether the checksum of the outermost transport header is partial in each segment.
  bool partial_checksum() const { return partial_checksum_; }

  // The next segment, valid until the next call. Empty after the last.
  MutableBytes Next();

  // For packets that are one segment: changes it in place before Next().
  MutableBytes mutable_packet() { return packet_; }

 private:
  static constexpr size_t kMaxHeadersBytes = 512;

  bool BeginPacket(const VnetHeader& vnet);
  bool BeginSuperPacket(const VnetHeader& vnet);
  bool FinishForeignChecksum(const VnetHeader& vnet);
  void TakeTemplate();
  void WriteHeaders(uint8_t* to, size_t payload_bytes);

  MutableBytes packet_;
  InnerPacket inner_{};
  bool partial_checksum_ = false;
  size_t segments_ = 0;
  size_t next_segment_ = 0;
  // Of a super-packet only.
  size_t payload_bytes_ = 0;
  size_t segment_payload_bytes_ = 0;
  std::array<uint8_t, kMaxHeadersBytes> headers_;
  uint16_t first_identification_ = 0;  // IPv4
  uint64_t ip_header_sum_ = 0;         // IPv4: without length, identification and checksum
  uint64_t pseudo_header_sum_ = 0;     // without the length
};

}  // namespace braid
