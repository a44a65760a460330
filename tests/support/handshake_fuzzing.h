// What the fuzzers of handshakes share: randomness that is none, and changes to a valid message.
#pragma once

#include <sodium.h>

#include <algorithm>

#include "slowpath/handshake.h"
#include "support/packets.h"

namespace braid::testing {

// From here on libsodium counts instead of drawing: the same input must do the same in every run.
// Words stay apart for long, since whoever needs one that is free draws until it has found it.
inline void CountInsteadOfDrawing() {
  static randombytes_implementation counting = {.implementation_name = [] { return "counter"; },
                                                .random =
                                                    [] {
                                                      static uint32_t next = 0;
                                                      return next += 0x9E3779B9;
                                                    },
                                                .stir = nullptr,
                                                .uniform = nullptr,
                                                .buf =
                                                    [](void* buffer, size_t size) {
                                                      static uint8_t next = 0;
                                                      for (size_t i = 0; i < size; ++i)
                                                        static_cast<uint8_t*>(buffer)[i] = ++next;
                                                    },
                                                .close = nullptr};
  randombytes_set_implementation(&counting);
}

// `changes` is a list of (position, 2 bytes; value to combine with what is there). A position that
// starts with 0xff ends it: what follows is appended. A single byte left over cuts that many bytes.
inline Buffer Changed(const Buffer& valid, Bytes changes) {
  Buffer message = valid;
  for (; changes.size() >= 3 && changes[0] != 0xff; changes = changes.subspan(3)) {
    message[LoadBe16(changes.data()) % valid.size()] ^= changes[2];
  }
  if (changes.size() >= 3) message.insert(message.end(), changes.begin() + 1, changes.end());
  if (changes.size() == 1) {
    message.resize(message.size() - std::min<size_t>(message.size(), changes[0]));
  }
  return message;
}

inline bool SameBeforeMacs(const Buffer& one, const Buffer& other) {
  return one.size() == other.size() &&
         std::equal(one.begin(), one.end() - kMacsBytes, other.begin());
}

}  // namespace braid::testing
