// Remembers which sequences of a lane were opened, so that none is opened twice.
// A ring of bits as in RFC 6479: the window slides by clearing whole words, never by shifting.
#pragma once

#include <array>
#include <cstdint>

namespace braid {

class ReplayWindow {
 public:
  // Sequences this far behind the newest can still be told apart. Wide enough for 200 ms of
  // reordering among paths at 800 Mbit/s in one lane.
  static constexpr uint64_t kBits = 16384;

  // Whether `sequence` may still be opened. Says nothing of its authenticity.
  bool MayAccept(uint64_t sequence) const {
    if (sequence >= next_) return sequence != UINT64_MAX;  // nothing would be newer than the last
    if (next_ - sequence > kBits - kWordBits) return false;
    return (words_[WordIndex(sequence)] & Bit(sequence)) == 0;
  }

  // Called once a packet has authenticated. False when it is a replay after all.
  bool Accept(uint64_t sequence) {
    if (!MayAccept(sequence)) return false;
    if (sequence >= next_) {
      SlideTo(sequence);
      next_ = sequence + 1;
    }
    words_[WordIndex(sequence)] |= Bit(sequence);
    return true;
  }

  // One more than the newest sequence accepted.
  uint64_t next() const { return next_; }

 private:
  static constexpr uint64_t kWordBits = 64;
  static constexpr uint64_t kWords = kBits / kWordBits;

  static uint64_t WordIndex(uint64_t sequence) { return sequence / kWordBits % kWords; }
  static uint64_t Bit(uint64_t sequence) { return uint64_t{1} << (sequence % kWordBits); }

  void SlideTo(uint64_t sequence) {
    const uint64_t old_word = next_ == 0 ? 0 : (next_ - 1) / kWordBits;
    const uint64_t new_word = sequence / kWordBits;
    const uint64_t fresh_words = new_word - old_word;
    if (fresh_words >= kWords) {
      words_.fill(0);
      return;
    }
    for (uint64_t i = 1; i <= fresh_words; ++i) words_[(old_word + i) % kWords] = 0;
  }

  std::array<uint64_t, kWords> words_{};
  uint64_t next_ = 0;
};

}  // namespace braid
