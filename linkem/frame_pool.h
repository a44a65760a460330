// Memory for frames that are under way: blocks of powers of two, which are kept for the next frame
// of their size. One thread only.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"

namespace braid::linkem {

// What all frames under way may take; a frame beyond that is dropped, and counted.
inline constexpr size_t kMaxPoolBytes = size_t{1} << 30;

class FramePool;

// The head of a block; the frame with its vnet header stands behind it.
struct Frame {
  FramePool* home;
  Frame* next_free;
  uint32_t bytes;  // with the vnet header
  uint32_t size_class;

  uint8_t* data() { return reinterpret_cast<uint8_t*>(this + 1); }
};

struct FrameReleaser {
  void operator()(Frame* frame) const;
};
using FramePtr = std::unique_ptr<Frame, FrameReleaser>;

// Outlives its frames.
class FramePool {
 public:
  FramePool() = default;
  ~FramePool();
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;

  // Empty when the bound is reached.
  FramePtr Take(size_t bytes) {
    const auto size_class =
        static_cast<uint32_t>(std::bit_width((bytes + sizeof(Frame) - 1) | kLeastBlockBytes));
    Frame*& free = free_[size_class];
    Frame* frame = free != nullptr ? free : Allocate(size_class);
    if (frame == nullptr) return nullptr;
    free = frame->next_free;
    frame->bytes = static_cast<uint32_t>(bytes);
    return FramePtr(frame);
  }

 private:
  friend struct FrameReleaser;
  static constexpr size_t kLeastBlockBytes = 255;

  Frame* Allocate(uint32_t size_class);

  std::array<Frame*, 32> free_{};
  size_t allocated_bytes_ = 0;
};

inline void FrameReleaser::operator()(Frame* frame) const {
  Frame*& free = frame->home->free_[frame->size_class];
  frame->next_free = free;
  free = frame;
}

}  // namespace braid::linkem
