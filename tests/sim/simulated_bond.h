// Two ends of a bond, the links between them, and the traffic of the hosts behind them.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "linkem/link.h"
#include "sim/bond_end.h"
#include "sim/event_loop.h"
#include "sim/flow.h"

namespace braid::sim {

class SimulatedBond {
 public:
  struct Settings {
    uint64_t seed = 1;
    BondOptions options;  // of both ends
    size_t slots = kBondSlots;
    DurationNs most_late_ns = 500 * kMicrosecondNs;
    std::array<DurationNs, 2> clock_ahead_ns = {0, 12'345 * kSecondNs};
    bool bare = false;      // no bond: packets go over the first link as they are
    double duplicated = 0;  // share of the datagrams that the network brings twice
  };

  explicit SimulatedBond(const Settings& settings);
  ~SimulatedBond();

  // Both directions alike.
  void AddPath(const linkem::LinkSettings& link, const BondPathOptions& options = {});
  void SetPath(uint8_t path, bool usable, const BondPathOptions& options = {});
  // Another path has this id from now on.
  void ForgetPath(uint8_t path);
  void ChangeLink(uint8_t path, const linkem::LinkSettings& link);
  void ChangeLink(uint8_t path, int from_end, const linkem::LinkSettings& link);
  void SetDown(uint8_t path, bool down);
  void SetOptions(const BondOptions& options);
  void SetCannotSeal(double share);
  // An end has begun anew, and the other has noticed.
  void Restart(int end);

  // FlowKind(Hosts&, number, …)
  template <typename FlowKind, typename... Arguments>
  FlowKind& AddFlow(Arguments&&... arguments) {
    auto flow = std::make_unique<FlowKind>(hosts_, static_cast<uint32_t>(flows_.size()),
                                           std::forward<Arguments>(arguments)...);
    FlowKind& added = *flow;
    flows_.push_back(std::move(flow));
    return added;
  }
  void StopFlows();

  void Run(DurationNs for_ns) { loop_.RunUntil(loop_.now_ns() + for_ns); }
  // Once all traffic has stopped: nothing may be left behind. Notes violations.
  void CheckNothingIsLeft();

  EventLoop& loop() { return loop_; }
  TimeNs now_ns() const { return loop_.now_ns(); }
  Violations& violations() { return violations_; }
  const BondEnd& end(int number) const { return *ends_[static_cast<size_t>(number)]; }
  uint8_t paths() const { return paths_; }
  const linkem::LinkSettings& link_settings(uint8_t path, int from_end) const;
  const linkem::LinkCounters& link_counters(uint8_t path, int from_end) const;
  const std::vector<std::unique_ptr<Flow>>& flows() const { return flows_; }

 private:
  // One direction.
  struct Way {
    Way(EventLoop& loop, const linkem::LinkSettings& settings, std::function<void()> on_due)
        : link(settings, loop.random()), due(loop, std::move(on_due)) {}

    linkem::Link<Frame> link;
    Timer due;
  };

  Way& way(uint8_t path, int from_end) const { return *ways_[path][static_cast<size_t>(from_end)]; }
  void Send(int from_end, const InnerPacket& packet);
  void Enter(int from_end, Frame&& frame);
  void Arrive(uint8_t path, int from_end);
  void Deliver(int at_end, const InnerPacket& packet);

  EventLoop loop_;
  Violations violations_;
  Hosts hosts_;
  uint8_t paths_ = 0;
  uint32_t session_ = 1;
  const bool bare_;
  const double duplicated_;
  std::array<std::array<std::unique_ptr<Way>, 2>, kMaxPaths> ways_;
  std::array<std::unique_ptr<BondEnd>, 2> ends_;
  std::vector<std::unique_ptr<Flow>> flows_;
};

}  // namespace braid::sim
