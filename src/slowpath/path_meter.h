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

  // How many paths of a peer are looked at: none of one without a session, which carries nothing.
  using PathsOf = absl::FunctionRef<size_t(PeerSlot peer)>;
  using TotalsOf = absl::FunctionRef<WorkerGroup::PathTotals(PeerSlot peer, int path)>;

  // About once a second.
  void Sample(PathsOf paths_of, TotalsOf totals_of, TimeNs now_ns);
  const Reading& Of(PeerSlot peer, size_t path) const { return meters_[peer].paths[path].reading; }

 private:
  struct Meter {
    WorkerGroup::PathTotals last;
    Reading reading;

    void Measure(const WorkerGroup::PathTotals& now, double elapsed_s);
  };
  struct OfPeer {
    std::array<Meter, kMaxPaths> paths;
    size_t sampled = 0;  // so many of them, the last time
  };
  std::vector<OfPeer> meters_;
  TimeNs sampled_ns_ = 0;
};

}  // namespace braid
