#include "linkem/ethernet_port.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/limits.h"

namespace braid::linkem {
namespace {

// A whole super-frame with its vnet header.
constexpr size_t kBufferBytes = 65536 + 256;
constexpr size_t kControlBytes = CMSG_SPACE(sizeof(tpacket_auxdata)) + CMSG_SPACE(sizeof(timespec));
// What arrives while another program has the CPU waits in here.
constexpr int kSocketQueueBytes = 32 << 20;
// An arrival that is told to be older was not stamped by this clock.
constexpr DurationNs kOldestArrivalNs = 10 * kSecondNs;

absl::Status Failed(const std::string& interface, const char* what, int error) {
  return absl::InternalError(absl::StrFormat("%s: %s: %s", interface, what, strerror(error)));
}

template <typename T>
bool SetOption(int fd, int level, int name, const T& value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

absl::Status CheckInterface(int fd, const std::string& interface) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  if (ioctl(fd, SIOCGIFHWADDR, &request) != 0) return Failed(interface, "SIOCGIFHWADDR", errno);
  if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
    return absl::InvalidArgumentError(interface + ": is no Ethernet interface");
  }
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) return Failed(interface, "SIOCGIFFLAGS", errno);
  if ((request.ifr_flags & IFF_UP) == 0) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: is down; ip link set %s up", interface, interface));
  }
  return absl::OkStatus();
}

// Before the socket is bound, it hears nothing.
absl::Status Bind(int fd, const std::string& interface, int index) {
  const int on = 1;
  if (!SetOption(fd, SOL_PACKET, PACKET_VNET_HDR, on))
    return Failed(interface, "PACKET_VNET_HDR", errno);
  if (!SetOption(fd, SOL_PACKET, PACKET_AUXDATA, on))
    return Failed(interface, "PACKET_AUXDATA", errno);
  if (!SetOption(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, on))
    return Failed(interface, "PACKET_IGNORE_OUTGOING", errno);
  if (!SetOption(fd, SOL_PACKET, PACKET_QDISC_BYPASS, on))
    return Failed(interface, "PACKET_QDISC_BYPASS", errno);
  if (!SetOption(fd, SOL_SOCKET, SO_TIMESTAMPNS, on))
    return Failed(interface, "SO_TIMESTAMPNS", errno);
  SetOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, kSocketQueueBytes);
  SetOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, kSocketQueueBytes);
  packet_mreq promiscuous{};
  promiscuous.mr_ifindex = index;
  promiscuous.mr_type = PACKET_MR_PROMISC;
  if (!SetOption(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, promiscuous))
    return Failed(interface, "promiscuous mode", errno);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = index;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
    return Failed(interface, "bind", errno);
  return absl::OkStatus();
}

}  // namespace

struct EthernetPort::Incoming {
  iovec part;
  alignas(cmsghdr) uint8_t control[kControlBytes];
};

absl::StatusOr<std::unique_ptr<EthernetPort>> EthernetPort::Open(const std::string& interface) {
  const int index = static_cast<int>(if_nametoindex(interface.c_str()));
  if (index == 0) return absl::NotFoundError(interface + ": there is no such interface here");
  UniqueFd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return absl::PermissionDeniedError(absl::StrFormat(
        "cannot open a packet socket (needs root or CAP_NET_RAW): %s", strerror(errno)));
  }
  absl::Status status = CheckInterface(fd.get(), interface);
  if (status.ok()) status = Bind(fd.get(), interface, index);
  if (!status.ok()) return status;
  return std::unique_ptr<EthernetPort>(new EthernetPort(interface, index, std::move(fd)));
}

EthernetPort::EthernetPort(std::string interface, int index, UniqueFd fd)
    : interface_(std::move(interface)),
      index_(index),
      fd_(std::move(fd)),
      incoming_(kReceiveBatch),
      incoming_headers_(kReceiveBatch),
      buffers_(new uint8_t[kReceiveBatch * kBufferBytes]),
      outgoing_headers_(kSendBatch),
      outgoing_parts_(kSendBatch) {
  outgoing_.reserve(kSendBatch);
  for (size_t i = 0; i < kReceiveBatch; ++i) {
    incoming_[i].part = {&buffers_[i * kBufferBytes], kBufferBytes};
    msghdr& header = incoming_headers_[i].msg_hdr;
    header = {};
    header.msg_iov = &incoming_[i].part;
    header.msg_iovlen = 1;
    header.msg_control = incoming_[i].control;
  }
  for (size_t i = 0; i < kSendBatch; ++i) {
    outgoing_headers_[i] = {};
    outgoing_headers_[i].msg_hdr.msg_iov = &outgoing_parts_[i];
    outgoing_headers_[i].msg_hdr.msg_iovlen = 1;
  }
}

EthernetPort::~EthernetPort() = default;

absl::Status EthernetPort::Receive(std::vector<Arrival>& arrivals) {
  arrivals.clear();
  for (mmsghdr& header : incoming_headers_) header.msg_hdr.msg_controllen = kControlBytes;
  const int count =
      recvmmsg(fd_.get(), incoming_headers_.data(), kReceiveBatch, MSG_DONTWAIT, nullptr);
  if (count < 0) {
    if (errno == EAGAIN || errno == EINTR) return absl::OkStatus();
    if (errno != ENETDOWN) ++counters_.receive_errors;
    return CheckStillThere();
  }
  const TimeNs now_ns = MonotonicNowNs();
  const uint64_t wall_now_ns = WallNowNs();
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    msghdr& header = incoming_headers_[i].msg_hdr;
    if ((header.msg_flags & MSG_TRUNC) != 0) {
      ++counters_.receive_errors;
      continue;
    }
    Arrival arrival{now_ns, {&buffers_[i * kBufferBytes], incoming_headers_[i].msg_len}, {}};
    for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
         control = CMSG_NXTHDR(&header, control)) {
      const uint8_t* data = CMSG_DATA(control);
      if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_TIMESTAMPNS) {
        const uint64_t age_ns = wall_now_ns - ToNs(LoadNative<timespec>(data));
        if (age_ns < kOldestArrivalNs) arrival.at_ns = now_ns - age_ns;
      } else if (control->cmsg_level == SOL_PACKET && control->cmsg_type == PACKET_AUXDATA) {
        const auto told = LoadNative<tpacket_auxdata>(data);
        if ((told.tp_status & TP_STATUS_VLAN_VALID) != 0) {
          const bool protocol_told = (told.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
          arrival.tag = VlanTag{protocol_told ? told.tp_vlan_tpid : uint16_t{ETHERTYPE_VLAN},
                                told.tp_vlan_tci};
        }
      }
    }
    arrivals.push_back(arrival);
  }
  return absl::OkStatus();
}

// An interface that is only down comes back by itself.
absl::Status EthernetPort::CheckStillThere() const {
  if (static_cast<int>(if_nametoindex(interface_.c_str())) == index_) return absl::OkStatus();
  return absl::NotFoundError(interface_ + ": the interface has gone away");
}

void EthernetPort::Send(FramePtr frame) {
  outgoing_.push_back(std::move(frame));
  if (outgoing_.size() == kSendBatch) SendNoted();
}

absl::Status EthernetPort::Flush() {
  SendNoted();
  return std::exchange(went_down_, false) ? CheckStillThere() : absl::OkStatus();
}

void EthernetPort::SendNoted() {
  for (size_t i = 0; i < outgoing_.size(); ++i) {
    outgoing_parts_[i] = {outgoing_[i]->data(), outgoing_[i]->bytes};
  }
  for (size_t done = 0; done < outgoing_.size();) {
    const int sent = sendmmsg(fd_.get(), &outgoing_headers_[done],
                              static_cast<unsigned>(outgoing_.size() - done), MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<size_t>(sent);
    } else if (errno != EINTR) {
      went_down_ |= errno == ENETDOWN || errno == ENXIO;
      ++counters_.send_errors;  // of the first of them
      ++done;
    }
  }
  outgoing_.clear();
}

const PortCounters& EthernetPort::counters() {
  tpacket_stats since_asked{};
  socklen_t bytes = sizeof(since_asked);
  if (getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &since_asked, &bytes) == 0) {
    counters_.kernel_drops += since_asked.tp_drops;
  }
  return counters_;
}

}  // namespace braid::linkem
