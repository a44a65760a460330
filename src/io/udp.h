// UDP sockets as the tunnel uses them: braid's mark, coalesced reads, segmented sends, the local
// address of each arrival and its time, no fragmentation outside, and steering by lane among the
// sockets of one port.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/bytes.h"
#include "io/unique_fd.h"

namespace braid {

struct UdpSocketOptions {
  IpAddress address;      // to bind to; its family is the socket's
  uint16_t port = 0;      // 0: any
  std::string interface;  // to bind to as well, when not empty
  bool reuse_port = false;
  bool coalesce = true;  // one read may bring several datagrams
};

struct UdpSocket {
  UniqueFd fd;
  Endpoint local;
  bool gso = false;  // UDP_SEGMENT is known; a device may still refuse it when sending
  bool gro = false;  // reads may bring several datagrams
};

absl::StatusOr<UdpSocket> OpenUdp(const UdpSocketOptions& options);

// A plain socket with braid's mark, non-blocking, that speaks with `remote` alone: from `local`
// where that is set, and by `interface` where it is not empty. None where there is no way, and
// errno says why.
UniqueFd ConnectUdp(const Endpoint& remote, const IpAddress& local = {},
                    const std::string& interface = {});

// One datagram with where it came from and to, for sockets that do not coalesce. 0: nothing waits.
struct Arrival;
size_t ReceiveDatagram(int fd, MutableBytes to, Arrival& arrival);
// Sends one datagram, from `from` if it is set. Errors are the network's business: none is told.
void SendDatagram(int fd, const Endpoint& to, const IpAddress& from, Bytes datagram);

// What the kernel dropped since the socket was opened because its receive queue was full. Datagrams
// that the kernel had joined count once. The kernel counts in 32 bits.
uint32_t ReceiveQueueDrops(int fd);

// How many datagrams one segmented send may hold on this kernel: 128 since Linux 6.9, 64 before.
int ProbeMaxGsoDatagrams();

// Of the sockets that share one port, in the order of their binding: a datagram of lane n goes to
// socket n % workers, one of a bond's lanes to socket (session index) % workers, one of the slow
// lane to the socket after those. Attached to any one of them.
absl::Status AttachLaneSteering(const UdpSocket& socket, int workers);

}  // namespace braid
