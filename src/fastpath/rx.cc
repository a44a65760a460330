// The way of a packet from the network to TUN, one worker's part:
//
//   1. One read brings datagrams behind each other. Each has its own header; none is trusted for
//      what the one before it was.
//   2. Handshakes and the slow lane go to the slow path, other workers' lanes to their owner.
//   3. The session index names the keys. Of a peer that floods (shaper.h) data goes no further. The
//      datagram is opened in place, then marked as seen; only now does it change anything.
//   4. Its source address and path counters are noted; control messages are answered.
//   5. The inner packet must be whole, and its source must belong to the peer. Of a peer with a
//      limit it may have to wait.
//   6. Packets of one flow are joined and leave for TUN as one write each batch.
#include "fastpath/rx.h"

#include <cstring>

#include "base/flow_hash.h"
#include "fastpath/header_drop.h"

namespace braid {
namespace {

// A client tells the server where a lane is when the server has lost it, not more often than this.
constexpr DurationNs kHelloEveryNs = 100 * kMillisecondNs;

}  // namespace

Receiver::Receiver(WorkerState& state, Transmitter& transmitter, Bonds& bonds)
    : state_(state),
      transmitter_(transmitter),
      bonds_(bonds),
      shaper_(bonds.slab(), state.options.max_peers, state.options.index),
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
  if (!Owns(header, stream.entry.peer)) {
    if (handed) return state_.drops.Count(Drop::bad_lane);
    const int owner = IsBondLane(header.lane) ? state_.BondWorkerOf(stream.entry.peer)
                                              : header.lane % state_.options.workers;
    return HandToOwner(owner, datagram, incoming);
  }

  if (header.kind == Kind::kData &&
      shaper_.Floods(stream.entry.peer, header.lane == kExpressLane)) {
    shaper_.NoteRefused(stream.entry.peer);
    if (stream.bond != nullptr) stream.bond->refused_ns = state_.now_ns;
    return state_.drops.Count(Drop::throttled_flood);
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
  // What was recorded and is played again tells nothing of the path.
  if (!opened.duplicate || opened.path_advance != 0) {
    traffic.rx_bytes.Add(datagram.size());
    traffic.rx_datagrams.Add(1);
    if (stream.bond == nullptr) traffic.rx_expected.Add(opened.path_advance);
  }
  // Of a bond's paths each has a newest one of its own.
  const bool newest =
      stream.bond == nullptr ? opened.newest : opened.path_advance != 0 && !opened.duplicate;
  if (!stream.source_followed) FollowSource(stream, incoming, newest);
  if (opened.confirm_epoch) {
    ControlMessage confirm{ControlMessage::Type::kConfirmEpoch};
    confirm.session = header.session;
    confirm.epoch = opened.epoch;
    transmitter_.SendControl(session, stream.lane, stream.path,
                             RouteOf(session, *stream.lane.sources, stream.path, state_.now_ns),
                             confirm);
  }
  if (stream.bond != nullptr) return OnBonded(stream, incoming, header, opened, datagram.size());
  switch (header.kind) {
    case Kind::kData:
      return OnData(stream.entry.peer, session, header.flags, opened.plain);
    case Kind::kControl:
      return OnControl(stream, incoming, opened.plain);
    default:
      return;  // parity is of a bond's lanes only
  }
}

std::optional<Drop> Receiver::Find(const Header& header, Stream& stream) {
  stream = {};
  const SessionTable::Entry* entry = FindEntry(header.session);
  if (entry == nullptr) return Drop::unknown_session;
  const bool bonded = IsBondLane(header.lane) && entry->keypair->bonds;
  if (!bonded && header.lane >= entry->keypair->lanes) return Drop::bad_lane;
  stream.entry = *entry;
  stream.session = state_.FindSession(entry->peer);
  stream.lane_id = header.lane;
  stream.path = header.path & kPathIdMask;
  if (!Owns(header, entry->peer)) return std::nullopt;
  if (bonded) {
    stream.bond = bonds_.Find(entry->peer);
    if (stream.bond != nullptr) stream.lane = stream.bond->lane(header.lane);
  } else if (LaneState* lane = state_.FindLane(*stream.session, header.lane)) {
    stream.lane = RefOf(*lane);
  }
  return std::nullopt;
}

bool Receiver::Owns(const Header& header, PeerSlot peer) const {
  return IsBondLane(header.lane) ? state_.HasBond(peer) : state_.Owns(header.lane);
}

const SessionTable::Entry* Receiver::FindEntry(uint32_t session) {
  const SessionTable::Entry* entry = state_.sessions_by_index.Find(session);
  if (entry != nullptr || carry_out_commands_ == nullptr) return entry;
  // The handshake's answer may have been faster than this worker.
  carry_out_commands_(worker_);
  return state_.sessions_by_index.Find(session);
}

void Receiver::HandToOwner(int worker, Bytes datagram, const Incoming& incoming) {
  PacketPtr copy = state_.receive_pool->Take();
  if (copy == nullptr) return state_.drops.Count(Drop::no_buffer);
  std::memcpy(copy->data(), datagram.data(), datagram.size());
  copy->length = static_cast<uint32_t>(datagram.size());
  HandedPacket handed{HandedPacket::From::kNetwork, std::move(copy), incoming};
  handed.incoming.datagram_bytes = static_cast<uint16_t>(datagram.size());
  state_.HandTo(worker, std::move(handed), 1);
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
  const auto duplicates =
      IsBondLane(header.lane) ? LaneReceiver::Duplicates::kOpen : LaneReceiver::Duplicates::kRefuse;
  if (stream.lane) {
    return stream.lane.receiver->Open(keypair, header, datagram, state_.now_ns, opened, duplicates);
  }
  // A lane takes state with its first authentic packet, not before.
  LaneReceiver first;
  if (auto drop = first.Open(keypair, header, datagram, state_.now_ns, opened)) return drop;
  if (IsBondLane(header.lane)) {
    stream.bond = &bonds_.Take(stream.entry.peer);
    stream.lane = stream.bond->lane(header.lane);
  } else {
    LaneState* lane = state_.TakeLane(*stream.session, header.lane);
    if (lane == nullptr) return Drop::no_lane_state;
    stream.lane = RefOf(*lane);
  }
  *stream.lane.receiver = first;
  return std::nullopt;
}

// Notes where the lane's packets come from now, with the first packet of a read that is newer than
// all before. An address that is new has to prove itself first.
void Receiver::FollowSource(Stream& stream, const Incoming& incoming, bool newest) {
  Session& session = *stream.session;
  Sources& sources = *stream.lane.sources;
  const PathState& known = session.paths[stream.path];
  Sources::Path& own = sources.paths[stream.path];
  if (own.version != known.version) {
    own.version = known.version;
    own.source.Forget();
  }
  const uint8_t socket_lane = stream.bond != nullptr ? kFirstBondLane : stream.lane_id;
  if (incoming.socket_lane != Incoming::kAnyLane && incoming.socket_lane != socket_lane) {
    // The server answered at another port than this lane's: tell it the right one.
    if (state_.now_ns >= sources.hello_sent_ns + kHelloEveryNs) {
      sources.hello_sent_ns = state_.now_ns;
      transmitter_.SendControl(session, stream.lane, stream.path,
                               RouteOf(session, sources, stream.path, state_.now_ns),
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
  transmitter_.SendControl(session, stream.lane, stream.path, incoming.back,
                           {ControlMessage::Type::kPing, own.source.token()});
}

// A bond's lane: in order, or at once; and what is held for an earlier one leaves its buffer.
void Receiver::OnBonded(const Stream& stream, const Incoming& incoming, const Header& header,
                        const LaneReceiver::Opened& opened, size_t datagram_bytes) {
  Bond& bond = *stream.bond;
  if (bond.generation != stream.entry.keypair->generation) {
    bond.generation = stream.entry.keypair->generation;
    bond.receiver.Clear();
    bond.sender.Clear();
  }
  bonds_.Touch(stream.entry.peer);
  BondReceiver::Datagram datagram{.lane = header.lane,
                                  .path = stream.path,
                                  .path_seq = header.path_seq,
                                  .advance = opened.path_advance,
                                  .sequence = header.sequence,
                                  .bytes = static_cast<uint32_t>(datagram_bytes),
                                  .duplicate = opened.duplicate};
  const BondReceiver::Verdict verdict = bond.receiver.OnDatagram(datagram, state_.now_ns);
  stream.session->traffic[stream.path].rx_expected.Add(datagram.advance);
  if (verdict == BondReceiver::Verdict::kDuplicate) return;
  MutableBytes plain = opened.plain;
  if (header.kind != Kind::kData) {
    if (header.kind == Kind::kControl) OnControl(stream, incoming, plain);
    if (header.kind == Kind::kParity && !bond.receiver.fec().OnParity(plain, state_.now_ns)) {
      state_.drops.Count(Drop::bad_parity);
    }
    plain = {};  // it only has its place in the order
  }
  bond.receiver.fec().OnPacket(header.lane, header.sequence, header.flags, plain, state_.now_ns);
  SlotId id = kNoSlot;
  if (verdict == BondReceiver::Verdict::kHold && plain.size() <= bonds_.slab().packet_bytes()) {
    id = bond.receiver.TakeSlot();
  }
  if (id != kNoSlot) {
    Slot& slot = bonds_.slab()[id];
    slot.bytes = static_cast<uint16_t>(plain.size());
    slot.flags = header.flags;
    if (!plain.empty()) std::memcpy(bonds_.slab().data(id), plain.data(), plain.size());
    bond.receiver.Hold(id, datagram, state_.now_ns);
  } else {
    OnData(stream.entry.peer, *stream.session, header.flags, plain);
  }
  if (DeliverRecovered(stream) || id == kNoSlot) DeliverReady(stream.entry.peer, bond);
}

// What parity made up for is as if it had come now, but over no path.
bool Receiver::DeliverRecovered(const Stream& stream) {
  Bond& bond = *stream.bond;
  PacketSlab& slab = bonds_.slab();
  bool any = false;
  for (SlotId id = bond.receiver.fec().TakeRecovered(); id != kNoSlot;
       id = bond.receiver.fec().TakeRecovered()) {
    any = true;
    const Slot& slot = slab[id];
    LaneReceiver& lane = *bond.lane(slot.lane).receiver;
    if (!lane.Recover(stream.entry.keypair->generation, slot.sequence)) {
      slab.Return(id);
      continue;
    }
    const BondReceiver::Datagram datagram{.lane = slot.lane, .sequence = slot.sequence};
    if (bond.receiver.OnRecovered(slot.lane, slot.sequence) == BondReceiver::Verdict::kHold) {
      bond.receiver.Hold(id, datagram, state_.now_ns);
      continue;
    }
    DeliverSlot(stream.entry.peer, *stream.session, id);
  }
  return any;
}

void Receiver::DeliverReady(PeerSlot peer, Bond& bond) {
  Session& session = *state_.sessions[peer];
  for (SlotId id = bond.receiver.TakeReady(state_.now_ns); id != kNoSlot;
       id = bond.receiver.TakeReady(state_.now_ns)) {
    DeliverSlot(peer, session, id);
  }
}

// The slot goes back once the packet has been written.
void Receiver::DeliverSlot(PeerSlot peer, Session& session, SlotId id) {
  if (held_slots_used_ == kMaxHeldSlots) FlushAll();
  OnData(peer, session, bonds_.slab()[id].flags, bonds_.slab().packet(id));
  held_slots_[held_slots_used_++] = id;
}

void Receiver::OnControl(const Stream& stream, const Incoming& incoming, Bytes plain) {
  ControlMessage message;
  ControlVerdict verdict = ReadControlMessage(plain, message);
  if (verdict == ControlVerdict::kUnknownType && stream.bond != nullptr) {
    verdict = bonds_.OnMessage(stream.entry.peer, stream.path, plain, incoming.wall_ns);
    if (verdict == ControlVerdict::kOk) return;
  }
  if (verdict == ControlVerdict::kUnknownType) return;
  if (verdict == ControlVerdict::kMalformed) return state_.drops.Count(Drop::bad_control);
  switch (message.type) {
    case ControlMessage::Type::kPing:
      transmitter_.SendControl(*stream.session, stream.lane, stream.path, incoming.back,
                               {ControlMessage::Type::kPong, message.token});
      break;
    case ControlMessage::Type::kPong:
      stream.lane.sources->paths[stream.path].source.OnPong(message.token);
      break;
    case ControlMessage::Type::kConfirmEpoch:
      stream.lane.sender->ConfirmEpoch(message.session, message.epoch);
      break;
    case ControlMessage::Type::kHello:
    case ControlMessage::Type::kPathGone:  // of the slow lane, as the next three
    case ControlMessage::Type::kProbe:
    case ControlMessage::Type::kProbed:
    case ControlMessage::Type::kMode:
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

void Receiver::OnData(PeerSlot peer, Session& session, uint8_t flags, MutableBytes plain) {
  if (plain.empty()) return;
  InnerPacket inner;
  if (!ParseInner(plain, inner)) return state_.drops.Count(Drop::malformed_inner);
  const bool partial_checksum = (flags & kFlagPartialChecksum) != 0;
  // Only the checksum of a whole outermost TCP or UDP header may be partial; nothing is compressed
  // unless the handshake agreed on it.
  if ((partial_checksum && inner.l4_header_bytes == 0) || (flags & kFlagCompressed) != 0) {
    return state_.drops.Count(Drop::bad_flags);
  }
  if (!OwnsSource(peer, plain)) return state_.drops.Count(Drop::spoofed_source);
  if (inner.is_tcp()) ClampMss(plain, inner, session.mtu, partial_checksum);
  if (shaper_.Limits(peer) && !shaper_.Pass(peer, plain.size(), state_.now_ns)) {
    return Delay(peer, flags, plain);
  }
  Deliver(session, plain, inner, partial_checksum);
}

void Receiver::Delay(PeerSlot peer, uint8_t flags, Bytes plain) {
  PacketSlab& slab = bonds_.slab();
  const SlotId id = plain.size() <= slab.packet_bytes() ? slab.Take() : kNoSlot;
  if (id == kNoSlot) return state_.drops.Count(Drop::throttled_rx);
  Slot& slot = slab[id];
  std::memcpy(slab.data(id), plain.data(), plain.size());
  slot.bytes = static_cast<uint16_t>(plain.size());
  slot.flags = flags;
  slot.flow_hash = FlowHash(plain);
  state_.drops.Count(Drop::throttled_rx,
                     shaper_.Enqueue(peer, id, bonds_.DelaysOf(peer), state_.now_ns));
}

void Receiver::DeliverShaped() {
  if (shaper_.NextDue() > state_.now_ns) return;
  const size_t dropped = shaper_.Run(state_.now_ns, [this](PeerSlot peer, SlotId id) {
    if (held_slots_used_ == kMaxHeldSlots) FlushAll();
    const MutableBytes plain = bonds_.slab().packet(id);
    InnerPacket inner;
    ParseInner(plain, inner);  // as it did when it came
    Deliver(*state_.sessions[peer], plain, inner,
            (bonds_.slab()[id].flags & kFlagPartialChecksum) != 0);
    held_slots_[held_slots_used_++] = id;  // what it flushed had not borrowed this one
  });
  state_.drops.Count(Drop::throttled_rx, dropped);
}

void Receiver::Deliver(Session& session, MutableBytes plain, const InnerPacket& inner,
                       bool partial_checksum) {
  session.rx_packets.Add(1);
  session.rx_bytes.Add(plain.size());
  if (tells_of_names_ && inner.is_udp()) TellOfNames(plain, inner);
  if (coalescer_.Add(plain, inner, partial_checksum)) return;
  FlushAll();
  coalescer_.Add(plain, inner, partial_checksum);
}

// An answer of a name server, as far as it is one that an event holds.
void Receiver::TellOfNames(Bytes plain, const InnerPacket& inner) {
  const Bytes payload = plain.subspan(inner.headers_bytes());
  if (inner.fragment || LoadBe16(&plain[inner.l4_offset]) != kDnsPort) return;
  state_.TellOfDns(Event::Type::kTunnelAnswer, FlowKey::Of(plain, inner), payload);
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
  for (size_t i = 0; i < held_slots_used_; ++i) bonds_.slab().Return(held_slots_[i]);
  held_slots_used_ = 0;
}

// In the middle of a batch, when a table is full. The read that is being taken apart is not among
// the held ones yet, so its buffer stays.
void Receiver::FlushAll() {
  FinishWrites();
  state_.backend->Flush();
  AfterFlush();
}

}  // namespace braid
