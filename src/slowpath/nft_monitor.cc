#include "slowpath/nft_monitor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "io/unique_fd.h"

namespace braid {
namespace {

constexpr int kTableEventsPerWake = 64;  // before others have their turn
// Who hears of a change looks at tables that may be large: where others change rules all the time,
// that is not done all the time.
constexpr int kPauseForLooking = 10;
constexpr std::chrono::seconds kLongestPause{1};  // a flushed kill switch waits for its return
constexpr uint16_t kNewGeneration = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN;

// Each transaction ends with a message of its own that says so. The others, one for each rule and
// each element of a set, are left out by the kernel, so that they take no room.
bool TakeNewGenerationsAlone(int fd) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(nlmsghdr, nlmsg_type)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(kNewGeneration), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  const sock_fprog program{std::size(code), code};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0;
}

}  // namespace

NftMonitor::NftMonitor(boost::asio::io_context& io, OnChange on_change)
    : events_(io), timer_(io), on_change_(std::move(on_change)) {}

absl::Status NftMonitor::Start() {
  const UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER));
  sockaddr_nl own{};
  own.nl_family = AF_NETLINK;
  const int group = NFNLGRP_NFTABLES;
  const bool listens =
      fd && TakeNewGenerationsAlone(fd.get()) &&
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), sizeof(own)) == 0 &&
      setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) == 0;
  if (!listens) {
    return absl::UnavailableError(
        absl::StrCat("cannot follow changes of nftables: ", strerror(errno)));
  }
  const int copy = fcntl(fd.get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return absl::ErrnoToStatus(errno, "cannot follow changes of nftables");
  events_.assign(copy);
  Wait();
  return absl::OkStatus();
}

void NftMonitor::Close() {
  events_.close();
  timer_.cancel();
}

void NftMonitor::Wait() {
  events_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [this](const boost::system::error_code& error) {
                       if (error) return;
                       TakeEvents();
                       Wait();
                     });
}

// What the kernel had no room to tell (ENOBUFS) is a change as well.
void NftMonitor::TakeEvents() {
  std::array<char, 512> message;
  bool changed = false;
  for (int i = 0; i < kTableEventsPerWake; ++i) {
    const ssize_t length = recv(events_.native_handle(), message.data(), message.size(), 0);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0 && errno != ENOBUFS) break;
    changed = true;
  }
  if (changed) Schedule();
}

void NftMonitor::Schedule() {
  if (std::exchange(scheduled_, true)) return;
  timer_.expires_after(pause_);
  timer_.async_wait([this](const boost::system::error_code& error) {
    scheduled_ = false;
    if (!error) Tell();
  });
}

void NftMonitor::Tell() {
  const auto begin = std::chrono::steady_clock::now();
  on_change_();
  pause_ = std::clamp<std::chrono::steady_clock::duration>(
      (std::chrono::steady_clock::now() - begin) * kPauseForLooking, kCoalesce, kLongestPause);
}

}  // namespace braid
