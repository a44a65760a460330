// The way of a packet from the network to TUN, one worker's part:
//
//   1. One read brings datagrams behind each other. Each has its own header; none is trusted for
//      what the one before it was.
//   2. Handshakes and the slow lane go to the slow path, other workers' lanes to their owner.
//   3. The session index names the keys. The datagram is opened in place, then marked as seen; only
//      now does it change anything.
//   4. Its source address and path counters are noted; control messages are answered.
//   5. The inner packet must be whole, and its source must belong to the peer.
//   6. Packets of one flow are joined and leave for TUN as one write each batch.
#include "fastpath/rx.h"

#include <cstring>

#include "fastpath/header_drop.h"

namespace braid {
namespace {

// A client tells the server where a lane is when the server has lost it, not more often than this.
constexpr DurationNs kHelloEveryNs = 100 * kMillisecondNs;

}  // namespace

Receiver::Receiver(WorkerState& state, Transmitter& transmitter)
    : state_(state),
      transmitter_(transmitter),
      coalescer_({state.options.offloads.tso, state.options.offloads.uso}) {}

void Receiver::OnDatagrams(PacketPtr packet, const Incoming& incoming, bool handed) {
  if (held_used_ == kMaxHeld) FlushAll();
  const MutableBytes all = packet->bytes();
  if (all.empty()) return state_.drops.Count(Drop::short_datagram);
  const size_t stride = incoming.datagram_bytes == 0 ? all.size() : incoming.datagram_bytes;
  Stream stream;
  for (size_t at = 0; at < all.size(); at += stride) {
    OnDatagram(all.subspan(at, std::min(stride, all.size() - at)), incoming, handed, stream);
  }
  held_[held_used_++] = std::move(packet);
}

void Receiver::OnDatagram(MutableBytes datagram, const Incoming& incoming, bool handed,
                          Stream& stream) {
  Header header;
  if (const HeaderVerdict verdict = ReadHeader(datagram, header); verdict != HeaderVerdict::kOk)
    return state_.drops.Count(DropOf(verdict));
  if (header.lane == kSlowLane) return TellSlowPath(datagram, incoming);
  if (!IsSealed(header.kind)) return state_.drops.Count(Drop::handshake_malformed);

  if (!stream.Has(header)) {
    if (const auto drop = Find(header, stream)) return state_.drops.Count(*drop);
  }
  if (!state_.Owns(header.lane)) {
    if (handed) return state_.drops.Count(Drop::bad_lane);
    return HandToOwner(header.lane, datagram, incoming);
  }

  LaneReceiver::Opened opened;
  if (const auto drop = Open(stream, header, datagram, opened)) return state_.drops.Count(*drop);
  Session& session = *stream.session;
  if (opened.first_of_key) {
    Event event;
    event.type = Event::Type::kOpened;
    event.peer = stream.entry.peer;
    event.keypair_id = stream.entry.keypair->id;
    state_.Tell(std::move(event));
  }
  session.last_rx_ns.store(state_.now_ns, std::memory_order_relaxed);
  PathTraffic& traffic = session.traffic[stream.path];
  traffic.rx_bytes.Add(datagram.size());
  traffic.rx_datagrams.Add(1);
  traffic.rx_expected.Add(opened.path_advance);
  if (!stream.source_followed) FollowSource(stream, incoming, opened.newest);
  if (opened.confirm_epoch) {
    ControlMessage confirm{ControlMessage::Type::kConfirmEpoch};
    confirm.session = header.session;
    confirm.epoch = opened.epoch;
    transmitter_.SendControl(session, *stream.lane, stream.path,
                             transmitter_.RouteOf(session, *stream.lane, stream.path), confirm);
  }
  switch (header.kind) {
    case Kind::kData:
      return OnData(stream.entry.peer, session, header, opened.plain);
    case Kind::kControl:
      return OnControl(stream, incoming, opened.plain);
    default:
      return;  // parity of a peer that was told of no such feature: counted, not used
  }
}

std::optional<Drop> Receiver::Find(const Header& header, Stream& stream) {
  stream = {};
  const SessionTable::Entry* entry = FindEntry(header.session);
  if (entry == nullptr) return Drop::unknown_session;
  if (header.lane >= entry->keypair->lanes) return Drop::bad_lane;
  stream.entry = *entry;
  stream.session = state_.FindSession(entry->peer);
  stream.lane_id = header.lane;
  stream.path = header.path & kPathIdMask;
  if (state_.Owns(header.lane)) stream.lane = state_.FindLane(*stream.session, header.lane);
  return std::nullopt;
}

const SessionTable::Entry* Receiver::FindEntry(uint32_t session) {
  const SessionTable::Entry* entry = state_.sessions_by_index.Find(session);
  if (entry != nullptr || carry_out_commands_ == nullptr) return entry;
  // The handshake's answer may have been faster than this worker.
  carry_out_commands_(worker_);
  return state_.sessions_by_index.Find(session);
}

void Receiver::HandToOwner(uint8_t lane, Bytes datagram, const Incoming& incoming) {
  PacketPtr copy = state_.receive_pool->Take();
  if (copy == nullptr) return state_.drops.Count(Drop::no_buffer);
  std::memcpy(copy->data(), datagram.data(), datagram.size());
  copy->length = static_cast<uint32_t>(datagram.size());
  HandedPacket handed{HandedPacket::From::kNetwork, std::move(copy), incoming};
  handed.incoming.datagram_bytes = static_cast<uint16_t>(datagram.size());
  state_.HandTo(lane % state_.options.workers, std::move(handed), 1);
}

void Receiver::TellSlowPath(Bytes datagram, const Incoming& incoming) {
  if (datagram.size() > Event::kMaxDatagramBytes) {
    return state_.drops.Count(Drop::handshake_malformed);
  }
  Event event;
  event.type = Event::Type::kDatagram;
  event.back = incoming.back;
  event.length = static_cast<uint16_t>(datagram.size());
  std::memcpy(event.bytes.data(), datagram.data(), datagram.size());
  state_.Tell(std::move(event));
}

std::optional<Drop> Receiver::Open(Stream& stream, const Header& header, MutableBytes datagram,
                                   LaneReceiver::Opened& opened) {
  const Keypair& keypair = *stream.entry.keypair;
  if (stream.lane != nullptr) {
    return stream.lane->receiver.Open(keypair, header, datagram, state_.now_ns, opened);
  }
  // A lane takes state with its first authentic packet, not before.
  LaneReceiver first;
  if (auto drop = first.Open(keypair, header, datagram, state_.now_ns, opened)) return drop;
  stream.lane = state_.TakeLane(*stream.session, header.lane);
  if (stream.lane == nullptr) return Drop::no_lane_state;
  stream.lane->receiver = first;
  return std::nullopt;
}

// Notes where the lane's packets come from now, with the first packet of a read that is newer than
// all before. An address that is new has to prove itself first.
void Receiver::FollowSource(Stream& stream, const Incoming& incoming, bool newest) {
  Session& session = *stream.session;
  LaneState& lane = *stream.lane;
  const PathState& known = session.paths[stream.path];
  LaneState::Path& own = lane.paths[stream.path];
  if (own.version != known.version) {
    own.version = known.version;
    own.source.Forget();
  }
  if (incoming.socket_lane != Incoming::kAnyLane && incoming.socket_lane != stream.lane_id) {
    // The server answered at another port than this lane's: tell it the right one.
    if (state_.now_ns >= lane.hello_sent_ns + kHelloEveryNs) {
      lane.hello_sent_ns = state_.now_ns;
      transmitter_.SendControl(session, lane, stream.path,
                               transmitter_.RouteOf(session, lane, stream.path),
                               {ControlMessage::Type::kHello});
    }
    return;
  }
  if (!newest) return;
  stream.source_followed = true;
  const bool must_prove_itself =
      own.source.OnNewest(incoming.back, known.route.remote.address, state_.now_ns,
                          [this] { return state_.RandomToken(); });
  if (!must_prove_itself) return;
  transmitter_.SendControl(session, lane, stream.path, incoming.back,
                           {ControlMessage::Type::kPing, own.source.token()});
}

void Receiver::OnControl(const Stream& stream, const Incoming& incoming, Bytes plain) {
  ControlMessage message;
  switch (ReadControlMessage(plain, message)) {
    case ControlVerdict::kOk:
      break;
    case ControlVerdict::kUnknownType:
      return;
    case ControlVerdict::kMalformed:
      return state_.drops.Count(Drop::bad_control);
  }
  LaneState& lane = *stream.lane;
  switch (message.type) {
    case ControlMessage::Type::kPing:
      transmitter_.SendControl(*stream.session, lane, stream.path, incoming.back,
                               {ControlMessage::Type::kPong, message.token});
      break;
    case ControlMessage::Type::kPong:
      lane.paths[stream.path].source.OnPong(message.token);
      break;
    case ControlMessage::Type::kConfirmEpoch:
      lane.sender.ConfirmEpoch(message.session, message.epoch);
      break;
    case ControlMessage::Type::kHello:
      break;
    case ControlMessage::Type::kClose: {
      Event event;
      event.type = Event::Type::kPeerClosed;
      event.peer = stream.entry.peer;
      event.keypair_id = stream.entry.keypair->id;
      state_.Tell(std::move(event));
      break;
    }
  }
}

void Receiver::OnData(PeerSlot peer, Session& session, const Header& header, MutableBytes plain) {
  if (plain.empty()) return;
  InnerPacket inner;
  if (!ParseInner(plain, inner)) return state_.drops.Count(Drop::malformed_inner);
  const bool partial_checksum = (header.flags & kFlagPartialChecksum) != 0;
  // Only the checksum of a whole outermost TCP or UDP header may be partial; nothing is compressed
  // unless the handshake agreed on it.
  if ((partial_checksum && inner.l4_header_bytes == 0) || (header.flags & kFlagCompressed) != 0) {
    return state_.drops.Count(Drop::bad_flags);
  }
  if (!OwnsSource(peer, plain)) return state_.drops.Count(Drop::spoofed_source);
  if (inner.is_tcp()) ClampMss(plain, inner, session.mtu, partial_checksum);
  session.rx_packets.Add(1);
  session.rx_bytes.Add(plain.size());
  if (coalescer_.Add(plain, inner, partial_checksum)) return;
  FlushAll();
  coalescer_.Add(plain, inner, partial_checksum);
}

bool Receiver::OwnsSource(PeerSlot peer, Bytes packet) {
  const IpAddress source = InnerSource(packet);
  if (source != last_source_) {
    last_source_ = source;
    last_source_owner_ = state_.routes == nullptr ? kNoPeer : state_.routes->Lookup(source);
  }
  return last_source_owner_ == peer;
}

void Receiver::FinishWrites() {
  writes_ = coalescer_.Finish(state_.options.tun_fd);
  for (WriteRequest& write : writes_) state_.backend->Write(write);
}

void Receiver::AfterFlush() {
  for (size_t i = 0; i < writes_.size(); ++i) {
    if (writes_[i].error != 0) {
      state_.drops.Count(Drop::tun_write_failed, coalescer_.PacketsIn(i));
    }
  }
  writes_ = {};
  coalescer_.Clear();
  for (size_t i = 0; i < held_used_; ++i) held_[i].reset();
  held_used_ = 0;
}

// In the middle of a batch, when a table is full. The read that is being taken apart is not among
// the held ones yet, so its buffer stays.
void Receiver::FlushAll() {
  FinishWrites();
  state_.backend->Flush();
  AfterFlush();
}

}  // namespace braid
