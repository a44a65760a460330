// A pointer to an object of a C library, which goes with the function that the library has for it.
#pragma once

#include <memory>

namespace braid {

template <auto kFree>
struct CFree {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

// CPointer<nl_msg, nlmsg_free>
template <typename T, auto kFree>
using CPointer = std::unique_ptr<T, CFree<kFree>>;

}  // namespace braid
