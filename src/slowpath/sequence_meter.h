// What became of numbered datagrams on their way: how many came, came twice, or came late. The
// memory is fixed, whatever numbers the sender makes up.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace braid {

class SequenceMeter {
 public:
  void Add(uint64_t sequence);

  uint64_t received() const { return received_; }  // each number once
  uint64_t doubled() const { return doubled_; }
  uint64_t reordered() const { return reordered_; }  // came behind a higher number
  uint64_t expected() const { return expected_; }    // the highest number, and those before it
  // Of `sent` datagrams, or of those that must have been sent when that is not known yet.
  uint64_t Lost(uint64_t sent = 0) const;

 private:
  static constexpr uint64_t kWindow = 65536;

  bool Mark(uint64_t sequence);  // false when it was marked before
  void MoveTo(uint64_t expected);

  std::array<uint64_t, kWindow / 64> seen_{};
  uint64_t received_ = 0;
  uint64_t doubled_ = 0;
  uint64_t reordered_ = 0;
  uint64_t expected_ = 0;
};

}  // namespace braid
