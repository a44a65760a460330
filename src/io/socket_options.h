// Options of sockets that mean more than their names say. Whether one could be set is not told: a
// socket goes without.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

namespace braid {

// Of an IPv6 socket: an IPv4 address that is mapped into IPv6 would be past the rules for IPv4, and
// what has one would be another socket's.
inline void SetV6Only(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
}

// When it is closed, the other end of a TCP connection sees a reset.
inline void SetResetOnClose(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

}  // namespace braid
