#include "sim/bond_end.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

namespace braid::sim {
namespace {

constexpr DurationNs kClockStepNs = kMillisecondNs;  // in which waits are told
// While something waits, an end looks at it at least so often.
constexpr DurationNs kMostSleepNs = kSecondNs;
constexpr int kMostDeparturesPerBatch = 512;
constexpr int kMostIdleWakesInARow = 2'000;

uint32_t ControlBytes(const BondProbe& probe) { return 14 + 9 * probe.lanes_used; }
uint32_t ControlBytes(const BondReport& report) { return 8 + 22 * report.paths_used; }
uint32_t ControlBytes(const MissingReport& missing) { return 4 + 8 * missing.ranges_used; }

}  // namespace

void Violations::Note(TimeNs now_ns, const std::string& what) {
  std::string kind = what;
  std::erase_if(kind, [](char c) { return c >= '0' && c <= '9'; });
  if (!kinds_.insert(std::move(kind)).second) return;
  absl::StrAppendFormat(
      &text_, "%9.6f s  %s\n",
      static_cast<double>(now_ns - EventLoop::kStartNs) / static_cast<double>(kSecondNs), what);
}

BondEnd::BondEnd(EventLoop& loop, Violations& violations, const Settings& settings,
                 SendFrame send_frame, DeliverPacket deliver)
    : loop_(loop),
      violations_(violations),
      settings_(settings),
      send_frame_(std::move(send_frame)),
      deliver_(std::move(deliver)),
      options_(settings.options),
      memory_(settings.slots, settings.packet_bytes),
      due_(loop, [this] { Wake(); }),
      soon_(loop, [this] { Run(); }) {
  MakeHalves();
}

void BondEnd::MakeHalves() {
  sender_ = std::make_unique<BondSender>(memory_, *this, uint16_t{7});
  receiver_ = std::make_unique<BondReceiver>(memory_, uint16_t{7});
  sender_->SetParityUnderstood(true);
  SetOptions(options_);
}

void BondEnd::SetOptions(const BondOptions& options) {
  options_ = options;
  sender_->SetOptions(options);
  receiver_->SetReorderMax(options.reorder_max_ns);
  least_told_wait_ns_ = std::min(least_told_wait_ns_, options.reorder_max_ns);
  most_wait_ns_ = std::max(most_wait_ns_, options.reorder_max_ns);
  soon_.Set(loop_.now_ns());
}

void BondEnd::SetPath(uint8_t path, bool usable, const BondPathOptions& options) {
  path_usable_[path] = usable;
  path_options_[path] = options;
  sender_->SetPath(path, usable, options, local_ns());
  soon_.Set(loop_.now_ns());
}

void BondEnd::ForgetPath(uint8_t path) {
  for (Opening& opening : opening_) opening.next_path_seq[path] = 0;
  receiver_->ForgetPath(path);
}

void BondEnd::Send(const InnerPacket& packet) {
  ++counters_.enqueued;
  enqueued_bytes_ += packet.bytes;
  const SlotId id = sender_->TakeSlot(SlotBytes(packet));
  if (id == kNoSlot) {
    ++counters_.refused;
    return;
  }
  Slot& slot = memory_.slab[id];
  slot.bytes = SlotBytes(packet);
  slot.flow_hash = packet.flow_hash;
  slot.traffic_class = packet.traffic_class;
  std::copy(packet.head.begin(), packet.head.end(), memory_.slab.data(id));
  sender_->Enqueue(id, local_ns());
  soon_.Set(loop_.now_ns());
}

// As LaneReceiver does: numbers of a path that begins may begin anywhere.
uint32_t BondEnd::AdvancePath(Opening& opening, uint8_t path, uint32_t path_seq) const {
  uint32_t& next = opening.next_path_seq[path];
  const uint32_t after = path_seq + 1;
  const uint32_t advance = next == 0 ? 1 : after - next;
  if (static_cast<int32_t>(advance) <= 0) return 0;
  next = after;
  return advance;
}

void BondEnd::Receive(Frame&& frame) {
  if (frame.session != session_) return;  // nothing opens it any more
  const TimeNs now_ns = local_ns();
  soon_.Set(loop_.now_ns());
  Opening& opening = opening_[frame.lane - kFirstBondLane];
  const bool fresh = opening.window.Accept(frame.sequence);
  BondReceiver::Datagram datagram{
      .lane = frame.lane,
      .path = frame.path,
      .path_seq = frame.path_seq,
      .advance = AdvancePath(opening, frame.path, frame.path_seq),
      .sequence = frame.sequence,
      .bytes = frame.bytes,
      .duplicate = !fresh,
  };
  const BondReceiver::Verdict verdict = receiver_->OnDatagram(datagram, now_ns);
  if (!fresh) {
    if (verdict != BondReceiver::Verdict::kDuplicate) Note("a duplicate is not taken for one");
    return;
  }
  KeepForParity(frame);
  if (const auto* probe = std::get_if<BondProbe>(&frame.inside)) {
    receiver_->OnProbe(frame.path, *probe, now_ns, now_ns);
    if (has_told_ && static_cast<int32_t>(probe->sent_us - told_at_us_) < 0) return;
    has_told_ = true;
    told_at_us_ = probe->sent_us;
    told_wait_ns_ = (uint64_t{probe->hold_ms} + probe->repair_ms) * kMillisecondNs;
    least_told_wait_ns_ = std::min({least_told_wait_ns_, told_wait_ns_, options_.reorder_max_ns});
    told_repair_ = probe->repair_ms != 0;
    return;
  }
  if (const auto* report = std::get_if<std::shared_ptr<const BondReport>>(&frame.inside)) {
    return sender_->OnReport(**report, now_ns);
  }
  if (const auto* missing = std::get_if<std::shared_ptr<const MissingReport>>(&frame.inside)) {
    return sender_->OnMissing(**missing, now_ns);
  }
  if (verdict == BondReceiver::Verdict::kDuplicate) {
    return Note("what is new is taken for a duplicate");
  }
  if (const auto* parity = std::get_if<Parity>(&frame.inside)) {
    if (!receiver_->fec().OnParity(**parity, now_ns)) Note("parity that does not parse");
  } else {
    Place(frame, datagram, verdict);
  }
  if (DrainRecovered() || verdict == BondReceiver::Verdict::kDeliver) DrainReady();
}

void BondEnd::Place(const Frame& frame, const BondReceiver::Datagram& datagram,
                    BondReceiver::Verdict verdict) {
  const InnerPacket& packet = std::get<InnerPacket>(frame.inside);
  if (verdict == BondReceiver::Verdict::kDeliver) {
    return Deliver(frame.lane, frame.sequence, packet, false);
  }
  Opening& opening = opening_[frame.lane - kFirstBondLane];
  const SlotId id = receiver_->TakeSlot();
  if (id == kNoSlot) {
    ++counters_.not_held;
    return Deliver(frame.lane, frame.sequence, packet, true);
  }
  Slot& slot = memory_.slab[id];
  slot.bytes = SlotBytes(packet);
  slot.flow_hash = packet.flow_hash;
  slot.traffic_class = packet.traffic_class;
  std::copy(packet.head.begin(), packet.head.end(), memory_.slab.data(id));
  opening.held[frame.sequence] = loop_.now_ns();
  receiver_->Hold(id, datagram, local_ns());
}

void BondEnd::KeepForParity(const Frame& frame) {
  std::vector<uint8_t> bytes;
  if (const auto* packet = std::get_if<InnerPacket>(&frame.inside)) {
    bytes.assign(packet->head.begin(), packet->head.end());
    bytes.resize(frame.slot_bytes);
  }
  receiver_->fec().OnPacket(frame.lane, frame.sequence, 0, bytes, local_ns());
}

// As the worker does with what it did not open.
bool BondEnd::DrainRecovered() {
  bool any = false;
  for (SlotId id = receiver_->fec().TakeRecovered(); id != kNoSlot;
       id = receiver_->fec().TakeRecovered()) {
    any = true;
    const Slot& slot = memory_.slab[id];
    Opening& opening = opening_[slot.lane - kFirstBondLane];
    if (!opening.window.Accept(slot.sequence)) {
      memory_.slab.Return(id);
      continue;
    }
    ++counters_.recovered;
    const BondReceiver::Datagram datagram{.lane = slot.lane, .sequence = slot.sequence};
    if (receiver_->OnRecovered(slot.lane, slot.sequence) == BondReceiver::Verdict::kHold) {
      opening.held[slot.sequence] = loop_.now_ns();
      receiver_->Hold(id, datagram, local_ns());
      continue;
    }
    const InnerPacket packet = PacketOf(id);
    memory_.slab.Return(id);
    Deliver(datagram.lane, datagram.sequence, packet, false);
  }
  return any;
}

// Of a short packet parity has to bring back all that the simulator carries of it.
uint16_t BondEnd::SlotBytes(const InnerPacket& packet) const {
  if (options_.fec == FecMode::kOff) return packet.bytes;
  return std::max<uint16_t>(packet.bytes, InnerPacket::kCarriedBytes);
}

InnerPacket BondEnd::PacketOf(SlotId id) {
  const Slot& slot = memory_.slab[id];
  InnerPacket packet;
  packet.flow_hash = slot.flow_hash;
  packet.traffic_class = slot.traffic_class;
  std::copy_n(memory_.slab.data(id), packet.head.size(), packet.head.begin());
  packet.bytes = slot.bytes > InnerPacket::kCarriedBytes ? slot.bytes : packet.label().bytes;
  return packet;
}

bool BondEnd::DrainReady() {
  bool any = false;
  const TimeNs now_ns = local_ns();
  for (SlotId id = receiver_->TakeReady(now_ns); id != kNoSlot; id = receiver_->TakeReady(now_ns)) {
    any = true;
    const Slot& slot = memory_.slab[id];
    const InnerPacket packet = PacketOf(id);
    const uint8_t lane = slot.lane;
    const uint64_t sequence = slot.sequence;
    Opening& opening = opening_[lane - kFirstBondLane];
    const auto held = opening.held.find(sequence);
    if (held == opening.held.end()) {
      Note(absl::StrFormat("lane %d: %d is ready but was not held", lane, sequence));
    } else {
      const DurationNs held_ns = loop_.now_ns() - held->second;
      counters_.longest_hold_ns = std::max(counters_.longest_hold_ns, held_ns);
      if (held_ns > most_wait_ns_ + settings_.most_late_ns) {
        Note(absl::StrFormat("lane %d: %d was held for %.1f ms", lane, sequence,
                             static_cast<double>(held_ns) / 1e6));
      }
    }
    CheckOrder(lane, sequence, false);
    if (held != opening.held.end()) opening.held.erase(held);
    memory_.slab.Return(id);
    Deliver(lane, sequence, packet, false);
  }
  if (receiver_->held_now() == 0) {
    least_told_wait_ns_ = std::min(told_wait_ns_, options_.reorder_max_ns);
    most_wait_ns_ = options_.reorder_max_ns;
  }
  return any;
}

// A held packet goes past one that is missing only after the wait that the sender asked for,
// counted from when the first behind the gap came.
void BondEnd::CheckOrder(uint8_t lane, uint64_t sequence, bool no_slot) {
  const Opening& opening = opening_[lane - kFirstBondLane];
  if (lane == kExpressLane || !opening.begun || sequence <= opening.next_delivered || no_slot) {
    return;
  }
  if (!told_repair_ || least_told_wait_ns_ == 0) return;  // may be proven lost sooner
  const bool full = opening.window.next() - opening.next_delivered > BondReceiver::kWindow ||
                    memory_.slab.used() > memory_.slab.capacity() / 8 * 7 ||
                    memory_.slab.used() + 1 > memory_.slab.capacity() / 8 * 7;
  if (full) return;
  DurationNs waited_ns = 0;
  for (const auto& [held, since_ns] : opening.held) {
    waited_ns = std::max(waited_ns, loop_.now_ns() - since_ns);
  }
  if (waited_ns + kClockStepNs < least_told_wait_ns_) {
    Note(absl::StrFormat("lane %d: %d overtakes %d after %.1f of %.1f ms", lane, sequence,
                         opening.next_delivered, static_cast<double>(waited_ns) / 1e6,
                         static_cast<double>(least_told_wait_ns_) / 1e6));
  }
}

void BondEnd::Deliver(uint8_t lane, uint64_t sequence, const InnerPacket& packet, bool no_slot) {
  Opening& opening = opening_[lane - kFirstBondLane];
  ++counters_.delivered;
  if (lane != kExpressLane && !no_slot) {
    if (opening.begun && sequence < opening.next_delivered) ++counters_.overtaken;
    opening.begun = true;
    opening.next_delivered = std::max(opening.next_delivered, sequence + 1);
  }
  deliver_(packet);
}

void BondEnd::Wake() {
  ++counters_.wakes;
  const bool held = DrainReady();
  const uint64_t departures_before = counters_.departures;
  Run();
  if (held || counters_.departures != departures_before) {
    idle_wakes_in_a_row_ = 0;
    return;
  }
  ++counters_.idle_wakes;
  if (++idle_wakes_in_a_row_ < kMostIdleWakesInARow) return;
  if (idle_wakes_in_a_row_ == kMostIdleWakesInARow) Note("wakes up again and again for nothing");
  due_.Set(std::max(due_.due_ns(), loop_.now_ns() + kMillisecondNs));  // so that it goes on
}

void BondEnd::Run() {
  const TimeNs now_ns = local_ns();
  DrainReady();
  MissingReport missing;
  while (receiver_->TakeMissing(now_ns, missing)) sender_->SendMissing(missing);
  BondReport report;
  if (receiver_->TakeReport(now_ns, report)) sender_->SendReport(report);
  Departure departure;
  for (int sent = 0; sender_->Next(now_ns, departure);) {
    Depart(departure);
    if (++sent < kMostDeparturesPerBatch) continue;
    return due_.Set(loop_.now_ns() + 1);
  }
  CheckDue();
  const TimeNs due_ns = std::min(sender_->NextDue(), receiver_->NextDue());
  if (due_ns == kNever) return due_.Cancel();
  const DurationNs late_ns =
      settings_.most_late_ns == 0 ? 0 : Between(loop_.random(), 0, settings_.most_late_ns);
  due_.Set(std::max(due_ns, now_ns + 1) - settings_.clock_ahead_ns + late_ns);
}

void BondEnd::CheckDue() {
  const TimeNs now_ns = local_ns();
  if (sender_->NextDue() <= now_ns) Note("the sender is due again at once");
  if (receiver_->NextDue() <= now_ns) Note("the receiver is due again at once");
  const bool waits = !sender_->queue().empty();
  if (waits && sender_->NextDue() > now_ns + kMostSleepNs) Note("packets wait and nobody is due");
  if (receiver_->held_now() != 0 &&
      receiver_->NextDue() > now_ns + options_.reorder_max_ns + kMillisecondNs) {
    Note("packets are held and nobody is due");
  }
  if (memory_.slab.used() > memory_.slab.capacity()) Note("more slots are used than there are");
}

void BondEnd::Depart(const Departure& departure) {
  const TimeNs now_ns = local_ns();
  if (departure.path >= kMaxPaths || !IsBondLane(departure.lane) || departure.copy > 3) {
    return Note("a departure to nowhere");
  }
  if (!path_usable_[departure.path]) Note("a departure over a path that is down");
  if (cannot_seal_ > 0 && Share(loop_.random()) < cannot_seal_) {
    ++counters_.not_sealed;
    if (departure.what == Departure::What::kPacket && !departure.sealed_before) {
      ++counters_.packets_not_sealed;
    }
    return sender_->NotSealed(departure);
  }
  Sealing& sealing = sealing_[departure.lane - kFirstBondLane];
  const uint64_t sequence = departure.numbered ? departure.sequence : sealing.next_sequence++;
  if (sequence >= sealing.next_sequence) Note("a sequence is used again that was never used");
  if (sealing.sealed.size() <= sequence) sealing.sealed.resize((sequence + 1) * 2);
  const uint32_t bit = uint32_t{1} << (departure.copy * kMaxPaths + departure.path);
  if ((sealing.sealed[sequence] & bit) != 0) {
    Note(absl::StrFormat("lane %d: %d is sealed twice for path %d, copy %d", departure.lane,
                         sequence, departure.path, departure.copy));
  }
  sealing.sealed[sequence] |= bit;

  Frame frame;
  frame.session = session_;
  frame.lane = departure.lane;
  frame.path = departure.path;
  frame.path_seq = sealing.next_path_seq[departure.path]++;
  frame.sequence = sequence;
  uint32_t inner_bytes = 0;
  switch (departure.what) {
    case Departure::What::kPacket: {
      const InnerPacket packet = PacketOf(departure.slot);
      inner_bytes = packet.bytes;
      frame.slot_bytes = memory_.slab[departure.slot].bytes;
      frame.inside = packet;
      break;
    }
    case Departure::What::kProbe:
      inner_bytes = ControlBytes(*departure.probe);
      frame.inside = *departure.probe;
      break;
    case Departure::What::kReport:
      inner_bytes = ControlBytes(*departure.report);
      frame.inside = std::make_shared<const BondReport>(*departure.report);
      break;
    case Departure::What::kMissing:
      inner_bytes = ControlBytes(*departure.missing);
      frame.inside = std::make_shared<const MissingReport>(*departure.missing);
      break;
    case Departure::What::kParity:
      inner_bytes = static_cast<uint32_t>(departure.plain.size());
      frame.inside = std::make_shared<const std::vector<uint8_t>>(departure.plain.begin(),
                                                                  departure.plain.end());
      ++counters_.parity_sendings;
      break;
  }
  frame.bytes = inner_bytes + static_cast<uint32_t>(kSealOverheadBytes);
  ++counters_.departures;
  if (departure.sealed_before) {
    ++counters_.sent_again;
  } else if (departure.what == Departure::What::kPacket) {
    ++counters_.first_sendings;
    if (departure.lane != kExpressLane) ++counters_.bulk_sendings;
  }
  const bool control =
      departure.what != Departure::What::kPacket && departure.what != Departure::What::kParity;
  if (control) counters_.control_bytes += frame.bytes;
  path_bytes_[departure.path] += frame.bytes + kLinkOverheadBytes;
  sender_->Sealed(departure, sequence, frame.path_seq, frame.bytes, now_ns);
  send_frame_(std::move(frame));
}

// As the worker does: with a new session the other end's numbers begin again, this end's go on.
void BondEnd::BeginSession(uint32_t session, bool restarted) {
  session_ = session;
  for (Opening& opening : opening_) opening = {};
  told_wait_ns_ = least_told_wait_ns_ = 0;
  has_told_ = false;
  receiver_->Clear();
  sender_->Clear();
  soon_.Set(loop_.now_ns());
  if (!restarted) return;
  sealing_ = {};
  sender_.reset();
  receiver_.reset();
  MakeHalves();
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (path_usable_[id]) SetPath(id, true, path_options_[id]);
  }
}

void BondEnd::Clear() {
  sender_->Clear();
  receiver_->Clear();
  for (Opening& opening : opening_) opening.held.clear();
  soon_.Set(loop_.now_ns());
}

}  // namespace braid::sim
