// The other side of TUN, as tests see it: takes the writes of a coalescer, cuts super-packets as
// the kernel does, and finishes partial checksums.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <span>
#include <vector>

#include "fastpath/segmenter.h"
#include "support/packets.h"

namespace braid::testing {

inline Buffer Gathered(std::span<const iovec> parts) {
  Buffer write;
  for (const iovec& part : parts) {
    const auto* from = static_cast<const uint8_t*>(part.iov_base);
    write.insert(write.end(), from, from + part.iov_len);
  }
  return write;
}

// The packets of one write, whole, in order. None when it is no packet.
inline std::vector<Buffer> PacketsOfWrite(Buffer write) {
  const auto vnet = LoadNative<VnetHeader>(write.data());
  const size_t start = vnet.checksum_start;
  const auto segmenter = std::make_unique<Segmenter>();
  std::vector<Buffer> packets;
  if (!segmenter->Begin(write)) return packets;
  for (MutableBytes next = segmenter->Next(); !next.empty(); next = segmenter->Next()) {
    packets.emplace_back(next.begin(), next.end());
    if (!segmenter->partial_checksum()) continue;
    FinishPartial(packets.back(), start, start + vnet.checksum_offset);
  }
  return packets;
}

}  // namespace braid::testing
