// What cryptographic libraries owe. One without its primitives, or without memory, leaves no safe
// way on.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace braid {

inline void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "cryptography: %s\n", what);
  std::abort();
}

}  // namespace braid
