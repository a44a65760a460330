// Inner packets for tests: built field by field, with checksums that are computed by the letter of
// RFC 1071 and share nothing with the code under test.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "io/vnet_header.h"

namespace braid::testing {

using Buffer = std::vector<uint8_t>;
using Random = std::mt19937_64;

inline constexpr uint8_t kTcp = 6;
inline constexpr uint8_t kUdp = 17;
inline constexpr uint8_t kHopByHop = 0;
inline constexpr uint8_t kRouting = 43;
inline constexpr uint8_t kFragment = 44;
inline constexpr uint8_t kDestinationOptions = 60;

inline constexpr uint8_t kFin = 0x01;
inline constexpr uint8_t kSyn = 0x02;
inline constexpr uint8_t kRst = 0x04;
inline constexpr uint8_t kPsh = 0x08;
inline constexpr uint8_t kAck = 0x10;
inline constexpr uint8_t kUrg = 0x20;
inline constexpr uint8_t kEce = 0x40;
inline constexpr uint8_t kCwr = 0x80;

inline uint64_t Below(Random& random, uint64_t limit) { return random() % limit; }

inline Buffer RandomBytes(Random& random, size_t bytes) {
  Buffer buffer(bytes);
  for (uint8_t& byte : buffer) byte = static_cast<uint8_t>(random());
  return buffer;
}

// One 16-bit word after the other, most significant byte first, the carry added at once.
inline uint16_t OnesComplementSum(Bytes bytes, uint16_t start = 0) {
  uint32_t sum = start;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(bytes[i] << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0));
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(sum);
}

inline uint16_t PseudoSum(Bytes packet, uint8_t protocol, size_t l4_bytes) {
  const bool v6 = packet[0] >> 4 == 6;
  const uint8_t rest[] = {static_cast<uint8_t>(l4_bytes >> 24),
                          static_cast<uint8_t>(l4_bytes >> 16),
                          static_cast<uint8_t>(l4_bytes >> 8),
                          static_cast<uint8_t>(l4_bytes),
                          0,
                          0,
                          0,
                          protocol};
  return OnesComplementSum(rest,
                           OnesComplementSum(v6 ? packet.subspan(8, 32) : packet.subspan(12, 8)));
}

struct PacketSpec {
  bool v6 = false;
  uint8_t protocol = kTcp;
  uint8_t source_host = 1;
  uint8_t destination_host = 2;
  uint8_t service = 0;  // type of service, traffic class
  uint8_t ttl = 64;
  uint32_t flow_label = 0;
  uint16_t id = 0;
  uint16_t fragment_field = 0x4000;  // IPv4: don't fragment
  Buffer ip_options;                 // IPv4; a multiple of 4
  // IPv6: the type of each, and its bytes, of which the first is filled in here.
  std::vector<std::pair<uint8_t, Buffer>> extensions;

  uint16_t source_port = 40000;
  uint16_t destination_port = 443;
  bool udp_without_checksum = false;
  uint32_t tcp_sequence = 1;
  uint32_t tcp_acknowledgement = 7;
  uint8_t tcp_reserved = 0;
  uint8_t tcp_flags = kAck;
  uint16_t tcp_window = 512;
  uint16_t tcp_urgent = 0;
  Buffer tcp_options;  // a multiple of 4

  Buffer payload;

  size_t l4_offset() const {
    size_t offset = v6 ? 40 : 20 + ip_options.size();
    if (v6) {
      for (const auto& [type, bytes] : extensions) offset += bytes.size();
    }
    return offset;
  }
  size_t l4_header_bytes() const {
    return protocol == kTcp ? 20 + tcp_options.size() : protocol == kUdp ? 8 : 0;
  }
  size_t headers_bytes() const { return l4_offset() + l4_header_bytes(); }
  size_t checksum_offset() const { return protocol == kTcp ? 16 : 6; }
};

inline void SetIpv4Checksum(Buffer& packet) {
  StoreBe16(&packet[10], 0);
  const size_t header_bytes = static_cast<size_t>(packet[0] & 0xf) * 4;
  StoreBe16(&packet[10],
            static_cast<uint16_t>(~OnesComplementSum(Bytes(packet).first(header_bytes))));
}

inline PacketSpec SpecOf(bool v6, uint8_t protocol, size_t payload_bytes = 0) {
  PacketSpec spec;
  spec.v6 = v6;
  spec.protocol = protocol;
  spec.payload.resize(payload_bytes, 0x42);
  return spec;
}

// What most packets are.
struct Transport {
  bool v6;
  uint8_t protocol;
};
inline constexpr Transport kTransports[] = {
    {false, kTcp}, {true, kTcp}, {false, kUdp}, {true, kUdp}};

// Leaves what a kernel leaves that has offloaded the checksum: the sum over the pseudo-header.
inline void MakePartial(const PacketSpec& spec, Buffer& packet) {
  const size_t l4_bytes = packet.size() - spec.l4_offset();
  StoreBe16(&packet[spec.l4_offset() + spec.checksum_offset()],
            PseudoSum(packet, spec.protocol, l4_bytes));
}

// Sums from `start` on and puts the result where `at` says, as a device does that finishes a
// partial checksum.
inline void FinishPartial(Buffer& packet, size_t start, size_t at) {
  const auto checksum = static_cast<uint16_t>(~OnesComplementSum(Bytes(packet).subspan(start)));
  StoreBe16(&packet[at], checksum == 0 ? 0xffff : checksum);
}

inline void FinishPartial(const PacketSpec& spec, Buffer& packet) {
  FinishPartial(packet, spec.l4_offset(), spec.l4_offset() + spec.checksum_offset());
}

inline Buffer BuildIpHeader(const PacketSpec& spec, size_t l4_bytes) {
  Buffer packet(spec.l4_offset());
  const size_t bytes = packet.size() + l4_bytes;
  if (!spec.v6) {
    packet[0] = static_cast<uint8_t>(0x40 | spec.l4_offset() / 4);
    packet[1] = spec.service;
    StoreBe16(&packet[2], static_cast<uint16_t>(bytes));
    StoreBe16(&packet[4], spec.id);
    StoreBe16(&packet[6], spec.fragment_field);
    packet[8] = spec.ttl;
    packet[9] = spec.protocol;
    StoreBe32(&packet[12], 0x0a4d0000u | spec.source_host);
    StoreBe32(&packet[16], 0x0a4d0000u | spec.destination_host);
    std::copy(spec.ip_options.begin(), spec.ip_options.end(), packet.begin() + 20);
    SetIpv4Checksum(packet);
    return packet;
  }
  StoreBe32(&packet[0], 0x60000000u | static_cast<uint32_t>(spec.service) << 20 | spec.flow_label);
  StoreBe16(&packet[4], static_cast<uint16_t>(bytes - 40));
  packet[7] = spec.ttl;
  packet[8] = packet[24] = 0xfd;
  packet[23] = spec.source_host;
  packet[39] = spec.destination_host;
  size_t next_at = 6;
  size_t at = 40;
  for (const auto& [type, extension] : spec.extensions) {
    packet[next_at] = type;
    std::copy(extension.begin(), extension.end(), packet.begin() + static_cast<ptrdiff_t>(at));
    next_at = at;
    at += extension.size();
  }
  packet[next_at] = spec.protocol;
  return packet;
}

// The whole packet with whole checksums.
inline Buffer BuildPacket(const PacketSpec& spec) {
  const size_t l4_bytes = spec.l4_header_bytes() + spec.payload.size();
  Buffer packet = BuildIpHeader(spec, l4_bytes);
  const size_t l4 = spec.l4_offset();
  packet.resize(spec.headers_bytes());
  if (spec.l4_header_bytes() != 0) {
    StoreBe16(&packet[l4], spec.source_port);
    StoreBe16(&packet[l4 + 2], spec.destination_port);
  }
  if (spec.protocol == kTcp) {
    StoreBe32(&packet[l4 + 4], spec.tcp_sequence);
    StoreBe32(&packet[l4 + 8], spec.tcp_acknowledgement);
    packet[l4 + 12] = static_cast<uint8_t>(spec.l4_header_bytes() / 4 << 4 | spec.tcp_reserved);
    packet[l4 + 13] = spec.tcp_flags;
    StoreBe16(&packet[l4 + 14], spec.tcp_window);
    StoreBe16(&packet[l4 + 18], spec.tcp_urgent);
    std::copy(spec.tcp_options.begin(), spec.tcp_options.end(),
              packet.begin() + static_cast<ptrdiff_t>(l4 + 20));
  } else if (spec.protocol == kUdp) {
    StoreBe16(&packet[l4 + 4], static_cast<uint16_t>(l4_bytes));
  }
  packet.insert(packet.end(), spec.payload.begin(), spec.payload.end());
  if (spec.l4_header_bytes() != 0 && !spec.udp_without_checksum) {
    MakePartial(spec, packet);
    FinishPartial(spec, packet);
  }
  return packet;
}

// An extension header of 8 bytes that says nothing (PadN).
inline Buffer PaddingExtension(size_t bytes = 8) {
  Buffer extension(bytes);
  extension[1] = static_cast<uint8_t>(bytes / 8 - 1);
  extension[2] = 1;
  extension[3] = static_cast<uint8_t>(bytes - 4);
  return extension;
}

inline bool Ipv4HeaderIsRight(Bytes packet) {
  return OnesComplementSum(packet.first(static_cast<size_t>(packet[0] & 0xf) * 4)) == 0xffff;
}

// The IPv4 header's checksum, and that of the TCP or UDP header at `l4_offset`, over the whole
// rest.
inline bool ChecksumsAreRight(Bytes packet, uint8_t protocol, size_t l4_offset) {
  if (packet[0] >> 4 == 4 && !Ipv4HeaderIsRight(packet)) return false;
  const Bytes l4 = packet.subspan(l4_offset);
  return OnesComplementSum(l4, PseudoSum(packet, protocol, l4.size())) == 0xffff;
}

inline Buffer BehindVnetHeader(const VnetHeader& vnet, const Buffer& packet) {
  Buffer from_tun(kVnetHeaderBytes + packet.size());
  StoreNative(from_tun.data(), vnet);
  std::copy(packet.begin(), packet.end(), from_tun.begin() + kVnetHeaderBytes);
  return from_tun;
}

// The vnet header of a super-packet, or with no `gso_bytes` of a packet with a partial checksum.
inline VnetHeader VnetFor(const PacketSpec& spec, size_t gso_bytes = 0) {
  VnetHeader vnet{};
  vnet.flags = VnetHeader::kNeedsChecksum;
  if (gso_bytes != 0) {
    vnet.gso_type = spec.protocol == kUdp ? VnetHeader::kGsoUdpL4
                    : spec.v6             ? VnetHeader::kGsoTcpV6
                                          : VnetHeader::kGsoTcpV4;
  }
  vnet.header_bytes = static_cast<uint16_t>(spec.headers_bytes());
  vnet.gso_bytes = static_cast<uint16_t>(gso_bytes);
  vnet.checksum_start = static_cast<uint16_t>(spec.l4_offset());
  vnet.checksum_offset = static_cast<uint16_t>(spec.checksum_offset());
  return vnet;
}

}  // namespace braid::testing
