// Finds the place of a flow among at most so many: a hash table of places that is allocated once.
// Open addressing with linear probing; a removal moves what follows up, so that there are no
// graves (Knuth, The Art of Computer Programming 3, algorithm 6.4 R).
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "absl/hash/hash.h"
#include "fastpath/flow_key.h"

namespace braid {

class FlowIndex {
 public:
  using Place = uint32_t;
  static constexpr Place kNowhere = UINT32_MAX;

  explicit FlowIndex(size_t capacity)
      : slots_(std::bit_ceil(capacity * 2 + 1)), mask_(slots_.size() - 1) {}

  // kNowhere when it is not there. `key_at(place)` is the key that was put there.
  template <typename KeyAt>
  Place Find(const FlowKey& key, KeyAt&& key_at) const {
    const uint32_t hash = HashOf(key);
    for (size_t i = hash & mask_; slots_[i].place != kNowhere; i = (i + 1) & mask_) {
      if (slots_[i].hash == hash && key_at(slots_[i].place) == key) return slots_[i].place;
    }
    return kNowhere;
  }

  // The key is not there yet, and there is room.
  void Put(const FlowKey& key, Place place) {
    const uint32_t hash = HashOf(key);
    size_t i = hash & mask_;
    while (slots_[i].place != kNowhere) i = (i + 1) & mask_;
    slots_[i] = {hash, place};
  }

  // The key is at this place.
  void Remove(const FlowKey& key, Place place) {
    size_t gap = HashOf(key) & mask_;
    while (slots_[gap].place != place) gap = (gap + 1) & mask_;
    for (size_t i = (gap + 1) & mask_; slots_[i].place != kNowhere; i = (i + 1) & mask_) {
      // One that would not be found any more beyond the gap moves into it.
      const size_t home = slots_[i].hash & mask_;
      if (((i - home) & mask_) < ((i - gap) & mask_)) continue;
      slots_[gap] = slots_[i];
      gap = i;
    }
    slots_[gap].place = kNowhere;
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    Place place = kNowhere;
  };

  // Whoever sends packets knows nothing of how it is seeded.
  static uint32_t HashOf(const FlowKey& key) {
    const size_t hash = absl::Hash<FlowKey>()(key);
    return static_cast<uint32_t>(hash ^ hash >> 32);
  }

  std::vector<Slot> slots_;
  const size_t mask_;
};

}  // namespace braid
