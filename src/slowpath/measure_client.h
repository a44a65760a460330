// The asking end of one measurement: sends the request, is the other half of the load, and puts
// together what both ends have counted.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "slowpath/measure_protocol.h"

namespace braid {

// What one direction came to, as its receiver saw it.
struct DirectionResult {
  double mbps = 0;  // TCP or UDP payload
  uint64_t datagrams_sent = 0;
  uint64_t datagrams_received = 0;
  uint64_t datagrams_lost = 0;
  uint64_t datagrams_reordered = 0;
  uint64_t datagrams_doubled = 0;
  double datagrams_per_s = 0;  // received

  double loss() const {  // 0 … 1
    return datagrams_sent == 0
               ? 0
               : static_cast<double>(datagrams_lost) / static_cast<double>(datagrams_sent);
  }
};

struct LatencyResult {
  uint64_t probes_sent = 0;
  uint64_t probes_answered = 0;
  double min_ms = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double max_ms = 0;

  double loss() const {  // of both directions together, 0 … 1
    return probes_sent == 0
               ? 0
               : 1 - static_cast<double>(probes_answered) / static_cast<double>(probes_sent);
  }
};

struct MeasureResult {
  MeasurePlan plan;
  DirectionResult up;
  DirectionResult down;
  LatencyResult latency;
};

// One second of a measurement that goes on.
struct MeasureProgress {
  int second = 0;  // from 1
  double up_mbps = 0;
  double down_mbps = 0;
  double loss = 0;  // of the load's datagrams in both directions, or of the probes where it is TCP
  double p50_ms = 0;
  double p99_ms = 0;
  uint64_t answers = 0;  // that the latencies are of
};

struct MeasureTarget {
  Endpoint at;
  std::string device;      // that everything goes through; empty: as the routes say
  std::string public_key;  // that the other end must have; empty: any
  int tcp_threads = 1;
};

struct MeasureHooks {
  std::function<void(const MeasureProgress&)> on_second;
  int stop_fd = -1;  // becomes readable when the measurement is to end now
  // Ahead of an error that ends a measurement which had begun: what there was until the other end
  // was last heard. Its plan tells how long that was.
  std::function<void(const MeasureResult&)> on_cut_short;
};

// Errors are one line each: Unavailable and DeadlineExceeded when nobody answers there,
// FailedPrecondition when another one than the public key's owner does, ResourceExhausted when the
// other end is busy, Aborted when it broke off in the middle, Cancelled when stop_fd said so.
absl::StatusOr<MeasureResult> Measure(const MeasureTarget& target, const MeasurePlan& plan,
                                      const MeasureHooks& hooks = {});

}  // namespace braid
