// What a bond shows of itself: written by its worker now and then, read by the slow path.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/limits.h"
#include "bonding/bond_options.h"

namespace braid {

template <typename T>
class Gauge {
 public:
  void Set(T value) { value_.store(value, std::memory_order_relaxed); }
  T Get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<T> value_{};
};

struct BondGauges {
  struct Path {
    Gauge<uint8_t> state;                // BondSender::PathState
    Gauge<uint8_t> phase;                // RateControl::Phase
    Gauge<bool> carries;                 // bulk, besides what is sent over it for other reasons
    Gauge<uint64_t> bytes_per_s;         // that it is found to carry
    Gauge<uint64_t> pacing_bytes_per_s;  // that it is sent over at
    Gauge<uint64_t> goodput_bytes_per_s;
    Gauge<uint64_t> rtt_ns;
    Gauge<uint64_t> queue_ns;
    Gauge<uint64_t> jitter_ns;
    Gauge<int64_t> one_way_ns;  // against the quickest path
    Gauge<int64_t> one_way_trend_ns_per_s;
    Gauge<double> loss;
  };
  std::array<Path, kMaxPaths> paths;

  Gauge<bool> bonded;  // what is sent to the peer goes through it
  Gauge<BondingMode> mode;
  Gauge<uint64_t> queued_packets;
  Gauge<uint64_t> queued_bytes;
  Gauge<uint64_t> codel_drops;
  Gauge<uint64_t> codel_marks;
  Gauge<uint64_t> overflows;
  Gauge<uint64_t> gone_stale;
  Gauge<uint64_t> express_packets;
  Gauge<uint64_t> copies;
  Gauge<uint64_t> repairs;
  Gauge<uint64_t> repairs_too_late;
  Gauge<uint64_t> parity_sent;
  Gauge<uint64_t> parity_received;
  Gauge<uint64_t> recovered;
  Gauge<uint64_t> unrecoverable;
  Gauge<uint64_t> hold_ns;       // that the other end is asked to wait for what is missing
  Gauge<uint64_t> held_packets;  // now
  Gauge<uint64_t> held_packets_total;
  Gauge<uint64_t> held_ns_total;
  Gauge<uint64_t> longest_hold_ns;
  Gauge<uint64_t> given_up;
  Gauge<uint64_t> late;
  Gauge<uint64_t> lost;
  Gauge<uint64_t> duplicates;
};

}  // namespace braid
