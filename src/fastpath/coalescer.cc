#include "fastpath/coalescer.h"

#include <cstring>

#include "base/limits.h"

namespace braid {
namespace {

constexpr uint8_t kTcpEndsRun = kTcpFin | kTcpPsh;
constexpr uint16_t kDontFragment = 0x4000;

bool SameAddresses(const uint8_t* a, const uint8_t* b, bool v6) {
  return v6 ? std::memcmp(a + 8, b + 8, 32) == 0 : std::memcmp(a + 12, b + 12, 8) == 0;
}

// Everything of the IP header that the joined packet keeps from the first.
bool SameIpHeader(const uint8_t* a, const uint8_t* b, const InnerPacket& inner) {
  if (inner.v6) {
    // Class, label, next header, hop limit, addresses, extension headers.
    return LoadNative<uint32_t>(a) == LoadNative<uint32_t>(b) &&
           std::memcmp(a + 6, b + 6, inner.l4_offset - 6) == 0;
  }
  return LoadNative<uint16_t>(a) == LoadNative<uint16_t>(b) &&          // version, length, service
         LoadNative<uint16_t>(a + 6) == LoadNative<uint16_t>(b + 6) &&  // flags
         LoadNative<uint16_t>(a + 8) == LoadNative<uint16_t>(b + 8) &&  // time to live, protocol
         std::memcmp(a + 12, b + 12, inner.l4_offset - 12) == 0;        // addresses, options
}

// The kernel counts the identification up in each segment that it cuts.
bool FollowsInIdentification(const uint8_t* first, const uint8_t* next, size_t distance) {
  const uint16_t first_id = LoadBe16(first + 4);
  const uint16_t next_id = LoadBe16(next + 4);
  if (next_id == static_cast<uint16_t>(first_id + distance)) return true;
  return next_id == first_id && (LoadBe16(first + 6) & kDontFragment) != 0;
}

bool SameTcpHeader(const uint8_t* a, const uint8_t* b, size_t header_bytes) {
  return LoadNative<uint32_t>(a) == LoadNative<uint32_t>(b) &&            // ports
         LoadNative<uint32_t>(a + 8) == LoadNative<uint32_t>(b + 8) &&    // acknowledgement
         a[12] == b[12] && ((a[13] ^ b[13]) & ~kTcpEndsRun) == 0 &&       // length, flags
         LoadNative<uint16_t>(a + 14) == LoadNative<uint16_t>(b + 14) &&  // window
         LoadNative<uint16_t>(a + 18) == LoadNative<uint16_t>(b + 18) &&  // urgent pointer
         std::memcmp(a + 20, b + 20, header_bytes - 20) == 0;             // options
}

}  // namespace

bool Coalescer::Add(MutableBytes packet, const InnerPacket& inner, bool partial_checksum) {
  if (runs_used_ == kMaxRuns) return false;
  const bool may_join = MayJoin(packet, inner);
  if (may_join) {
    for (size_t slot = 0; slot < open_used_; ++slot) {
      if (!TryAppend(runs_[open_[slot]], packet, inner, partial_checksum)) continue;
      const Run& run = runs_[open_[slot]];
      if (run.payload_bytes > packet.size() - inner.headers_bytes() ||
          (run.last_tcp_flags & kTcpEndsRun) != 0 || run.parts_used == kMaxParts) {
        CloseRun(slot);
      }
      return true;
    }
  }
  CloseRunsOfSameFlow(packet, inner);

  Run& run = runs_[runs_used_];
  run.parts[0] = {packet.data(), packet.size()};
  run.parts_used = 1;
  run.bytes = packet.size();
  run.packet = packet.data();
  run.inner = inner;
  run.partial_checksum = partial_checksum;
  run.verified = false;
  run.payload_bytes = packet.size() - inner.headers_bytes();
  run.last_tcp_flags = 0;
  if (inner.is_tcp()) {
    const uint8_t* tcp = packet.data() + inner.l4_offset;
    run.next_tcp_sequence = static_cast<uint32_t>(LoadBe32(tcp + 4) + run.payload_bytes);
    run.last_tcp_flags = tcp[13];
  }
  if (may_join && (run.last_tcp_flags & kTcpEndsRun) == 0) {
    if (open_used_ == kMaxOpenRuns) CloseRun(0);
    open_[open_used_++] = static_cast<uint16_t>(runs_used_);
  }
  ++runs_used_;
  return true;
}

bool Coalescer::MayJoin(Bytes packet, const InnerPacket& inner) const {
  if (packet.size() <= inner.headers_bytes()) return false;
  // The joined packet's header is summed anew, which must not heal a broken one.
  if (!inner.v6 && !Ipv4HeaderChecksumIsValid(packet.data())) return false;
  const uint8_t* l4 = packet.data() + inner.l4_offset;
  if (inner.is_tcp()) {
    return options_.tcp && (l4[13] & ~(kTcpEndsRun | kTcpEce)) == kTcpAck;
  }
  // Without a checksum (IPv4) it must stay without one.
  return inner.is_udp() && options_.udp && LoadNative<uint16_t>(l4 + 6) != 0;
}

bool Coalescer::TryAppend(Run& run, MutableBytes packet, const InnerPacket& inner,
                          bool partial_checksum) {
  if (run.inner.v6 != inner.v6 || run.inner.protocol != inner.protocol ||
      run.inner.l4_offset != inner.l4_offset ||
      run.inner.l4_header_bytes != inner.l4_header_bytes) {
    return false;
  }
  const size_t payload_bytes = packet.size() - inner.headers_bytes();
  if (payload_bytes > run.payload_bytes || run.bytes + payload_bytes > kMaxJoinedBytes)
    return false;
  if (!SameIpHeader(run.packet, packet.data(), inner)) return false;
  if (!inner.v6 && !FollowsInIdentification(run.packet, packet.data(), run.parts_used))
    return false;
  const uint8_t* first_l4 = run.packet + inner.l4_offset;
  const uint8_t* l4 = packet.data() + inner.l4_offset;
  if (inner.is_tcp()) {
    if (LoadBe32(l4 + 4) != run.next_tcp_sequence) return false;
    if (!SameTcpHeader(first_l4, l4, inner.l4_header_bytes)) return false;
  } else if (LoadNative<uint32_t>(first_l4) != LoadNative<uint32_t>(l4)) {
    return false;
  }
  if (!partial_checksum && !ChecksumIsValid(packet, inner)) return false;
  if (!run.partial_checksum && !run.verified) {
    if (!ChecksumIsValid({run.packet, run.parts[0].iov_len}, inner)) return false;
    run.verified = true;
  }
  run.parts[run.parts_used++] = {packet.data() + inner.headers_bytes(), payload_bytes};
  run.bytes += payload_bytes;
  run.next_tcp_sequence += static_cast<uint32_t>(payload_bytes);
  if (inner.is_tcp()) run.last_tcp_flags = l4[13];
  return true;
}

void Coalescer::CloseRunsOfSameFlow(Bytes packet, const InnerPacket& inner) {
  for (size_t slot = open_used_; slot-- > 0;) {
    const Run& run = runs_[open_[slot]];
    if (run.inner.v6 != inner.v6 || !SameAddresses(run.packet, packet.data(), inner.v6)) continue;
    const bool other_flow = inner.l4_header_bytes != 0 &&
                            (run.inner.protocol != inner.protocol ||
                             LoadNative<uint32_t>(run.packet + run.inner.l4_offset) !=
                                 LoadNative<uint32_t>(packet.data() + inner.l4_offset));  // ports
    if (!other_flow) CloseRun(slot);
  }
}

void Coalescer::CloseRun(size_t open_slot) {
  for (size_t slot = open_slot + 1; slot < open_used_; ++slot) open_[slot - 1] = open_[slot];
  --open_used_;
}

std::span<WriteRequest> Coalescer::Finish(int tun_fd) {
  for (size_t i = 0; i < runs_used_; ++i) {
    Run& run = runs_[i];
    WriteHeaders(run);
    // The vnet header stands right in front of the first packet.
    run.parts[0].iov_base = run.packet - kVnetHeaderBytes;
    run.parts[0].iov_len += kVnetHeaderBytes;
    requests_[i] = {tun_fd, {run.parts.data(), run.parts_used}, 0};
  }
  return {requests_.data(), runs_used_};
}

void Coalescer::WriteHeaders(Run& run) {
  VnetHeader vnet{};
  const InnerPacket& inner = run.inner;
  uint8_t* l4 = run.packet + inner.l4_offset;
  if (run.parts_used > 1) {
    const auto l4_bytes = static_cast<uint32_t>(run.bytes - inner.l4_offset);
    if (inner.v6) {
      StoreBe16(run.packet + 4, static_cast<uint16_t>(run.bytes - 40));
    } else {
      StoreBe16(run.packet + 2, static_cast<uint16_t>(run.bytes));
      SetIpv4HeaderChecksum(run.packet);
    }
    if (inner.is_tcp()) {
      l4[13] = run.last_tcp_flags;
      vnet.gso_type = inner.v6 ? VnetHeader::kGsoTcpV6 : VnetHeader::kGsoTcpV4;
    } else {
      StoreBe16(l4 + 4, static_cast<uint16_t>(l4_bytes));
      vnet.gso_type = VnetHeader::kGsoUdpL4;
    }
    const uint64_t pseudo = PseudoHeaderSum({run.packet, run.bytes}, inner, l4_bytes);
    StoreBe16(l4 + inner.checksum_offset(), ChecksumFold(pseudo));
    vnet.header_bytes = static_cast<uint16_t>(inner.headers_bytes());
    vnet.gso_bytes = static_cast<uint16_t>(run.payload_bytes);
  }
  if (run.parts_used > 1 || run.partial_checksum) {
    vnet.flags = VnetHeader::kNeedsChecksum;
    vnet.checksum_start = inner.l4_offset;
    vnet.checksum_offset = inner.checksum_offset();
  }
  StoreNative(run.packet - kVnetHeaderBytes, vnet);
}

void Coalescer::Clear() {
  runs_used_ = 0;
  open_used_ = 0;
}

}  // namespace braid
