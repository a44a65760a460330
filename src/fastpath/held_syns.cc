#include "fastpath/held_syns.h"

#include <algorithm>

namespace braid {

HeldSyns::HeldSyns(Slot capacity) : syns_(capacity) {
  for (Slot slot = capacity; slot-- > 0;) free_.push_back(slot);
}

HeldSyns::Slot HeldSyns::Hold(const Segmenter& segmenter, uint32_t place, TimeNs now_ns) {
  const Slot slot = free_.back();
  free_.pop_back();
  Syn& syn = syns_[slot];
  const Bytes packet = segmenter.packet();
  syn.inner = segmenter.inner();
  syn.partial_checksum = segmenter.partial_checksum();
  syn.length = kVnetHeaderBytes + packet.size();
  // As it came, or, where its checksum was finished, without what was to be done.
  if (syn.partial_checksum) {
    std::copy_n(packet.data() - kVnetHeaderBytes, kVnetHeaderBytes, syn.bytes.begin());
  } else {
    StoreNative(syn.bytes.data(), VnetHeader{});
  }
  std::copy(packet.begin(), packet.end(), syn.bytes.begin() + kVnetHeaderBytes);
  syn.place = place;
  syn.since_ns = now_ns;
  syn.older = newest_;
  syn.newer = kNone;
  (newest_ == kNone ? oldest_ : syns_[newest_].newer) = slot;
  newest_ = slot;
  return slot;
}

void HeldSyns::Take(Slot slot) {
  const Syn& syn = syns_[slot];
  (syn.older == kNone ? oldest_ : syns_[syn.older].newer) = syn.newer;
  (syn.newer == kNone ? newest_ : syns_[syn.newer].older) = syn.older;
}

}  // namespace braid
