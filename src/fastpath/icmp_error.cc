#include "fastpath/icmp_error.h"

#include <algorithm>
#include <cstring>

namespace braid {
namespace {

constexpr size_t kQuotedBytes = 548;  // RFC 1812: the whole error stays within 576 bytes

bool MayAnswer(Bytes packet, const InnerPacket& inner) {
  const uint8_t* from = packet.data();
  const bool from_nobody =
      InnerSource(packet).is_unspecified() || (inner.v6 ? from[8] == 0xff : from[12] >= 224);
  if (from_nobody) return false;
  if (inner.v6) {
    const bool multicast = from[24] == 0xff;
    const bool icmp_error = inner.protocol == kProtocolIcmpV6 && packet.size() > inner.l4_offset &&
                            (packet[inner.l4_offset] & 0x80) == 0;
    return !multicast && !icmp_error;
  }
  const bool multicast = from[16] >= 224;
  const bool later_fragment = (LoadBe16(from + 6) & 0x1fff) != 0;
  if (multicast || later_fragment) return false;
  if (inner.protocol != kProtocolIcmp || packet.size() <= inner.l4_offset) return true;
  const uint8_t type = packet[inner.l4_offset];
  return type == 0 || type == 8;
}

size_t WriteTooBigV4(Bytes quoted, uint16_t mtu, uint8_t* to) {
  const size_t bytes = 28 + quoted.size();
  std::memset(to, 0, 28);
  to[0] = 0x45;
  StoreBe16(to + 2, static_cast<uint16_t>(bytes));
  to[8] = 64;
  to[9] = kProtocolIcmp;
  std::memcpy(to + 12, &quoted[16], 4);
  std::memcpy(to + 16, &quoted[12], 4);
  SetIpv4HeaderChecksum(to);
  to[20] = 3;  // destination unreachable
  to[21] = 4;  // fragmentation needed
  StoreBe16(to + 26, mtu);
  std::memcpy(to + 28, quoted.data(), quoted.size());
  StoreBe16(to + 22, static_cast<uint16_t>(~ChecksumFold(ChecksumAdd({to + 20, bytes - 20}))));
  return bytes;
}

size_t WriteTooBigV6(Bytes quoted, uint16_t mtu, uint8_t* to) {
  const size_t bytes = 48 + quoted.size();
  std::memset(to, 0, 48);
  to[0] = 0x60;
  StoreBe16(to + 4, static_cast<uint16_t>(bytes - 40));
  to[6] = kProtocolIcmpV6;
  to[7] = 64;
  std::memcpy(to + 8, &quoted[24], 16);
  std::memcpy(to + 24, &quoted[8], 16);
  to[40] = 2;  // packet too big
  StoreBe32(to + 44, mtu);
  std::memcpy(to + 48, quoted.data(), quoted.size());
  InnerPacket error{};
  error.v6 = true;
  error.protocol = kProtocolIcmpV6;
  const uint64_t pseudo = PseudoHeaderSum({to, bytes}, error, static_cast<uint32_t>(bytes - 40));
  StoreBe16(to + 42,
            static_cast<uint16_t>(~ChecksumFold(ChecksumAdd({to + 40, bytes - 40}, pseudo))));
  return bytes;
}

}  // namespace

size_t WriteTooBig(Bytes packet, const InnerPacket& inner, uint16_t mtu, MutableBytes to) {
  if (!MayAnswer(packet, inner)) return 0;
  const Bytes quoted = packet.first(std::min(packet.size(), kQuotedBytes));
  return inner.v6 ? WriteTooBigV6(quoted, mtu, to.data()) : WriteTooBigV4(quoted, mtu, to.data());
}

}  // namespace braid
