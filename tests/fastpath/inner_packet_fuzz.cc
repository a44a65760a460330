// Any bytes as an inner packet: what is found lies inside, changing it keeps it whole, and errors
// about it are packets themselves.
#include "base/flow_hash.h"
#include "base/limits.h"
#include "fastpath/icmp_error.h"
#include "fastpath/inner_packet.h"
#include "support/fuzz_input.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::Check;

void CheckClamped(const Buffer& packet, const InnerPacket& inner, bool partial) {
  const bool was_valid = inner.is_tcp() && ChecksumIsValid(packet, inner);
  Buffer clamped = packet;
  ClampMss(clamped, inner, kMinMtu, partial);
  InnerPacket again;
  Check(ParseInner(clamped, again));
  Check(again.headers_bytes() == inner.headers_bytes());
  size_t changed = 0;
  for (size_t i = 0; i < packet.size(); ++i) changed += packet[i] != clamped[i] ? 1 : 0;
  Check(changed <= (partial ? 2 : 4));
  if (was_valid && !partial) Check(ChecksumIsValid(clamped, again));
}

void CheckTooBig(const Buffer& packet, const InnerPacket& inner) {
  Buffer error(640);
  const size_t bytes = WriteIcmpError(packet, inner, {IcmpError::What::kTooBig, kMinMtu}, error);
  Check(bytes <= error.size());
  if (bytes == 0) return;
  error.resize(bytes);
  InnerPacket parsed;
  Check(ParseInner(error, parsed));
  Check(parsed.v6 == inner.v6);
  if (inner.v6) {
    Check(testing::ChecksumsAreRight(error, kProtocolIcmpV6, 40));
  } else {
    Check(testing::Ipv4HeaderIsRight(error));
    Check(testing::OnesComplementSum(Bytes(error).subspan(20)) == 0xffff);
  }
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  Buffer packet(data, data + size);
  if (size % 4 != 0) testing::MendLengths(packet);
  (void)FlowHash(packet);
  InnerPacket inner;
  if (!ParseInner(packet, inner)) return 0;
  Check(inner.headers_bytes() <= packet.size());
  Check(!(inner.is_tcp() && inner.is_udp()));
  if (inner.l4_header_bytes != 0) {
    Check(!inner.fragment);
    Check(inner.checksum_offset() + size_t{2} <= inner.l4_header_bytes);
    (void)ChecksumIsValid(packet, inner);
  }
  (void)InnerSource(packet);
  (void)InnerDestination(packet);
  CheckClamped(packet, inner, false);
  CheckClamped(packet, inner, true);
  CheckTooBig(packet, inner);
  return 0;
}
