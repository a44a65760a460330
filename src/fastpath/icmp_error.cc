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

struct TypeAndCode {
  uint8_t type;
  uint8_t code;
};
constexpr struct {
  TypeAndCode v4, v6;
} kErrors[] = {
    {{3, 4}, {2, 0}},   // kTooBig
    {{3, 0}, {1, 0}},   // kNoNetwork
    {{3, 1}, {1, 3}},   // kNoHost
    {{3, 3}, {1, 4}},   // kNoPort
    {{3, 13}, {1, 1}},  // kProhibited
};

size_t WriteV4(Bytes quoted, IcmpError error, uint8_t* to) {
  const size_t bytes = 28 + quoted.size();
  std::memset(to, 0, 28);
  to[0] = 0x45;
  StoreBe16(to + 2, static_cast<uint16_t>(bytes));
  to[8] = 64;
  to[9] = kProtocolIcmp;
  std::memcpy(to + 12, &quoted[16], 4);
  std::memcpy(to + 16, &quoted[12], 4);
  SetIpv4HeaderChecksum(to);
  const TypeAndCode is = kErrors[static_cast<size_t>(error.what)].v4;
  to[20] = is.type;
  to[21] = is.code;
  StoreBe16(to + 26, error.mtu);
  std::memcpy(to + 28, quoted.data(), quoted.size());
  StoreBe16(to + 22, static_cast<uint16_t>(~ChecksumFold(ChecksumAdd({to + 20, bytes - 20}))));
  return bytes;
}

size_t WriteV6(Bytes quoted, IcmpError error, uint8_t* to) {
  const size_t bytes = 48 + quoted.size();
  std::memset(to, 0, 48);
  to[0] = 0x60;
  StoreBe16(to + 4, static_cast<uint16_t>(bytes - 40));
  to[6] = kProtocolIcmpV6;
  to[7] = 64;
  std::memcpy(to + 8, &quoted[24], 16);
  std::memcpy(to + 24, &quoted[8], 16);
  const TypeAndCode is = kErrors[static_cast<size_t>(error.what)].v6;
  to[40] = is.type;
  to[41] = is.code;
  StoreBe32(to + 44, error.mtu);
  std::memcpy(to + 48, quoted.data(), quoted.size());
  InnerPacket outer{};
  outer.v6 = true;
  outer.protocol = kProtocolIcmpV6;
  const uint64_t pseudo = PseudoHeaderSum({to, bytes}, outer, static_cast<uint32_t>(bytes - 40));
  StoreBe16(to + 42,
            static_cast<uint16_t>(~ChecksumFold(ChecksumAdd({to + 40, bytes - 40}, pseudo))));
  return bytes;
}

}  // namespace

size_t WriteIcmpError(Bytes packet, const InnerPacket& inner, IcmpError error, MutableBytes to) {
  if (!MayAnswer(packet, inner)) return 0;
  const Bytes quoted = packet.first(std::min(packet.size(), kQuotedBytes));
  return inner.v6 ? WriteV6(quoted, error, to.data()) : WriteV4(quoted, error, to.data());
}

}  // namespace braid
