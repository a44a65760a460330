#include "slowpath/sequence_meter.h"

#include <algorithm>

namespace braid {

bool SequenceMeter::Mark(uint64_t sequence) {
  uint64_t& word = seen_[sequence % kWindow / 64];
  const uint64_t bit = uint64_t{1} << sequence % 64;
  const bool is_new = (word & bit) == 0;
  word |= bit;
  return is_new;
}

// The window begins to stand for the numbers up to `expected`.
void SequenceMeter::MoveTo(uint64_t expected) {
  if (expected - expected_ >= kWindow) {
    seen_ = {};
  } else {
    for (uint64_t each = expected_; each < expected; ++each) {
      seen_[each % kWindow / 64] &= ~(uint64_t{1} << each % 64);
    }
  }
  expected_ = expected;
}

void SequenceMeter::Add(uint64_t sequence) {
  if (sequence == UINT64_MAX) return;  // no sender counts so far
  if (sequence >= expected_) {
    MoveTo(sequence + 1);
    Mark(sequence);
    ++received_;
    return;
  }
  // So late that nobody remembers: it is taken as late, and not as a double.
  const bool is_remembered = expected_ - sequence <= kWindow;
  if (is_remembered && !Mark(sequence)) {
    ++doubled_;
    return;
  }
  ++received_;
  ++reordered_;
}

uint64_t SequenceMeter::Lost(uint64_t sent) const {
  const uint64_t all = std::max(sent, expected_);
  return all - std::min(all, received_);
}

}  // namespace braid
