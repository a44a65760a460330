// The way of a packet from TUN to the network, one worker's part:
//
//   1. TUN gives a vnet header and a packet or super-packet; it is parsed once.
//   2. The inner destination names the peer; the flow's hash names the lane. A packet of another
//      worker's lane is handed over whole.
//   3. What does not fit is answered with "too big"; the MSS of a SYN is clamped.
//   4. The super-packet is cut into segments, each sealed from the TUN buffer into a train: that is
//      the only pass over the payload.
//   5. A train, datagrams of one size for one destination, leaves as one segmented send.
#include "fastpath/tx.h"

#include <algorithm>
#include <cerrno>

#include "base/flow_hash.h"
#include "fastpath/icmp_error.h"

namespace braid {
namespace {

// How long a lane's own source is believed without having been heard again. A client keeps its path
// alive by keepalives, but not each lane.
constexpr DurationNs kLaneSourceFreshNs = 15 * kSecondNs;

constexpr int kMaxAnswersPerSecond = 200;

}  // namespace

void Transmitter::OnTunPacket(PacketPtr packet, bool handed) {
  if (!segmenter_.Begin(packet->bytes())) return state_.drops.Count(Drop::bad_tun_packet);

  const PeerSlot peer = state_.routes == nullptr
                            ? kNoPeer
                            : state_.routes->Lookup(InnerDestination(segmenter_.packet()));
  Session* session = state_.FindSession(peer);
  if (session == nullptr) return state_.drops.Count(Drop::no_route, segmenter_.segments());
  const Keypair* keypair = session->send_keypair;
  if (keypair == nullptr || state_.now_ns >= keypair->seal_until_ns) {
    state_.drops.Count(Drop::no_session, segmenter_.segments());
    return state_.AskForHandshake(peer, *session);
  }

  const auto lane_id = static_cast<uint8_t>(FlowHash(segmenter_.packet()) % keypair->lanes);
  if (!state_.Owns(lane_id)) {
    const uint64_t packets = segmenter_.segments();
    // Cannot be: all agree on the lanes.
    if (handed) return state_.drops.Count(Drop::bad_lane, packets);
    return state_.HandTo(lane_id % state_.options.workers,
                         {HandedPacket::From::kTun, std::move(packet), {}}, packets);
  }
  if (segmenter_.segment_bytes() > session->mtu) return AnswerTooBig(*session);
  if (segmenter_.segments() == 1) {
    ClampMss(segmenter_.mutable_packet(), segmenter_.inner(), session->mtu,
             segmenter_.partial_checksum());
  }
  if (!session->has_path) return state_.drops.Count(Drop::no_path, segmenter_.segments());
  LaneState* lane = state_.TakeLane(*session, lane_id);
  if (lane == nullptr) return state_.drops.Count(Drop::no_lane_state, segmenter_.segments());
  SendSegments(*session, *keypair, *lane);
}

void Transmitter::SendSegments(Session& session, const Keypair& keypair, LaneState& lane) {
  const uint8_t path = session.active_path;
  const Route& route = RouteOf(session, lane, path);
  const uint8_t flags = segmenter_.partial_checksum() ? kFlagPartialChecksum : 0;
  uint64_t packets = 0;
  uint64_t bytes = 0;
  size_t left = segmenter_.segments();
  Train* train = nullptr;
  if (!Prepare(keypair, lane, left)) return;
  for (; left != 0; --left) {
    if (lane.sender.left() == 0 && !Prepare(keypair, lane, left)) break;
    const MutableBytes segment = segmenter_.Next();
    const size_t datagram_bytes = segment.size() + kSealOverheadBytes;
    if (train == nullptr || !Fits(*train, datagram_bytes)) {
      train = TrainFor(session, lane, path, route, datagram_bytes);
      if (train == nullptr) continue;
    }
    SealInto(*train, lane, Kind::kData, flags, segment);
    ++packets;
    bytes += segment.size();
  }
  session.tx_packets.Add(packets);
  session.tx_bytes.Add(bytes);
  session.last_tx_ns.store(state_.now_ns, std::memory_order_relaxed);
}

void Transmitter::SendControl(Session& session, LaneState& lane, uint8_t path, const Route& route,
                              const ControlMessage& message) {
  if (session.send_keypair == nullptr) return;
  std::array<uint8_t, kMaxControlBytes> plain;
  const size_t bytes = WriteControlMessage(message, plain);
  if (!Prepare(*session.send_keypair, lane, 1)) return;
  Train* train = TrainFor(session, lane, path, route, bytes + kSealOverheadBytes);
  if (train != nullptr) SealInto(*train, lane, Kind::kControl, 0, {plain.data(), bytes});
}

const Route& Transmitter::RouteOf(const Session& session, LaneState& lane, uint8_t path) const {
  const PathState& known = session.paths[path];
  const LaneState::Path& own = lane.paths[path];
  const bool usable = own.source.current().remote.is_set() && own.version == known.version &&
                      state_.now_ns < own.source.heard_ns() + kLaneSourceFreshNs;
  return usable ? own.source.current() : known.route;
}

// The keypair may have changed since the last packet of this lane; its age is looked at here too.
// When nothing may be sealed under it, the `packets` that wanted to be are dropped.
bool Transmitter::Prepare(const Keypair& keypair, LaneState& lane, size_t packets) {
  const auto drop = lane.sender.Prepare(keypair, lane.id, state_.now_ns);
  if (drop) state_.drops.Count(*drop, packets);
  return !drop;
}

void Transmitter::SealInto(Train& train, LaneState& lane, Kind kind, uint8_t flags, Bytes plain) {
  Packet& buffer = *train.buffer;
  const size_t datagram_bytes = plain.size() + kSealOverheadBytes;
  lane.sender.Seal(kind, train.path, flags, plain, buffer.data() + buffer.length);
  buffer.length += static_cast<uint32_t>(datagram_bytes);
  ++train.datagrams;
  // A shorter datagram can only be the last of a segmented send.
  if (datagram_bytes < train.request.datagram_bytes) train.closed = true;
}

bool Transmitter::Fits(const Train& train, size_t datagram_bytes) const {
  return !train.closed && datagram_bytes <= train.request.datagram_bytes &&
         train.buffer->length + datagram_bytes <= kMaxTrainBytes &&
         train.datagrams < static_cast<uint32_t>(state_.options.max_gso_datagrams);
}

// The train that the next datagram joins: the lane's open one if it fits, else a new one.
Transmitter::Train* Transmitter::TrainFor(Session& session, const LaneState& lane, uint8_t path,
                                          const Route& route, size_t datagram_bytes) {
  for (size_t i = trains_used_; i-- > 0;) {
    Train& train = trains_[i];
    if (train.lane != &lane || train.path != path) continue;
    if (train.closed) break;
    const bool same_way = train.request.to == route.remote && train.request.from == route.local;
    if (same_way && Fits(train, datagram_bytes)) return &train;
    train.closed = true;
    break;
  }
  if (trains_used_ == trains_.size()) FlushAll();
  const int fd = state_.SocketOf(route.socket_group, lane.id);
  if (fd < 0 || !route.remote.is_set()) {
    state_.drops.Count(Drop::no_path);
    return nullptr;
  }
  Train& train = trains_[trains_used_];
  train.buffer = state_.train_pool->Take();
  if (train.buffer == nullptr) {
    state_.drops.Count(Drop::no_buffer);
    return nullptr;
  }
  ++trains_used_;
  train.session = &session;
  train.lane = &lane;
  train.path = path;
  train.closed = false;
  train.datagrams = 0;
  train.request = {};
  train.request.fd = fd;
  train.request.to = route.remote;
  train.request.from = route.local;
  train.request.datagram_bytes = static_cast<uint16_t>(datagram_bytes);
  return &train;
}

void Transmitter::CloseTrains() {
  for (size_t i = 0; i < trains_used_; ++i) {
    Train& train = trains_[i];
    train.request.payload = train.buffer->bytes();
    train.request.segmentation_refused =
        state_.segmentation_refused.load(std::memory_order_relaxed);
    state_.backend->Send(train.request);
  }
}

void Transmitter::AfterFlush() {
  for (size_t i = 0; i < trains_used_; ++i) {
    Train& train = trains_[i];
    if (train.request.segmentation_refused) {
      state_.segmentation_refused.store(true, std::memory_order_relaxed);
    }
    switch (train.request.error) {
      case 0: {
        PathTraffic& traffic = train.session->traffic[train.path];
        traffic.tx_bytes.Add(train.buffer->length);
        traffic.tx_datagrams.Add(train.datagrams);
        break;
      }
      case EAGAIN:
      case ENOBUFS:
        state_.drops.Count(Drop::socket_full, train.datagrams);
        break;
      case EMSGSIZE:
        state_.drops.Count(Drop::too_big, train.datagrams);
        break;
      default:
        state_.drops.Count(Drop::send_failed, train.datagrams);
        break;
    }
    train.buffer.reset();
  }
  trains_used_ = 0;
  answers_used_ = 0;
}

// In the middle of a batch, when the trains have used every buffer.
void Transmitter::FlushAll() {
  CloseTrains();
  state_.backend->Flush();
  AfterFlush();
}

void Transmitter::AnswerTooBig(Session& session) {
  state_.drops.Count(Drop::too_big, segmenter_.segments());
  if (state_.now_ns >= answers_window_ns_ + kSecondNs) {
    answers_window_ns_ = state_.now_ns;
    answers_in_window_ = 0;
  }
  if (answers_used_ == kMaxAnswers || answers_in_window_ == kMaxAnswersPerSecond) return;
  Answer& answer = answers_[answers_used_];
  const size_t bytes = WriteTooBig(segmenter_.packet(), segmenter_.inner(), session.mtu,
                                   MutableBytes(answer.bytes).subspan(kVnetHeaderBytes));
  if (bytes == 0) return;
  ++answers_used_;
  ++answers_in_window_;
  StoreNative(answer.bytes.data(), VnetHeader{});
  answer.part = {answer.bytes.data(), kVnetHeaderBytes + bytes};
  answer.request = {state_.options.tun_fd, {&answer.part, 1}, 0};
  state_.backend->Write(answer.request);
}

}  // namespace braid
