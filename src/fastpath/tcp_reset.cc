#include "fastpath/tcp_reset.h"

#include <cstring>

namespace braid {
namespace {

constexpr size_t kTcpHeaderBytes = 20;

size_t WriteIpHeader(const FlowKey& flow, uint8_t* to) {
  const bool v6 = flow.source.is_v6();
  const size_t ip_bytes = v6 ? 40 : 20;
  std::memset(to, 0, ip_bytes);
  if (v6) {
    to[0] = 0x60;
    StoreBe16(to + 4, kTcpHeaderBytes);
    to[6] = kProtocolTcp;
    to[7] = 64;
    std::memcpy(to + 8, flow.source.bytes.data(), 16);
    std::memcpy(to + 24, flow.destination.bytes.data(), 16);
    return ip_bytes;
  }
  to[0] = 0x45;
  StoreBe16(to + 2, static_cast<uint16_t>(ip_bytes + kTcpHeaderBytes));
  StoreBe16(to + 6, 0x4000);  // nothing to fragment, so no identification is needed
  to[8] = 64;
  to[9] = kProtocolTcp;
  std::memcpy(to + 12, flow.source.bytes.data(), 4);
  std::memcpy(to + 16, flow.destination.bytes.data(), 4);
  SetIpv4HeaderChecksum(to);
  return ip_bytes;
}

size_t WriteSegment(const FlowKey& flow, uint32_t sequence, uint32_t acknowledgement, uint8_t flags,
                    MutableBytes to) {
  const size_t ip_bytes = WriteIpHeader(flow, to.data());
  uint8_t* tcp = to.data() + ip_bytes;
  std::memset(tcp, 0, kTcpHeaderBytes);
  StoreBe16(tcp, flow.source_port);
  StoreBe16(tcp + 2, flow.destination_port);
  StoreBe32(tcp + 4, sequence);
  StoreBe32(tcp + 8, acknowledgement);
  tcp[12] = kTcpHeaderBytes / 4 << 4;
  tcp[13] = flags;
  const MutableBytes whole = to.first(ip_bytes + kTcpHeaderBytes);
  InnerPacket inner{};
  inner.v6 = flow.source.is_v6();
  inner.protocol = kProtocolTcp;
  const uint64_t pseudo = PseudoHeaderSum(whole, inner, kTcpHeaderBytes);
  StoreBe16(tcp + 16,
            static_cast<uint16_t>(~ChecksumFold(ChecksumAdd({tcp, kTcpHeaderBytes}, pseudo))));
  return whole.size();
}

}  // namespace

size_t WriteTcpReset(Bytes packet, const InnerPacket& inner, MutableBytes to) {
  if (!inner.is_tcp()) return 0;
  const uint8_t* segment = &packet[inner.l4_offset];
  const uint8_t flags = segment[13];
  if ((flags & kTcpRst) != 0) return 0;
  const FlowKey back = FlowKey::Of(packet, inner).Reversed();
  if ((flags & kTcpAck) != 0) return WriteSegment(back, LoadBe32(segment + 8), 0, kTcpRst, to);
  const uint32_t end = TcpSequenceEnd(packet, inner);
  return WriteSegment(back, 0, end, kTcpRst | kTcpAck, to);
}

size_t WriteTcpResetOf(const FlowKey& flow, uint32_t sequence, MutableBytes to) {
  return WriteSegment(flow, sequence, 0, kTcpRst, to);
}

}  // namespace braid
