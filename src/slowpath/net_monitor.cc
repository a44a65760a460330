#include "slowpath/net_monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

namespace braid {
namespace {

constexpr size_t kEventBytes = 32 * 1024;  // the largest message of the kernel
constexpr int kNetEventsPerWake = 256;     // before others have their turn
// Reading a network of very many routes may take long: it is not done all the time.
constexpr int kPauseForReading = 10;

}  // namespace

NetMonitor::NetMonitor(boost::asio::io_context& io, OnChange on_change)
    : events_(io), timer_(io), on_change_(std::move(on_change)) {}

absl::Status NetMonitor::Start() {
  auto socket = OpenRtnetlink();
  if (!socket.ok()) return socket.status();
  socket_ = *std::move(socket);
  const int result = nl_socket_add_memberships(
      socket_.get(), RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
      RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_NETCONF,
      RTNLGRP_IPV6_NETCONF, 0);
  if (result < 0) return NetlinkError(result, "cannot follow this machine's network");
  // What changes while it is read is told as well.
  auto network = ReadNetSnapshot();
  if (!network.ok()) return network.status();
  network_ = *std::move(network);
  const int copy = fcntl(fd(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return absl::ErrnoToStatus(errno, "cannot follow this machine's network");
  events_.assign(copy);
  Wait();
  return absl::OkStatus();
}

void NetMonitor::Close() {
  events_.close();
  timer_.cancel();
}

void NetMonitor::Wait() {
  events_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [this](const boost::system::error_code& error) {
                       if (error) return;
                       TakeEvents();
                       Wait();
                     });
}

void NetMonitor::TakeEvents() {
  alignas(nlmsghdr) static thread_local std::array<char, kEventBytes> bytes;
  for (int i = 0; i < kNetEventsPerWake; ++i) {
    const ssize_t length = recv(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (length > 0) {
      Note(bytes.data(), static_cast<size_t>(length));
    } else if (length < 0 && errno == ENOBUFS) {
      news_ = {true, true};
    } else if (length == 0 || errno != EINTR) {
      break;
    }
  }
  if (news_.routes || news_.network) Schedule();
}

// The kernel tells nothing of routes that go with their link or address, so those are read again
// whenever one of those changes.
void NetMonitor::Note(const char* bytes, size_t length) {
  auto left = static_cast<unsigned>(length);
  for (const auto* message = reinterpret_cast<const nlmsghdr*>(bytes); NLMSG_OK(message, left);
       message = NLMSG_NEXT(const_cast<nlmsghdr*>(message), left)) {
    switch (message->nlmsg_type) {
      case RTM_NEWLINK:
      case RTM_DELLINK:
      case RTM_NEWADDR:
      case RTM_DELADDR:
        news_.network = true;
        break;
      case RTM_NEWROUTE:
      case RTM_DELROUTE:
        news_.routes = true;
        if (message->nlmsg_len >= NLMSG_LENGTH(sizeof(rtmsg)) &&
            static_cast<const rtmsg*>(NLMSG_DATA(message))->rtm_dst_len == 0) {
          news_.network = true;
        }
        break;
      case RTM_NEWRULE:
      case RTM_DELRULE:
      case RTM_NEWNETCONF:
        news_.routes = true;
        break;
      default:
        break;
    }
  }
}

void NetMonitor::Schedule() {
  if (scheduled_) return;
  scheduled_ = true;
  timer_.expires_after(pause_);
  timer_.async_wait([this](const boost::system::error_code& error) {
    scheduled_ = false;
    if (!error) Tell();
  });
}

void NetMonitor::Tell() {
  News news = std::exchange(news_, {});
  pause_ = kCoalesce;
  if (news.network) {
    const auto begin = std::chrono::steady_clock::now();
    auto network = ReadNetSnapshot();
    pause_ = std::max<std::chrono::steady_clock::duration>(
        kCoalesce, (std::chrono::steady_clock::now() - begin) * kPauseForReading);
    if (!network.ok()) {
      news_ = news;
      return Schedule();
    }
    // Links also tell of what nobody here asks for, such as their counters.
    if (!news.routes && *network == network_) return;
    network_ = *std::move(network);
  }
  on_change_(network_);
}

}  // namespace braid
