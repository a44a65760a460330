#include "egress/upstream_choice.h"

#include <algorithm>
#include <utility>

namespace braid {
namespace {

constexpr int kUpstreamMostFailures = 3;
constexpr DurationNs kUpstreamFailureKeptNs = 30 * kSecondNs;
constexpr DurationNs kUpstreamLatencyKeptNs = 60 * kSecondNs;
constexpr DurationNs kUpstreamLatencySmoothing = 8;  // of RFC 6298: 1 / alpha
constexpr double kUpstreamLeastLatencyShare = 1.0 / 8;
// A weight of 1. Whole numbers, so that turns add up for ever.
constexpr int64_t kUpstreamWeightUnit = 4096;
static_assert((kUpstreamWeightUnit >> kUpstreamMostFailures) * kUpstreamLeastLatencyShare >= 1);

}  // namespace

UpstreamChoice::UpstreamChoice(const Options& options, const std::vector<int>& weights)
    : options_(options) {
  for (const int weight : weights) {
    upstreams_.push_back({.weight = weight, .breaker = CircuitBreaker(options.breaker)});
  }
}

std::optional<size_t> UpstreamChoice::Choose(TimeNs now_ns, const Set& tried) {
  const Set usable = Usable(now_ns);
  const Set among = usable & ~tried;
  if (among.none()) return LastResort(now_ns, tried);
  const DurationNs best_latency_ns = BestLatency(usable, now_ns);
  size_t chosen = 0;
  switch (options_.strategy) {
    case Strategy::kRoundRobin:
      chosen = NextInTurn(among);
      break;
    case Strategy::kLeastConnections:
      chosen = LeastLoaded(among, best_latency_ns, now_ns);
      break;
    case Strategy::kWeighted:
      chosen = NextByWeight(among, best_latency_ns, now_ns);
      break;
  }
  next_ = chosen + 1;
  return chosen;
}

UpstreamChoice::Attempt UpstreamChoice::OnBegin(size_t index, TimeNs now_ns) {
  Upstream& upstream = upstreams_[index];
  ++upstream.begun;
  ++upstream.open;
  return upstream.breaker.Begin(now_ns);
}

void UpstreamChoice::OnReached(size_t index, Attempt& attempt) {
  upstreams_[index].breaker.OnReached(attempt);
}

void UpstreamChoice::OnConnected(size_t index, Attempt attempt, DurationNs latency_ns,
                                 TimeNs now_ns) {
  Upstream& upstream = upstreams_[index];
  upstream.breaker.OnSuccess(attempt);
  upstream.recent_failures = std::max(RecentFailures(upstream, now_ns) - 1, 0);
  upstream.outcome_ns = now_ns;
  AddLatency(upstream, latency_ns, now_ns);
}

void UpstreamChoice::OnFailed(size_t index, Attempt attempt, TimeNs now_ns) {
  Upstream& upstream = upstreams_[index];
  upstream.breaker.OnFailure(attempt, now_ns);
  upstream.recent_failures = std::min(RecentFailures(upstream, now_ns) + 1, kUpstreamMostFailures);
  upstream.outcome_ns = now_ns;
  ++upstream.failed;
  --upstream.open;
}

void UpstreamChoice::OnAbandoned(size_t index, Attempt attempt) {
  Upstream& upstream = upstreams_[index];
  upstream.breaker.OnAbandoned(attempt);
  --upstream.open;
}

void UpstreamChoice::OnEnded(size_t index) { --upstreams_[index].open; }

void UpstreamChoice::SetHealth(size_t index, bool up, std::optional<DurationNs> latency_ns,
                               TimeNs now_ns) {
  upstreams_[index].up = up;
  if (up) upstreams_[index].breaker.OnChecked(now_ns);
  if (latency_ns) AddLatency(upstreams_[index], *latency_ns, now_ns);
}

UpstreamFigures UpstreamChoice::Figures(size_t index, TimeNs now_ns) const {
  const Upstream& upstream = upstreams_[index];
  const Set usable = Usable(now_ns);
  const int64_t weight =
      usable[index] ? WeightNow(upstream, BestLatency(usable, now_ns), now_ns) : 0;
  return {.up = upstream.up,
          .breaker = upstream.breaker.StateAt(now_ns),
          .breaker_opened = upstream.breaker.times_opened(),
          .weight_now = static_cast<double>(weight) / kUpstreamWeightUnit,
          .open = upstream.open,
          .begun = upstream.begun,
          .failed = upstream.failed,
          .latency_ns = Latency(upstream, now_ns)};
}

int UpstreamChoice::RecentFailures(const Upstream& upstream, TimeNs now_ns) {
  const DurationNs forgotten = (now_ns - upstream.outcome_ns) / kUpstreamFailureKeptNs;
  const auto failures = static_cast<DurationNs>(upstream.recent_failures);
  return static_cast<int>(failures - std::min(failures, forgotten));
}

DurationNs UpstreamChoice::Latency(const Upstream& upstream, TimeNs now_ns) {
  return now_ns - upstream.measured_ns < kUpstreamLatencyKeptNs ? upstream.latency_ns : 0;
}

void UpstreamChoice::AddLatency(Upstream& upstream, DurationNs latency_ns, TimeNs now_ns) {
  const DurationNs before_ns = Latency(upstream, now_ns);
  latency_ns = std::max(latency_ns, DurationNs{1});
  upstream.latency_ns = before_ns == 0 ? latency_ns
                                       : before_ns - before_ns / kUpstreamLatencySmoothing +
                                             latency_ns / kUpstreamLatencySmoothing;
  upstream.measured_ns = now_ns;
}

UpstreamChoice::Set UpstreamChoice::Usable(TimeNs now_ns) const {
  Set usable;
  for (size_t index = 0; index < upstreams_.size(); ++index) {
    usable[index] = upstreams_[index].up && upstreams_[index].breaker.Allows(now_ns);
  }
  return usable;
}

DurationNs UpstreamChoice::BestLatency(const Set& of, TimeNs now_ns) const {
  DurationNs best_ns = 0;
  for (size_t index = 0; index < upstreams_.size(); ++index) {
    const DurationNs latency_ns = of[index] ? Latency(upstreams_[index], now_ns) : 0;
    if (latency_ns != 0 && (best_ns == 0 || latency_ns < best_ns)) best_ns = latency_ns;
  }
  return best_ns;
}

int64_t UpstreamChoice::WeightNow(const Upstream& upstream, DurationNs best_latency_ns,
                                  TimeNs now_ns) {
  const int64_t weight =
      (upstream.weight * kUpstreamWeightUnit) >> RecentFailures(upstream, now_ns);
  const DurationNs latency_ns = Latency(upstream, now_ns);
  // One that is not measured may be as good as the best.
  if (latency_ns == 0) return weight;
  const double share = static_cast<double>(best_latency_ns) / static_cast<double>(latency_ns);
  return static_cast<int64_t>(static_cast<double>(weight) *
                              std::clamp(share, kUpstreamLeastLatencyShare, 1.0));
}

size_t UpstreamChoice::NextInTurn(const Set& among) const {
  size_t index = next_ % upstreams_.size();
  while (!among[index]) index = (index + 1) % upstreams_.size();
  return index;
}

// The new connection counts, too: else all that have none open would be equals whatever their
// weight. Of equals the next in turn.
size_t UpstreamChoice::LeastLoaded(const Set& among, DurationNs best_latency_ns,
                                   TimeNs now_ns) const {
  std::optional<size_t> least;
  std::pair<bool, double> least_load;  // whether it has failed lately, then its share
  for (size_t step = 0; step < upstreams_.size(); ++step) {
    const size_t index = (next_ + step) % upstreams_.size();
    if (!among[index]) continue;
    const Upstream& upstream = upstreams_[index];
    const std::pair load(RecentFailures(upstream, now_ns) > 0,
                         static_cast<double>(upstream.open + 1) /
                             static_cast<double>(WeightNow(upstream, best_latency_ns, now_ns)));
    if (least && load >= least_load) continue;
    least = index;
    least_load = load;
  }
  return *least;
}

// Each earns its weight at every choice; who has most pays for all that was earned.
size_t UpstreamChoice::NextByWeight(const Set& among, DurationNs best_latency_ns, TimeNs now_ns) {
  int64_t earned = 0;
  std::optional<size_t> richest;
  for (size_t index = 0; index < upstreams_.size(); ++index) {
    if (!among[index]) continue;
    Upstream& upstream = upstreams_[index];
    const int64_t weight = WeightNow(upstream, best_latency_ns, now_ns);
    upstream.credit += weight;
    earned += weight;
    if (!richest || upstream.credit > upstreams_[*richest].credit) richest = index;
  }
  upstreams_[*richest].credit -= earned;
  return *richest;
}

std::optional<size_t> UpstreamChoice::LastResort(TimeNs now_ns, const Set& tried) const {
  for (size_t index = 0; index < upstreams_.size(); ++index) {
    if (!tried[index] && upstreams_[index].breaker.Allows(now_ns)) return index;
  }
  return std::nullopt;
}

}  // namespace braid
