#include "fastpath/bonds.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/flow_hash.h"
#include "fastpath/traffic_class.h"

namespace braid {
namespace {

// One bond may not keep the others of a worker from sending.
constexpr int kMaxDeparturesPerBatch = 512;
constexpr DurationNs kQuietNs = 10 * kSecondNs;
constexpr DurationNs kPauseNs = 2 * kMillisecondNs;
// After it has not opened something: by then it is known to be missing.
constexpr DurationNs kRefusesNs = 100 * kMillisecondNs;
// Nothing waits for a worker for longer: the wall clock was set meanwhile.
constexpr DurationNs kMostWaitNs = kSecondNs;

// When the kernel took in what a worker has come to only now: such a wait is no delay of the path.
TimeNs ArrivedNs(uint64_t wall_ns, TimeNs now_ns) {
  if (wall_ns == 0) return now_ns;
  const uint64_t waited_ns = WallNowNs() - wall_ns - (MonotonicNowNs() - now_ns);
  return waited_ns > kMostWaitNs ? now_ns : now_ns - waited_ns;
}

bool IsFar(const Session& session) {
  return std::any_of(session.paths.begin(), session.paths.end(),
                     [](const PathState& path) { return path.up && path.far; });
}

}  // namespace

Bonds::Bonds(WorkerState& state, Trains& trains)
    : state_(state),
      trains_(trains),
      memory_(kBondSlots, state.options.max_inner_bytes),
      modes_(state.options.max_peers),
      pool_(state.options.max_peers),
      bonds_(state.options.max_peers),
      shown_(state.options.max_peers),
      timers_(state.options.max_peers),
      shaper_(memory_.slab, state.options.max_peers, state.options.index) {}

Bond& Bonds::Take(PeerSlot peer) {
  Bond*& bond = bonds_[peer];
  if (bond == nullptr) {
    bond = pool_.Make(memory_, peer);
    shown_[peer].store(bond, std::memory_order_release);
    ApplyOptions(peer, *bond);
    const Session& session = *state_.sessions[peer];
    for (uint8_t path = 0; path < kMaxPaths; ++path) {
      bond->sender.SetPath(path, session.paths[path].up, session.paths[path].options,
                           state_.now_ns);
    }
  }
  return *bond;
}

void Bonds::SetOptions(const BondOptions& options) {
  options_ = options;
  for (PeerSlot peer = 0; peer < bonds_.size(); ++peer) {
    if (bonds_[peer] == nullptr) continue;
    ApplyOptions(peer, *bonds_[peer]);
    Touch(peer);
  }
}

void Bonds::SetLimits(ThrottleWay* way) {
  shaper_.SetLimits(way, state_.now_ns);
  for (PeerSlot peer = 0; peer < bonds_.size(); ++peer) {
    if (!state_.HasBond(peer)) continue;
    OnPathsChanged(peer, *state_.sessions[peer]);
  }
}

void Bonds::SetMode(PeerSlot peer, std::optional<BondingMode> mode) {
  modes_[peer] = mode;
  if (bonds_[peer] == nullptr) return;
  ApplyOptions(peer, *bonds_[peer]);
  Touch(peer);
}

void Bonds::ApplyOptions(PeerSlot peer, Bond& bond) {
  BondOptions options = options_;
  options.mode = modes_[peer].value_or(options.mode);
  bond.sender.SetOptions(options);
  bond.receiver.SetReorderMax(options.reorder_max_ns);
}

// A limit alone makes no bond yet: the first packet does.
void Bonds::OnPathsChanged(PeerSlot peer, Session& session) {
  const auto up = std::count_if(session.paths.begin(), session.paths.end(),
                                [](const PathState& path) { return path.up; });
  const bool can = session.send_keypair != nullptr && session.send_keypair->bonds;
  const bool must = can && (up > 1 || shaper_.Limits(peer));
  if (can && up > 1) Take(peer);
  Bond* bond = Find(peer);
  // When one that is at work has become needless is for Review() to say.
  if (must || !can || bond == nullptr) SetBonded(peer, must);
  if (bond == nullptr) return;
  for (uint8_t path = 0; path < kMaxPaths; ++path) {
    bond->sender.SetPath(path, session.paths[path].up, session.paths[path].options, state_.now_ns);
  }
  Touch(peer);
}

// Several paths are a bond's unless they carry more than one worker can send. A single one is when
// it limits what is sent, until it has been quiet for long; a far one also until it has shown that
// it does not, since what a flow loses in its first round trips holds it back for seconds. Such a
// bond ends in a pause, so that nothing overtakes what it has sent.
void Bonds::Review(PeerSlot peer, Bond& bond) {
  Session& session = *state_.sessions[peer];
  if (session.send_keypair == nullptr || !session.send_keypair->bonds) return;
  const bool must = bond.sender.all_bonded() || shaper_.Limits(peer);
  const bool several = bond.sender.usable_paths() > 1;
  if (state_.IsBonded(peer)) {
    const bool quiet = state_.now_ns >= bond.sender.active_until_ns() + kQuietNs;
    const bool free = bond.sender.free() && bond.sender.pause_ns(state_.now_ns) >= kPauseNs;
    const bool needless = bond.sender.unconstrained() || (!several && (quiet || free));
    if (!must && needless) SetBonded(peer, false);
  } else if (bond.sender.constrained() || must || (several && !bond.sender.unconstrained()) ||
             (IsFar(session) && !bond.sender.free())) {
    bond.sender.Relearn(state_.now_ns);
    SetBonded(peer, true);
  }
}

void Bonds::NoteDirect(PeerSlot peer) {
  if (state_.sessions[peer]->send_keypair == nullptr) return;  // it has ended meanwhile
  Bond& bond = Take(peer);
  bond.sender.NoteDirect(state_.now_ns);
  Review(peer, bond);
  Touch(peer);
}

void Bonds::OnSessionEnd(PeerSlot peer) {
  if (Bond* bond = Find(peer)) bond->sender.Clear();
  state_.drops.Count(Drop::throttled_tx, shaper_.Clear(peer));
}

void Bonds::End(PeerSlot peer) {
  modes_[peer].reset();
  SetBonded(peer, false);
  timers_.Set(peer, kNever);
  state_.drops.Count(Drop::throttled_tx, shaper_.End(peer));
  Bond* bond = std::exchange(bonds_[peer], nullptr);
  if (bond == nullptr) return;
  shown_[peer].store(nullptr, std::memory_order_release);
  pool_.Destroy(bond);
}

void Bonds::Enqueue(PeerSlot peer, Session& session, Segmenter& segmenter) {
  Bond& bond = Take(peer);
  const Bytes packet = segmenter.packet();
  const uint32_t flow_hash = FlowHash(packet);
  const TrafficClass traffic_class = ClassOf(segmenter);
  const uint8_t flags = segmenter.partial_checksum() ? kFlagPartialChecksum : 0;
  const bool limited = shaper_.Limits(peer);
  uint64_t packets = 0;
  uint64_t bytes = 0;
  for (MutableBytes segment = segmenter.Next(); !segment.empty(); segment = segmenter.Next()) {
    const SlotId id = bond.sender.TakeSlot(segment.size());
    if (id == kNoSlot) {
      state_.drops.Count(Drop::bond_full);
      continue;
    }
    std::memcpy(memory_.slab.data(id), segment.data(), segment.size());
    Slot& slot = memory_.slab[id];
    slot.bytes = static_cast<uint16_t>(segment.size());
    slot.flags = flags;
    slot.flow_hash = flow_hash;
    slot.traffic_class = traffic_class;
    if (limited && !shaper_.Pass(peer, segment.size(), state_.now_ns)) {
      state_.drops.Count(Drop::throttled_tx,
                         shaper_.Enqueue(peer, id, DelaysOf(peer), state_.now_ns));
      continue;
    }
    bond.sender.Enqueue(id, state_.now_ns);
    ++packets;
    bytes += segment.size();
  }
  session.tx_packets.Add(packets);
  session.tx_bytes.Add(bytes);
  session.last_tx_ns.store(state_.now_ns, std::memory_order_relaxed);
  Touch(peer);
}

void Bonds::ReleaseShaped() {
  const size_t dropped = shaper_.Run(state_.now_ns, [this](PeerSlot peer, SlotId id) {
    Session& session = *state_.sessions[peer];
    session.tx_packets.Add(1);
    session.tx_bytes.Add(memory_.slab[id].bytes);
    bonds_[peer]->sender.Enqueue(id, state_.now_ns);
    Touch(peer);
  });
  state_.drops.Count(Drop::throttled_tx, dropped);
}

Shaper::Delays Bonds::DelaysOf(PeerSlot peer) const {
  if (bonds_[peer] == nullptr) return {};
  const FairQueue& queue = bonds_[peer]->sender.queue();
  return {queue.target_ns(), queue.interval_ns()};
}

TrafficClass Bonds::ClassOf(const Segmenter& segmenter) const {
  const auto by_rule = class_rules_ == nullptr
                           ? std::nullopt
                           : class_rules_->Find(segmenter.packet(), segmenter.inner());
  return by_rule ? *by_rule : braid::ClassOf(segmenter.packet());
}

ControlVerdict Bonds::OnMessage(PeerSlot peer, uint8_t path, Bytes plain, uint64_t wall_ns) {
  BondMessage message;
  const ControlVerdict verdict = ReadBondMessage(plain, message);
  if (verdict != ControlVerdict::kOk) return verdict;
  Bond& bond = Take(peer);
  switch (message.type) {
    case BondMessageType::kProbe:
      bond.receiver.OnProbe(path, message.probe, ArrivedNs(wall_ns, state_.now_ns), state_.now_ns);
      break;
    case BondMessageType::kReport:
      bond.sender.OnReport(message.report, state_.now_ns);
      break;
    case BondMessageType::kMissing:
      bond.sender.OnMissing(message.missing, state_.now_ns);
      break;
  }
  Touch(peer);
  return verdict;
}

void Bonds::SendAll(PeerSlot peer, Bond& bond) {
  Session& session = *state_.sessions[peer];
  MissingReport missing;
  // What was refused is not to come again.
  const bool refuses = state_.now_ns < bond.refused_ns + kRefusesNs;
  while (bond.receiver.TakeMissing(state_.now_ns, missing)) {
    if (!refuses) bond.sender.SendMissing(missing);
  }
  BondReport report;
  if (bond.receiver.TakeReport(state_.now_ns, report)) {
    CountAllLanes(peer, report);
    bond.sender.SendReport(report);
  }
  if (session.send_keypair != nullptr) {
    bond.sender.SetParityUnderstood(session.send_keypair->parity);
  }
  Departure departure;
  for (int sent = 0; sent < kMaxDeparturesPerBatch; ++sent) {
    if (!bond.sender.Next(state_.now_ns, departure)) return;
    if (!Send(session, bond, departure)) bond.sender.NotSealed(departure);
  }
}

// What came over a path in the lanes of any worker. The counters are read one by one while others
// write; what one has not told yet is in the next report.
void Bonds::CountAllLanes(PeerSlot peer, BondReport& report) const {
  if (state_.options.group == nullptr) return;
  for (uint8_t i = 0; i < report.paths_used; ++i) {
    PathReport& path = report.paths[i];
    path.datagrams = path.expected = path.bytes = 0;
    for (const WorkerState* worker : *state_.options.group) {
      const PathTraffic& traffic = worker->sessions[peer]->traffic[path.path];
      path.datagrams += static_cast<uint32_t>(traffic.rx_datagrams.Get());
      path.expected += static_cast<uint32_t>(traffic.rx_expected.Get());
      path.bytes += static_cast<uint32_t>(traffic.rx_bytes.Get());
    }
  }
}

bool Bonds::Send(Session& session, Bond& bond, const Departure& departure) {
  if (session.send_keypair == nullptr) return false;
  BondMessageBytes message;
  Bytes plain;
  Kind kind = Kind::kControl;
  uint8_t flags = 0;
  switch (departure.what) {
    case Departure::What::kPacket:
      plain = memory_.slab.packet(departure.slot);
      flags = memory_.slab[departure.slot].flags;
      kind = Kind::kData;
      break;
    case Departure::What::kProbe:
      plain = {message.data(), WriteBondMessage(*departure.probe, message)};
      break;
    case Departure::What::kReport:
      plain = {message.data(), WriteBondMessage(*departure.report, message)};
      break;
    case Departure::What::kMissing:
      plain = {message.data(), WriteBondMessage(*departure.missing, message)};
      break;
    case Departure::What::kParity:
      plain = departure.plain;
      kind = Kind::kParity;
      break;
  }
  LaneSender& lane = *bond.lane(departure.lane).sender;
  if (const auto drop = lane.Prepare(*session.send_keypair, departure.lane, state_.now_ns)) {
    state_.drops.Count(*drop);
    return false;
  }
  const Route& route = RouteOf(session, bond.sources, departure.path, state_.now_ns);
  const size_t datagram_bytes = plain.size() + kSealOverheadBytes;
  Trains::Train* train =
      trains_.For(session, &bond, departure.path, route,
                  state_.SocketOf(route.socket_group, departure.lane), datagram_bytes);
  if (train == nullptr) return false;
  const auto path = static_cast<uint8_t>(departure.path | departure.copy << kPathCopyShift);
  const LaneSender::Sealed sealed =
      departure.numbered
          ? lane.SealNumbered(departure.sequence, kind, path, flags, plain, train->end())
          : lane.Seal(kind, path, flags, plain, train->end());
  trains_.Add(*train, datagram_bytes);
  bond.sender.Sealed(departure, sealed.sequence, sealed.path_seq, datagram_bytes, state_.now_ns);
  return true;
}

void Bonds::SetTimer(PeerSlot peer, const Bond& bond) {
  const TimeNs due_ns = std::min(bond.sender.NextDue(), bond.receiver.NextDue());
  // Not again in this batch.
  timers_.Set(peer, due_ns == kNever ? kNever : std::max(due_ns, state_.now_ns + 1));
}

void Bonds::Show(PeerSlot peer, Bond& bond) {
  bond.shown_ns = state_.now_ns;
  BondGauges& to = bond.gauges;
  int64_t quickest_ns = INT64_MAX;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const RateControl& rate = bond.sender.rate(id);
    if (rate.has_rtt()) quickest_ns = std::min(quickest_ns, rate.one_way_ns());
  }
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const RateControl& rate = bond.sender.rate(id);
    BondGauges::Path& path = to.paths[id];
    path.state.Set(static_cast<uint8_t>(bond.sender.state(id)));
    path.phase.Set(static_cast<uint8_t>(rate.phase()));
    path.carries.Set(bond.sender.carries(id));
    path.bytes_per_s.Set(rate.bytes_per_s());
    path.pacing_bytes_per_s.Set(rate.pacing_bytes_per_s());
    path.goodput_bytes_per_s.Set(rate.goodput_bytes_per_s());
    path.rtt_ns.Set(rate.rtt_ns());
    path.queue_ns.Set(rate.queue_ns());
    path.jitter_ns.Set(rate.jitter_ns());
    path.one_way_ns.Set(rate.has_rtt() ? rate.one_way_ns() - quickest_ns : 0);
    path.one_way_trend_ns_per_s.Set(rate.one_way_trend_ns_per_s());
    path.loss.Set(rate.loss());
  }
  to.bonded.Set(state_.IsBonded(peer));
  to.mode.Set(bond.sender.mode());
  const FairQueue& queue = bond.sender.queue();
  to.queued_packets.Set(bond.sender.waiting_packets());
  to.queued_bytes.Set(bond.sender.waiting_bytes());
  to.codel_drops.Set(queue.counters().dropped);
  to.codel_marks.Set(queue.counters().marked);
  to.overflows.Set(queue.counters().overflowed);
  const BondSender::Counters& sent = bond.sender.counters();
  to.gone_stale.Set(sent.gone_stale);
  to.express_packets.Set(sent.express);
  to.copies.Set(sent.copies);
  to.repairs.Set(sent.repairs);
  to.repairs_too_late.Set(sent.repairs_too_late);
  to.parity_sent.Set(sent.parity);
  to.hold_ns.Set(bond.sender.hold_ns(state_.now_ns));
  const BondReceiver::Counters& received = bond.receiver.counters();
  to.held_packets.Set(bond.receiver.held_now());
  to.held_packets_total.Set(received.held);
  to.held_ns_total.Set(received.held_for_ns);
  to.longest_hold_ns.Set(received.longest_hold_ns);
  to.given_up.Set(received.given_up);
  to.late.Set(received.late);
  to.lost.Set(received.lost);
  to.duplicates.Set(received.duplicates);
  const FecDecoder::Counters& made_up = bond.receiver.fec().counters();
  to.parity_received.Set(made_up.parity);
  to.recovered.Set(received.recovered);
  to.unrecoverable.Set(made_up.unrecoverable);
}

}  // namespace braid
