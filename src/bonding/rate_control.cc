#include "bonding/rate_control.h"

#include <algorithm>
#include <cmath>

namespace braid {
namespace {

constexpr double kStartupGain = 2.0;
// What is sent through the tunnel mostly finds out by itself how fast it may be, and takes a delay
// for congestion that is none.
constexpr uint64_t kEagerGain = 4;
constexpr uint64_t kEagerBytesPerS = 200'000'000 / 8;
constexpr double kStartupGrowth = 1.25;  // in a round, or it has found the end
constexpr DurationNs kStartupQueueNs = 12 * kMillisecondNs;
constexpr int kStartupRounds = 3;
constexpr double kOverflowLoss = 0.02;  // together with a queue

constexpr double kDrainGain = 0.75;
constexpr DurationNs kDrainedNs = 2 * kMillisecondNs;
constexpr DurationNs kDrainAtMostNs = kSecondNs;
constexpr DurationNs kDrainsWithinNs = 400 * kMillisecondNs;
constexpr DurationNs kShorterNs = 2 * kMillisecondNs;

// Slightly below what the path carries, so that what queue there is goes away; more when there is
// one.
constexpr double kCruiseGain = 0.99;
constexpr DurationNs kShortQueueNs = 4 * kMillisecondNs;
constexpr double kShortQueueGain = 0.95;
constexpr DurationNs kLongQueueNs = 15 * kMillisecondNs;
constexpr double kLongQueueGain = 0.85;
constexpr DurationNs kSaturatedNs = 3 * kMillisecondNs;

constexpr DurationNs kProbeEveryNs = kSecondNs;
constexpr double kFasterProbeGain = 1.25;
constexpr double kProbePilesUpNs = 20 * kMillisecondNs;
constexpr DurationNs kProbeQueueNs = 8 * kMillisecondNs;

constexpr DurationNs kShortestRoundNs = 50 * kMillisecondNs;
constexpr DurationNs kStartupRoundNs = 20 * kMillisecondNs;
constexpr double kBusyShare = 0.7;

// Losses so far above those that do not come from congestion begin a test; the test is passed when
// they stay.
constexpr double kSuspiciousLoss = 0.05;

constexpr DurationNs kMinPeriodNs = 10 * kSecondNs;
constexpr uint64_t kLeastBytesPerS = 8'000;

DurationNs WireUsToNs(uint32_t us) { return DurationNs{us} * kMicrosecondNs; }

}  // namespace

void RateControl::SetBacklogged(bool backlogged, TimeNs now_ns) {
  if (backlogged == backlogged_) return;
  if (backlogged_) backlogged_for_ns_ += now_ns - backlog_changed_ns_;
  backlogged_ = backlogged;
  backlog_changed_ns_ = now_ns;
}

uint64_t RateControl::pacing_bytes_per_s() const {
  if (fixed_bytes_per_s_ != 0) return fixed_bytes_per_s_;
  double gain = kCruiseGain;
  switch (phase_) {
    case Phase::kStartup:
      if (eager_) return std::max(kEagerBytesPerS, kEagerGain * bytes_per_s_);
      gain = kStartupGain;
      break;
    case Phase::kDrain:
      gain = kDrainGain;
      break;
    case Phase::kCruise:
      if (queue_ns_ > kShortQueueNs) gain = kShortQueueGain;
      if (queue_ns_ > kLongQueueNs) gain = kLongQueueGain;
      break;
    case Phase::kProbe:
      gain = probe_gain_;
      break;
    case Phase::kTest:
      gain = 1 - test_loss_;
      break;
  }
  return std::max(kLeastBytesPerS, static_cast<uint64_t>(static_cast<double>(bytes_per_s_) * gain));
}

DurationNs RateControl::Round() const {
  const DurationNs least = phase_ == Phase::kStartup ? kStartupRoundNs : kShortestRoundNs;
  return std::max(least, std::min(rtt_ns_, 4 * kShortestRoundNs));
}

void RateControl::OnReport(const PathReport& report, uint32_t made_us, TimeNs now_ns) {
  if (report.has_probe) OnProbe(report, made_us, now_ns);
  if (!has_base_) {
    has_base_ = true;
    base_ = report;
    base_made_us_ = made_us;
    base_ns_ = now_ns;
    backlogged_for_ns_ = 0;
    backlog_changed_ns_ = now_ns;
    queue_before_ns_ = queue_ns_;
    return;
  }
  // The receiver has begun to count anew.
  if (static_cast<int32_t>(report.bytes - base_.bytes) < 0 ||
      static_cast<int32_t>(report.datagrams - base_.datagrams) < 0) {
    has_base_ = false;
    return;
  }
  // Reports may overtake each other.
  const auto elapsed_us = static_cast<int32_t>(made_us - base_made_us_);
  if (elapsed_us <= 0 || WireUsToNs(static_cast<uint32_t>(elapsed_us)) < Round()) return;
  OnInterval(report, made_us, now_ns);
}

void RateControl::OnProbe(const PathReport& report, uint32_t made_us, TimeNs now_ns) {
  // Of each probe once; the same one may be in several reports.
  if (has_one_way_ && static_cast<int32_t>(report.probe_sent_us - last_probe_us_) <= 0) return;
  last_probe_us_ = report.probe_sent_us;
  const DurationNs waited_ns = WireUsToNs(made_us - report.probe_arrived_us);
  const DurationNs elapsed_ns = WireUsToNs(ToWireUs(now_ns) - report.probe_sent_us);
  if (elapsed_ns > waited_ns) {
    const DurationNs rtt_ns = elapsed_ns - waited_ns;
    rtt_ns_ = rtt_ns_ == 0 ? rtt_ns : (rtt_ns_ * 7 + rtt_ns) / 8;
    min_rtt_ns_ = min_rtt_ns_ == 0 ? rtt_ns : std::min(min_rtt_ns_, rtt_ns);
  }

  // The clocks are not the same, so this may be anything; it moves as the delay does.
  const auto one_way_us = static_cast<int32_t>(report.probe_arrived_us - report.probe_sent_us);
  const int64_t one_way_ns = int64_t{one_way_us} * static_cast<int64_t>(kMicrosecondNs);
  if (!has_one_way_) {
    has_one_way_ = true;
    period_min_ns_ = {one_way_ns, one_way_ns};
    recent_one_way_ns_.fill(one_way_ns);
    period_since_ns_ = now_ns;
  }
  if (now_ns >= period_since_ns_ + kMinPeriodNs) {
    period_min_ns_ = {one_way_ns, period_min_ns_[0]};
    period_since_ns_ = now_ns;
    min_rtt_ns_ = std::max(min_rtt_ns_, std::min(min_rtt_ns_ * 5 / 4, rtt_ns_));
  }
  period_min_ns_[0] = std::min(period_min_ns_[0], one_way_ns);
  min_one_way_ns_ = std::min(period_min_ns_[0], period_min_ns_[1]);
  const int64_t last_ns = recent_one_way_ns_[recent_count_ % recent_one_way_ns_.size()];
  ++recent_count_;
  recent_one_way_ns_[recent_count_ % recent_one_way_ns_.size()] = one_way_ns;
  const auto deviation_ns = static_cast<DurationNs>(std::abs(one_way_ns - last_ns));
  jitter_ns_ = (jitter_ns_ * 15 + deviation_ns) / 16;
  if (last_one_way_at_ns_ != 0 && now_ns > last_one_way_at_ns_) {
    const double per_s = static_cast<double>(one_way_ns - last_ns) * kSecondNs /
                         static_cast<double>(now_ns - last_one_way_at_ns_);
    trend_ns_per_s_ = (trend_ns_per_s_ * 7 + static_cast<int64_t>(per_s)) / 8;
  }
  last_one_way_at_ns_ = now_ns;
  // Jitter adds, it does not take away: the queue is what even the quickest of the last few waited.
  // While the rate doubles a queue is there and gone within less.
  const int64_t quickest_ns =
      phase_ == Phase::kStartup
          ? std::min(one_way_ns, last_ns)
          : *std::min_element(recent_one_way_ns_.begin(), recent_one_way_ns_.end());
  queue_ns_ = static_cast<DurationNs>(std::max<int64_t>(quickest_ns - min_one_way_ns_, 0));
}

void RateControl::OnInterval(const PathReport& report, uint32_t made_us, TimeNs now_ns) {
  const double elapsed_s = static_cast<double>(made_us - base_made_us_) / 1e6;
  const uint32_t datagrams = report.datagrams - base_.datagrams;
  const uint32_t expected = std::max(report.expected - base_.expected, datagrams);
  const double bytes = static_cast<double>(report.bytes - base_.bytes) +
                       static_cast<double>(datagrams * kLinkOverheadBytes);
  const double delivered = bytes / elapsed_s;
  const double lost =
      expected == 0 ? 0 : static_cast<double>(expected - datagrams) / static_cast<double>(expected);
  SetBacklogged(!backlogged_, now_ns);  // counts what has gone by
  SetBacklogged(!backlogged_, now_ns);
  const bool busy = static_cast<double>(backlogged_for_ns_) >=
                    kBusyShare * static_cast<double>(now_ns - base_ns_);
  const bool had_queue = std::max(queue_ns_, queue_before_ns_) > kShortQueueNs;
  goodput_bytes_per_s_ = static_cast<uint64_t>(bytes / elapsed_s);
  datagrams_per_s_ = static_cast<uint64_t>(expected / elapsed_s);

  if (expected != 0) {
    // What a full queue loses says little of the path.
    const double packets = static_cast<double>(expected) / (had_queue ? 5000 : 500);
    loss_ += std::min(1.0, packets) * (lost - loss_);
    lossy_ |= loss_ > kRareLoss;
    learned_from_datagrams_ += datagrams;
    const bool calm = !had_queue && (phase_ == Phase::kCruise || phase_ == Phase::kTest || !busy);
    if (calm && lost < base_loss_ + kSuspiciousLoss) {
      const double base_weight = std::min(0.5, static_cast<double>(expected) / 2000);
      base_loss_ += base_weight * (lost - base_loss_);
    }
  }
  // What has gone through the path. Without a queue all losses were on the way, beyond what limits.
  const double share = had_queue || phase_ != Phase::kStartup ? 1 - base_loss_ : 1 - lost;
  const double through = delivered / std::max(share, 0.02);
  if (phase_ == Phase::kStartup) {
    Startup(through, delivered, had_queue && lost > kOverflowLoss, busy, now_ns);
  } else {
    Track(through, busy);
    EndPhase(lost, busy, now_ns);
    WatchQueue(now_ns);
  }
  base_ = report;
  base_made_us_ = made_us;
  base_ns_ = now_ns;
  backlogged_for_ns_ = 0;
  queue_before_ns_ = queue_ns_;
}

void RateControl::Startup(double through, double delivered, bool overflows, bool busy,
                          TimeNs now_ns) {
  // Before the first round trip nothing can have grown.
  if (grew_ns_ == 0 || !has_rtt()) grew_ns_ = now_ns;
  // Not more than three times what arrives, or a short queue would lose most of it.
  const double estimate = std::min(through, delivered * 1.5);
  bytes_per_s_ = std::max(bytes_per_s_, static_cast<uint64_t>(estimate));
  if (delivered > full_bytes_per_s_ * kStartupGrowth) {
    full_bytes_per_s_ = delivered;
    grew_ns_ = now_ns;
  }
  if (!busy) {
    grew_ns_ = now_ns;
    if (queue_ns_ < kStartupQueueNs && !overflows) return;
  }
  const bool stopped = now_ns >= grew_ns_ + kStartupRounds * std::max(Round(), rtt_ns_);
  if (queue_ns_ < kStartupQueueNs && !overflows && !stopped) return;
  bytes_per_s_ =
      std::max(kLeastBytesPerS, static_cast<uint64_t>(std::max(through, full_bytes_per_s_)));
  Begin(Phase::kDrain, now_ns);
}

void RateControl::Track(double through, bool busy) {
  const auto now = static_cast<double>(bytes_per_s_);
  double next = now;
  const bool saturated = queue_ns_ > kSaturatedNs && queue_before_ns_ > kSaturatedNs;
  if (busy && saturated) {
    // Exactly what the path carries. Far less, with a long queue: it has become slower.
    const bool collapsed = through < now * 0.7 && queue_ns_ > kLongQueueNs;
    next = collapsed ? through : now + 0.3 * (through - now);
  } else if (through > now) {
    next = std::min(through, now * 1.25);
  }
  bytes_per_s_ = std::max(kLeastBytesPerS, static_cast<uint64_t>(next));
}

// A queue that gets neither shorter nor longer though less is sent than goes through is none: the
// path has become longer, or others keep it so.
void RateControl::WatchQueue(TimeNs now_ns) {
  if (queue_ns_ <= kShortQueueNs || phase_ == Phase::kProbe) {
    draining_since_ns_ = 0;
    return;
  }
  const bool began = draining_since_ns_ == 0;
  if (began) rate_before_drain_ = bytes_per_s_;
  const DurationNs change_ns =
      queue_ns_ > draining_from_ns_ ? queue_ns_ - draining_from_ns_ : draining_from_ns_ - queue_ns_;
  if (began || change_ns > std::max(kShorterNs, draining_from_ns_ / 8)) {
    draining_since_ns_ = now_ns;
    draining_from_ns_ = queue_ns_;
    return;
  }
  if (now_ns < draining_since_ns_ + std::max(kDrainsWithinNs, 4 * Round())) return;
  period_min_ns_.fill(min_one_way_ns_ + static_cast<int64_t>(queue_ns_));
  min_one_way_ns_ = period_min_ns_[0];
  period_since_ns_ = now_ns;
  min_rtt_ns_ = rtt_ns_;
  queue_ns_ = 0;
  draining_since_ns_ = 0;
  bytes_per_s_ = std::max(bytes_per_s_, rate_before_drain_);
}

void RateControl::EndPhase(double lost, bool busy, TimeNs now_ns) {
  const DurationNs lasted_ns = now_ns - phase_since_ns_;
  switch (phase_) {
    case Phase::kStartup:
      return;
    case Phase::kDrain:
      if (queue_ns_ < kDrainedNs || lasted_ns > kDrainAtMostNs) Begin(Phase::kCruise, now_ns);
      return;
    case Phase::kCruise:
      if (!busy) return;
      if (queue_ns_ < kShortQueueNs && lost > base_loss_ + kSuspiciousLoss) {
        test_loss_ = lost;
        return Begin(Phase::kTest, now_ns);
      }
      if (now_ns >= next_probe_ns_ && queue_ns_ < kShortQueueNs) {
        // What comes of it is known a round trip later; until then no more than this piles up.
        const auto lasts_ns = static_cast<double>(rtt_ns_ + Round());
        probe_gain_ = 1 + std::min(kProbeGain - 1, kProbePilesUpNs / lasts_ns);
        Begin(Phase::kProbe, now_ns);
      }
      return;
    case Phase::kProbe:
      if (queue_ns_ > kProbeQueueNs) return Begin(Phase::kDrain, now_ns);
      // What left at this rate arrives a round trip later.
      if (lasted_ns < rtt_ns_ + Round()) return;
      if (static_cast<double>(bytes_per_s_) > probed_from_ * (1 + (probe_gain_ - 1) / 2) &&
          queue_ns_ < kShortQueueNs) {
        probe_gain_ = kFasterProbeGain;
        return Begin(Phase::kProbe, now_ns);
      }
      return Begin(Phase::kCruise, now_ns);
    case Phase::kTest:
      if (lasted_ns < rtt_ns_ + 2 * Round()) return;
      if (lost > test_loss_ / 2) {
        base_loss_ = std::min(lost, 0.9);  // it does not depend on the rate
      } else {
        bytes_per_s_ =
            std::max(kLeastBytesPerS,
                     static_cast<uint64_t>(static_cast<double>(bytes_per_s_) * (1 - test_loss_)));
      }
      return Begin(Phase::kCruise, now_ns);
  }
}

void RateControl::Begin(Phase phase, TimeNs now_ns) {
  if (phase_ == Phase::kProbe || (phase_ == Phase::kDrain && drains_after_probe_)) {
    next_probe_ns_ = now_ns + kProbeEveryNs;
  }
  drains_after_probe_ = phase_ == Phase::kProbe;
  phase_ = phase;
  phase_since_ns_ = now_ns;
  probed_from_ = static_cast<double>(bytes_per_s_);
}

void RateControl::OnOutage(TimeNs now_ns) {
  has_base_ = false;
  has_one_way_ = false;
  queue_ns_ = 0;
  draining_since_ns_ = 0;
  loss_ = base_loss_;  // what the outage took is no property of the path
  BeNew();
  if (phase_ != Phase::kStartup) Begin(Phase::kCruise, now_ns);
  next_probe_ns_ = now_ns;
}

void RateControl::BeNew() {
  lossy_ = false;
  learned_from_datagrams_ = 0;
}

void RateControl::OnRestart() {
  has_base_ = has_one_way_ = false;
  queue_ns_ = 0;
}

void RateControl::Relearn(TimeNs now_ns) {
  full_bytes_per_s_ = 0;
  grew_ns_ = 0;
  bytes_per_s_ = std::max<uint64_t>(bytes_per_s_ / 2, kInitialBytesPerS);
  loss_ = base_loss_ = 0;
  BeNew();
  Begin(Phase::kStartup, now_ns);
}

}  // namespace braid
