// The mark (SO_MARK) of every socket of braid's own that speaks with the outside: what carries it
// goes past the tunnel's routes, and past the kill switch.
#pragma once

#include <sys/socket.h>

#include <cstdint>

namespace braid {

inline constexpr uint32_t kOwnMark = 0xb7a1;

// A process that may not mark its sockets goes without; nothing of the machine's is changed then
// that would need it.
inline void SetOwnMark(int fd) { setsockopt(fd, SOL_SOCKET, SO_MARK, &kOwnMark, sizeof(kOwnMark)); }

}  // namespace braid
