// Any bytes as a read from TUN: the segments are whole packets, and carry the payload on, every
// byte.
#include <memory>

#include "fastpath/segmenter.h"
#include "support/fuzz_input.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::Check;

void CheckSegments(Segmenter& segmenter, const Buffer& packet) {
  const InnerPacket super = segmenter.inner();
  const bool cut = segmenter.segments() > 1;
  Buffer payload;
  size_t segments = 0;
  for (MutableBytes next = segmenter.Next(); !next.empty(); next = segmenter.Next()) {
    ++segments;
    Check(next.size() <= segmenter.segment_bytes());
    if (segments != segmenter.segments()) Check(next.size() == segmenter.segment_bytes());
    Buffer segment(next.begin(), next.end());
    std::fill(next.begin(), next.end(), 0xee);  // as the seal of the next packet may find it
    InnerPacket inner;
    Check(ParseInner(segment, inner));
    payload.insert(payload.end(), segment.begin() + static_cast<ptrdiff_t>(super.headers_bytes()),
                   segment.end());
    if (segmenter.partial_checksum()) Check(inner.l4_header_bytes != 0);
    // A single packet's finished checksum may have changed what stands behind its headers.
    if (!cut) continue;
    Check(segmenter.partial_checksum() && inner.protocol == super.protocol);
    Check(inner.l4_offset == super.l4_offset && inner.l4_header_bytes == super.l4_header_bytes);
    testing::FinishPartial(segment, inner.l4_offset,
                           size_t{inner.l4_offset} + inner.checksum_offset());
    Check(testing::ChecksumsAreRight(segment, inner.protocol, inner.l4_offset));
  }
  Check(segments == segmenter.segments());
  const size_t payload_at = super.headers_bytes();
  Check(payload.size() == packet.size() - payload_at);
  const auto sent = Bytes(packet).subspan(payload_at);
  if (cut) Check(std::equal(payload.begin(), payload.end(), sent.begin(), sent.end()));
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  const auto memory = std::make_unique<uint8_t[]>(size);
  std::copy(data, data + size, memory.get());
  const MutableBytes from_tun(memory.get(), size);
  if (size > kVnetHeaderBytes && size % 4 != 0) {
    testing::MendLengths(from_tun.subspan(kVnetHeaderBytes));
  }
  const Buffer before(from_tun.begin(), from_tun.end());
  const auto segmenter = std::make_unique<Segmenter>();
  if (!segmenter->Begin(from_tun)) return 0;
  CheckSegments(*segmenter, Buffer(before.begin() + kVnetHeaderBytes, before.end()));
  return 0;
}
