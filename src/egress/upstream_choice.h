// Which upstream of a group a new flow leaves through. Owns what is known of each: its health, its
// latency, its connections and its circuit breaker. Without I/O or a clock of its own; one thread.
//
// A flow goes to those that are up and whose breaker allows it, by the group's strategy. Where
// there is none of them that it has not tried, one that is only said to be down is tried in its
// turn: better than to refuse the flow unheard.
//
// What an upstream's weight is worth now:
//
//   weight × 1/2 for each of its recent failures, at most three
//          × best latency of the group / its own, no less than 1/8
//
// A connection that fails is one more recent failure; each that works, and each half minute since
// either, is one less. By least connections an upstream with recent failures comes after all
// without one: it would be the best just because what fails is not open.
//
// Latencies are smoothed as round-trip times are by TCP (RFC 6298: an eighth of each new one
// counts), and are forgotten after a minute without one: what was slow once would else never be
// seen to be fast again.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "egress/circuit_breaker.h"

namespace braid {

struct UpstreamFigures {
  bool up = true;
  CircuitBreaker::State breaker = CircuitBreaker::State::kClosed;
  uint64_t breaker_opened = 0;  // times
  double weight_now = 0;        // 0 while it is down, or its breaker allows nothing
  uint64_t open = 0;            // connections, also those under way
  uint64_t begun = 0;
  uint64_t failed = 0;
  DurationNs latency_ns = 0;  // 0: not known
};

class UpstreamChoice {
 public:
  static constexpr size_t kMaxUpstreams = 64;
  using Set = std::bitset<kMaxUpstreams>;  // of upstreams, by index
  using Attempt = CircuitBreaker::Attempt;

  enum class Strategy : uint8_t {
    kRoundRobin,        // each in turn, whatever its weight
    kLeastConnections,  // that has the fewest for its weight, with this one; see above
    kWeighted,          // as often as its weight says, evenly spread: smooth, as in nginx
  };

  struct Options {
    Strategy strategy = Strategy::kRoundRobin;
    CircuitBreaker::Options breaker;

    bool operator==(const Options&) const = default;
  };

  // A weight, 1 to 1000, for each of at most kMaxUpstreams. Each is up until SetHealth() says
  // otherwise.
  UpstreamChoice(const Options& options, const std::vector<int>& weights);

  // None of `tried`, through which the flow did not get. Nothing: it is to be refused. OnBegin()
  // follows before the next choice.
  std::optional<size_t> Choose(TimeNs now_ns, const Set& tried);

  // A flow's connection through the upstream begins. It works, fails, or is given up by the
  // application, and ends when it worked. The attempt goes with it.
  Attempt OnBegin(size_t index, TimeNs now_ns);
  // It has been greeted; how long it takes now is its target's.
  void OnReached(size_t index, Attempt& attempt);
  void OnConnected(size_t index, Attempt attempt, DurationNs latency_ns, TimeNs now_ns);
  void OnFailed(size_t index, Attempt attempt, TimeNs now_ns);
  void OnAbandoned(size_t index, Attempt attempt);
  void OnEnded(size_t index);

  // What somebody who probes it says; the latency, if known, of connecting through it.
  void SetHealth(size_t index, bool up, std::optional<DurationNs> latency_ns, TimeNs now_ns);

  size_t size() const { return upstreams_.size(); }
  UpstreamFigures Figures(size_t index, TimeNs now_ns) const;

 private:
  struct Upstream {
    int weight = 1;
    CircuitBreaker breaker;
    bool up = true;
    uint64_t open = 0, begun = 0, failed = 0;
    int recent_failures = 0;  // as they were at
    TimeNs outcome_ns = 0;
    DurationNs latency_ns = 0;  // as it was at
    TimeNs measured_ns = 0;
    int64_t credit = 0;  // towards its next turn, in weights as WeightNow() gives them
  };

  static int RecentFailures(const Upstream& upstream, TimeNs now_ns);
  // 0: not known.
  static DurationNs Latency(const Upstream& upstream, TimeNs now_ns);
  static void AddLatency(Upstream& upstream, DurationNs latency_ns, TimeNs now_ns);

  Set Usable(TimeNs now_ns) const;
  // The least that is known.
  DurationNs BestLatency(const Set& of, TimeNs now_ns) const;
  static int64_t WeightNow(const Upstream& upstream, DurationNs best_latency_ns, TimeNs now_ns);

  // Of those that there are.
  size_t NextInTurn(const Set& among) const;
  size_t LeastLoaded(const Set& among, DurationNs best_latency_ns, TimeNs now_ns) const;
  size_t NextByWeight(const Set& among, DurationNs best_latency_ns, TimeNs now_ns);
  std::optional<size_t> LastResort(TimeNs now_ns, const Set& tried) const;

  const Options options_;
  std::vector<Upstream> upstreams_;
  size_t next_ = 0;  // whose turn it is
};

}  // namespace braid
