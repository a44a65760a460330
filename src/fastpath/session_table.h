// From the session index in a header to the peer and the keys. Each worker has one of its own, and
// so has the slow path, so a lookup shares nothing. Open addressing with linear probing over the
// random indices themselves; sized once, for three keypairs a peer.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "fastpath/keypair.h"
#include "fastpath/route_table.h"

namespace braid {

class SessionTable {
 public:
  struct Entry {
    uint32_t index = 0;
    PeerSlot peer = kNoPeer;
    const Keypair* keypair = nullptr;  // nullptr: free
  };

  explicit SessionTable(size_t max_entries)
      : slots_(std::bit_ceil(max_entries * 2 + 1)), mask_(slots_.size() - 1) {}

  // False when full.
  bool Insert(uint32_t index, PeerSlot peer, const Keypair* keypair) {
    if (used_ * 2 >= slots_.size()) return false;
    size_t at = index & mask_;
    while (slots_[at].keypair != nullptr) at = (at + 1) & mask_;
    slots_[at] = {index, peer, keypair};
    ++used_;
    return true;
  }

  const Entry* Find(uint32_t index) const {
    for (size_t at = index & mask_; slots_[at].keypair != nullptr; at = (at + 1) & mask_) {
      if (slots_[at].index == index) return &slots_[at];
    }
    return nullptr;
  }

  // Closes the gap, so that no tombstones are needed.
  void Erase(uint32_t index) {
    size_t at = index & mask_;
    while (slots_[at].keypair != nullptr && slots_[at].index != index) at = (at + 1) & mask_;
    if (slots_[at].keypair == nullptr) return;
    --used_;
    for (size_t next = (at + 1) & mask_; slots_[next].keypair != nullptr;
         next = (next + 1) & mask_) {
      const size_t home = slots_[next].index & mask_;
      // It may move only if its home is not in the gap's shadow.
      if (((next - home) & mask_) >= ((next - at) & mask_)) {
        slots_[at] = slots_[next];
        at = next;
      }
    }
    slots_[at] = {};
  }

  size_t size() const { return used_; }

 private:
  std::vector<Entry> slots_;
  size_t mask_;
  size_t used_ = 0;
};

}  // namespace braid
