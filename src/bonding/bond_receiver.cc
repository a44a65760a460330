#include "bonding/bond_receiver.h"

#include <algorithm>
#include <bit>

namespace braid {
namespace {

constexpr DurationNs kMostGraceNs = 30 * kMillisecondNs;
constexpr DurationNs kHoleLivesNs = 300 * kMillisecondNs;
constexpr uint8_t kTellTimes = 2;
constexpr DurationNs kTellAgainNs = 8 * kMillisecondNs;
constexpr DurationNs kPathUsedNs = kSecondNs;
constexpr uint16_t kMaxHoleDatagrams = 4096;
// A path that brings nothing for so long, though it is probed while anything is sent, was down.
constexpr DurationNs kSilenceNs = 150 * kMillisecondNs;
// One that brought datagrams closer to each other than this, and has brought none for so much
// longer.
constexpr DurationNs kBusyGapNs = 4 * kMillisecondNs;
constexpr DurationNs kBusySilenceNs = 25 * kMillisecondNs;
// Reports go on for so long after the last probe.
constexpr DurationNs kReportsForNs = 300 * kMillisecondNs;

}  // namespace

BondReceiver::Verdict BondReceiver::OnDatagram(Datagram& datagram, TimeNs now_ns) {
  // What was recorded and is played again tells nothing of the path; nor does a copy that came
  // late.
  if (datagram.duplicate && datagram.advance == 0) {
    ++counters_.duplicates;
    return Verdict::kDuplicate;
  }
  PathState& path = paths_[datagram.path];
  const DurationNs gap_ns = now_ns - path.heard_ns;
  if (gap_ns >= kSilenceNs) {
    path.resumed_ns = now_ns;
    path.gap_ns = kSilenceNs;
  } else {
    path.gap_ns = (path.gap_ns * 15 + gap_ns) / 16;
  }
  path.heard_ns = now_ns;
  const uint8_t lane_id = datagram.lane - kFirstBondLane;
  Lane& lane = lanes_[lane_id];
  LanePath& on_path = lane.paths[datagram.path];
  if (datagram.advance > 1 && on_path.heard_ns < path.resumed_ns) datagram.advance = 1;
  path.report.datagrams += 1;
  path.report.bytes += datagram.bytes;
  path.report.expected += datagram.advance;

  if (datagram.advance > 1) NoteGap(datagram, now_ns);
  if (datagram.advance == 0) FillHole(datagram, now_ns);
  on_path.heard_ns = now_ns;
  if (datagram.duplicate) {
    ++counters_.duplicates;
    return Verdict::kDuplicate;
  }
  on_path.next_sequence = std::max(on_path.next_sequence, datagram.sequence + 1);
  return Place(datagram.lane, datagram.sequence);
}

BondReceiver::Verdict BondReceiver::Place(uint8_t lane_byte, uint64_t sequence) {
  Lane& lane = lanes_[lane_byte - kFirstBondLane];
  if (lane_byte == kExpressLane || hold_ns_ == 0) {
    // Whatever waits from when there was an order leaves in time.
    lane.begun = lane.begun && lane.held != 0;
    if (!lane.begun) return Verdict::kDeliver;
  }
  if (!lane.begun) {
    lane.begun = true;
    lane.next = lane.highest = sequence;
  }
  lane.highest = std::max(lane.highest, sequence + 1);
  if (sequence < lane.next) {
    ++counters_.late;
    return Verdict::kDeliver;
  }
  if (sequence > lane.next) return Verdict::kHold;
  ++lane.next;
  return Verdict::kDeliver;
}

void BondReceiver::Hold(SlotId id, const Datagram& datagram, TimeNs now_ns) {
  const uint8_t lane_id = datagram.lane - kFirstBondLane;
  Lane& lane = lanes_[lane_id];
  Slot& slot = memory_.slab[id];
  slot.lane = datagram.lane;
  slot.sequence = datagram.sequence;
  slot.time_ns = now_ns;
  memory_.held.Insert(HeldKey(bond_, datagram.lane, datagram.sequence), id);
  lane.waiting.PushBack(memory_.slab, id);
  if (repair_ns_ == 0) lane.look_ns = now_ns + grace_ns_;
  ++lane.held;
  ++held_now_;
  ++counters_.held;
  waiting_lanes_ |= uint32_t{1} << lane_id;
}

SlotId BondReceiver::TakeReady(TimeNs now_ns) {
  if (now_ns >= fec_.due_ns()) fec_.Look(now_ns);
  if (waiting_lanes_ != 0) path_silent_ = HasFallenSilent(now_ns);
  for (uint32_t left = waiting_lanes_; left != 0; left &= left - 1) {
    const auto lane_id = static_cast<uint8_t>(std::countr_zero(left));
    Lane& lane = lanes_[lane_id];
    if (now_ns >= lane.look_ns) lane.look_ns = kNever;
    for (;;) {
      const uint64_t key =
          HeldKey(bond_, static_cast<uint8_t>(kFirstBondLane + lane_id), lane.next);
      const SlotId id = memory_.held.Find(key);
      if (id == kNoSlot) {
        if (GiveUp(lane_id, lane, now_ns)) continue;
        break;
      }
      memory_.held.Erase(key);
      ++lane.next;
      --lane.held;
      --held_now_;
      lane.waiting.Remove(memory_.slab, id);
      if (lane.held == 0) waiting_lanes_ &= ~(uint32_t{1} << lane_id);
      const DurationNs held_ns = now_ns - memory_.slab[id].time_ns;
      counters_.held_for_ns += held_ns;
      counters_.longest_hold_ns = std::max(counters_.longest_hold_ns, held_ns);
      return id;
    }
  }
  return kNoSlot;
}

// No packet waits for longer, whatever it waits for.
TimeNs BondReceiver::Deadline(const Lane& lane) const {
  const bool long_wait = path_silent_ && repair_ns_ != 0;
  return memory_.slab[lane.waiting.first()].time_ns +
         (long_wait ? reorder_max_ns_ : std::min(hold_ns_ + repair_ns_, reorder_max_ns_));
}

bool BondReceiver::HasFallenSilent(TimeNs now_ns) const {
  return std::any_of(paths_.begin(), paths_.end(), [now_ns](const PathState& path) {
    return path.heard_ns != 0 && path.gap_ns < kBusyGapNs &&
           now_ns >= path.heard_ns + kBusySilenceNs && now_ns < path.heard_ns + kPathUsedNs;
  });
}

// Goes on behind what is missing, if it is not worth waiting for any longer.
bool BondReceiver::GiveUp(uint8_t lane_id, Lane& lane, TimeNs now_ns) {
  const bool full =
      lane.highest - lane.next > kWindow || memory_.slab.used() > memory_.slab.capacity() / 8 * 7;
  if (!full && now_ns < Deadline(lane) && !ProvenLost(lane_id, lane, now_ns)) return false;
  const auto lane_byte = static_cast<uint8_t>(kFirstBondLane + lane_id);
  while (memory_.held.Find(HeldKey(bond_, lane_byte, lane.next)) == kNoSlot) {
    ++lane.next;
    ++counters_.given_up;
  }
  return true;
}

bool BondReceiver::ProvenLost(uint8_t lane_id, const Lane& lane, TimeNs now_ns) const {
  if (repair_ns_ != 0) return false;
  uint64_t lost = 0;
  for (size_t i = 0; i < holes_used_; ++i) {
    const Hole& hole = holes_[i];
    if (hole.count != 0 && hole.told != 0 && hole.lane == lane_id) lost += hole.count;
  }
  if (lost >= lane.highest - lane.next - lane.held) return true;
  for (size_t id = 0; id < paths_.size(); ++id) {
    const bool used = paths_[id].heard_ns != 0 && now_ns < paths_[id].heard_ns + kPathUsedNs;
    if (used && lane.paths[id].next_sequence <= lane.next) return false;
  }
  return now_ns >= memory_.slab[lane.waiting.first()].time_ns + grace_ns_;
}

// --- Losses ---

void BondReceiver::NoteGap(const Datagram& datagram, TimeNs now_ns) {
  const uint32_t count = datagram.advance - 1;
  if (count > kMaxHoleDatagrams) return;  // an outage, or a sender that has begun anew
  size_t at = 0;
  while (at < holes_used_ && holes_[at].count != 0) ++at;
  if (at == kMaxHoles) return;
  holes_used_ = std::max(holes_used_, at + 1);
  holes_[at] = {.lane = static_cast<uint8_t>(datagram.lane - kFirstBondLane),
                .path = datagram.path,
                .told = 0,
                .count = static_cast<uint16_t>(count),
                .first = datagram.path_seq - count,
                .since_ns = now_ns,
                .tell_ns = now_ns + grace_ns_};
  holes_due_ns_ = std::min(holes_due_ns_, holes_[at].tell_ns);
}

// A datagram that was overtaken. Others will be given as much time from now on.
void BondReceiver::FillHole(const Datagram& datagram, TimeNs now_ns) {
  const uint8_t lane_id = datagram.lane - kFirstBondLane;
  for (size_t i = 0; i < holes_used_; ++i) {
    Hole& hole = holes_[i];
    const uint32_t at = datagram.path_seq - hole.first;
    if (hole.lane != lane_id || hole.path != datagram.path || at >= hole.count) continue;
    const DurationNs late_ns = now_ns - hole.since_ns;
    grace_ns_ = std::clamp(late_ns * 5 / 4, grace_ns_, kMostGraceNs);
    if (hole.told != 0) --counters_.lost;
    // What is in front of it and what is behind it.
    Hole behind = hole;
    hole.count = static_cast<uint16_t>(at);
    behind.first += at + 1;
    behind.count = static_cast<uint16_t>(behind.count - at - 1);
    if (behind.count == 0) return;
    if (hole.count == 0) {
      hole = behind;
      return;
    }
    for (size_t free = 0; free < kMaxHoles; ++free) {
      if (free < holes_used_ && holes_[free].count != 0) continue;
      holes_[free] = behind;
      holes_used_ = std::max(holes_used_, free + 1);
      return;
    }
    return;
  }
}

bool BondReceiver::TakeMissing(TimeNs now_ns, MissingReport& missing) {
  if (now_ns < holes_due_ns_) return false;
  missing.ranges_used = 0;
  holes_due_ns_ = kNever;
  size_t last = 0;
  for (size_t i = 0; i < holes_used_; ++i) {
    Hole& hole = holes_[i];
    if (hole.count == 0) continue;
    if (now_ns >= hole.tell_ns && missing.ranges_used < MissingReport::kMaxRanges) {
      if (hole.told == kTellTimes) {
        hole.count = 0;
        continue;
      }
      if (hole.told++ == 0) counters_.lost += hole.count;
      hole.tell_ns = hole.told == kTellTimes ? hole.since_ns + kHoleLivesNs : now_ns + kTellAgainNs;
      missing.ranges[missing.ranges_used++] = {static_cast<uint8_t>(kFirstBondLane + hole.lane),
                                               hole.path, hole.count, hole.first};
    }
    holes_due_ns_ = std::min(holes_due_ns_, hole.tell_ns);
    last = i + 1;
  }
  holes_used_ = last;
  grace_ns_ = std::max(kLeastGraceNs, grace_ns_ - grace_ns_ / 256);
  return missing.ranges_used != 0;
}

// --- Reports ---

void BondReceiver::OnProbe(uint8_t path_id, const BondProbe& probe, TimeNs arrived_ns,
                           TimeNs now_ns) {
  PathReport& report = paths_[path_id].report;
  if (!report.has_probe || static_cast<int32_t>(probe.sent_us - report.probe_sent_us) > 0) {
    report.has_probe = true;
    report.probe_sent_us = probe.sent_us;
    report.probe_arrived_us = ToWireUs(arrived_ns);
  }
  // Over each path the sender says the same; a slow one brings what was said before.
  if (!has_probe_ || static_cast<int32_t>(probe.sent_us - newest_probe_us_) >= 0) {
    has_probe_ = true;
    newest_probe_us_ = probe.sent_us;
    hold_ns_ = probe.hold_ms * kMillisecondNs;
    repair_ns_ = probe.repair_ms * kMillisecondNs;
    report_every_ns_ = probe.report_every_ms * kMillisecondNs;
  }
  reports_until_ns_ = report_every_ns_ == 0 ? 0 : now_ns + kReportsForNs + 2 * report_every_ns_;
  for (uint8_t i = 0; i < probe.lanes_used; ++i) {
    if (!IsBondLane(probe.lanes[i].lane)) continue;
    LanePath& lane = lanes_[probe.lanes[i].lane - kFirstBondLane].paths[path_id];
    lane.next_sequence = std::max(lane.next_sequence, probe.lanes[i].next_sequence);
    Lane& waiting = lanes_[probe.lanes[i].lane - kFirstBondLane];
    if (repair_ns_ == 0 && waiting.held != 0) waiting.look_ns = now_ns + grace_ns_;
  }
}

bool BondReceiver::TakeReport(TimeNs now_ns, BondReport& report) {
  if (now_ns >= reports_until_ns_) next_report_ns_ = std::max(next_report_ns_, reports_until_ns_);
  if (now_ns >= reports_until_ns_ || now_ns < next_report_ns_) return false;
  next_report_ns_ = now_ns + report_every_ns_;
  report.made_us = ToWireUs(now_ns);
  report.paths_used = 0;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (paths_[id].heard_ns == 0) continue;
    report.paths[report.paths_used] = paths_[id].report;
    report.paths[report.paths_used++].path = id;
  }
  return report.paths_used != 0;
}

TimeNs BondReceiver::NextDue() const {
  TimeNs due_ns = std::min(holes_due_ns_, fec_.due_ns());
  if (next_report_ns_ < reports_until_ns_) due_ns = std::min(due_ns, next_report_ns_);
  for (uint32_t left = waiting_lanes_; left != 0; left &= left - 1) {
    const Lane& lane = lanes_[static_cast<size_t>(std::countr_zero(left))];
    due_ns = std::min({due_ns, lane.look_ns, Deadline(lane)});
  }
  return due_ns;
}

void BondReceiver::ForgetPath(uint8_t path) {
  paths_[path] = {};
  for (Lane& lane : lanes_) lane.paths[path] = {};
  for (Hole& hole : holes_) {
    if (hole.path == path) hole.count = 0;
  }
}

void BondReceiver::Clear() {
  fec_.Clear();
  for (uint8_t lane_id = 0; lane_id < lanes_.size(); ++lane_id) {
    Lane& lane = lanes_[lane_id];
    const auto lane_byte = static_cast<uint8_t>(kFirstBondLane + lane_id);
    for (uint64_t sequence = lane.next; lane.held != 0; ++sequence) {
      const uint64_t key = HeldKey(bond_, lane_byte, sequence);
      const SlotId id = memory_.held.Find(key);
      if (id == kNoSlot) continue;
      memory_.held.Erase(key);
      memory_.slab.Return(id);
      --lane.held;
    }
    lane = {};
  }
  holes_used_ = 0;
  holes_due_ns_ = kNever;
  waiting_lanes_ = 0;
  held_now_ = 0;
  paths_ = {};
  has_probe_ = false;
  hold_ns_ = repair_ns_ = 0;
  reports_until_ns_ = next_report_ns_ = 0;
}

}  // namespace braid
