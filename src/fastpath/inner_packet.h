// What braid reads of an inner packet: where its headers end, whose it is, and its checksums.
// RFC 791, RFC 8200, RFC 9293 (TCP), RFC 768 (UDP), RFC 1071 (checksum).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/address.h"
#include "base/bytes.h"

namespace braid {

inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kProtocolIcmpV6 = 58;

inline constexpr uint16_t kDnsPort = 53;

inline constexpr uint8_t kTcpFin = 0x01;
inline constexpr uint8_t kTcpSyn = 0x02;
inline constexpr uint8_t kTcpRst = 0x04;
inline constexpr uint8_t kTcpPsh = 0x08;
inline constexpr uint8_t kTcpAck = 0x10;
inline constexpr uint8_t kTcpEce = 0x40;
inline constexpr uint8_t kTcpCwr = 0x80;

struct InnerPacket {
  bool v6;
  bool fragment;             // any but a whole packet
  bool routed;               // IPv6: a routing header holds the final destination, which is summed
  uint8_t protocol;          // of the outermost transport header
  uint16_t l4_offset;        // where that begins
  uint16_t l4_header_bytes;  // of TCP or UDP when whole and neither of the above, else 0

  size_t headers_bytes() const { return size_t{l4_offset} + l4_header_bytes; }
  bool is_tcp() const { return l4_header_bytes != 0 && protocol == kProtocolTcp; }
  bool is_udp() const { return l4_header_bytes != 0 && protocol == kProtocolUdp; }
  // Of the checksum inside the transport header.
  uint16_t checksum_offset() const { return protocol == kProtocolTcp ? 16 : 6; }
};

// False when `packet` is no IPv4 or IPv6 packet, or its lengths contradict its size.
bool ParseInner(Bytes packet, InnerPacket& inner);

IpAddress InnerSource(Bytes packet);
IpAddress InnerDestination(Bytes packet);

// The sequence number behind a TCP segment, or all segments of a super-packet.
inline uint32_t TcpSequenceEnd(Bytes packet, const InnerPacket& inner) {
  const uint8_t* segment = &packet[inner.l4_offset];
  const size_t payload_bytes = packet.size() - inner.headers_bytes();
  const size_t length = payload_bytes + ((segment[13] & kTcpSyn) != 0 ? 1 : 0) +
                        ((segment[13] & kTcpFin) != 0 ? 1 : 0);
  return static_cast<uint32_t>(LoadBe32(segment + 4) + length);
}

// Ones' complement sum, not folded, not inverted; `bytes` begins at an even offset.
uint64_t ChecksumAdd(Bytes bytes, uint64_t sum = 0);
// What a 16-bit field with this value, at an even offset, adds to such a sum.
inline uint64_t ChecksumOfField(uint16_t value) { return __builtin_bswap16(value); }
uint16_t ChecksumFold(uint64_t sum);
// The sum over the pseudo-header of a transport segment of `l4_bytes`.
uint64_t PseudoHeaderSum(Bytes packet, const InnerPacket& inner, uint32_t l4_bytes);

// Puts a correct checksum over the transport segment where `checksum_at` (absolute offset) says,
// summing from `start` on; the field holds the pseudo-header's sum already (as the kernel leaves
// it).
void FinishChecksum(MutableBytes packet, size_t start, size_t checksum_at);

// Whether the transport checksum of this whole, unfragmented TCP or UDP packet is right.
bool ChecksumIsValid(Bytes packet, const InnerPacket& inner);

void SetIpv4HeaderChecksum(uint8_t* header);
bool Ipv4HeaderChecksumIsValid(const uint8_t* header);

// Lowers the MSS option of a TCP SYN to what `mtu` can carry; the checksum is kept right (RFC
// 1624), whether it is whole or partial. Does nothing to other packets.
void ClampMss(MutableBytes packet, const InnerPacket& inner, size_t mtu, bool partial_checksum);

}  // namespace braid
