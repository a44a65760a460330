// What each path carries and loses, measured over the last second from the workers' counters.
#pragma once

#include <array>
#include <vector>

#include "absl/functional/function_ref.h"
#include "slowpath/worker_group.h"

namespace braid {

class PathMeters {
 public:
  struct Reading {
    double tx_bytes_per_s = 0;
    double rx_bytes_per_s = 0;
    double rx_loss = 0;  // share of what the peer sent that did not arrive, smoothed
  };

  explicit PathMeters(size_t peers) : meters_(peers) {}

  using TotalsOf = absl::FunctionRef<WorkerGroup::PathTotals(PeerSlot peer, int path)>;

  // About once a second.
  void Sample(TotalsOf totals_of, TimeNs now_ns);
  const Reading& Of(PeerSlot peer, size_t path) const { return meters_[peer][path].reading; }

 private:
  struct Meter {
    WorkerGroup::PathTotals last;
    Reading reading;
  };
  std::vector<std::array<Meter, kMaxPaths>> meters_;
  TimeNs sampled_ns_ = 0;
};

}  // namespace braid
