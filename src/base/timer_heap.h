// Which of a fixed set of things is due first. A binary heap that knows where each one stands, so
// that a thing's time may change at any time (Knuth, The Art of Computer Programming 5.2.3).
// Allocates when it is made only.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace braid {

class TimerHeap {
 public:
  explicit TimerHeap(size_t things) : place_(things, kNowhere) { heap_.reserve(things); }

  // kNever takes it out.
  void Set(uint32_t thing, TimeNs due_ns) {
    size_t at = place_[thing];
    if (at == kNowhere) {
      if (due_ns == kNever) return;
      at = heap_.size();
      heap_.push_back({due_ns, thing});
      place_[thing] = static_cast<uint32_t>(at);
    } else if (due_ns == kNever) {
      place_[thing] = kNowhere;
      const Entry last = heap_.back();
      heap_.pop_back();
      if (at == heap_.size()) return;
      heap_[at] = last;
      place_[last.thing] = static_cast<uint32_t>(at);
    } else {
      heap_[at].due_ns = due_ns;
    }
    Down(Up(at));
  }

  TimeNs due_ns() const { return heap_.empty() ? kNever : heap_[0].due_ns; }
  uint32_t first() const { return heap_[0].thing; }  // of those that are due at some time

 private:
  static constexpr uint32_t kNowhere = UINT32_MAX;
  struct Entry {
    TimeNs due_ns;
    uint32_t thing;
  };

  size_t Up(size_t at) {
    for (; at > 0 && heap_[at].due_ns < heap_[(at - 1) / 2].due_ns; at = (at - 1) / 2) {
      Swap(at, (at - 1) / 2);
    }
    return at;
  }

  void Down(size_t at) {
    for (;;) {
      size_t least = at;
      for (const size_t child : {2 * at + 1, 2 * at + 2}) {
        if (child < heap_.size() && heap_[child].due_ns < heap_[least].due_ns) least = child;
      }
      if (least == at) return;
      Swap(at, least);
      at = least;
    }
  }

  void Swap(size_t a, size_t b) {
    std::swap(heap_[a], heap_[b]);
    place_[heap_[a].thing] = static_cast<uint32_t>(a);
    place_[heap_[b].thing] = static_cast<uint32_t>(b);
  }

  std::vector<Entry> heap_;
  std::vector<uint32_t> place_;
};

}  // namespace braid
