// Of a bond's sender: which packet is to leave over which path, before it does.
#include <algorithm>

#include "bonding/bond_sender.h"

namespace braid {
namespace {

constexpr size_t kMostRescued = 4096;

}  // namespace

bool BondSender::NextBulk(TimeNs now_ns, Departure& departure) {
  while (waiting_packets() != 0) {
    if (options_.pin_flows && options_.mode == BondingMode::kStripe) {
      PlanPinned(now_ns);
    } else {
      Plan(now_ns);
    }
    const uint8_t from = PathToDepart(now_ns);
    if (from == kMaxPaths) return false;
    if (!DepartPlanned(from, departure)) continue;
    copy_of_ = departure.slot;
    copy_paths_ = 0;
    for (uint8_t id = 0; id < kMaxPaths; ++id) {
      const bool copied = options_.mode == BondingMode::kRedundant && paths_[id].engaged;
      if (id != from && (copied || paths_[id].learning)) copy_paths_ |= Bit(id);
    }
    return true;
  }
  return false;
}

// Of those that have credit for what is planned for them, the one that had it first.
uint8_t BondSender::PathToDepart(TimeNs now_ns) {
  uint8_t from = kMaxPaths;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    Path& path = paths_[id];
    if (path.planned.empty()) {
      path.rate.SetBacklogged(false, now_ns);
    } else if (!path.usable) {
      continue;
    } else if (path.credit_ns > now_ns) {
      path.rate.SetBacklogged(true, now_ns);
    } else if (from == kMaxPaths || path.credit_ns < paths_[from].credit_ns) {
      from = id;
    }
  }
  return from;
}

bool BondSender::DepartPlanned(uint8_t path, Departure& departure) {
  const SlotId id = TakePlanned(paths_[path]);
  const Slot& slot = memory_.slab[id];
  if (slot.transmissions_used != 0) {
    if (SendAgain(id, path, departure)) {
      ++counters_.repairs;
      return true;
    }
    ++counters_.repairs_too_late;
    Discard(id);
    return false;
  }
  departure.what = Departure::What::kPacket;
  departure.slot = id;
  departure.lane = slot.lane;
  departure.path = path;
  departure.numbered = true;
  departure.sequence = slot.sequence;
  return true;
}

// When a packet that is planned now would leave.
TimeNs BondSender::ReadyNs(const Path& path, TimeNs now_ns) const {
  return std::max(path.credit_ns, now_ns) +
         static_cast<DurationNs>(static_cast<double>(path.planned_bytes) * kSecondNs /
                                 PacingOf(path));
}

// The path that delivers first; none while it would be later than over the slowest at once: what
// waits in the queue can still be dropped or marked.
uint8_t BondSender::PathToPlan(TimeNs now_ns) const {
  const Together::Order order = together_.order(now_ns);
  if (order != Together::Order::kByArrival) return FreePath(order, now_ns);
  uint8_t best = kMaxPaths;
  int64_t best_ns = 0;
  int64_t slowest_ns = INT64_MIN;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const Path& path = paths_[id];
    if (!CarriesBulk(path)) continue;
    const int64_t one_way_ns = path.rate.one_way_ns();
    const int64_t arrives_ns = one_way_ns + static_cast<int64_t>(ReadyNs(path, now_ns) - now_ns);
    slowest_ns = std::max(slowest_ns, one_way_ns);
    if (best != kMaxPaths && arrives_ns >= best_ns) continue;
    best = id;
    best_ns = arrives_ns;
    if (options_.mode == BondingMode::kRedundant) break;
  }
  const bool late = best_ns > slowest_ns + static_cast<int64_t>(kTrainNs);
  return best == kMaxPaths || late ? kMaxPaths : best;
}

// One that sends at once.
uint8_t BondSender::FreePath(Together::Order order, TimeNs now_ns) const {
  uint8_t best = kMaxPaths;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const Path& path = paths_[id];
    if (!CarriesBulk(path) || (together_paths_ & Bit(id)) == 0) continue;
    if (order == Together::Order::kQuickestOnly && id != quickest_) continue;
    if (ReadyNs(path, now_ns) > now_ns + kTrainNs) continue;
    if (best == kMaxPaths || (path.rate.one_way_ns() > paths_[best].rate.one_way_ns()) ==
                                 (order == Together::Order::kSlowestFirst)) {
      best = id;
    }
  }
  return best;
}

void BondSender::Plan(TimeNs now_ns) {
  while (!queue_.empty()) {
    const uint8_t path = PathToPlan(now_ns);
    if (path == kMaxPaths) return;
    const SlotId id = queue_.Dequeue(memory_.slab, now_ns, [](uint32_t) { return true; });
    if (id == kNoSlot) return;
    Number(id, path, now_ns);
    AddToPlan(paths_[path], id, Where::kLast);
  }
}

void BondSender::PlanPinned(TimeNs now_ns) {
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    Path& path = paths_[id];
    while (CarriesBulk(path) && ReadyNs(path, now_ns) <= now_ns + kTrainNs) {
      const SlotId slot = queue_.Dequeue(memory_.slab, now_ns,
                                         [&](uint32_t flow) { return PinnedPath(flow) == id; });
      if (slot == kNoSlot) break;
      Number(slot, id, now_ns);
      AddToPlan(path, slot, Where::kLast);
    }
  }
}

void BondSender::Number(SlotId id, uint8_t path, TimeNs now_ns) {
  Slot& slot = memory_.slab[id];
  slot.sequence = numbers_.Take(slot.lane);
  lanes_[slot.lane - kFirstBondLane].next_sequence = slot.sequence + 1;
  Protect(id, path, options_.mode == BondingMode::kRedundant, now_ns);
}

void BondSender::AddToPlan(Path& path, SlotId id, Where where) {
  const size_t bytes = memory_.slab[id].bytes + kLinkBytesAround;
  if (where == Where::kFirst) {
    path.planned.PushFront(memory_.slab, id);
  } else {
    path.planned.PushBack(memory_.slab, id);
  }
  path.planned_bytes += bytes;
  planned_bytes_ += bytes;
  ++planned_packets_;
}

SlotId BondSender::TakePlanned(Path& path, Where where) {
  const SlotId id = where == Where::kFirst ? path.planned.first() : path.planned.last();
  path.planned.Remove(memory_.slab, id);
  const size_t bytes = memory_.slab[id].bytes + kLinkBytesAround;
  path.planned_bytes -= bytes;
  planned_bytes_ -= bytes;
  --planned_packets_;
  return id;
}

// The path is not used any more. What was planned for it keeps its numbers, and goes before what
// has later ones.
void BondSender::PlanElsewhere(uint8_t from, TimeNs now_ns) {
  Path& path = paths_[from];
  if (path.planned.empty()) return;
  const uint8_t to = QuickestPath(now_ns, from);
  if (to == kMaxPaths) return;
  while (!path.planned.empty()) {
    AddToPlan(paths_[to], TakePlanned(path, Where::kLast), Where::kFirst);
  }
}

// Before what was planned for the path: what was sent over it and will not be told of. Other paths
// carry all that in its order, at their pace; the other end is asked to wait for it.
void BondSender::Rescue(uint8_t from, TimeNs sent_since_ns, TimeNs now_ns) {
  const uint8_t to = QuickestPath(now_ns, from);
  if (to == kMaxPaths || !options_.repair) return;
  size_t rescued = 0;
  // The list is in the order of sending, so what is young is at its end.
  for (SlotId id = sent_.last(); id != kNoSlot && rescued < kMostRescued;) {
    Slot& slot = memory_.slab[id];
    const SlotId rescue = id;
    id = slot.previous;
    if (slot.time_ns < sent_since_ns) break;
    const bool lost = (slot.paths_used & Bit(from)) != 0 && (slot.paths_used & Bit(to)) == 0;
    if (!lost || slot.traffic_class == TrafficClass::kRealtime || slot.repair_waits) continue;
    if (slot.lane == kExpressLane) {
      QueueRepair(rescue, now_ns);
      continue;
    }
    sent_.Remove(memory_.slab, rescue);
    slot.kept = false;
    AddToPlan(paths_[to], rescue, Where::kFirst);
    ++rescued;
  }
  if (rescued == 0) return;
  rescue_ns_ = now_ns - sent_since_ns + ReadyNs(paths_[to], now_ns) - now_ns;
  rescue_until_ns_ = now_ns + rescue_ns_;
  for (Path& path : paths_) path.next_probe_ns = now_ns;
}

void BondSender::DropWaiting() {
  for (Path& path : paths_) {
    while (!path.planned.empty()) {
      const SlotId id = TakePlanned(path);
      if (memory_.slab[id].transmissions_used == 0) ++counters_.gone_stale;
      Discard(id);
    }
  }
  for (SlotId id = express_.PopFront(memory_.slab); id != kNoSlot;
       id = express_.PopFront(memory_.slab)) {
    memory_.slab.Return(id);
    ++counters_.gone_stale;
  }
  counters_.gone_stale += queue_.packets();
  queue_.Clear(memory_.slab);
}

uint8_t BondSender::PinnedPath(uint32_t flow_hash) {
  FlowUse& flow = flow_uses_[flow_hash % kFlowUses];
  if (flow.path != kMaxPaths && CarriesBulk(paths_[flow.path])) return flow.path;
  // Where the least waits, as far as flows can tell: the path that has had the most credit.
  uint8_t best = kMaxPaths;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (!CarriesBulk(paths_[id])) continue;
    if (best == kMaxPaths || paths_[id].credit_ns < paths_[best].credit_ns) best = id;
  }
  flow.path = best;
  return best;
}

}  // namespace braid
