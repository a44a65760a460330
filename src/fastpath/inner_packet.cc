#include "fastpath/inner_packet.h"

#include <algorithm>

namespace braid {
namespace {

constexpr uint8_t kHopByHop = 0;
constexpr uint8_t kRouting = 43;
constexpr uint8_t kFragment = 44;
constexpr uint8_t kDestinationOptions = 60;

constexpr uint8_t kTcpOptionEnd = 0;
constexpr uint8_t kTcpOptionNop = 1;
constexpr uint8_t kTcpOptionMss = 2;

bool ParseIpv4(Bytes packet, InnerPacket& inner) {
  if (packet.size() < 20) return false;
  const size_t header_bytes = static_cast<size_t>(packet[0] & 0xf) * 4;
  if (header_bytes < 20 || header_bytes > packet.size()) return false;
  if (LoadBe16(&packet[2]) != packet.size()) return false;
  inner.fragment = (LoadBe16(&packet[6]) & 0x3fff) != 0;
  inner.protocol = packet[9];
  inner.l4_offset = static_cast<uint16_t>(header_bytes);
  return true;
}

bool ParseIpv6(Bytes packet, InnerPacket& inner) {
  if (packet.size() < 40) return false;
  if (size_t{LoadBe16(&packet[4])} + 40 != packet.size()) return false;
  inner.fragment = false;
  uint8_t next = packet[6];
  size_t offset = 40;
  while (next == kHopByHop || next == kRouting || next == kDestinationOptions ||
         next == kFragment) {
    if (offset + 8 > packet.size()) break;  // what is cut off is the receiving host's business
    size_t bytes = 8;
    if (next == kFragment) {
      // An atomic fragment (RFC 6946) is a whole packet, but is not taken for one here either.
      inner.fragment = true;
    } else {
      bytes = (static_cast<size_t>(packet[offset + 1]) + 1) * 8;
      if (next == kRouting && packet[offset + 3] != 0) inner.routed = true;
    }
    if (offset + bytes > packet.size()) break;
    next = packet[offset];
    offset += bytes;
  }
  inner.protocol = next;
  inner.l4_offset = static_cast<uint16_t>(offset);
  return true;
}

// The bytes of the transport header when it is a whole TCP or UDP header, else 0.
uint16_t TransportHeaderBytes(Bytes packet, const InnerPacket& inner) {
  if (inner.fragment || inner.routed) return 0;
  const Bytes l4 = packet.subspan(inner.l4_offset);
  if (inner.protocol == kProtocolUdp) {
    return l4.size() >= 8 && LoadBe16(&l4[4]) == l4.size() ? 8 : 0;
  }
  if (inner.protocol == kProtocolTcp && l4.size() >= 20) {
    const size_t bytes = static_cast<size_t>(l4[12] >> 4) * 4;
    return bytes >= 20 && bytes <= l4.size() ? static_cast<uint16_t>(bytes) : 0;
  }
  return 0;
}

}  // namespace

bool ParseInner(Bytes packet, InnerPacket& inner) {
  if (packet.empty()) return false;
  inner = {};
  const int version = packet[0] >> 4;
  inner.v6 = version == 6;
  if (version == 4 ? !ParseIpv4(packet, inner) : version != 6 || !ParseIpv6(packet, inner)) {
    return false;
  }
  inner.l4_header_bytes = TransportHeaderBytes(packet, inner);
  return true;
}

IpAddress InnerSource(Bytes packet) {
  return packet[0] >> 4 == 4 ? IpAddress::V4(&packet[12]) : IpAddress::V6(&packet[8]);
}

IpAddress InnerDestination(Bytes packet) {
  return packet[0] >> 4 == 4 ? IpAddress::V4(&packet[16]) : IpAddress::V6(&packet[24]);
}

// Sums 32-bit words in native order, which the ones' complement sum does not mind (RFC 1071 §2B);
// the fold turns the result round.
uint64_t ChecksumAdd(Bytes bytes, uint64_t sum) {
  const uint8_t* from = bytes.data();
  size_t left = bytes.size();
  for (; left >= 4; from += 4, left -= 4) sum += LoadNative<uint32_t>(from);
  if (left >= 2) {
    sum += LoadNative<uint16_t>(from);
    from += 2;
    left -= 2;
  }
  if (left != 0) sum += *from;
  return sum;
}

uint16_t ChecksumFold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return __builtin_bswap16(static_cast<uint16_t>(sum));
}

uint64_t PseudoHeaderSum(Bytes packet, const InnerPacket& inner, uint32_t l4_bytes) {
  const Bytes addresses = inner.v6 ? packet.subspan(8, 32) : packet.subspan(12, 8);
  uint8_t rest[8] = {};
  StoreBe32(rest, l4_bytes);
  rest[7] = inner.protocol;
  return ChecksumAdd(rest, ChecksumAdd(addresses));
}

void FinishChecksum(MutableBytes packet, size_t start, size_t checksum_at) {
  const uint16_t checksum =
      static_cast<uint16_t>(~ChecksumFold(ChecksumAdd(packet.subspan(start))));
  // 0 would mean "no checksum" in UDP, and 0xffff is the same number in ones' complement.
  StoreBe16(&packet[checksum_at], checksum == 0 ? 0xffff : checksum);
}

bool ChecksumIsValid(Bytes packet, const InnerPacket& inner) {
  const Bytes l4 = packet.subspan(inner.l4_offset);
  const uint64_t sum = PseudoHeaderSum(packet, inner, static_cast<uint32_t>(l4.size()));
  return ChecksumFold(ChecksumAdd(l4, sum)) == 0xffff;
}

void SetIpv4HeaderChecksum(uint8_t* header) {
  StoreBe16(header + 10, 0);
  const Bytes bytes(header, static_cast<size_t>(header[0] & 0xf) * 4);
  StoreBe16(header + 10, static_cast<uint16_t>(~ChecksumFold(ChecksumAdd(bytes))));
}

bool Ipv4HeaderChecksumIsValid(const uint8_t* header) {
  return ChecksumFold(ChecksumAdd({header, static_cast<size_t>(header[0] & 0xf) * 4})) == 0xffff;
}

void ClampMss(MutableBytes packet, const InnerPacket& inner, size_t mtu, bool partial_checksum) {
  if (!inner.is_tcp()) return;
  uint8_t* tcp = &packet[inner.l4_offset];
  if ((tcp[13] & kTcpSyn) == 0) return;
  const auto largest = static_cast<uint16_t>(std::min<size_t>(mtu - (inner.v6 ? 60 : 40), 65535));
  for (size_t at = 20; at + 4 <= inner.l4_header_bytes;) {
    if (tcp[at] == kTcpOptionEnd) return;
    if (tcp[at] == kTcpOptionNop) {
      ++at;
      continue;
    }
    if (tcp[at] == kTcpOptionMss && tcp[at + 1] == 4) {
      const uint16_t old_mss = LoadBe16(tcp + at + 2);
      if (old_mss <= largest) return;
      StoreBe16(tcp + at + 2, largest);
      if (partial_checksum) return;
      // At an odd offset the value's bytes stand swapped in the sum.
      const bool odd = at % 2 != 0;
      const uint16_t before = odd ? __builtin_bswap16(old_mss) : old_mss;
      const uint16_t after = odd ? __builtin_bswap16(largest) : largest;
      uint32_t sum = static_cast<uint16_t>(~LoadBe16(tcp + 16));
      sum += static_cast<uint16_t>(~before);
      sum += after;
      sum = (sum & 0xffff) + (sum >> 16);
      sum = (sum & 0xffff) + (sum >> 16);
      StoreBe16(tcp + 16, static_cast<uint16_t>(~sum));
      return;
    }
    if (tcp[at + 1] < 2) return;  // a malformed option: not ours to mend
    at += tcp[at + 1];
  }
}

}  // namespace braid
