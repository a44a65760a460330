#include "linkem/frame_pool.h"

#include <new>

namespace braid::linkem {

FramePool::~FramePool() {
  for (Frame* free : free_) {
    while (free != nullptr) {
      Frame* next = free->next_free;
      ::operator delete(free);
      free = next;
    }
  }
}

Frame* FramePool::Allocate(uint32_t size_class) {
  const size_t block_bytes = size_t{1} << size_class;
  if (allocated_bytes_ + block_bytes > kMaxPoolBytes) return nullptr;
  allocated_bytes_ += block_bytes;
  return new (::operator new(block_bytes)) Frame{this, nullptr, 0, size_class};
}

}  // namespace braid::linkem
