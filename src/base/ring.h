// Bounded lock-free queue: any number of threads push, one pops. Full is an answer, never a wait.
// After Vyukov's bounded MPMC queue: each slot carries the turn at which it may next be written or
// read, so that a push is one compare-and-swap and a pop needs none of its neighbours. The tail is
// read and moved with acquire and release: whoever sees a position also sees that its slot was
// emptied for it, so "full" is never said of a ring that surely has room.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace braid {

inline constexpr size_t kCacheLineBytes = 64;

template <typename T>
class Ring {
 public:
  // `slots` is a power of two, at least 2: with one slot, full and free to write look the same. All
  // memory is taken here.
  explicit Ring(size_t slots) : mask_(slots - 1), slots_(new Slot[slots]) {
    for (size_t i = 0; i < slots; ++i) slots_[i].turn.store(i, std::memory_order_relaxed);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // False when full; `value` is then untouched.
  bool TryPush(T&& value) {
    size_t position = tail_.load(std::memory_order_acquire);
    for (;;) {
      Slot& slot = slots_[position & mask_];
      const size_t turn = slot.turn.load(std::memory_order_acquire);
      const auto behind = static_cast<std::ptrdiff_t>(turn - position);
      if (behind == 0) {
        if (tail_.compare_exchange_weak(position, position + 1, std::memory_order_release,
                                        std::memory_order_acquire)) {
          slot.value = std::move(value);
          slot.turn.store(position + 1, std::memory_order_release);
          return true;
        }
      } else if (behind < 0) {
        return false;
      } else {
        position = tail_.load(std::memory_order_acquire);
      }
    }
  }

  // False when empty. One thread only.
  bool TryPop(T& value) {
    const size_t position = head_.load(std::memory_order_relaxed);
    Slot& slot = slots_[position & mask_];
    if (slot.turn.load(std::memory_order_acquire) != position + 1) return false;
    value = std::move(slot.value);
    slot.value = T();
    slot.turn.store(position + mask_ + 1, std::memory_order_release);
    head_.store(position + 1, std::memory_order_relaxed);
    return true;
  }

  // What the popping thread would find now; a push under way may be missed.
  bool Empty() const {
    const size_t position = head_.load(std::memory_order_relaxed);
    return slots_[position & mask_].turn.load(std::memory_order_acquire) != position + 1;
  }

  // For any thread: what was in it about now. Pushes and pops under way make it neither negative
  // nor more than there are slots.
  size_t ApproximateSize() const {
    const size_t head = head_.load(std::memory_order_relaxed);
    const size_t tail = tail_.load(std::memory_order_relaxed);
    const auto size = static_cast<std::ptrdiff_t>(tail - head);
    return size < 0 ? 0 : std::min(static_cast<size_t>(size), mask_ + 1);
  }

 private:
  struct Slot {
    std::atomic<size_t> turn;
    T value{};
  };

  const size_t mask_;
  const std::unique_ptr<Slot[]> slots_;
  alignas(kCacheLineBytes) std::atomic<size_t> tail_{0};
  alignas(kCacheLineBytes) std::atomic<size_t> head_{0};
};

}  // namespace braid
