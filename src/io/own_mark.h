// The mark (SO_MARK) of every socket of braid's own that speaks with the outside: what carries it
// goes past the tunnel's routes, and past the kill switch.
#pragma once

#include <cstdint>

namespace braid {

inline constexpr uint32_t kOwnMark = 0xb7a1;

}  // namespace braid
