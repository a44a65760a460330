// Bounded lock-free queue of records of any length, by which one thread hands bytes to another.
// They are copied once, in, and read in place. Full is an answer, never a wait.
//
// Records stand behind each other, each with its length in front and 8-byte aligned; one that would
// not fit before the end of the memory begins anew at its start.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "base/bytes.h"

namespace braid {

class RecordRing {
 public:
  // `bytes` is a power of two; a record may have half of it, less its length's 8.
  explicit RecordRing(size_t bytes) : mask_(bytes - 1), memory_(new uint64_t[bytes / 8]) {}
  RecordRing(const RecordRing&) = delete;
  RecordRing& operator=(const RecordRing&) = delete;

  // One thread only. A record of both parts behind each other. False when there is no room.
  bool TryPush(Bytes first, Bytes second) {
    const size_t length = first.size() + second.size();
    const size_t wanted = SizeOf(length);
    if (wanted > capacity() / 2) return false;
    const uint64_t tail = tail_.load(std::memory_order_relaxed);
    const size_t until_end = capacity() - (tail & mask_);
    const size_t skipped = until_end < wanted ? until_end : 0;
    const uint64_t head = head_.load(std::memory_order_acquire);
    if (tail - head + skipped + wanted > capacity()) return false;
    if (skipped != 0) StoreNative<uint64_t>(At(tail), kSkip);
    uint8_t* const to = At(tail + skipped);
    StoreNative<uint64_t>(to, length);
    std::copy(second.begin(), second.end(),
              std::copy(first.begin(), first.end(), to + kLengthBytes));
    tail_.store(tail + skipped + wanted, std::memory_order_release);
    return true;
  }

  // Another thread only. The first record, which stays until Pop(); its bytes may be written over.
  // Its data is null when there is none.
  MutableBytes Front() {
    uint64_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_.load(std::memory_order_acquire)) return {};
    if (LoadNative<uint64_t>(At(head)) == kSkip) {
      head += capacity() - (head & mask_);
      head_.store(head, std::memory_order_release);
    }
    return {At(head) + kLengthBytes, static_cast<size_t>(LoadNative<uint64_t>(At(head)))};
  }
  void Pop() {
    const uint64_t head = head_.load(std::memory_order_relaxed);
    const auto length = static_cast<size_t>(LoadNative<uint64_t>(At(head)));
    head_.store(head + SizeOf(length), std::memory_order_release);
  }

  // By either thread.
  bool Empty() const {
    return head_.load(std::memory_order_acquire) == tail_.load(std::memory_order_acquire);
  }

 private:
  static constexpr size_t kLengthBytes = 8;
  static constexpr uint64_t kSkip = UINT64_MAX;
  static constexpr size_t kLineBytes = 64;

  static size_t SizeOf(size_t length) { return (kLengthBytes + length + 7) & ~size_t{7}; }
  size_t capacity() const { return mask_ + 1; }
  uint8_t* At(uint64_t position) const {
    return reinterpret_cast<uint8_t*>(memory_.get()) + (position & mask_);
  }

  const size_t mask_;
  const std::unique_ptr<uint64_t[]> memory_;
  alignas(kLineBytes) std::atomic<uint64_t> head_{0};
  alignas(kLineBytes) std::atomic<uint64_t> tail_{0};
};

}  // namespace braid
