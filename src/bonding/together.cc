#include "bonding/together.h"

#include <algorithm>

namespace braid {
namespace {

// Flows are tried that fill what is used, and turn as BBR does: twice in eight round trips, of
// which some go unseen.
constexpr double kAlmostFull = 0.88;
constexpr double kTurnsPerRoundTrip = 0.15;
constexpr double kTurnRoundTrips = 0.1;  // so much more or less waits
constexpr double kTurnBytes = 3'000;
constexpr DurationNs kWindowRoundTrips = 32;
constexpr DurationNs kLeastWindowNs = 400 * kMillisecondNs;
constexpr DurationNs kMostWindowNs = 3 * kSecondNs;
// Such a flow has up to two round trips under way, or some more: one of them waits.
constexpr double kLittleRoundTrips = 1.5;
constexpr double kLittleSeconds = 0.008;
constexpr double kLittleBytes = 12'000;

constexpr double kHasHelped = 1.02;
constexpr DurationNs kHelpsWithinNs = 3 * kSecondNs;
constexpr DurationNs kSpareNs = 5 * kSecondNs;
constexpr int kMostSpareDoublings = 5;

// BBR remembers for five round trips how much acknowledgements have brought at once.
constexpr DurationNs kPauseRoundTrips = 5;

constexpr DurationNs kPeriodNs = 10 * kMillisecondNs;
constexpr double kQuiet = 0.1;  // of what the paths carry
constexpr DurationNs kQuietForNs = 150 * kMillisecondNs;
constexpr DurationNs kEndsAfterNs = kSecondNs;
constexpr double kHarms = 0.8;
constexpr DurationNs kHarmsForNs = 600 * kMillisecondNs;

double Seconds(DurationNs duration_ns) { return static_cast<double>(duration_ns) / kSecondNs; }

}  // namespace

void Together::NoteBulk(size_t bytes, TimeNs now_ns) {
  if (now_ns >= period_since_ns_ + kPeriodNs) {
    last_period_bytes_ = now_ns >= period_since_ns_ + 2 * kPeriodNs ? 0 : period_bytes_;
    period_bytes_ = 0;
    period_since_ns_ = now_ns;
  }
  period_bytes_ += bytes;
}

void Together::Look(const View& view, TimeNs now_ns) {
  used_bytes_per_s_ = view.used_bytes_per_s;
  NoteBulk(0, now_ns);
  WatchQuiet(now_ns);
  LookAtWindow(view, now_ns);
  if (active()) Watch(view, now_ns);
  if (to_try_) Try(view, now_ns);
}

void Together::LookAtWindow(const View& view, TimeNs now_ns) {
  const DurationNs round_trip_ns = view.rtt_ns + view.spread_ns;
  const double rate = view.used_bytes_per_s;
  full_ = full_ && view.spare && view.demand_bytes_per_s > kAlmostFull * rate;
  waiting_sum_ += view.waiting_bytes;
  ++waiting_count_;
  const double turn_s = kTurnRoundTrips * Seconds(round_trip_ns) + Seconds(view.jitter_ns);
  turns_.Add(view.waiting_bytes, std::max(turn_s * rate, kTurnBytes));
  const DurationNs lasts_ns =
      std::clamp(kWindowRoundTrips * round_trip_ns, kLeastWindowNs, kMostWindowNs);
  to_try_ = false;
  if (now_ns < window_since_ns_ + lasts_ns) return;

  const double round_trips = Seconds(now_ns - window_since_ns_) / Seconds(round_trip_ns);
  const bool turning = turns_.Take() > kTurnsPerRoundTrip * round_trips;
  waiting_mean_ = waiting_sum_ / static_cast<double>(waiting_count_);
  const double little_s = std::max(kLittleRoundTrips * Seconds(round_trip_ns), kLittleSeconds);
  to_try_ = full_ && turning && waiting_mean_ < std::max(little_s * rate, kLittleBytes);
  full_ = true;
  waiting_sum_ = 0;
  waiting_count_ = 0;
  window_since_ns_ = now_ns;
}

// In the last two periods hardly anything came.
void Together::WatchQuiet(TimeNs now_ns) {
  const double few = kQuiet * used_bytes_per_s_ * 2 * static_cast<double>(kPeriodNs) / kSecondNs;
  if (static_cast<double>(period_bytes_ + last_period_bytes_) > few) {
    // It has found its shortest round trip anew. One that this harms is quiet for another reason.
    if (quiet_since_ns_ != 0 && now_ns >= quiet_since_ns_ + kQuietForNs && active() &&
        harms_since_ns_ == 0) {
      even_ = true;
    }
    quiet_since_ns_ = 0;
  } else if (quiet_since_ns_ == 0) {
    quiet_since_ns_ = now_ns;
  }
}

void Together::Watch(const View& view, TimeNs now_ns) {
  spread_ns_ = view.spread_ns;
  pause_every_ns_ = kPauseRoundTrips * (view.rtt_ns + view.spread_ns) + 1;
  const bool ended = quiet_since_ns_ != 0 && now_ns >= quiet_since_ns_ + kEndsAfterNs;
  const bool needless =
      waiting_mean_ > std::max(Seconds(view.spread_ns), kLittleSeconds) * view.used_bytes_per_s;
  if (ended || needless) return End();
  if (view.goodput_bytes_per_s > kHasHelped * goodput_before_) {
    helped_ns_ = now_ns;
    times_spared_ = 0;
  }
  const bool harms = Harms(view, now_ns);
  if (harms && even_ && view.spread_ns > view.rtt_ns) {
    even_ = false;
    harms_since_ns_ = 0;
    return;
  }
  if (!harms && now_ns < helped_ns_ + kHelpsWithinNs) return;
  spared_until_ns_ = now_ns + (kSpareNs << std::min(times_spared_++, kMostSpareDoublings));
  Become(paths_before_, even_before_, now_ns);
}

bool Together::Harms(const View& view, TimeNs now_ns) {
  if (view.goodput_bytes_per_s > kHarms * goodput_before_) {
    harms_since_ns_ = 0;
  } else if (harms_since_ns_ == 0 && quiet_since_ns_ == 0) {
    harms_since_ns_ = now_ns;
  }
  return harms_since_ns_ != 0 && now_ns >= harms_since_ns_ + kHarmsForNs;
}

void Together::Try(const View& view, TimeNs now_ns) {
  if (now_ns < spared_until_ns_) return;
  paths_before_ = paths_;
  even_before_ = even_;
  goodput_before_ = view.goodput_bytes_per_s;
  Become(view.used + 1, view.next_spread_ns <= view.rtt_ns, now_ns);
}

void Together::Become(size_t paths, bool even, TimeNs now_ns) {
  helped_ns_ = now_ns;
  paths_ = paths;
  since_ns_ = now_ns;
  full_ = to_try_ = false;
  waiting_mean_ = 0;
  harms_since_ns_ = 0;
  even_ = even;
}

Together::Order Together::order(TimeNs now_ns) const {
  if (!active()) return Order::kByArrival;
  if (even_ || quiet_since_ns_ != 0) return Order::kSlowestFirst;
  return (now_ns - since_ns_) % pause_every_ns_ < spread_ns_ ? Order::kQuickestOnly
                                                             : Order::kQuickestFirst;
}

}  // namespace braid
