// Of a bond's sender: what its paths are at, which of them are used, and how long is waited for
// them.
#include <algorithm>

#include "bonding/bond_sender.h"

namespace braid {
namespace {

// What does not wait for credit (small flows, repairs, copies) keeps others waiting for no longer.
constexpr DurationNs kMostDebtNs = 200 * kMillisecondNs;
constexpr DurationNs kLookEveryNs = 5 * kMillisecondNs;

// Probes, and the reports that answer them.
constexpr DurationNs kLeastProbeNs = 10 * kMillisecondNs;
constexpr DurationNs kMostProbeNs = 25 * kMillisecondNs;
constexpr DurationNs kSilentProbeNs = 50 * kMillisecondNs;
constexpr double kProbeShare = 0.01;  // of what a path carries, at most
constexpr double kProbeBytes = 160;

// Silence.
constexpr DurationNs kSilenceMarginNs = 20 * kMillisecondNs;
constexpr DurationNs kFirstBackoffNs = 250 * kMillisecondNs;
constexpr int kMostDoublings = 7;
constexpr DurationNs kForgiveOutagesNs = 30 * kSecondNs;
// So many reports that tell of nothing new over a path tell enough where so much was sent.
constexpr int kUnheardReports = 3;
constexpr uint32_t kUnheardDatagrams = 24;
constexpr DurationNs kMostUnsureNs = 500 * kMillisecondNs;

// Which paths carry bulk.
constexpr DurationNs kDemandWindowNs = 50 * kMillisecondNs;
constexpr DurationNs kBacklogPeriodNs = 60 * kMillisecondNs;
constexpr double kBacklogSeconds = 0.003;
// A path that delivers so much later is used only when so much waits anyway.
constexpr double kNearSeconds = 0.06;
constexpr double kUsed = 0.5;             // of what a path carries
constexpr double kGoodputWeight = 0.015;  // of each look
constexpr DurationNs kStaysEngagedNs = kSecondNs;
constexpr double kLeastShare = 0.04;
constexpr int64_t kHarmlessSpreadNs = 10 * kMillisecondNs;
constexpr double kLearnedShare = 0.25;
constexpr double kMostLoss = 0.12;
constexpr double kLeastLossAside = 0.06;  // of one that was set aside, to come back
constexpr DurationNs kTrialEveryNs = 10 * kSecondNs;
constexpr DurationNs kTrialNs = kSecondNs;
constexpr DurationNs kStaysPreferredNs = 2 * kSecondNs;
constexpr int64_t kClearlyBetterNs = 5 * kMillisecondNs;

constexpr DurationNs kRepairMarginNs = 10 * kMillisecondNs;
constexpr DurationNs kHoldMarginNs = 5 * kMillisecondNs;

constexpr DurationNs kLeastTargetNs = 5 * kMillisecondNs;
constexpr DurationNs kMostTargetNs = 50 * kMillisecondNs;
constexpr DurationNs kOutageGraceNs = 1200 * kMillisecondNs;
constexpr DurationNs kOutageTargetNs = 400 * kMillisecondNs;
constexpr DurationNs kLeastIntervalNs = 100 * kMillisecondNs;
constexpr size_t kLeastQueueBytes = 256 << 10;
constexpr double kQueueSeconds = 0.3;

}  // namespace

// Where all are silent, all are tried.
bool BondSender::Alive(const Path& path) const {
  if (!path.usable) return false;
  if (path.state != PathState::kSilent) return true;
  return std::none_of(paths_.begin(), paths_.end(), [](const Path& other) {
    return other.usable && other.state != PathState::kSilent;
  });
}

double BondSender::WeightOf(const Path& path) const {
  return heaviest_ > 0 ? std::max(path.options.weight / heaviest_, 0.001) : 1;
}

double BondSender::RateOf(const Path& path) const {
  return static_cast<double>(path.rate.bytes_per_s()) * WeightOf(path);
}

double BondSender::PacingOf(const Path& path) const {
  return static_cast<double>(path.rate.pacing_bytes_per_s()) * WeightOf(path);
}

void BondSender::Charge(Path& path, size_t bytes, TimeNs now_ns) {
  const TimeNs oldest_ns = now_ns > kTrainNs ? now_ns - kTrainNs : 0;
  path.credit_ns = std::max(path.credit_ns, oldest_ns) +
                   static_cast<DurationNs>(static_cast<double>(bytes) * kSecondNs / PacingOf(path));
  path.credit_ns = std::min(path.credit_ns, now_ns + kMostDebtNs);
}

uint8_t BondSender::QuickestPath(TimeNs now_ns, uint8_t except) const {
  uint8_t best = kMaxPaths;
  int64_t best_ns = 0;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const Path& path = paths_[id];
    if (id == except || !Alive(path) || path.state == PathState::kAside) continue;
    const int64_t waits_ns =
        path.credit_ns > now_ns ? static_cast<int64_t>(path.credit_ns - now_ns) : 0;
    // What is lost has to be sent again, which takes a round trip.
    const auto loss_ns =
        static_cast<int64_t>(path.rate.loss() * static_cast<double>(2 * path.rate.rtt_ns()));
    int64_t arrives_ns = path.rate.one_way_ns() + waits_ns + loss_ns;
    if (!path.rate.has_rtt()) arrives_ns += kSecondNs;
    if (path.options.standby) arrives_ns += kSecondNs;
    if (best != kMaxPaths && arrives_ns >= best_ns) continue;
    best = id;
    best_ns = arrives_ns;
  }
  return best;
}

void BondSender::LookAtPaths(TimeNs now_ns) {
  next_look_ns_ = now_ns + kLookEveryNs;
  NoteDemand(now_ns);
  if (now_ns >= rescue_until_ns_) rescue_ns_ = 0;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    Path& path = paths_[id];
    if (!Alive(path)) PlanElsewhere(id, now_ns);
    if (!path.usable) continue;
    LookForSilence(id, now_ns);
    // What has credit that nobody takes does not limit anything.
    if (path.planned.empty() && path.credit_ns + kTrainNs < now_ns) {
      path.rate.SetBacklogged(false, now_ns);
    }
  }
  NoteBacklog(now_ns);
  Engage(now_ns);
  if (!active(now_ns)) DropWaiting();  // no path has taken it
  Expire(now_ns);
  // A flow that halves its window, or nearly, keeps the paths full if half a round trip waits; what
  // others send does not wait for it. Where much is lost a repair is part of most round trips.
  const bool lossy = std::any_of(paths_.begin(), paths_.end(), [](const Path& path) {
    return path.engaged && path.rate.loss() > kRepairTwiceLoss;
  });
  const DurationNs slowest_ns = LeastRtt() + Spread() + (lossy ? LeastRtt() : 0);
  // After an outage flows have more under way than what is left carries. What is dropped then is
  // missing for as long as all that takes.
  const bool outage = std::any_of(paths_.begin(), paths_.end(), [now_ns](const Path& path) {
    return path.outages != 0 && now_ns < path.last_outage_ns + kOutageGraceNs;
  });
  queue_.SetDelays(
      outage ? kOutageTargetNs : std::clamp(slowest_ns / 2, kLeastTargetNs, kMostTargetNs),
      std::max(kLeastIntervalNs, 3 * slowest_ns));
}

void BondSender::NoteDemand(TimeNs now_ns) {
  double goodput = 0;
  for (const Path& path : paths_) {
    if (path.engaged) goodput += static_cast<double>(path.rate.goodput_bytes_per_s());
  }
  goodput_bytes_per_s_ += kGoodputWeight * (goodput - goodput_bytes_per_s_);
  if (now_ns < demand_window_ns_ + kDemandWindowNs) return;
  const double bytes_per_s = static_cast<double>(demand_bytes_) * kSecondNs /
                             static_cast<double>(now_ns - demand_window_ns_);
  demand_bytes_per_s_ += 0.4 * (bytes_per_s - demand_bytes_per_s_);
  demand_bytes_ = 0;
  demand_window_ns_ = now_ns;
}

DurationNs BondSender::ProbeEvery() const {
  return std::clamp(LeastRtt() / 2, kLeastProbeNs, kMostProbeNs);
}

DurationNs BondSender::ProbeEvery(const Path& path) const {
  if (path.state == PathState::kSilent) return kSilentProbeNs;
  const double least_s = kProbeBytes / (kProbeShare * static_cast<double>(path.rate.bytes_per_s()));
  return std::max(ProbeEvery(),
                  std::min(static_cast<DurationNs>(least_s * kSecondNs), 4 * kMostProbeNs));
}

// Probes go over each path all the time while anything is sent, so there is something to hear of.
void BondSender::LookForSilence(uint8_t id, TimeNs now_ns) {
  Path& path = paths_[id];
  const DurationNs patience_ns =
      ProbeEvery(path) + ProbeEvery() + 4 * path.rate.jitter_ns() + kSilenceMarginNs;
  const bool stalled = path.unheard_reports >= kUnheardReports &&
                       path.sent_datagrams - path.sent_when_heard >= kUnheardDatagrams;
  const bool heard = now_ns < path.heard_ns + patience_ns;
  if (path.state != PathState::kSilent) {
    if (active(now_ns) && (!heard || stalled)) OnSilence(id, now_ns);
    return;
  }
  if (path.heard_ns <= path.silent_since_ns) return;
  if (path.heard_ns < path.silent_since_ns + kFalseAlarmNs) {
    path.outages = std::max(path.outages - 1, 0);
    return ComeBack(path, now_ns);
  }
  // Back from a real outage, it has to show that it stays; longer each time.
  if (path.back_since_ns == 0) path.back_since_ns = now_ns;
  if (!heard && active(now_ns)) return OnSilence(id, now_ns);
  const int doublings = std::clamp(path.outages - 1, 0, kMostDoublings);
  if (now_ns >= path.back_since_ns + (kFirstBackoffNs << doublings)) ComeBack(path, now_ns);
}

// Few probes went over it, so most reports told of nothing new.
void BondSender::ComeBack(Path& path, TimeNs now_ns) {
  path.state = PathState::kUp;
  path.unheard_reports = 0;
  path.sent_when_heard = path.sent_datagrams;
  path.next_probe_ns = now_ns;
}

// What was sent over it last goes over the others: whether it arrived will not be told.
void BondSender::OnSilence(uint8_t id, TimeNs now_ns) {
  Path& path = paths_[id];
  path.state = PathState::kSilent;
  path.engaged = path.learning = false;
  path.engaged_until_ns = 0;
  path.rate.SetBacklogged(false, now_ns);
  PlanElsewhere(id, now_ns);
  path.silent_since_ns = now_ns;
  path.back_since_ns = 0;
  path.unheard_reports = 0;
  if (now_ns >= path.last_outage_ns + kForgiveOutagesNs) path.outages = 0;
  ++path.outages;
  path.last_outage_ns = now_ns;
  Rescue(id, ReceivedUntil(path, now_ns), now_ns);
}

// What left over the path before then was received.
TimeNs BondSender::ReceivedUntil(const Path& path, TimeNs now_ns) const {
  const int64_t one_way_us =
      (path.rate.one_way_ns() + static_cast<int64_t>(2 * path.rate.jitter_ns())) /
      static_cast<int64_t>(kMicrosecondNs);
  const uint32_t sent_us = path.received_until_us - static_cast<uint32_t>(one_way_us);
  const DurationNs ago_ns = DurationNs{ToWireUs(now_ns) - sent_us} * kMicrosecondNs;
  const bool known = path.reported_datagrams != 0 && path.rate.has_rtt() && ago_ns < now_ns;
  return known ? now_ns - std::min(ago_ns, kMostUnsureNs)
               : now_ns - std::min(now_ns, kMostUnsureNs);
}

// The alive ones: those that lose little first, standby last, and else by their delay.
size_t BondSender::OrderPaths(PathOrder& order, TimeNs now_ns) {
  size_t used = 0;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (Alive(paths_[id])) order[used++] = id;
  }
  const auto rank = [&](uint8_t id) {
    const Path& path = paths_[id];
    const double most_loss = path.state == PathState::kAside ? kLeastLossAside : kMostLoss;
    return (path.options.standby ? 4 : 0) + (path.rate.loss() > most_loss ? 2 : 0) +
           (path.rate.has_rtt() ? 0 : 1);
  };
  const auto score_ns = [&](uint8_t id) {
    const Path& path = paths_[id];
    return path.rate.base_one_way_ns() +
           static_cast<int64_t>(path.rate.loss() * static_cast<double>(2 * path.rate.rtt_ns()));
  };
  std::sort(order.begin(), order.begin() + used, [&](uint8_t a, uint8_t b) {
    const int rank_a = rank(a), rank_b = rank(b);
    return rank_a != rank_b ? rank_a < rank_b : score_ns(a) < score_ns(b);
  });
  if (options_.mode != BondingMode::kPreferred || used == 0) return used;
  // The one that is preferred stays so unless it fails, or another is clearly better for long.
  const auto present = std::find(order.begin(), order.begin() + used, preferred_);
  if (present == order.begin() + used || rank(*present) > rank(order[0])) {
    preferred_ = order[0];
    preferred_since_ns_ = now_ns;
  } else if (score_ns(order[0]) + kClearlyBetterNs >= score_ns(*present)) {
    preferred_since_ns_ = now_ns;
  } else if (now_ns >= preferred_since_ns_ + kStaysPreferredNs) {
    preferred_ = order[0];
    preferred_since_ns_ = now_ns;
  }
  std::swap(order[0], *std::find(order.begin(), order.begin() + used, preferred_));
  return used;
}

void BondSender::NoteBacklog(TimeNs now_ns) {
  if (now_ns >= backlog_period_ns_ + kBacklogPeriodNs) {
    least_backlog_ = {waiting_bytes(), least_backlog_[0]};
    backlog_period_ns_ = now_ns;
  }
  least_backlog_[0] = std::min(least_backlog_[0], waiting_bytes());
}

bool BondSender::Harms(const Path& path, const Path& first, double faster) const {
  const double most_loss = path.state == PathState::kAside ? kLeastLossAside : kMostLoss;
  if (path.rate.loss() > most_loss) return true;
  if (!path.rate.has_rtt() || !first.rate.has_rtt()) return false;
  const int64_t spread_ns = LaterNs(path, first);
  if (spread_ns > static_cast<int64_t>(options_.reorder_max_ns) * 4 / 5) return true;
  return spread_ns > kHarmlessSpreadNs && RateOf(path) < kLeastShare * faster;
}

// Which paths packets are planned for: all that are near, and others when so much waits that their
// delay no longer matters. One that is new is given copies, until it is known what it carries.
void BondSender::Engage(TimeNs now_ns) {
  PathOrder order;
  const size_t used = OrderPaths(order, now_ns);
  for (Path& path : paths_) {
    if (Alive(path)) continue;
    path.engaged = path.learning = false;
    path.engaged_until_ns = 0;
  }
  LookTogether(order, used, now_ns);
  double faster = 0;  // bytes a second that the paths before carry
  const auto backlog = static_cast<double>(std::min(least_backlog_[0], least_backlog_[1]));
  for (size_t i = 0; i < used; ++i) {
    Path& path = paths_[order[i]];
    const Path& first = paths_[order[0]];
    path.rate.SetEager(i == 0);
    path.learning = i != 0 && options_.mode == BondingMode::kStripe && !path.options.standby &&
                    (now_ns < path.trial_until_ns || first.rate.learning() ||
                     (path.rate.learning() && RateOf(path) < kLearnedShare * faster));
    const bool harms = i != 0 && !path.learning && options_.mode == BondingMode::kStripe &&
                       Harms(path, first, faster);
    if (harms) {
      if (path.state != PathState::kAside) path.next_trial_ns = now_ns + kTrialEveryNs;
      path.state = PathState::kAside;
      path.engaged = false;
      if (now_ns >= path.next_trial_ns && waiting_packets() != 0) {
        path.trial_until_ns = now_ns + kTrialNs;
        path.next_trial_ns = path.trial_until_ns + kTrialEveryNs;
        path.rate.Relearn(now_ns);
      }
      continue;
    }
    bool wanted = i == 0;
    if (options_.mode == BondingMode::kStripe) {
      const double spread_s = static_cast<double>(LaterNs(path, first)) / kSecondNs;
      const bool near = spread_s < kNearSeconds || (together_paths_ & Bit(order[i])) != 0;
      wanted |=
          (near && !path.options.standby) || backlog > std::max(kBacklogSeconds, spread_s) * faster;
    } else if (options_.mode == BondingMode::kRedundant) {
      wanted |= !path.options.standby;
    }
    if (wanted) path.engaged_until_ns = now_ns + kStaysEngagedNs;
    path.engaged =
        now_ns < path.engaged_until_ns && (i == 0 || options_.mode != BondingMode::kPreferred);
    if (path.state != PathState::kSilent) {
      const bool needed = !path.options.standby && options_.mode != BondingMode::kPreferred;
      path.state = path.engaged || needed ? PathState::kUp : PathState::kStandby;
    }
    if (CarriesBulk(path)) faster += RateOf(path);
  }
  queue_.SetMostBytes(std::clamp(static_cast<size_t>(faster * kQueueSeconds), kLeastQueueBytes,
                                 memory_.slab.capacity() * memory_.slab.packet_bytes() / 4));
}

void BondSender::LookTogether(const PathOrder& order, size_t used, TimeNs now_ns) {
  if (options_.mode != BondingMode::kStripe || options_.pin_flows) return together_.End();
  Together::View view{.used = 0,
                      .demand_bytes_per_s = demand_bytes_per_s_,
                      .goodput_bytes_per_s = goodput_bytes_per_s_,
                      .waiting_bytes = static_cast<double>(waiting_bytes())};
  together_paths_ = 0;
  size_t rank = 0;
  for (size_t i = 0; i < used && !view.spare; ++i) {
    const Path& path = paths_[order[i]];
    if (path.learning || path.options.standby || path.state == PathState::kAside) continue;
    const bool in = rank < together_.paths();
    const bool busy = static_cast<double>(path.rate.goodput_bytes_per_s()) > kUsed * RateOf(path);
    if (in || busy) {
      ++view.used;
      view.used_bytes_per_s += RateOf(path);
      view.jitter_ns = std::max(view.jitter_ns, path.rate.jitter_ns());
      view.waiting_bytes += RateOf(path) * static_cast<double>(path.rate.queue_ns()) / kSecondNs;
    } else {
      view.spare = true;
    }
    // Of those that are together now, or would be next.
    if (rank++ == 0) {
      view.rtt_ns = path.rate.rtt_ns();
      quickest_ = order[i];
    }
    const auto spread_ns =
        static_cast<DurationNs>(std::max<int64_t>(LaterNs(path, paths_[quickest_]), 0));
    if (in) view.spread_ns = std::max(view.spread_ns, spread_ns);
    view.next_spread_ns = std::max(view.next_spread_ns, spread_ns);
    if (in) together_paths_ |= Bit(order[i]);
  }
  together_.Look(view, now_ns);
}

// --- Times ---

DurationNs BondSender::LeastRtt() const {
  DurationNs least_ns = 0;
  for (const Path& path : paths_) {
    if (!path.usable || !path.rate.has_rtt()) continue;
    least_ns = least_ns == 0 ? path.rate.rtt_ns() : std::min(least_ns, path.rate.rtt_ns());
  }
  return least_ns;
}

// How much later than the quickest path the slowest one delivers, of those that carry bulk.
DurationNs BondSender::Spread() const {
  int64_t least_ns = INT64_MAX;
  int64_t most_ns = INT64_MIN;
  int64_t jitter_ns = 0;
  for (const Path& path : paths_) {
    if (!CarriesBulk(path) || !path.rate.has_rtt()) continue;
    least_ns = std::min(least_ns, path.rate.base_one_way_ns());
    most_ns = std::max(most_ns, path.rate.one_way_ns());
    jitter_ns = std::max(jitter_ns, static_cast<int64_t>(path.rate.jitter_ns()));
  }
  if (most_ns < least_ns) return 0;
  return static_cast<DurationNs>(most_ns - least_ns + 2 * jitter_ns);
}

DurationNs BondSender::HoldTime() const {
  return std::min(Spread() + kHoldMarginNs, options_.reorder_max_ns);
}

// Twice there and back: also what is sent again may be lost.
DurationNs BondSender::RepairTime() const {
  return std::min(2 * LeastRtt() + Spread() + kRepairMarginNs + rescue_ns_,
                  options_.reorder_max_ns);
}

// How long what is lost may take to come after all.
DurationNs BondSender::RecoveryTime(TimeNs now_ns) const {
  const DurationNs repair_ns = options_.repair ? RepairTime() : 0;
  if (fec_.span_ns(now_ns) == 0) return repair_ns;
  const DurationNs parity_ns = fec_.span_ns(now_ns) + Spread() + kRepairMarginNs;
  return std::max(repair_ns, std::min(parity_ns, options_.reorder_max_ns));
}

bool BondSender::RepairedInTime(const Slot& slot) const {
  return options_.repair && slot.traffic_class != TrafficClass::kRealtime &&
         LeastRtt() + kRepairMarginNs <= options_.reorder_max_ns;
}

bool BondSender::constrained() const {
  return std::any_of(paths_.begin(), paths_.end(),
                     [](const Path& path) { return path.usable && path.rate.constrained(); });
}

bool BondSender::free() const {
  return std::all_of(paths_.begin(), paths_.end(),
                     [](const Path& path) { return !path.usable || path.rate.free(); });
}

size_t BondSender::usable_paths() const {
  return static_cast<size_t>(
      std::count_if(paths_.begin(), paths_.end(), [](const Path& path) { return path.usable; }));
}

void BondSender::Relearn(TimeNs now_ns) {
  for (Path& path : paths_) {
    if (path.rate.unconstrained()) path.rate.Relearn(now_ns);
  }
}

bool BondSender::unconstrained() const {
  bool any = false;
  for (const Path& path : paths_) {
    if (!CarriesBulk(path)) continue;
    if (!path.rate.unconstrained()) return false;
    any = true;
  }
  return any;
}

}  // namespace braid
