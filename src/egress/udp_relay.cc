#include "egress/udp_relay.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "egress/dns_message.h"
#include "fastpath/socks5_udp.h"
#include "io/datagram_message.h"
#include "io/own_mark.h"
#include "io/socket_options.h"

namespace braid {
namespace {

constexpr size_t kUdpMessageSlots = 4096;
constexpr int kUdpEventsPerWait = 256;
constexpr int kPacketsPerTurn = 1024;
constexpr int kReadsPerEvent = 32;
constexpr size_t kUdpScratchBytes = 64 << 10;
constexpr size_t kUdpHeaderBytes = 8;
constexpr size_t kMaxUdpHeadersBytes = 40 + kUdpHeaderBytes;
constexpr uint8_t kTimeToLive = 64;
// One that was refused is not asked for again before.
constexpr DurationNs kRefusedForNs = 2 * kSecondNs;
constexpr DurationNs kTellAgainNs = kMillisecondNs;

constexpr uint64_t kUdpDoorbellTag = UINT64_MAX;

FlowKey KeyOf(const Endpoint& source, const EgressAction& action) {
  FlowKey key;
  key.source = source.address;
  key.source_port = source.port;
  key.destination_port = action.group;
  key.protocol = static_cast<uint8_t>(action.to);
  return key;
}

// Whether the payload is what was sent: the kernel says so, or sees to it later, or its checksum
// does. IPv4 need not have one (RFC 768).
bool IsSound(const VnetHeader& vnet, const Segmenter& segmenter) {
  const InnerPacket& inner = segmenter.inner();
  const Bytes packet = segmenter.packet();
  if (segmenter.partial_checksum() || (vnet.flags & VnetHeader::kDataValid) != 0) return true;
  const size_t checksum_at = inner.l4_offset + size_t{inner.checksum_offset()};
  if (!inner.v6 && LoadBe16(&packet[checksum_at]) == 0) return true;
  return ChecksumIsValid(packet, inner);
}

}  // namespace

struct UdpRelay::Session {
  enum class State : uint8_t { kFree, kPending, kOpen, kRefused };
  State state = State::kFree;
  bool through_server = false;
  bool is_told_of = false;  // by on_begin()
  bool segmentation_refused = false;
  Endpoint source;  // the inner one
  Endpoint relay;   // the server's, which the socket is connected to
  EgressAction action;
  UniqueFd socket;
  std::shared_ptr<void> hold;
  uint32_t generation = 0;
  TimeNs used_ns = 0;
  Endpoint last_to;  // whom it has spoken to last
  Place older = kNowhere, newer = kNowhere;
  // For the session to open.
  Waiting waiting;
  size_t waiting_bytes = 0;
};

// Datagrams of equal size behind each other, for one send.
struct UdpRelay::Train {
  Place place = kNowhere;
  Endpoint to;  // of a session that goes straight out
  size_t datagram_bytes = 0;
  size_t datagrams = 0;
  size_t bytes = 0;
  size_t payload_bytes = 0;  // of them, without a server's headers
  bool is_complete = false;  // the last one was shorter
  std::unique_ptr<uint8_t[]> memory{new uint8_t[kUdpScratchBytes]};
};

UdpRelay::UdpRelay(Options options)
    : options_(std::move(options)),
      datagrams_(options_.workers),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      messages_(kUdpMessageSlots),
      sessions_(options_.max_sessions),
      index_(options_.max_sessions),
      trains_(kTrains),
      scratch_(new uint8_t[kUdpScratchBytes]) {
  for (auto place = static_cast<Place>(sessions_.size()); place-- > 0;) free_.push_back(place);
  epoll_event event{EPOLLIN, {.u64 = kUdpDoorbellTag}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, datagrams_.doorbell.fd(), &event);
}

UdpRelay::~UdpRelay() { Stop(); }

void UdpRelay::Start() {
  thread_ = std::thread([this] { Run(); });
}

void UdpRelay::Stop() {
  if (!thread_.joinable()) return;
  Message stop;
  stop.type = Message::Type::kStop;
  while (!Tell(std::move(stop))) std::this_thread::yield();
  thread_.join();
}

bool UdpRelay::Tell(Message&& message) {
  if (!messages_.TryPush(std::move(message))) return false;
  datagrams_.doorbell.Ring();
  return true;
}

bool UdpRelay::Open(const UdpSessionId& session, UniqueFd socket, std::shared_ptr<void> hold) {
  Message message;
  message.type = Message::Type::kOpen;
  message.session = session;
  message.socket = std::move(socket);
  message.hold = std::move(hold);
  return Tell(std::move(message));
}

bool UdpRelay::Refuse(const UdpSessionId& session) {
  Message message;
  message.type = Message::Type::kRefuse;
  message.session = session;
  return Tell(std::move(message));
}

bool UdpRelay::End(const UdpSessionId& session) {
  Message message;
  message.type = Message::Type::kEnd;
  message.session = session;
  return Tell(std::move(message));
}

bool UdpRelay::EndAll() {
  Message message;
  message.type = Message::Type::kEndAll;
  return Tell(std::move(message));
}

bool UdpRelay::Answer(const Endpoint& source, const Endpoint& destination,
                      std::vector<uint8_t> payload) {
  Message message;
  message.type = Message::Type::kAnswer;
  message.source = source;
  message.destination = destination;
  message.payload = std::move(payload);
  return Tell(std::move(message));
}

// --- The thread ---

void UdpRelay::Run() {
  const std::string name = absl::StrCat("braid-udp", options_.index);
  pthread_setname_np(pthread_self(), name.c_str());
  std::array<epoll_event, kUdpEventsPerWait> events;
  while (!stopping_) {
    datagrams_.doorbell.AnnounceSleep();
    const bool waits = messages_.Empty() && datagrams_.Empty();
    const DurationNs most_ns = ended_.empty() ? kSecondNs : kTellAgainNs;
    const int count = epoll_wait(epoll_.get(), events.data(), kUdpEventsPerWait,
                                 waits ? static_cast<int>(most_ns / kMillisecondNs) : 0);
    datagrams_.doorbell.AnnounceAwake();
    now_ns_ = MonotonicNowNs();
    TakeMessages();
    for (int i = 0; i < count; ++i) OnReadable(events[i].data.u64);
    for (const auto& packets : datagrams_.packets) TakePackets(*packets);
    FlushTrains();
    Expire();
    TellOfEnds();
  }
}

void UdpRelay::TakeMessages() {
  Message message;
  while (messages_.TryPop(message)) Take(message);
}

void UdpRelay::Take(Message& message) {
  Session* const session = Find(message.session);
  switch (message.type) {
    case Message::Type::kNone:
      break;
    case Message::Type::kOpen: {
      // It has ended meanwhile. Who was told so could not let go of what has come only now.
      if (session == nullptr) ended_.push_back(message.session);
      if (session == nullptr || session->state != Session::State::kPending) break;
      session->state = Session::State::kOpen;
      session->socket = std::move(message.socket);
      session->hold = std::move(message.hold);
      sockaddr_storage relay{};
      socklen_t length = sizeof(relay);
      getpeername(session->socket.get(), reinterpret_cast<sockaddr*>(&relay), &length);
      session->relay = Endpoint::From(relay);
      const auto place = static_cast<Place>(session - sessions_.data());
      epoll_event event{EPOLLIN, {.u64 = uint64_t{session->generation} << 32 | place}};
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, session->socket.get(), &event);
      for (const auto& [to, payload] : TakeWaiting(*session)) Send(place, to, payload);
      FlushTrains();
      break;
    }
    case Message::Type::kRefuse:
      if (session == nullptr || session->state != Session::State::kPending) break;
      session->state = Session::State::kRefused;
      Use(message.session.place);
      totals_.refused.Add(1);
      totals_.not_waiting.Add(TakeWaiting(*session).size());
      break;
    case Message::Type::kEnd:
      if (session != nullptr) EndSession(message.session.place);
      break;
    case Message::Type::kEndAll:
      while (oldest_ != kNowhere) EndSession(oldest_);
      break;
    case Message::Type::kAnswer:
      Deliver(message.source, message.destination, message.payload);
      FlushJoined();
      break;
    case Message::Type::kStop:
      stopping_ = true;
      break;
  }
}

// --- From the device ---

void UdpRelay::TakePackets(RecordRing& packets) {
  for (int i = 0; i < kPacketsPerTurn; ++i) {
    const MutableBytes record = packets.Front();
    if (record.data() == nullptr) break;
    EgressAction action;
    std::memcpy(&action, record.data(), sizeof(action));
    TakePacket(action, record.subspan(sizeof(action)));
    packets.Pop();
  }
}

void UdpRelay::TakePacket(const EgressAction& action, MutableBytes from_tun) {
  if (!segmenter_.Begin(from_tun)) return;
  const InnerPacket inner = segmenter_.inner();
  const FlowKey flow = FlowKey::Of(segmenter_.packet(), inner);
  const Endpoint source{flow.source, flow.source_port, 0};
  const Endpoint to{flow.destination, flow.destination_port, 0};
  const bool asks_for_names = to.port == kDnsPort && options_.calls.on_query != nullptr;
  if (!IsSound(LoadNative<VnetHeader>(from_tun.data()), segmenter_)) {
    return totals_.malformed.Add(1);
  }
  Place place = kNowhere;
  for (size_t left = segmenter_.segments(); left != 0; --left) {
    const Bytes payload = segmenter_.Next().subspan(inner.headers_bytes());
    // What else is sent there, such as updates of a zone, goes as any datagram does.
    if (asks_for_names && payload.size() <= kMaxQueryBytes && LooksLikeDnsQuery(payload)) {
      if (!options_.calls.on_query(flow, action, payload)) {
        totals_.not_waiting.Add(1);
      }
      continue;
    }
    if (place == kNowhere) place = FindOrBegin(source, action);
    if (place == kNowhere) {
      totals_.not_waiting.Add(1);
    } else {
      Send(place, to, payload);
    }
  }
}

UdpRelay::Place UdpRelay::FindOrBegin(const Endpoint& source, const EgressAction& action) {
  const FlowKey key = KeyOf(source, action);
  const Place found = index_.Find(
      key, [this](Place place) { return KeyOf(sessions_[place].source, sessions_[place].action); });
  if (found != kNowhere) {
    const Session& session = sessions_[found];
    const bool may_try_again =
        session.state == Session::State::kRefused && now_ns_ - session.used_ns >= kRefusedForNs;
    if (!may_try_again) return found;
    EndSession(found);
  }
  if (free_.empty()) {
    totals_.evicted.Add(1);
    EndSession(oldest_);
  }
  const Place place = free_.back();
  free_.pop_back();
  Session& session = sessions_[place];
  session.source = source;
  session.action = action;
  session.through_server = action.to == EgressAction::To::kGroup;
  session.used_ns = now_ns_;
  session.state = Session::State::kPending;
  index_.Put(key, place);
  Use(place);
  totals_.begun.Add(1);
  totals_.sessions.fetch_add(1, std::memory_order_relaxed);
  if (session.through_server) {
    TellOfEnds();  // first, or those who begin would take all the room
    session.is_told_of = ended_.empty() && options_.calls.on_begin(IdOf(place), action);
  }
  if (session.through_server ? session.is_told_of : OpenDirect(session)) return place;
  // Nobody needs to be told of it.
  session.state = Session::State::kRefused;
  totals_.refused.Add(1);
  return place;
}

bool UdpRelay::OpenDirect(Session& session) {
  const int family = session.source.address.socket_family();
  session.socket = UniqueFd(socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!session.socket) return false;
  if (session.source.address.is_v6()) SetV6Only(session.socket.get());
  const int on = 1;
  setsockopt(session.socket.get(), SOL_UDP, UDP_GRO, &on, sizeof(on));
  setsockopt(session.socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBufferBytes,
             sizeof(kSocketBufferBytes));
  SetOwnMark(session.socket.get());
  const auto place = static_cast<Place>(&session - sessions_.data());
  epoll_event event{EPOLLIN, {.u64 = uint64_t{session.generation} << 32 | place}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, session.socket.get(), &event);
  session.state = Session::State::kOpen;
  return true;
}

void UdpRelay::Send(Place place, const Endpoint& to, Bytes payload) {
  Session& session = sessions_[place];
  switch (session.state) {
    case Session::State::kOpen:
      break;
    case Session::State::kPending: {
      const size_t bytes = payload.size() + sizeof(session.waiting.front());
      if (session.waiting_bytes + bytes <= kMaxWaitingBytes &&
          waiting_bytes_ + bytes <= kMaxAllWaitingBytes) {
        session.waiting_bytes += bytes;
        waiting_bytes_ += bytes;
        session.waiting.push_back({to, {payload.begin(), payload.end()}});
        return;
      }
      [[fallthrough]];
    }
    default:
      return totals_.not_waiting.Add(1);
  }
  Use(place);
  session.last_to = to;
  AddToTrain(place, to, payload);
}

void UdpRelay::AddToTrain(Place place, const Endpoint& to, Bytes payload) {
  const Session& session = sessions_[place];
  std::array<uint8_t, kMaxSocks5UdpHeaderBytes> header;
  const size_t header_bytes =
      session.through_server ? WriteSocks5UdpHeader(to.address, to.port, header) : 0;
  const size_t bytes = header_bytes + payload.size();
  if (bytes > kMaxUdpPayloadBytes) return totals_.too_big.Add(1);
  const auto is_of = [&](const Train& train) {
    return train.place == place && (session.through_server || train.to == to);
  };
  auto train = std::find_if(trains_.begin(), trains_.end(), is_of);
  if (train != trains_.end()) {
    // An empty datagram has no place in a train.
    const bool fits = bytes != 0 && !train->is_complete && bytes <= train->datagram_bytes &&
                      train->bytes + bytes <= kMaxTrainBytes && !session.segmentation_refused &&
                      train->datagrams < static_cast<size_t>(options_.max_gso_datagrams);
    if (!fits) FlushTrain(*train);
  } else {
    train = std::find_if(trains_.begin(), trains_.end(),
                         [](const Train& one) { return one.place == kNowhere; });
    if (train == trains_.end()) {
      FlushTrains();
      train = trains_.begin();
    }
  }
  if (train->place == kNowhere) {
    train->place = place;
    train->to = to;
    train->datagram_bytes = bytes;
    train->bytes = train->payload_bytes = train->datagrams = 0;
    train->is_complete = false;
  }
  uint8_t* const at = train->memory.get() + train->bytes;
  std::copy(payload.begin(), payload.end(), std::copy_n(header.begin(), header_bytes, at));
  train->bytes += bytes;
  train->payload_bytes += payload.size();
  ++train->datagrams;
  train->is_complete = bytes < train->datagram_bytes;
}

void UdpRelay::FlushTrain(Train& train) {
  Session& session = sessions_[train.place];
  train.place = kNowhere;
  SendRequest request;
  request.fd = session.socket.get();
  request.payload = {train.memory.get(), train.bytes};
  request.datagram_bytes = static_cast<uint16_t>(train.datagram_bytes);
  request.to = session.through_server ? session.relay : train.to;
  SendMessage message;
  message.Fill(request, request.payload, IsSegmented(request));
  if (session.through_server) {  // it is connected, which spares the look for a route
    message.header.msg_name = nullptr;
    message.header.msg_namelen = 0;
  }
  const bool sent = sendmsg(request.fd, &message.header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
  const int error = sent ? 0 : errno;
  // A train whose datagrams are longer than the path takes is refused as a whole, by EINVAL before
  // Linux 6.14: one by one they go in fragments.
  const bool is_too_long = IsSegmented(request) && (error == EMSGSIZE || error == EINVAL);
  FinishSend(request, is_too_long ? EIO : error);
  session.segmentation_refused |= request.segmentation_refused;
  if (request.error == 0) {
    totals_.up_packets.Add(train.datagrams);
    totals_.up_bytes.Add(train.payload_bytes);
  } else {
    (request.error == EMSGSIZE ? totals_.too_big : totals_.unsent).Add(train.datagrams);
  }
}

void UdpRelay::FlushTrains() {
  for (Train& train : trains_) {
    if (train.place != kNowhere) FlushTrain(train);
  }
}

// --- Back ---

void UdpRelay::OnReadable(uint64_t tag) {
  if (tag == kUdpDoorbellTag) {
    uint64_t rung;
    (void)!read(datagrams_.doorbell.fd(), &rung, sizeof(rung));
    return;
  }
  const auto place = static_cast<Place>(tag & UINT32_MAX);
  Session& session = sessions_[place];
  if (session.generation != tag >> 32 || session.state != Session::State::kOpen) return;
  for (int i = 0; i < kReadsPerEvent; ++i) {
    ReceiveMessage message({scratch_.get(), kUdpScratchBytes});
    const ssize_t got = recvmsg(session.socket.get(), &message.header, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (got < 0) continue;  // an ICMP error about what was sent, once each
    Arrival arrival{};
    message.Read(static_cast<size_t>(got), arrival);
    TakeDatagrams(place, {scratch_.get(), static_cast<size_t>(got)}, arrival.datagram_bytes,
                  arrival.source);
    FlushJoined();  // which borrows from what is read next
  }
}

void UdpRelay::TakeDatagrams(Place place, MutableBytes all, size_t datagram_bytes,
                             const Endpoint& from) {
  Session& session = sessions_[place];
  Use(place);
  const size_t stride = datagram_bytes == 0 ? std::max<size_t>(all.size(), 1) : datagram_bytes;
  size_t at = 0;
  do {
    const Bytes datagram = all.subspan(at, std::min(stride, all.size() - at));
    at += stride;
    if (!session.through_server) {
      Deliver({from.address, from.port, 0}, session.source, datagram);
      continue;
    }
    const auto header = ReadSocks5UdpHeader(datagram);
    if (!header) {
      totals_.malformed.Add(1);
      continue;
    }
    if (header->fragment) {
      totals_.fragments.Add(1);
      continue;
    }
    // By name it can only be whom it has spoken to.
    const IpAddress& address = header->address.is_set() ? header->address : session.last_to.address;
    if (address.family != session.source.address.family) {
      totals_.malformed.Add(1);
      continue;
    }
    Deliver({address, header->port, 0}, session.source, datagram.subspan(header->length));
  } while (at < all.size());
}

void UdpRelay::Deliver(const Endpoint& source, const Endpoint& destination, Bytes payload) {
  const size_t headers_bytes = (source.address.is_v4() ? 20 : 40) + kUdpHeaderBytes;
  if (headers_bytes + payload.size() > kMaxInnerBytes) return totals_.too_big.Add(1);
  const bool joins = options_.uso && joined_.datagrams != 0 && !joined_.is_complete &&
                     joined_.datagrams < kMaxJoined && payload.size() <= joined_.datagram_bytes &&
                     !payload.empty() && joined_.source == source &&
                     joined_.destination == destination &&
                     headers_bytes + joined_.bytes + payload.size() <= kMaxJoinedBytes;
  if (!joins) {
    FlushJoined();
    joined_.source = source;
    joined_.destination = destination;
    joined_.datagram_bytes = payload.size();
    joined_.bytes = 0;
  }
  joined_.parts[1 + joined_.datagrams++] = {const_cast<uint8_t*>(payload.data()), payload.size()};
  joined_.bytes += payload.size();
  joined_.is_complete = payload.size() < joined_.datagram_bytes;
}

// Checksums are left to who takes it: the kernel, or the device where it leaves the machine.
void UdpRelay::FlushJoined() {
  if (joined_.datagrams == 0) return;
  const bool v6 = joined_.source.address.is_v6();
  const size_t ip_bytes = v6 ? 40 : 20;
  const size_t l4_bytes = kUdpHeaderBytes + joined_.bytes;
  std::array<uint8_t, kVnetHeaderBytes + kMaxUdpHeadersBytes> head{};
  const MutableBytes packet =
      MutableBytes(head).subspan(kVnetHeaderBytes, ip_bytes + kUdpHeaderBytes);
  const auto address_bytes = static_cast<size_t>(joined_.source.address.bytes_used());
  uint8_t* addresses = &packet[v6 ? 8 : 12];
  packet[0] = v6 ? 0x60 : 0x45;
  if (v6) {
    StoreBe16(&packet[4], static_cast<uint16_t>(l4_bytes));
    packet[6] = kProtocolUdp;
    packet[7] = kTimeToLive;
  } else {
    StoreBe16(&packet[2], static_cast<uint16_t>(ip_bytes + l4_bytes));
    StoreBe16(&packet[4], identification_);
    packet[8] = kTimeToLive;
    packet[9] = kProtocolUdp;
  }
  identification_ = static_cast<uint16_t>(identification_ + joined_.datagrams);
  std::copy_n(joined_.source.address.bytes.begin(), address_bytes, addresses);
  std::copy_n(joined_.destination.address.bytes.begin(), address_bytes, addresses + address_bytes);
  if (!v6) SetIpv4HeaderChecksum(packet.data());
  uint8_t* udp = &packet[ip_bytes];
  StoreBe16(udp, joined_.source.port);
  StoreBe16(udp + 2, joined_.destination.port);
  StoreBe16(udp + 4, static_cast<uint16_t>(l4_bytes));
  InnerPacket inner{};
  inner.v6 = v6;
  inner.protocol = kProtocolUdp;
  inner.l4_offset = static_cast<uint16_t>(ip_bytes);
  inner.l4_header_bytes = kUdpHeaderBytes;
  StoreBe16(udp + 6, ChecksumFold(PseudoHeaderSum(packet, inner, static_cast<uint32_t>(l4_bytes))));
  VnetHeader vnet{};
  vnet.flags = VnetHeader::kNeedsChecksum;
  vnet.header_bytes = static_cast<uint16_t>(packet.size());
  vnet.checksum_start = static_cast<uint16_t>(ip_bytes);
  vnet.checksum_offset = 6;
  if (joined_.datagrams > 1) {
    vnet.gso_type = VnetHeader::kGsoUdpL4;
    vnet.gso_bytes = static_cast<uint16_t>(joined_.datagram_bytes);
  }
  StoreNative(head.data(), vnet);
  joined_.parts[0] = {head.data(), kVnetHeaderBytes + packet.size()};
  const auto parts = static_cast<int>(1 + joined_.datagrams);
  if (writev(options_.tun_fd, joined_.parts.data(), parts) >= 0) {
    totals_.down_packets.Add(joined_.datagrams);
    totals_.down_bytes.Add(joined_.bytes);
  } else {
    totals_.unsent.Add(joined_.datagrams);
  }
  joined_.datagrams = 0;
}

// --- Sessions ---

// It is the newest from now on.
void UdpRelay::Use(Place place) {
  Session& session = sessions_[place];
  session.used_ns = now_ns_;
  if (newest_ == place) return;
  Unlink(place);
  session.older = newest_;
  session.newer = kNowhere;
  if (newest_ != kNowhere) sessions_[newest_].newer = place;
  newest_ = place;
  if (oldest_ == kNowhere) oldest_ = place;
}

void UdpRelay::Unlink(Place place) {
  Session& session = sessions_[place];
  const bool is_linked = session.older != kNowhere || session.newer != kNowhere || oldest_ == place;
  if (!is_linked) return;
  (session.older == kNowhere ? oldest_ : sessions_[session.older].newer) = session.newer;
  (session.newer == kNowhere ? newest_ : sessions_[session.newer].older) = session.older;
  session.older = session.newer = kNowhere;
}

UdpRelay::Waiting UdpRelay::TakeWaiting(Session& session) {
  waiting_bytes_ -= std::exchange(session.waiting_bytes, 0);
  return std::exchange(session.waiting, {});
}

void UdpRelay::EndSession(Place place) {
  for (Train& train : trains_) {
    if (train.place == place) FlushTrain(train);
  }
  Session& session = sessions_[place];
  index_.Remove(KeyOf(session.source, session.action), place);
  Unlink(place);
  totals_.not_waiting.Add(TakeWaiting(session).size());
  if (session.is_told_of) ended_.push_back(IdOf(place));
  const uint32_t generation = session.generation + 1;
  session = Session();
  session.generation = generation;
  free_.push_back(place);
  totals_.sessions.fetch_sub(1, std::memory_order_relaxed);
}

void UdpRelay::TellOfEnds() {
  while (!ended_.empty() && options_.calls.on_end(ended_.front())) ended_.pop_front();
}

void UdpRelay::Expire() {
  while (oldest_ != kNowhere && now_ns_ - sessions_[oldest_].used_ns >= options_.idle_ns) {
    totals_.expired.Add(1);
    EndSession(oldest_);
  }
}

UdpRelay::Session* UdpRelay::Find(const UdpSessionId& id) {
  if (id.place >= sessions_.size()) return nullptr;
  Session& session = sessions_[id.place];
  return session.generation == id.generation && session.state != Session::State::kFree ? &session
                                                                                       : nullptr;
}

UdpSessionId UdpRelay::IdOf(Place place) const {
  return {static_cast<uint16_t>(options_.index), place, sessions_[place].generation};
}

}  // namespace braid
