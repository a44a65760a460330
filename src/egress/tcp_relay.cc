#include "egress/tcp_relay.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "egress/first_bytes.h"
#include "io/own_mark.h"
#include "io/socket_options.h"

namespace braid {
namespace {

constexpr int kNear = 0;
constexpr int kFar = 1;

constexpr size_t kMessageSlots = 4096;
constexpr int kEventsPerWait = 256;
constexpr int kBacklog = 4096;
constexpr int kAcceptsPerEvent = 64;
// Read at once of one end; and moved before others have their turn.
constexpr size_t kScratchBytes = 512 << 10;
constexpr size_t kLeastReadBytes = 16 << 10;
constexpr size_t kTurnBytes = 2 << 20;
constexpr DurationNs kSweepEveryNs = kSecondNs;
constexpr DurationNs kFarewellNs = 500 * kMillisecondNs;
constexpr auto kFarewellPause = std::chrono::milliseconds(5);
// A peer that has gone without a word is noticed by the kernel within some minutes.
constexpr int kKeepaliveIdleS = 120;
constexpr int kKeepaliveEveryS = 30;
constexpr int kKeepaliveProbes = 4;

constexpr uint64_t kDoorbellTag = UINT64_MAX;
constexpr uint64_t kListenerTag = UINT64_MAX - 2;  // and the one after it: of IPv4, of IPv6
constexpr uint32_t kNowhere = UINT32_MAX;

size_t IndexOf(IpAddress::Family family) { return family == IpAddress::Family::kV4 ? 0 : 1; }

void KeepAlive(int fd) {
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepaliveIdleS, sizeof(kKeepaliveIdleS));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepaliveEveryS, sizeof(kKeepaliveEveryS));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kKeepaliveProbes, sizeof(kKeepaliveProbes));
}

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

bool HasHeardOfEnd(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return true;
  return info.tcpi_state != TCP_FIN_WAIT1 && info.tcpi_state != TCP_CLOSING &&
         info.tcpi_state != TCP_LAST_ACK;
}

// When it is closed, the other end sees a reset.
void CloseWithReset(UniqueFd fd) {
  if (fd) SetResetOnClose(fd.get());
}

}  // namespace

// One direction of a flow is named by the end that it comes from.
struct TcpRelay::Flow {
  struct Direction {
    std::vector<uint8_t> kept;            // read, and not taken yet
    size_t kept_from = 0;                 // where what is left of it begins
    uint32_t read_bytes = kScratchBytes;  // at once, as much as is likely taken
    bool readable = false;                // as far as known
    bool ended = false;                   // nothing more comes
    bool passed_end = false;
  };

  bool used = false;
  bool awaits_first = false;  // what it says first is looked at, and not read
  bool is_near_watched = false;
  bool is_kept_alive = false;  // also at its far end
  bool queued = false;         // in again_
  uint32_t tag = 0;  // of its events: those of another flow of this place have another one
  TcpFlowId flow;
  std::array<UniqueFd, 2> ends;
  std::shared_ptr<void> hold;
  std::array<Direction, 2> from;
  TimeNs begun_ns = 0;
  TimeNs moved_ns = 0;

  bool is_joined() const { return ends[kNear] && ends[kFar]; }
  // All has been moved, and both ends were told so.
  bool is_moved() const { return from[kNear].passed_end && from[kFar].passed_end; }
};

TcpRelay::TcpRelay(Options options)
    : options_(std::move(options)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      messages_(kMessageSlots),
      flows_(static_cast<size_t>(options_.max_flows)),
      scratch_(new uint8_t[kScratchBytes]),
      spare_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
  for (uint32_t place = static_cast<uint32_t>(flows_.size()); place-- > 0;) free_.push_back(place);
  for (auto& ports : by_port_) ports.assign(65536, kNowhere);
}

TcpRelay::~TcpRelay() { Stop(); }

absl::StatusOr<std::unique_ptr<TcpRelay>> TcpRelay::Listen(Options options) {
  std::unique_ptr<TcpRelay> relay(new TcpRelay(std::move(options)));
  const Options& wanted = relay->options_;
  if (!relay->epoll_) return absl::ErrnoToStatus(errno, "epoll");
  epoll_event event{EPOLLIN, {.u64 = kDoorbellTag}};
  epoll_ctl(relay->epoll_.get(), EPOLL_CTL_ADD, relay->doorbell_.fd(), &event);
  for (const IpAddress& address : wanted.listen) {
    UniqueFd fd(socket(address.socket_family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return absl::ErrnoToStatus(errno, "a socket for TCP flows");
    // What it answers goes into the device by the route of its neighbour, not by the tunnel's.
    SetOwnMark(fd.get());
    // What is accepted has these from it.
    KeepAlive(fd.get());
    SendAtOnce(fd.get());
    if (!wanted.device.empty() &&
        setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, wanted.device.data(),
                   static_cast<socklen_t>(wanted.device.size())) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("binding to ", wanted.device));
    }
    sockaddr_storage at;
    socklen_t length = Endpoint{address, 0, 0}.To(at);
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), length) != 0 ||
        listen(fd.get(), kBacklog) != 0) {
      return absl::ErrnoToStatus(errno,
                                 absl::StrCat("listening for TCP flows at ", address.ToString()));
    }
    length = sizeof(at);
    getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &length);
    relay->ports_[IndexOf(address.family)] = Endpoint::From(at).port;
    event.data.u64 = kListenerTag + IndexOf(address.family);
    epoll_ctl(relay->epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event);
    relay->listeners_.push_back(std::move(fd));
  }
  return relay;
}

uint16_t TcpRelay::PortOf(IpAddress::Family family) const { return ports_[IndexOf(family)]; }

void TcpRelay::Start() {
  thread_ = std::thread([this] { Run(); });
}

void TcpRelay::BeginStop() {
  if (!thread_.joinable() || std::exchange(has_begun_stop_, true)) return;
  while (!Tell({.type = Message::Type::kStop, .flow = {}, .far = {}, .hold = {}}))
    std::this_thread::yield();
}

void TcpRelay::Stop() {
  if (!thread_.joinable()) return;
  BeginStop();
  thread_.join();
}

bool TcpRelay::Tell(Message&& message) {
  if (!messages_.TryPush(std::move(message))) return false;
  doorbell_.Ring();
  return true;
}

bool TcpRelay::Expect(const TcpFlowId& flow, UniqueFd far, std::shared_ptr<void> hold) {
  return Tell({Message::Type::kExpect, flow, std::move(far), std::move(hold)});
}

bool TcpRelay::ExpectFirst(const TcpFlowId& flow) {
  return Tell({.type = Message::Type::kExpectFirst, .flow = flow, .far = {}, .hold = {}});
}

bool TcpRelay::Connect(const TcpFlowId& flow, UniqueFd far, std::shared_ptr<void> hold) {
  return Tell({Message::Type::kConnect, flow, std::move(far), std::move(hold)});
}

bool TcpRelay::Reset(const TcpFlowId& flow) {
  return Tell({.type = Message::Type::kReset, .flow = flow, .far = {}, .hold = {}});
}

bool TcpRelay::ResetAll() {
  return Tell({.type = Message::Type::kResetAll, .flow = {}, .far = {}, .hold = {}});
}

// --- The thread ---

void TcpRelay::Run() {
  const std::string name = absl::StrCat("braid-relay", options_.index);
  pthread_setname_np(pthread_self(), name.c_str());
  std::array<epoll_event, kEventsPerWait> events;
  std::vector<uint32_t> turn;
  while (!stopping_) {
    doorbell_.AnnounceSleep();
    const int count = epoll_wait(epoll_.get(), events.data(), kEventsPerWait,
                                 static_cast<int>(SleepNs() / kMillisecondNs));
    doorbell_.AnnounceAwake();
    now_ns_ = MonotonicNowNs();
    // What is expected is known before it is accepted.
    TakeMessages();
    for (int i = 0; i < count; ++i) OnEvent(events[i].data.u64, events[i].events);
    turn.swap(again_);
    for (const uint32_t place : turn) {
      flows_[place].queued = false;
      for (const int from : {kNear, kFar}) {
        if (flows_[place].used && !Move(place, from)) break;
      }
    }
    turn.clear();
    if (now_ns_ >= next_sweep_ns_) Sweep(now_ns_);
    TellOfFirst();
    TellOfEnds();
  }
  SayFarewell();
}

// The near ends are reached by way of the workers, which end next; so it is waited until the
// kernels at both ends have said that they know, within reason.
void TcpRelay::SayFarewell() {
  std::vector<int> unheard;
  for (const Flow& flow : flows_) {
    for (const UniqueFd& end : flow.ends) {
      if (flow.used && end && shutdown(end.get(), SHUT_WR) == 0) unheard.push_back(end.get());
    }
  }
  const TimeNs until_ns = MonotonicNowNs() + kFarewellNs;
  while (!unheard.empty() && MonotonicNowNs() < until_ns) {
    std::erase_if(unheard, HasHeardOfEnd);
    if (!unheard.empty()) std::this_thread::sleep_for(kFarewellPause);
  }
  for (uint32_t place = 0; place < flows_.size(); ++place) {
    if (flows_[place].used) EndFlow(place, false);
  }
}

void TcpRelay::TakeMessages() {
  Message message;
  while (messages_.TryPop(message)) Take(message);
}

void TcpRelay::Take(Message& message) {
  switch (message.type) {
    case Message::Type::kNone:
      break;
    case Message::Type::kExpect:
    case Message::Type::kExpectFirst: {
      // Of its port there is no other one any more.
      const uint32_t before = by_port_[message.flow.v6][message.flow.port];
      if (before != kNowhere) EndFlow(before, true);
      const uint32_t place = TakePlace();
      if (place == kNowhere) {
        ended_.push_back(message.flow);
        break;
      }
      Flow& flow = flows_[place];
      flow.flow = message.flow;
      flow.ends[kFar] = std::move(message.far);
      flow.hold = std::move(message.hold);
      flow.awaits_first = message.type == Message::Type::kExpectFirst;
      by_port_[flow.flow.v6][flow.flow.port] = place;
      break;
    }
    case Message::Type::kConnect: {
      const uint32_t place = Find(message.flow);
      if (place == kNowhere) break;
      flows_[place].ends[kFar] = std::move(message.far);
      flows_[place].hold = std::move(message.hold);
      if (flows_[place].is_joined()) Join(place);
      break;
    }
    case Message::Type::kReset: {
      const uint32_t place = Find(message.flow);
      if (place != kNowhere) EndFlow(place, true);
      break;
    }
    case Message::Type::kResetAll:
      for (uint32_t place = 0; place < flows_.size(); ++place) {
        if (flows_[place].used) EndFlow(place, true);
      }
      break;
    case Message::Type::kStop:
      stopping_ = true;
      break;
  }
}

uint32_t TcpRelay::TakePlace() {
  if (free_.empty()) return kNowhere;
  const uint32_t place = free_.back();
  free_.pop_back();
  Flow& flow = flows_[place];
  const uint32_t tag = flow.tag + 1;
  flow = Flow();
  flow.used = true;
  flow.tag = tag;
  flow.begun_ns = flow.moved_ns = now_ns_;
  totals_.flows.fetch_add(1, std::memory_order_relaxed);
  return place;
}

uint32_t TcpRelay::Find(const TcpFlowId& flow) const {
  const uint32_t place = by_port_[flow.v6][flow.port];
  return place != kNowhere && flows_[place].flow == flow ? place : kNowhere;
}

// What cannot be accepted would be told of for ever, so it is accepted in the place of the
// descriptor that is kept for that, and reset. Its flow is given up after a while.
bool TcpRelay::RefuseForWantOfFiles(int listener) {
  if (!spare_) return false;
  spare_ = UniqueFd();
  UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  const bool is_refused = static_cast<bool>(fd);
  if (is_refused) totals_.unexpected.Add(1);
  CloseWithReset(std::move(fd));
  spare_ = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return is_refused;
}

void TcpRelay::Accept(int listener, bool v6) {
  for (int i = 0; i < kAcceptsPerEvent; ++i) {
    sockaddr_storage from;
    socklen_t length = sizeof(from);
    UniqueFd fd(accept4(listener, reinterpret_cast<sockaddr*>(&from), &length,
                        SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      if ((errno == EMFILE || errno == ENFILE) && RefuseForWantOfFiles(listener)) continue;
      return;
    }
    const Endpoint near = Endpoint::From(from);
    const bool is_neighbour = std::find(options_.neighbours.begin(), options_.neighbours.end(),
                                        near.address) != options_.neighbours.end();
    uint32_t place = is_neighbour ? by_port_[v6][near.port] : kNowhere;
    if (is_neighbour && place == kNowhere) {
      // It was told of before it came here, but may be so after the last look.
      TakeMessages();
      place = by_port_[v6][near.port];
    }
    if (place == kNowhere || flows_[place].ends[kNear]) {
      totals_.unexpected.Add(1);
      CloseWithReset(std::move(fd));
      continue;
    }
    totals_.accepted.Add(1);
    Flow& flow = flows_[place];
    flow.ends[kNear] = std::move(fd);
    if (flow.is_joined()) Join(place);
    if (!flow.awaits_first) continue;
    epoll_event event{EPOLLIN | EPOLLRDHUP | EPOLLET, {}};
    event.data.u64 = uint64_t{flow.tag} << 32 | place << 1 | kNear;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, flow.ends[kNear].get(), &event);
    flow.is_near_watched = true;
    awaits_first_.emplace_back(now_ns_ + options_.first_bytes_within_ns, flow.flow);
  }
}

// Both ends are there: events of them are told from here on, at first what is so now.
void TcpRelay::Join(uint32_t place) {
  Flow& flow = flows_[place];
  flow.moved_ns = now_ns_;
  flow.awaits_first = false;
  SendAtOnce(flow.ends[kFar].get());
  for (const int end : {kNear, kFar}) {
    epoll_event event{EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {}};
    event.data.u64 = uint64_t{flow.tag} << 32 | place << 1 | static_cast<uint32_t>(end);
    const bool is_watched = end == kNear && flow.is_near_watched;
    epoll_ctl(epoll_.get(), is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, flow.ends[end].get(),
              &event);
  }
}

// Looks at what has come, and leaves it there for who connects.
void TcpRelay::LookAtFirst(uint32_t place, bool is_late) {
  Flow& flow = flows_[place];
  if (!flow.awaits_first) return;
  const ssize_t got =
      recv(flow.ends[kNear].get(), scratch_.get(), kMaxFirstBytes, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && errno != EAGAIN && errno != EINTR) return EndFlow(place, true);
  FirstBytes first;
  if (got > 0) first = ReadFirstBytes({scratch_.get(), static_cast<size_t>(got)});
  const bool has_ended = got == 0;
  if (first.verdict == FirstBytesVerdict::kMore && !has_ended && !is_late) return;
  flow.awaits_first = false;
  first_.push_back({flow.flow, std::move(first.name)});
}

void TcpRelay::TellOfFirst() {
  while (!awaits_first_.empty() && awaits_first_.front().first <= now_ns_) {
    const uint32_t place = Find(awaits_first_.front().second);
    awaits_first_.pop_front();
    if (place != kNowhere) LookAtFirst(place, true);
  }
  while (!first_.empty() && options_.on_first(first_.front().flow, first_.front().name)) {
    first_.pop_front();
  }
}

DurationNs TcpRelay::SleepNs() const {
  if (!messages_.Empty() || !again_.empty()) return 0;
  if (!ended_.empty() || !first_.empty()) return kMillisecondNs;
  if (awaits_first_.empty()) return kSweepEveryNs;
  const TimeNs due_ns = awaits_first_.front().first;
  const DurationNs left_ns = due_ns > now_ns_ ? due_ns - now_ns_ : 0;
  return std::min(left_ns + kMillisecondNs, kSweepEveryNs);
}

void TcpRelay::OnEvent(uint64_t tag, uint32_t events) {
  if (tag == kDoorbellTag) {
    uint64_t rung;
    (void)!read(doorbell_.fd(), &rung, sizeof(rung));
    return;
  }
  if (tag >= kListenerTag) {
    const bool v6 = tag != kListenerTag;
    for (size_t i = 0; i < listeners_.size(); ++i) {
      if (options_.listen[i].is_v6() == v6) Accept(listeners_[i].get(), v6);
    }
    return;
  }
  const auto place = static_cast<uint32_t>(tag & UINT32_MAX) >> 1;
  const int end = static_cast<int>(tag & 1);
  Flow& flow = flows_[place];
  if (!flow.used || flow.tag != tag >> 32) return;
  if (flow.is_moved()) {
    AwaitHeard(place);
    return;
  }
  if ((events & EPOLLERR) != 0) {
    // What the end has sent before that is still there to be read.
    flow.from[end].readable = true;
    if (flow.is_joined() && !Move(place, end)) return;
    return EndFlow(place, true);
  }
  if (!flow.is_joined()) return LookAtFirst(place, false);
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) != 0) flow.from[end].readable = true;
  // What this end takes again, and what it has.
  const int other = 1 - end;
  if ((events & EPOLLOUT) != 0 && !Move(place, other)) return;
  if (flow.from[end].readable) Move(place, end);
}

// True when all of it is taken.
bool TcpRelay::FlushKept(Flow& flow, int from) {
  Flow::Direction& direction = flow.from[from];
  while (direction.kept_from < direction.kept.size()) {
    const ssize_t sent =
        send(flow.ends[1 - from].get(), &direction.kept[direction.kept_from],
             direction.kept.size() - direction.kept_from, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return false;
    direction.kept_from += static_cast<size_t>(sent);
    totals_.kept_bytes.fetch_sub(static_cast<uint64_t>(sent), std::memory_order_relaxed);
    flow.moved_ns = now_ns_;
  }
  direction.kept = {};
  direction.kept_from = 0;
  return true;
}

bool TcpRelay::Move(uint32_t place, int from) {
  Flow& flow = flows_[place];
  Flow::Direction& direction = flow.from[from];
  const int to_fd = flow.ends[1 - from].get();
  const int from_fd = flow.ends[from].get();
  if (!direction.kept.empty() && !FlushKept(flow, from)) {
    if (errno == EAGAIN) return true;
    EndFlow(place, true);
    return false;
  }
  size_t moved = 0;
  while (direction.readable && !direction.ended) {
    if (moved >= kTurnBytes) {
      if (!flow.queued) again_.push_back(place);
      flow.queued = true;
      break;
    }
    const size_t wanted = direction.read_bytes;
    const ssize_t got = recv(from_fd, scratch_.get(), wanted, MSG_DONTWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        direction.readable = false;
        break;
      }
      EndFlow(place, true);
      return false;
    }
    if (got == 0) {
      direction.ended = true;
      break;
    }
    const auto bytes = static_cast<size_t>(got);
    (from == kNear ? totals_.up_bytes : totals_.down_bytes).Add(bytes);
    moved += bytes;
    const ssize_t sent = send(to_fd, scratch_.get(), bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) {
      EndFlow(place, true);
      return false;
    }
    const size_t taken = sent < 0 ? 0 : static_cast<size_t>(sent);
    if (taken == bytes) {
      direction.read_bytes =
          std::min<uint32_t>(direction.read_bytes + kLeastReadBytes, kScratchBytes);
      continue;
    }
    // So much is likely taken the next time; the rest waits here.
    direction.read_bytes = static_cast<uint32_t>(std::max(taken, kLeastReadBytes));
    direction.kept.assign(scratch_.get() + taken, scratch_.get() + bytes);
    totals_.kept_bytes.fetch_add(bytes - taken, std::memory_order_relaxed);
    break;
  }
  if (moved != 0) flow.moved_ns = now_ns_;
  if (!direction.ended || !direction.kept.empty()) return true;
  if (!direction.passed_end) {
    direction.passed_end = true;
    shutdown(to_fd, SHUT_WR);
  }
  return !flow.is_moved() || AwaitHeard(place);
}

// The kernel still sends what the near end has not taken yet. Were the flow over, its port would be
// another one's meanwhile. False when it is.
bool TcpRelay::AwaitHeard(uint32_t place) {
  Flow& flow = flows_[place];
  flow.ends[kFar] = UniqueFd();
  if (!HasHeardOfEnd(flow.ends[kNear].get())) return true;
  EndFlow(place, false);
  return false;
}

void TcpRelay::EndFlow(uint32_t place, bool reset) {
  Flow& flow = flows_[place];
  uint64_t kept = 0;
  for (const Flow::Direction& direction : flow.from) {
    kept += direction.kept.size() - direction.kept_from;
  }
  totals_.kept_bytes.fetch_sub(kept, std::memory_order_relaxed);
  if (reset) {
    totals_.reset.Add(1);
    for (UniqueFd& end : flow.ends) CloseWithReset(std::move(end));
  }
  const TcpFlowId ended = flow.flow;
  by_port_[ended.v6][ended.port] = kNowhere;
  const uint32_t tag = flow.tag;
  flow = Flow();
  flow.tag = tag;
  free_.push_back(place);
  totals_.flows.fetch_sub(1, std::memory_order_relaxed);
  ended_.push_back(ended);
}

void TcpRelay::TellOfEnds() {
  while (!ended_.empty() && options_.on_end(ended_.front())) ended_.pop_front();
}

void TcpRelay::Sweep(TimeNs now_ns) {
  next_sweep_ns_ = now_ns + kSweepEveryNs;
  for (uint32_t place = 0; place < flows_.size(); ++place) {
    Flow& flow = flows_[place];
    if (!flow.used) continue;
    const bool late = !flow.ends[kNear] && now_ns - flow.begun_ns > options_.accept_within_ns;
    const bool idle = now_ns - flow.moved_ns > options_.idle_ns;
    const bool lasts = flow.is_joined() && now_ns - flow.begun_ns > kSweepEveryNs;
    if (lasts && !std::exchange(flow.is_kept_alive, true)) KeepAlive(flow.ends[kFar].get());
    if (!late && !idle) continue;
    totals_.idle.Add(1);
    EndFlow(place, true);
  }
}

}  // namespace braid
