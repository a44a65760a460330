// A pool of objects of one kind: address space for all of them is reserved at once, and memory is
// touched when an object is first made. The place of one that was destroyed is used again first.
// What is left when the pool goes is not destroyed.
#pragma once

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

#include "base/reserved_array.h"

namespace braid {

template <typename T>
class ReservedPool {
 public:
  explicit ReservedPool(size_t size) : places_(size) { returned_.reserve(size); }

  // No more than `size` at once.
  template <typename... Arguments>
  T* Make(Arguments&&... arguments) {
    Place* place = nullptr;
    if (returned_.empty()) {
      place = &places_[used_++];
    } else {
      place = returned_.back();
      returned_.pop_back();
    }
    return new (place) T(std::forward<Arguments>(arguments)...);
  }

  void Destroy(T* object) {
    object->~T();
    returned_.push_back(reinterpret_cast<Place*>(object));
  }

 private:
  struct alignas(64) Place {
    std::byte bytes[sizeof(T)];
  };
  static_assert(alignof(T) <= 64);

  ReservedArray<Place> places_;
  size_t used_ = 0;
  std::vector<Place*> returned_;
};

}  // namespace braid
