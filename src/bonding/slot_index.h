// Finds a slot by a 64-bit key. Open addressing with linear probing; what is erased leaves no
// tombstone (Knuth, The Art of Computer Programming 6.4, algorithm R).
#pragma once

#include <bit>
#include <cstdint>

#include "base/reserved_array.h"
#include "bonding/packet_slab.h"

namespace braid {

class SlotIndex {
 public:
  // It never holds more than `most`, in twice as many places.
  explicit SlotIndex(size_t most)
      : mask_(std::bit_ceil(most * 2) - 1), most_(most), places_(mask_ + 1) {}

  // False when it is full. A key that is there already is given the new slot.
  bool Insert(uint64_t key, SlotId id) {
    size_t at = Home(key);
    for (; places_[at].taken(); at = (at + 1) & mask_) {
      if (places_[at].key != key) continue;
      places_[at].id_plus_one = id + 1;
      return true;
    }
    if (used_ == most_) return false;
    ++used_;
    places_[at] = {key, id + 1};
    return true;
  }

  // kNoSlot when there is none.
  SlotId Find(uint64_t key) const {
    for (size_t at = Home(key); places_[at].taken(); at = (at + 1) & mask_) {
      if (places_[at].key == key) return places_[at].id_plus_one - 1;
    }
    return kNoSlot;
  }

  void Erase(uint64_t key) {
    size_t hole = Home(key);
    for (;; hole = (hole + 1) & mask_) {
      if (!places_[hole].taken()) return;
      if (places_[hole].key == key) break;
    }
    --used_;
    for (size_t at = (hole + 1) & mask_; places_[at].taken(); at = (at + 1) & mask_) {
      // What would come to stand in front of its home stays.
      const size_t home = Home(places_[at].key);
      if (((at - home) & mask_) < ((at - hole) & mask_)) continue;
      places_[hole] = places_[at];
      hole = at;
    }
    places_[hole] = {};
  }

  size_t used() const { return used_; }

 private:
  struct Place {
    uint64_t key;
    SlotId id_plus_one;  // 0: free, as memory is that nobody has touched

    bool taken() const { return id_plus_one != 0; }
  };

  size_t Home(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15;
    return (key ^ key >> 32) & mask_;
  }

  const size_t mask_;
  const size_t most_;
  size_t used_ = 0;
  ReservedArray<Place> places_;
};

}  // namespace braid
