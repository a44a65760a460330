#include "fastpath/readdress.h"

#include <cstring>

namespace braid {
namespace {

// `field` is a checksum, inverted as they stand in headers, of what had `before` in it.
uint16_t Exchange(uint16_t field, uint64_t before, uint64_t after) {
  const uint64_t sum = ChecksumOfField(static_cast<uint16_t>(~field)) +
                       ChecksumOfField(static_cast<uint16_t>(~ChecksumFold(before))) +
                       ChecksumOfField(ChecksumFold(after));
  return static_cast<uint16_t>(~ChecksumFold(sum));
}

}  // namespace

void Readdress(MutableBytes packet, const InnerPacket& inner, const FlowKey& to,
               bool partial_checksum) {
  const size_t address_bytes = inner.v6 ? 16 : 4;
  const MutableBytes addresses = packet.subspan(inner.v6 ? 8 : 12, 2 * address_bytes);
  const MutableBytes ports = packet.subspan(inner.l4_offset, 4);
  const uint64_t addresses_before = ChecksumAdd(addresses);
  const uint64_t ports_before = ChecksumAdd(ports);
  std::memcpy(addresses.data(), to.source.bytes.data(), address_bytes);
  std::memcpy(addresses.data() + address_bytes, to.destination.bytes.data(), address_bytes);
  StoreBe16(ports.data(), to.source_port);
  StoreBe16(ports.data() + 2, to.destination_port);
  const uint64_t addresses_after = ChecksumAdd(addresses);
  const uint64_t ports_after = ChecksumAdd(ports);
  if (!inner.v6) {
    uint8_t* field = &packet[10];
    StoreBe16(field, Exchange(LoadBe16(field), addresses_before, addresses_after));
  }
  uint8_t* field = &packet[size_t{inner.l4_offset} + inner.checksum_offset()];
  const uint16_t before = LoadBe16(field);
  if (partial_checksum) {
    // The sum of the pseudo-header, which has the addresses and is not inverted.
    const auto inverted = static_cast<uint16_t>(~before);
    StoreBe16(field, static_cast<uint16_t>(~Exchange(inverted, addresses_before, addresses_after)));
    return;
  }
  const bool is_udp = inner.protocol == kProtocolUdp;
  if (is_udp && before == 0) return;
  const uint16_t after =
      Exchange(before, addresses_before + ports_before, addresses_after + ports_after);
  StoreBe16(field, is_udp && after == 0 ? 0xffff : after);
}

}  // namespace braid
