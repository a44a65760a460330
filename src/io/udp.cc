#include "io/udp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include "base/limits.h"
#include "io/datagram_message.h"
#include "io/own_mark.h"
#include "io/socket_options.h"

namespace braid {
namespace {

constexpr int kSessionOffset = 4;  // in the header
constexpr int kLaneOffset = 8;

bool Set(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

void SetBuffer(int fd, int forced_option, int option) {
  if (!Set(fd, SOL_SOCKET, forced_option, kSocketBufferBytes)) {
    Set(fd, SOL_SOCKET, option, kSocketBufferBytes);
  }
}

absl::Status BindError(const UdpSocketOptions& options, const Endpoint& wanted, int error) {
  const std::string where = wanted.ToString();
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError("UDP " + where + " is in use by another program");
    case EADDRNOTAVAIL:
      return absl::NotFoundError("UDP " + where + ": this machine has no address " +
                                 options.address.ToString());
    case EACCES:
      return absl::PermissionDeniedError("UDP " + where + ": no permission to bind there");
    default:
      return absl::ErrnoToStatus(error, "cannot bind UDP " + where);
  }
}

}  // namespace

absl::StatusOr<UdpSocket> OpenUdp(const UdpSocketOptions& options) {
  const bool v6 = options.address.is_v6();
  UdpSocket socket;
  socket.fd = UniqueFd(
      ::socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
  if (!socket.fd) return absl::ErrnoToStatus(errno, "cannot open a UDP socket");
  const int fd = socket.fd.get();

  SetBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
  SetBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
  // The tunnel finds its own path MTU, so no datagram is fragmented and no forged ICMP is believed.
  if (v6) {
    Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    Set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    Set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
  } else {
    Set(fd, IPPROTO_IP, IP_PKTINFO, 1);
    Set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
  }
  SetOwnMark(fd);
  // How long a datagram waited for this process is no delay of the path.
  Set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
  int segment_bytes = 0;
  socklen_t length = sizeof(segment_bytes);
  socket.gso = getsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment_bytes, &length) == 0;
  socket.gro = options.coalesce && Set(fd, SOL_UDP, UDP_GRO, 1);

  if (options.reuse_port && !Set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) {
    return absl::ErrnoToStatus(errno, "cannot share a UDP port among workers");
  }
  if (!options.interface.empty() &&
      setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, options.interface.data(),
                 static_cast<socklen_t>(options.interface.size())) != 0) {
    const int error = errno;
    if (error == ENODEV) {
      return absl::NotFoundError("this machine has no interface \"" + options.interface + "\"");
    }
    return absl::ErrnoToStatus(error, "cannot bind to interface \"" + options.interface + "\"");
  }
  const Endpoint wanted{options.address, options.port};
  sockaddr_storage address;
  length = wanted.To(address);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) != 0) {
    return BindError(options, wanted, errno);
  }
  length = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  socket.local = Endpoint::From(address);
  return socket;
}

UniqueFd ConnectUdp(const Endpoint& remote, const IpAddress& local, const std::string& interface) {
  UniqueFd fd(socket(remote.address.socket_family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fd;
  SetOwnMark(fd.get());
  if (remote.address.is_v6()) SetV6Only(fd.get());
  if (!interface.empty()) {
    setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, interface.data(),
               static_cast<socklen_t>(interface.size()));
  }
  sockaddr_storage address;
  if (local.is_set()) {
    const socklen_t length = Endpoint{local, 0, 0}.To(address);
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) return UniqueFd();
  }
  const socklen_t length = remote.To(address);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) return UniqueFd();
  return fd;
}

size_t ReceiveDatagram(int fd, MutableBytes to, Arrival& arrival) {
  ReceiveMessage message(to);
  for (int refused = 0; refused < 16; ++refused) {
    const ssize_t bytes = recvmsg(fd, &message.header, MSG_DONTWAIT);
    if (bytes > 0) {
      message.Read(static_cast<size_t>(bytes), arrival);
      return static_cast<size_t>(bytes);
    }
    // An error that the network reported on an earlier send says nothing about what waits.
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    message.Prepare(to);
  }
  return 0;
}

void SendDatagram(int fd, const Endpoint& to, const IpAddress& from, Bytes datagram) {
  SendRequest request;
  request.to = to;
  request.from = from;
  request.datagram_bytes = static_cast<uint16_t>(datagram.size());
  SendMessage message;
  message.Fill(request, datagram, false);
  sendmsg(fd, &message.header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

uint32_t ReceiveQueueDrops(int fd) {
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof(memory);
  // A kernel that does not count them leaves the zero.
  getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &length);
  return memory[SK_MEMINFO_DROPS];
}

int ProbeMaxGsoDatagrams() {
  constexpr int kOlderMaximum = 64;
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
  sockaddr_in loopback{};
  loopback.sin_family = AF_INET;
  loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(loopback);
  auto* address = reinterpret_cast<sockaddr*>(&loopback);
  if (!fd || bind(fd.get(), address, length) != 0) return kOlderMaximum;
  if (getsockname(fd.get(), address, &length) != 0) return kOlderMaximum;
  if (!Set(fd.get(), SOL_UDP, UDP_SEGMENT, 1)) return kOlderMaximum;
  const uint8_t datagrams[kMaxGsoDatagrams] = {};  // of one byte each, to itself
  const bool taken =
      sendto(fd.get(), datagrams, sizeof(datagrams), 0, address, length) == sizeof(datagrams);
  return taken ? kMaxGsoDatagrams : kOlderMaximum;
}

absl::Status AttachLaneSteering(const UdpSocket& socket, int workers) {
  // The program sees the datagram's payload. One too short to have a lane goes to the first socket.
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kLaneOffset),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kSlowLane, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kFirstBondLane, 0, 1),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kSessionOffset),
      BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, static_cast<uint32_t>(workers)),
      BPF_STMT(BPF_RET | BPF_A, 0),
      BPF_STMT(BPF_RET | BPF_K, static_cast<uint32_t>(workers)),
  };
  const sock_fprog program{std::size(code), code};
  if (setsockopt(socket.fd.get(), SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
                 sizeof(program)) != 0) {
    return absl::ErrnoToStatus(errno, "cannot steer datagrams by lane");
  }
  return absl::OkStatus();
}

}  // namespace braid
