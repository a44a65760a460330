// The way of a packet from TUN to the network, one worker's part:
//
//   1. TUN gives a vnet header and a packet or super-packet; it is parsed once. What leaves past
//   the
//      tunnel, by rule, goes another way from here (egress.h).
//   2. The inner destination names the peer; the flow's hash names the lane. A packet of another
//      worker's lane is handed over whole.
//   3. What does not fit is answered with "too big"; the MSS of a SYN is clamped.
//   4. The super-packet is cut into segments, each sealed from the TUN buffer into a train: that is
//      the only pass over the payload.
//   5. A train, datagrams of one size for one destination, leaves as one segmented send.
#include "fastpath/tx.h"

#include <algorithm>

#include "base/flow_hash.h"
#include "fastpath/icmp_error.h"

namespace braid {
namespace {

constexpr int kMaxAnswersPerSecond = 200;

constexpr DurationNs kDirectWindowNs = 100 * kMillisecondNs;
constexpr uint32_t kDirectPackets = 8;

}  // namespace

void Transmitter::OnTunPacket(PacketPtr packet, bool handed) {
  if (!segmenter_.Begin(packet->bytes())) return state_.drops.Count(Drop::bad_tun_packet);
  if (egress_ != nullptr && egress_->Take(packet, segmenter_, handed)) return;

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

  const bool limited = state_.throttle != nullptr && state_.throttle->tx.Limits(peer);
  if (limited && !keypair->bonds &&
      !bonds_.Police(peer, segmenter_.segments() * segmenter_.segment_bytes())) {
    return state_.drops.Count(Drop::throttled_tx, segmenter_.segments());
  }
  const bool bonded = keypair->bonds && (limited || state_.IsBonded(peer));
  const auto lane_id = static_cast<uint8_t>(FlowHash(segmenter_.packet()) % keypair->lanes);
  const int worker = bonded ? state_.BondWorkerOf(peer) : lane_id % state_.options.workers;
  // What was handed over for a bond that has ended meanwhile goes back; and what comes back is not
  // handed over once more, if there is a bond again.
  const bool stays = worker == state_.options.index || (handed && state_.Owns(lane_id));
  if (!stays) {
    const uint64_t packets = segmenter_.segments();
    if (handed && !state_.HasBond(peer)) return state_.drops.Count(Drop::bad_lane, packets);
    return state_.HandTo(worker, {HandedPacket::From::kTun, std::move(packet), {}}, packets);
  }
  if (segmenter_.segment_bytes() > session->mtu) return AnswerTooBig(*session);
  if (segmenter_.segments() == 1) {
    ClampMss(segmenter_.mutable_packet(), segmenter_.inner(), session->mtu,
             segmenter_.partial_checksum());
  }
  if (!bonded && keypair->bonds) NoteDirect(peer, *session);
  // It may just have begun.
  if (state_.HasBond(peer) && (bonded || state_.IsBonded(peer))) {
    return bonds_.Enqueue(peer, *session, segmenter_);
  }
  if (!session->has_path) return state_.drops.Count(Drop::no_path, segmenter_.segments());
  LaneState* lane = state_.TakeLane(*session, lane_id);
  if (lane == nullptr) return state_.drops.Count(Drop::no_lane_state, segmenter_.segments());
  SendSegments(*session, *keypair, *lane);
}

// The worker of the peer's bond watches what becomes of traffic that is more than a trickle: when
// the path limits it, or may, the bond takes over. It is told once a window.
void Transmitter::NoteDirect(PeerSlot peer, Session& session) {
  if (state_.now_ns >= session.direct_since_ns + kDirectWindowNs) {
    session.direct_since_ns = state_.now_ns;
    session.direct_packets = 0;
  }
  const uint32_t before = session.direct_packets;
  session.direct_packets += static_cast<uint32_t>(segmenter_.segments());
  if (before >= kDirectPackets || session.direct_packets < kDirectPackets) return;
  if (state_.HasBond(peer)) return bonds_.NoteDirect(peer);
  HandedPacket news;
  news.from = HandedPacket::From::kDirect;
  news.peer = peer;
  state_.HandTo(state_.BondWorkerOf(peer), std::move(news), 0);
}

void Transmitter::SendSegments(Session& session, const Keypair& keypair, LaneState& state) {
  const LaneRef lane = RefOf(state);
  const uint8_t path = session.active_path;
  const Route& route = RouteOf(session, state.sources, path, state_.now_ns);
  const uint8_t flags = segmenter_.partial_checksum() ? kFlagPartialChecksum : 0;
  uint64_t packets = 0;
  uint64_t bytes = 0;
  size_t left = segmenter_.segments();
  Trains::Train* train = nullptr;
  if (!Prepare(keypair, lane, left)) return;
  for (; left != 0; --left) {
    if (state.sender.left() == 0 && !Prepare(keypair, lane, left)) break;
    const MutableBytes segment = segmenter_.Next();
    const size_t datagram_bytes = segment.size() + kSealOverheadBytes;
    if (train == nullptr || !trains_.Fits(*train, datagram_bytes)) {
      train = trains_.For(session, lane.sources, path, route,
                          state_.SocketOf(route.socket_group, lane.id), datagram_bytes);
      if (train == nullptr) continue;
    }
    state.sender.Seal(Kind::kData, path, flags, segment, train->end());
    trains_.Add(*train, datagram_bytes);
    ++packets;
    bytes += segment.size();
  }
  session.tx_packets.Add(packets);
  session.tx_bytes.Add(bytes);
  session.last_tx_ns.store(state_.now_ns, std::memory_order_relaxed);
}

void Transmitter::SendControl(Session& session, const LaneRef& lane, uint8_t path,
                              const Route& route, const ControlMessage& message) {
  if (session.send_keypair == nullptr) return;
  std::array<uint8_t, kMaxControlBytes> plain;
  const size_t bytes = WriteControlMessage(message, plain);
  if (!Prepare(*session.send_keypair, lane, 1)) return;
  Trains::Train* train =
      trains_.For(session, lane.sources, path, route, state_.SocketOf(route.socket_group, lane.id),
                  bytes + kSealOverheadBytes);
  if (train == nullptr) return;
  lane.sender->Seal(Kind::kControl, path, 0, {plain.data(), bytes}, train->end());
  trains_.Add(*train, bytes + kSealOverheadBytes);
}

// The keypair may have changed since the last packet of this lane; its age is looked at here too.
// When nothing may be sealed under it, the `packets` that wanted to be are dropped.
bool Transmitter::Prepare(const Keypair& keypair, const LaneRef& lane, size_t packets) {
  const auto drop = lane.sender->Prepare(keypair, lane.id, state_.now_ns);
  if (drop) state_.drops.Count(*drop, packets);
  return !drop;
}

void Transmitter::AnswerTooBig(Session& session) {
  state_.drops.Count(Drop::too_big, segmenter_.segments());
  if (state_.now_ns >= answers_window_ns_ + kSecondNs) {
    answers_window_ns_ = state_.now_ns;
    answers_in_window_ = 0;
  }
  if (answers_in_window_ == kMaxAnswersPerSecond) return;
  const MutableBytes to = answers_.Next();
  if (to.empty()) return;
  const size_t bytes = WriteIcmpError(segmenter_.packet(), segmenter_.inner(),
                                      {IcmpError::What::kTooBig, session.mtu}, to);
  if (bytes == 0) return;
  ++answers_in_window_;
  answers_.Write(bytes);
}

}  // namespace braid
