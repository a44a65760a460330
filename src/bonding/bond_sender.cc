#include "bonding/bond_sender.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace braid {
namespace {

// A path waits until it has so much credit, so that packets leave together.
constexpr DurationNs kGatherNs = 400 * kMicrosecondNs;
constexpr DurationNs kActiveNs = kSecondNs;
constexpr DurationNs kUnknownRttNs = 300 * kMillisecondNs;

// Sparse flows.
constexpr DurationNs kSparseWindowNs = 100 * kMillisecondNs;
constexpr uint32_t kSparseBytes = 6000;
constexpr uint16_t kSparsePackets = 16;
constexpr DurationNs kBulkForNs = 500 * kMillisecondNs;

constexpr DurationNs kRepairApartNs = 3 * kMillisecondNs;
constexpr DurationNs kLaneUsedNs = 200 * kMillisecondNs;

}  // namespace

// --- What comes in ---

void BondSender::SetPath(uint8_t id, bool usable, const BondPathOptions& options, TimeNs now_ns) {
  Path& path = paths_[id];
  path.options = options;
  path.rate.SetFixed(options.fixed_bytes_per_s);
  next_look_ns_ = next_due_ns_ = now_ns;
  if (path.usable != usable) {
    path.usable = usable;
    if (usable) {
      // After an outage it has to show that it stays.
      path.state = path.outages != 0 ? PathState::kSilent : PathState::kUp;
      path.back_since_ns = now_ns;
      path.heard_ns = now_ns + kUnknownRttNs;
      path.next_probe_ns = now_ns;
      path.rate.OnOutage(now_ns);
    } else {
      if (path.state != PathState::kSilent) OnSilence(id, now_ns);
      path.state = PathState::kDown;
    }
  }
  heaviest_ = 0;
  for (const Path& one : paths_) {
    if (one.usable) heaviest_ = std::max(heaviest_, one.options.weight);
  }
}

SlotId BondSender::TakeSlot(size_t bytes) {
  if (bytes > memory_.slab.packet_bytes()) return kNoSlot;
  SlotId id = memory_.slab.Take();
  while (id == kNoSlot && !sent_.empty()) {
    Forget(sent_.first());
    id = memory_.slab.Take();
  }
  if (id == kNoSlot) ++counters_.slab_full;
  return id;
}

void BondSender::BecomeActive(TimeNs now_ns) {
  if (!active(now_ns)) {
    for (Path& path : paths_) {
      path.heard_ns = now_ns + (path.rate.has_rtt() ? path.rate.rtt_ns() : kUnknownRttNs);
      path.next_probe_ns = 0;
    }
    demand_window_ns_ = next_look_ns_ = now_ns;
    demand_bytes_ = 0;
  }
  active_until_ns_ = now_ns + kActiveNs;
  next_due_ns_ = now_ns;
}

void BondSender::NoteDirect(TimeNs now_ns) { BecomeActive(now_ns); }

void BondSender::Enqueue(SlotId id, TimeNs now_ns) {
  Slot& slot = memory_.slab[id];
  slot.time_ns = now_ns;
  BecomeActive(now_ns);
  demand_bytes_ += slot.bytes + kLinkBytesAround;
  const bool express = slot.traffic_class == TrafficClass::kInteractive ||
                       (slot.traffic_class == TrafficClass::kBulk && IsSparse(slot, now_ns));
  if (express) {
    ++counters_.express;
    slot.lane = kExpressLane;
    return express_.PushBack(memory_.slab, id);
  }
  slot.lane = slot.traffic_class == TrafficClass::kRealtime
                  ? kExpressLane
                  : static_cast<uint8_t>(kExpressLane + 1 + slot.flow_hash % kOrderedBondLanes);
  together_.NoteBulk(slot.bytes + kLinkBytesAround, now_ns);
  queue_.Enqueue(memory_.slab, id, now_ns);
}

// A flow that has sent more is bulk until it has been quiet: while its packets may still be under
// way in order, none goes past them.
bool BondSender::IsSparse(const Slot& slot, TimeNs now_ns) {
  FlowUse& flow = flow_uses_[slot.flow_hash % kFlowUses];
  if (flow.hash != slot.flow_hash && now_ns >= flow.bulk_until_ns) flow = {.hash = slot.flow_hash};
  if (now_ns >= flow.window_ns + kSparseWindowNs) {
    flow.window_ns = now_ns;
    flow.bytes = 0;
    flow.packets = 0;
  }
  flow.bytes += slot.bytes;
  ++flow.packets;
  if (flow.bytes > kSparseBytes || flow.packets > kSparsePackets) {
    flow.bulk_until_ns = now_ns + kBulkForNs;
  }
  return now_ns >= flow.bulk_until_ns;
}

void BondSender::OnReport(const BondReport& report, TimeNs now_ns) {
  // The same one comes over two paths.
  if (has_report_ && static_cast<int32_t>(report.made_us - newest_report_us_) <= 0) return;
  has_report_ = true;
  newest_report_us_ = report.made_us;
  for (uint8_t i = 0; i < report.paths_used; ++i) {
    const PathReport& told = report.paths[i];
    if (told.path >= kMaxPaths) continue;
    Path& path = paths_[told.path];
    const bool comes_back = path.state == PathState::kSilent &&
                            told.datagrams != path.reported_datagrams &&
                            now_ns >= path.silent_since_ns + kFalseAlarmNs;
    if (comes_back) path.rate.OnOutage(now_ns);
    path.rate.OnReport(told, report.made_us, now_ns);
    const uint32_t reported_before_us = std::exchange(path.reported_us, report.made_us);
    if (told.datagrams == path.reported_datagrams) {
      ++path.unheard_reports;
      continue;
    }
    path.received_until_us = reported_before_us;
    path.unheard_reports = 0;
    path.sent_when_heard = path.sent_datagrams;
    path.reported_datagrams = told.datagrams;
    path.heard_ns = std::max(path.heard_ns, now_ns);
  }
}

void BondSender::OnMissing(const MissingReport& missing, TimeNs now_ns) {
  for (uint8_t i = 0; i < missing.ranges_used; ++i) {
    const MissingRange& range = missing.ranges[i];
    for (uint32_t n = 0; n < range.count; ++n) {
      const uint64_t key = SentKey(bond_, range.lane, range.path, range.first_path_seq + n);
      const SlotId id = memory_.sent.Find(key);
      if (id == kNoSlot) continue;
      memory_.sent.Erase(key);
      // Where parity makes up for what repairs are too late for, they would only cost.
      if (!fec_.on() || RepairedInTime(memory_.slab[id])) QueueRepair(id, now_ns);
    }
  }
  next_due_ns_ = now_ns;
}

void BondSender::QueueRepair(SlotId id, TimeNs not_before_ns) {
  Slot& slot = memory_.slab[id];
  const bool waits = slot.repair_waits || !slot.kept;
  if (!options_.repair || slot.traffic_class == TrafficClass::kRealtime || waits) return;
  if (repairs_used_ == kMaxRepairs) {
    ++counters_.repairs_too_late;
    return;
  }
  slot.repair_waits = true;
  repairs_[(repairs_first_ + repairs_used_++) % kMaxRepairs] = {id, not_before_ns, 1, kMaxPaths};
}

void BondSender::SendReport(const BondReport& report) {
  report_ = report;
  report_sendings_ = 2;
  next_due_ns_ = 0;
}

void BondSender::SendMissing(const MissingReport& missing) {
  if (missing_used_ == kMaxMissing) return;
  if (missing_used_ == 0) missing_sendings_ = 2;
  missing_[(missing_first_ + missing_used_++) % kMaxMissing] = missing;
  next_due_ns_ = 0;
}

// --- What leaves ---

bool BondSender::Busy(TimeNs now_ns) const {
  return active(now_ns) || waiting_packets() != 0 || !express_.empty() || repairs_used_ != 0 ||
         fec_.busy();
}

DurationNs BondSender::pause_ns(TimeNs now_ns) const {
  const bool waits = waiting_packets() != 0 || !express_.empty() || repairs_used_ != 0;
  return waits ? 0 : now_ns - last_packet_ns_;
}

bool BondSender::Next(TimeNs now_ns, Departure& departure) {
  if (now_ns < next_due_ns_) return false;
  departure = {};
  if (NextCopy(now_ns, departure)) return true;
  if (now_ns >= next_look_ns_ && Busy(now_ns)) LookAtPaths(now_ns);
  if (NextFeedback(now_ns, departure) || NextProbe(now_ns, departure) ||
      NextRepair(now_ns, departure) || NextExpress(now_ns, departure) ||
      NextParity(now_ns, departure) || NextBulk(now_ns, departure)) {
    return true;
  }
  SetDue(now_ns);
  return false;
}

bool BondSender::NextFeedback(TimeNs now_ns, Departure& departure) {
  const bool missing = missing_used_ != 0;
  int& sendings = missing ? missing_sendings_ : report_sendings_;
  if (sendings == 0) return false;
  const uint8_t path = QuickestPath(now_ns, feedback_over_);
  feedback_over_ = path;
  --sendings;
  departure.what = missing ? Departure::What::kMissing : Departure::What::kReport;
  departure.lane = kExpressLane;
  departure.path = path;
  departure.report = &report_;
  departure.missing = &missing_[missing_first_];
  if (sendings == 0) {
    feedback_over_ = kMaxPaths;
    if (missing) {
      missing_first_ = (missing_first_ + 1) % kMaxMissing;
      if (--missing_used_ != 0) missing_sendings_ = 2;
    }
  }
  return path != kMaxPaths || NextFeedback(now_ns, departure);
}

bool BondSender::NextProbe(TimeNs now_ns, Departure& departure) {
  if (!active(now_ns)) return false;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    Path& path = paths_[id];
    if (!path.usable || now_ns < path.next_probe_ns) continue;
    path.next_probe_ns = now_ns + ProbeEvery(path);
    const auto ms = [](DurationNs ns) {
      return static_cast<uint16_t>((ns + kMillisecondNs - 1) / kMillisecondNs);
    };
    probe_ = {};
    probe_.sent_us = ToWireUs(now_ns);
    probe_.report_every_ms = ms(ProbeEvery());
    probe_.hold_ms = ms(HoldTime());
    probe_.repair_ms = ms(RecoveryTime(now_ns));
    for (size_t i = 0; i < lanes_.size() && probe_.lanes_used < BondProbe::kMaxLanes; ++i) {
      if (lanes_[i].used_ns == 0 || now_ns >= lanes_[i].used_ns + kLaneUsedNs) continue;
      const auto lane = static_cast<uint8_t>(kFirstBondLane + i);
      probe_.lanes[probe_.lanes_used++] = {lane, NextSequence(path, lane)};
    }
    departure.what = Departure::What::kProbe;
    departure.lane = kExpressLane;
    departure.path = id;
    departure.probe = &probe_;
    return true;
  }
  return false;
}

// Of what leaves over the path from now on, the first.
uint64_t BondSender::NextSequence(const Path& path, uint8_t lane) const {
  for (SlotId id = path.planned.first(); id != kNoSlot; id = memory_.slab[id].next) {
    if (memory_.slab[id].lane == lane) return memory_.slab[id].sequence;
  }
  return lanes_[lane - kFirstBondLane].next_sequence;
}

// The same packet over a path where it was not sent yet, or under the next copy number there.
bool BondSender::SendAgain(SlotId id, uint8_t path, Departure& departure) {
  Slot& slot = memory_.slab[id];
  uint8_t copy = 0;
  if ((slot.paths_used & Bit(path)) != 0) {
    const int used = slot.copies_used >> (2 * path) & 3;
    if (used == 3) return false;
    copy = static_cast<uint8_t>(used + 1);
  }
  departure.what = Departure::What::kPacket;
  departure.slot = id;
  departure.lane = slot.lane;
  departure.path = path;
  departure.copy = copy;
  departure.sealed_before = departure.numbered = true;
  departure.sequence = slot.sequence;
  return true;
}

bool BondSender::NextCopy(TimeNs now_ns, Departure& departure) {
  while (copy_of_ != kNoSlot && copy_paths_ != 0) {
    const auto id = static_cast<uint8_t>(std::countr_zero(copy_paths_));
    copy_paths_ &= static_cast<uint8_t>(copy_paths_ - 1);
    Path& path = paths_[id];
    if (path.credit_ns > now_ns + kTrainNs) {
      path.rate.SetBacklogged(true, now_ns);
      continue;
    }
    if (path.credit_ns + kTrainNs < now_ns) path.rate.SetBacklogged(false, now_ns);
    if (!SendAgain(copy_of_, id, departure)) continue;
    ++counters_.copies;
    return true;
  }
  copy_of_ = kNoSlot;
  return false;
}

bool BondSender::NextRepair(TimeNs now_ns, Departure& departure) {
  for (size_t looked_at = 0, most = repairs_used_; looked_at < most; ++looked_at) {
    Repair repair = repairs_[repairs_first_];
    repairs_first_ = (repairs_first_ + 1) % kMaxRepairs;
    --repairs_used_;
    if (now_ns < repair.not_before_ns) {
      repairs_[(repairs_first_ + repairs_used_++) % kMaxRepairs] = repair;
      continue;
    }
    Slot& slot = memory_.slab[repair.slot];
    uint8_t path = QuickestPath(now_ns, repair.not_over);
    if (path == kMaxPaths) path = QuickestPath(now_ns, kMaxPaths);
    const bool late = now_ns >= slot.time_ns + options_.reorder_max_ns + LeastRtt();
    if (path == kMaxPaths || late || !SendAgain(repair.slot, path, departure)) {
      slot.repair_waits = false;
      ++counters_.repairs_too_late;
      continue;
    }
    const bool lossy = paths_[path].rate.loss() > kRepairTwiceLoss;
    if (lossy && repair.sendings++ == 1) {
      repair.not_over = path;
      repair.not_before_ns = now_ns + kRepairApartNs;
      repairs_[(repairs_first_ + repairs_used_++) % kMaxRepairs] = repair;
    } else {
      slot.repair_waits = false;
    }
    ++counters_.repairs;
    return true;
  }
  return false;
}

bool BondSender::NextExpress(TimeNs now_ns, Departure& departure) {
  if (express_.empty()) return false;
  const uint8_t path = QuickestPath(now_ns, kMaxPaths);
  if (path == kMaxPaths) return false;
  const SlotId id = express_.PopFront(memory_.slab);
  departure.what = Departure::What::kPacket;
  departure.slot = id;
  departure.lane = memory_.slab[id].lane;
  departure.path = path;
  // Small flows cost little, so they can have a second path, and never wait for a loss.
  const uint8_t second = QuickestPath(now_ns, path);
  copy_of_ = id;
  copy_paths_ = second == kMaxPaths || paths_[second].options.standby ? 0 : Bit(second);
  return true;
}

// It leaves as its path has credit, but before bulk.
bool BondSender::NextParity(TimeNs now_ns, Departure& departure) {
  fec_.Look(now_ns);
  if (fec_.next() == kNoSlot) return false;
  const uint8_t path = PathForParity(now_ns);
  if (path == kMaxPaths || paths_[path].credit_ns > now_ns + kTrainNs) return false;
  departure.what = Departure::What::kParity;
  departure.lane = kExpressLane;
  departure.path = path;
  departure.slot = fec_.Take(departure.plain);
  return true;
}

// Another one than most of its block took, which then may lose everything, if it is in time there.
uint8_t BondSender::PathForParity(TimeNs now_ns) const {
  const uint8_t mostly = memory_.slab[fec_.next()].paths_used;
  const uint8_t quickest = QuickestPath(now_ns, kMaxPaths);
  const uint8_t other = QuickestPath(now_ns, static_cast<uint8_t>(std::countr_zero(mostly)));
  if (other == kMaxPaths || quickest == kMaxPaths || !CarriesBulk(paths_[other])) return quickest;
  return paths_[other].credit_ns <= now_ns + kTrainNs ? other : quickest;
}

void BondSender::Sealed(const Departure& departure, uint64_t sequence, uint32_t path_seq,
                        size_t datagram_bytes, TimeNs now_ns) {
  Path& path = paths_[departure.path];
  const size_t link_bytes = datagram_bytes + RateControl::kLinkOverheadBytes;
  Charge(path, link_bytes, now_ns);
  path.sent_bytes += link_bytes;
  ++path.sent_datagrams;
  LaneUse& lane = lanes_[departure.lane - kFirstBondLane];
  lane.next_sequence = std::max(lane.next_sequence, sequence + 1);
  lane.used_ns = now_ns;
  if (departure.what == Departure::What::kParity) {
    ++counters_.parity;
    memory_.slab.Return(departure.slot);
  }
  if (departure.what != Departure::What::kPacket) return;
  last_packet_ns_ = now_ns;

  Slot& slot = memory_.slab[departure.slot];
  slot.sequence = sequence;
  if (!departure.numbered) Protect(departure.slot, departure.path, copy_paths_ != 0, now_ns);
  if (!slot.kept) {
    slot.kept = true;
    slot.time_ns = now_ns;
    sent_.PushBack(memory_.slab, departure.slot);
  }
  if (departure.copy == 0) {
    slot.paths_used |= Bit(departure.path);
  } else {
    slot.copies_used = static_cast<uint16_t>((slot.copies_used & ~(3 << (2 * departure.path))) |
                                             departure.copy << (2 * departure.path));
  }
  Transmission& transmission =
      slot.transmissions[slot.transmissions_used % Slot::kMaxTransmissions];
  if (slot.transmissions_used >= Slot::kMaxTransmissions) {
    memory_.sent.Erase(SentKey(bond_, slot.lane, transmission.path, transmission.path_seq));
  }
  ++slot.transmissions_used;
  transmission = {departure.path, path_seq};
  memory_.sent.Insert(SentKey(bond_, slot.lane, departure.path, path_seq), departure.slot);
}

// A packet of which copies leave over other paths needs no parity.
void BondSender::Protect(SlotId id, uint8_t path, bool copied, TimeNs now_ns) {
  const bool needed = !copied && (fec_.always() || !RepairedInTime(memory_.slab[id]));
  fec_.Add(id, path, paths_[path].rate.loss(), needed, now_ns);
}

void BondSender::NotSealed(const Departure& departure) {
  if (departure.what == Departure::What::kParity) return memory_.slab.Return(departure.slot);
  if (departure.what != Departure::What::kPacket || memory_.slab[departure.slot].kept) return;
  copy_of_ = kNoSlot;
  Discard(departure.slot);
}

void BondSender::SetDue(TimeNs now_ns) {
  next_due_ns_ = kNever;
  if (!Busy(now_ns)) {
    // The last packets may still be asked for; then they go.
    Expire(now_ns);
    if (!sent_.empty()) next_due_ns_ = now_ns + options_.reorder_max_ns;
    return;
  }
  next_due_ns_ = next_look_ns_;
  for (const Path& path : paths_) {
    if (!path.usable) continue;
    if (active(now_ns)) next_due_ns_ = std::min(next_due_ns_, path.next_probe_ns);
    // One that has credit now has nothing that it may take.
    const bool waits = !path.planned.empty() || (CarriesBulk(path) && !queue_.empty());
    if (waits && path.credit_ns > now_ns) {
      next_due_ns_ = std::min(next_due_ns_, path.credit_ns + kGatherNs);
    }
  }
  next_due_ns_ = std::min(next_due_ns_, fec_.due_ns());
  if (fec_.next() != kNoSlot) {
    const uint8_t path = PathForParity(now_ns);
    if (path != kMaxPaths) next_due_ns_ = std::min(next_due_ns_, paths_[path].credit_ns - kTrainNs);
  }
  for (size_t i = 0; i < repairs_used_; ++i) {
    const Repair& repair = repairs_[(repairs_first_ + i) % kMaxRepairs];
    next_due_ns_ = std::min(next_due_ns_, std::max(repair.not_before_ns, now_ns + 1));
  }
  next_due_ns_ = std::max(next_due_ns_, now_ns + 1);
}

// --- What was sent ---

void BondSender::Expire(TimeNs now_ns) {
  const DurationNs keep_ns = options_.reorder_max_ns + LeastRtt() + Spread();
  while (!sent_.empty()) {
    const Slot& oldest = memory_.slab[sent_.first()];
    if (now_ns < oldest.time_ns + keep_ns || oldest.repair_waits) return;
    Forget(sent_.first());
  }
}

void BondSender::Forget(SlotId id) {
  if (memory_.slab[id].repair_waits) {
    size_t kept = 0;
    for (size_t i = 0; i < repairs_used_; ++i) {
      const Repair repair = repairs_[(repairs_first_ + i) % kMaxRepairs];
      if (repair.slot != id) repairs_[(repairs_first_ + kept++) % kMaxRepairs] = repair;
    }
    repairs_used_ = kept;
  }
  if (copy_of_ == id) copy_of_ = kNoSlot;
  sent_.Remove(memory_.slab, id);
  Discard(id);
}

// A packet that is in no list.
void BondSender::Discard(SlotId id) {
  const Slot& slot = memory_.slab[id];
  const size_t used = std::min<size_t>(slot.transmissions_used, Slot::kMaxTransmissions);
  for (size_t i = 0; i < used; ++i) {
    memory_.sent.Erase(
        SentKey(bond_, slot.lane, slot.transmissions[i].path, slot.transmissions[i].path_seq));
  }
  memory_.slab.Return(id);
}

void BondSender::Clear() {
  while (!sent_.empty()) Forget(sent_.first());
  DropWaiting();
  fec_.Clear();
  copy_of_ = kNoSlot;
  has_report_ = false;
  report_sendings_ = 0;
  missing_used_ = 0;
  for (Path& path : paths_) {
    path.rate.OnRestart();
    path.reported_datagrams = 0;
  }
}

}  // namespace braid
