#include "outbox.h"

#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace braid::swarm {
namespace {

constexpr size_t kSpareDescriptors = 64;
constexpr int kEvents = 256;
// A shared socket takes what the server sends to all of its clients.
constexpr int kSocketBufferBytes = 4 << 20;

absl::Status AllowDescriptors(size_t wanted) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return absl::ErrnoToStatus(errno, "getrlimit");
  if (limit.rlim_cur >= wanted) return absl::OkStatus();
  limit.rlim_cur = wanted;
  // root may go above the hard limit.
  limit.rlim_max = std::max(limit.rlim_max, limit.rlim_cur);
  if (setrlimit(RLIMIT_NOFILE, &limit) == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError("--sockets: needs " + std::to_string(wanted) +
                                      " open files; raise the limit (ulimit -n) or share sockets");
}

Endpoint SourceOf(const IpPrefix& sources, size_t socket) {
  const uint32_t size = 1u << (32 - sources.length);
  const uint32_t first = LoadBe32(sources.address.bytes.data()) & ~(size - 1);
  // Neither the net's own address nor its broadcast.
  const auto offset = size > 2 ? 1 + static_cast<uint32_t>(socket % (size - 2)) : 0;
  std::array<uint8_t, 4> bytes;
  StoreBe32(bytes.data(), first + offset);
  return {IpAddress::V4(bytes.data()), 0};
}

}  // namespace

absl::Status Outbox::Open(const SocketOptions& options) {
  absl::Status status = AllowDescriptors(options.sockets + kSpareDescriptors);
  if (!status.ok()) return status;
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return absl::ErrnoToStatus(errno, "epoll_create1");
  sockaddr_storage server;
  const socklen_t server_length = options.server.To(server);
  for (size_t i = 0; i < options.sockets; ++i) {
    UniqueFd fd(::socket(server.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP));
    if (!fd) return absl::ErrnoToStatus(errno, "cannot open a UDP socket");
    if (options.sources.address.is_set()) {
      const Endpoint source = SourceOf(options.sources, i);
      sockaddr_storage address;
      const socklen_t length = source.To(address);
      if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) {
        return absl::ErrnoToStatus(errno, "--sources: cannot send from " +
                                              source.address.ToString() + " (ip route add local " +
                                              options.sources.ToString() + " dev lo)");
      }
    }
    for (const int option : {SO_SNDBUFFORCE, SO_RCVBUFFORCE}) {
      setsockopt(fd.get(), SOL_SOCKET, option, &kSocketBufferBytes, sizeof(kSocketBufferBytes));
    }
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&server), server_length) != 0) {
      return absl::ErrnoToStatus(errno, "--server: cannot reach " + options.server.ToString());
    }
    epoll_event event{.events = EPOLLIN, .data = {.u64 = i}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) {
      return absl::ErrnoToStatus(errno, "epoll_ctl");
    }
    sockets_.push_back(std::move(fd));
  }
  return absl::OkStatus();
}

uint8_t* Outbox::Reserve() {
  if (used_ == kQueue) Flush();
  return buffers_[used_].data();
}

void Outbox::Commit(size_t socket, size_t bytes) { waiting_[used_++] = {socket, bytes}; }

void Outbox::Send(size_t socket, Bytes datagram) {
  std::memcpy(Reserve(), datagram.data(), datagram.size());
  Commit(socket, datagram.size());
}

// Sockets are blocking for sends: what the swarm has counted as sent has left.
void Outbox::Flush() {
  std::array<mmsghdr, kQueue> messages;
  std::array<iovec, kQueue> parts;
  for (size_t first = 0; first < used_;) {
    const size_t socket = waiting_[first].socket;
    size_t count = 0;
    for (; first + count < used_ && waiting_[first + count].socket == socket; ++count) {
      parts[count] = {buffers_[first + count].data(), waiting_[first + count].bytes};
      messages[count] = {};
      messages[count].msg_hdr.msg_iov = &parts[count];
      messages[count].msg_hdr.msg_iovlen = 1;
    }
    bool tried_again = false;
    for (size_t done = 0; done < count;) {
      const int sent = sendmmsg(sockets_[socket].get(), messages.data() + done,
                                static_cast<unsigned>(count - done), MSG_NOSIGNAL);
      if (sent > 0) {
        done += static_cast<size_t>(sent);
        tried_again = false;
      } else if (!std::exchange(tried_again, true)) {
        // A connected socket tells here what the network said of an earlier datagram.
        continue;
      } else {
        ++refused_;
        ++done;
        tried_again = false;
      }
    }
    first += count;
  }
  used_ = 0;
}

void Outbox::Receive(TimeNs until_ns, OnDatagram on_datagram) {
  std::array<epoll_event, kEvents> events;
  const TimeNs now_ns = MonotonicNowNs();
  const DurationNs wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
  const timespec wait{.tv_sec = static_cast<time_t>(wait_ns / kSecondNs),
                      .tv_nsec = static_cast<long>(wait_ns % kSecondNs)};
  const int ready = epoll_pwait2(epoll_.get(), events.data(), kEvents, &wait, nullptr);
  std::array<mmsghdr, kQueue> messages;
  std::array<iovec, kQueue> parts;
  // A socket of one client has seldom more than one datagram.
  const size_t at_once = sockets_.size() > kQueue ? 4 : kQueue;
  for (int i = 0; i < ready; ++i) {
    const size_t socket = events[static_cast<size_t>(i)].data.u64;
    for (size_t k = 0; k < at_once; ++k) {
      parts[k] = {received_[k].data(), received_[k].size()};
      messages[k] = {};
      messages[k].msg_hdr.msg_iov = &parts[k];
      messages[k].msg_hdr.msg_iovlen = 1;
    }
    const int got = recvmmsg(sockets_[socket].get(), messages.data(),
                             static_cast<unsigned>(at_once), MSG_DONTWAIT, nullptr);
    for (int k = 0; k < got; ++k) {
      on_datagram(socket, {received_[static_cast<size_t>(k)].data(),
                           messages[static_cast<size_t>(k)].msg_len});
    }
  }
}

}  // namespace braid::swarm
