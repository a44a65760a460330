// The sending half of a bond: what waits, which path it leaves over and when, and what is kept so
// that it can be sent again. Sans I/O: packets, reports and time go in, departures come out;
// whoever carries them out seals them. One thread.
//
//   Enqueue ─► interactive and sparse flows ─────────────────┐
//          └─► fair queue (FQ-CoDel) ─► planned for each path ┼─► Next ─► (sealed, sent) ─► Sealed
//   OnMissing ─► repairs, FecEncoder ─► parity ──────────────┘                               │
//        ▲                                                                                   ▼
//        └─────────────────── kept until it would be too late to send it again ◄─────────────┘
//
// Which path. A packet is planned for the path that delivers it first, with what is planned there
// already. So a quick path is planned for as long ahead as the slowest one takes longer, and what
// leaves over different paths arrives in order. For flows that keep nothing waiting see together.h.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "bonding/bond_memory.h"
#include "bonding/bond_messages.h"
#include "bonding/bond_options.h"
#include "bonding/fair_queue.h"
#include "bonding/fec_encoder.h"
#include "bonding/lane_numbers.h"
#include "bonding/rate_control.h"
#include "bonding/together.h"

namespace braid {

// One datagram that is to be sealed and sent now.
struct Departure {
  enum class What : uint8_t {
    kPacket,   // slot
    kProbe,    // probe
    kReport,   // report
    kMissing,  // missing
    kParity,   // slot, plain
  };
  What what = What::kPacket;
  uint8_t lane = 0;
  uint8_t path = 0;
  uint8_t copy = 0;            // for the header's path byte
  bool sealed_before = false;  // over another path, or as another copy
  bool numbered = false;       // it has `sequence` already; else it gets the lane's next one
  uint64_t sequence = 0;
  SlotId slot = kNoSlot;
  Bytes plain;
  const BondProbe* probe = nullptr;  // until the next call
  const BondReport* report = nullptr;
  const MissingReport* missing = nullptr;
};

class BondSender {
 public:
  enum class PathState : uint8_t {
    kDown,     // the session cannot use it
    kSilent,   // nothing comes back from it: not used, but asked again and again
    kAside,    // would do more harm than good
    kStandby,  // not needed
    kUp,
  };
  // In the order of the enumerators.
  static constexpr std::array<std::string_view, 5> kPathStateNames = {"down", "silent", "aside",
                                                                      "standby", "up"};

  struct Counters {
    uint64_t repairs = 0;
    uint64_t repairs_too_late = 0;  // or the packet was gone already
    uint64_t parity = 0;            // packets
    uint64_t copies = 0;            // of packets sent over several paths
    uint64_t express = 0;           // packets of interactive or sparse flows
    uint64_t gone_stale = 0;        // packets that no path took for so long that they were dropped
    uint64_t slab_full = 0;  // packets dropped because the worker's memory for bonds was used up
  };

  // `bond` tells it from others in the same memory. Memory and numbers outlive it.
  BondSender(BondMemory& memory, LaneNumbers& numbers, uint16_t bond)
      : memory_(memory), numbers_(numbers), bond_(bond), fec_(memory) {}
  ~BondSender() { Clear(); }
  BondSender(const BondSender&) = delete;
  BondSender& operator=(const BondSender&) = delete;

  void SetOptions(const BondOptions& options) {
    options_ = options;
    fec_.SetOptions(options);
  }
  // Whether the other end knows what to do with parity.
  void SetParityUnderstood(bool understood) { fec_.SetUnderstood(understood); }
  void SetPath(uint8_t path, bool usable, const BondPathOptions& options, TimeNs now_ns);

  // A slot for a packet of `bytes`, made free if need be. kNoSlot: the packet is dropped, counted.
  SlotId TakeSlot(size_t bytes);
  // Something was sent past the bond: what becomes of it is to be watched.
  void NoteDirect(TimeNs now_ns);
  // The slot's packet, bytes, flags, flow_hash and traffic_class are set.
  void Enqueue(SlotId id, TimeNs now_ns);

  // What the other end tells of what it has received.
  void OnReport(const BondReport& report, TimeNs now_ns);
  void OnMissing(const MissingReport& missing, TimeNs now_ns);
  // What this end tells of what it has received: goes out next, over two paths if there are two.
  void SendReport(const BondReport& report);
  void SendMissing(const MissingReport& missing);

  // The next departure; nothing before NextDue(). Each one is followed by Sealed(), or by
  // NotSealed() when nothing could be sealed.
  bool Next(TimeNs now_ns, Departure& departure);
  void Sealed(const Departure& departure, uint64_t sequence, uint32_t path_seq,
              size_t datagram_bytes, TimeNs now_ns);
  void NotSealed(const Departure& departure);
  TimeNs NextDue() const { return next_due_ns_; }

  // The session ends, or the other end has begun anew: forgets everything that waits or was sent.
  void Clear();

  bool active(TimeNs now_ns) const { return now_ns < active_until_ns_; }
  TimeNs active_until_ns() const { return active_until_ns_; }
  // No path that carries bulk limits what is sent; one of those that are up does.
  bool unconstrained() const;
  bool constrained() const;
  size_t usable_paths() const;
  BondingMode mode() const { return options_.mode; }
  // Nothing is likely to limit any path that is up.
  bool free() const;
  // Nothing waits, and for so long nothing was sent.
  DurationNs pause_ns(TimeNs now_ns) const;
  // A path that was found to carry whatever is sent no longer does.
  void Relearn(TimeNs now_ns);
  PathState state(uint8_t path) const { return paths_[path].state; }
  bool carries(uint8_t path) const { return CarriesBulk(paths_[path]); }
  DurationNs hold_ns(TimeNs now_ns) const { return HoldTime() + RecoveryTime(now_ns); }
  // All that is sent is to go through the bond, whatever its paths carry.
  bool all_bonded() const { return options_.mode == BondingMode::kRedundant || fec_.always(); }
  const RateControl& rate(uint8_t path) const { return paths_[path].rate; }
  const FairQueue& queue() const { return queue_; }
  // In the queue, or planned.
  size_t waiting_packets() const { return queue_.packets() + planned_packets_; }
  size_t waiting_bytes() const { return queue_.bytes() + planned_bytes_; }
  Together::Order order(TimeNs now_ns) const { return together_.order(now_ns); }
  const FecEncoder& fec() const { return fec_; }
  const Counters& counters() const { return counters_; }
  uint64_t sent_bytes(uint8_t path) const { return paths_[path].sent_bytes; }

 private:
  struct Path {
    bool usable = false;
    BondPathOptions options;
    PathState state = PathState::kDown;
    RateControl rate;
    TimeNs credit_ns = 0;      // may be sent over from this time on
    SlotList planned;          // numbered, to leave over it in this order
    size_t planned_bytes = 0;  // on the link
    uint64_t sent_bytes = 0;
    TimeNs next_probe_ns = 0;

    // Whether it carries bulk, and what was found out about that.
    bool engaged = false;
    TimeNs engaged_until_ns = 0;
    bool learning = false;  // what it carries is not known: it is given copies only
    TimeNs trial_until_ns = 0;
    TimeNs next_trial_ns = 0;

    // Liveness.
    uint32_t reported_datagrams = 0;
    uint32_t sent_datagrams = 0;
    uint32_t sent_when_heard = 0;  // so many had left when it was last heard of
    int unheard_reports = 0;       // since then
    // By the other end's clock: it has everything that would have come until then.
    uint32_t received_until_us = 0;
    uint32_t reported_us = 0;  // when the newest report was made
    TimeNs heard_ns = 0;       // the last report of something new
    TimeNs silent_since_ns = 0;
    TimeNs back_since_ns = 0;  // 0: still silent
    TimeNs last_outage_ns = 0;
    int outages = 0;  // in a row
  };

  // Tells sparse flows from others, and where a flow is pinned to.
  struct FlowUse {
    uint32_t hash = 0;
    uint32_t bytes = 0;
    uint16_t packets = 0;
    uint8_t path = kMaxPaths;  // kMaxPaths: none
    TimeNs window_ns = 0;
    TimeNs bulk_until_ns = 0;
  };

  struct Repair {
    SlotId slot;
    TimeNs not_before_ns;
    int sendings;      // that are still to be done
    uint8_t not_over;  // the path that the last one took; kMaxPaths: none
  };

  struct LaneUse {
    uint64_t next_sequence = 0;
    TimeNs used_ns = 0;
  };

  static constexpr size_t kLinkBytesAround =
      40 + RateControl::kLinkOverheadBytes;  // a packet, sealed
  // What a path could have sent while nothing waited is lost, but for a train.
  static constexpr DurationNs kTrainNs = kMillisecondNs;
  // A path that is heard again within less was not down.
  static constexpr DurationNs kFalseAlarmNs = 150 * kMillisecondNs;
  // A repair over a path that loses more goes over another one, too.
  static constexpr double kRepairTwiceLoss = 0.002;
  static constexpr size_t kFlowUses = 256;
  static constexpr size_t kMaxRepairs = 1024;
  static constexpr size_t kMaxMissing = 8;

  using PathOrder = std::array<uint8_t, kMaxPaths>;

  static uint8_t Bit(uint8_t path) { return static_cast<uint8_t>(1 << path); }

  // Paths.
  void LookAtPaths(TimeNs now_ns);
  void LookForSilence(uint8_t id, TimeNs now_ns);
  void ComeBack(Path& path, TimeNs now_ns);
  void OnSilence(uint8_t id, TimeNs now_ns);
  TimeNs ReceivedUntil(const Path& path, TimeNs now_ns) const;
  void Engage(TimeNs now_ns);
  void LookTogether(const PathOrder& order, size_t used, TimeNs now_ns);
  void NoteBacklog(TimeNs now_ns);
  void NoteDemand(TimeNs now_ns);
  // How much later than the other it delivers, without queues; negative: sooner.
  static int64_t LaterNs(const Path& path, const Path& than) {
    return path.rate.base_one_way_ns() - than.rate.base_one_way_ns();
  }
  bool Harms(const Path& path, const Path& first, double faster_bytes_per_s) const;
  bool Alive(const Path& path) const;
  size_t OrderPaths(PathOrder& order, TimeNs now_ns);
  double RateOf(const Path& path) const;
  double WeightOf(const Path& path) const;
  // The path that delivers a packet soonest which leaves now; kMaxPaths when there is none.
  uint8_t QuickestPath(TimeNs now_ns, uint8_t except) const;
  double PacingOf(const Path& path) const;
  void Charge(Path& path, size_t bytes, TimeNs now_ns);
  DurationNs ProbeEvery() const;
  DurationNs ProbeEvery(const Path& path) const;

  void BecomeActive(TimeNs now_ns);
  bool Busy(TimeNs now_ns) const;
  bool NextProbe(TimeNs now_ns, Departure& departure);
  bool NextFeedback(TimeNs now_ns, Departure& departure);
  bool NextCopy(TimeNs now_ns, Departure& departure);
  bool NextRepair(TimeNs now_ns, Departure& departure);
  bool NextExpress(TimeNs now_ns, Departure& departure);
  bool NextParity(TimeNs now_ns, Departure& departure);
  bool NextBulk(TimeNs now_ns, Departure& departure);
  void Plan(TimeNs now_ns);
  void PlanPinned(TimeNs now_ns);
  uint8_t PathToDepart(TimeNs now_ns);
  uint8_t PathToPlan(TimeNs now_ns) const;
  uint8_t FreePath(Together::Order order, TimeNs now_ns) const;
  TimeNs ReadyNs(const Path& path, TimeNs now_ns) const;
  enum class Where : uint8_t { kFirst, kLast };
  void Number(SlotId id, uint8_t path, TimeNs now_ns);
  void AddToPlan(Path& path, SlotId id, Where where);
  SlotId TakePlanned(Path& path, Where where = Where::kFirst);
  bool DepartPlanned(uint8_t path, Departure& departure);
  void PlanElsewhere(uint8_t path, TimeNs now_ns);
  void Rescue(uint8_t path, TimeNs sent_since_ns, TimeNs now_ns);
  bool CarriesBulk(const Path& path) const { return path.engaged && !path.learning; }
  uint8_t PinnedPath(uint32_t flow_hash);
  void SetDue(TimeNs now_ns);

  bool IsSparse(const Slot& slot, TimeNs now_ns);
  uint64_t NextSequence(const Path& path, uint8_t lane) const;
  bool SendAgain(SlotId id, uint8_t path, Departure& departure);
  void QueueRepair(SlotId id, TimeNs not_before_ns);
  void Expire(TimeNs now_ns);
  void Forget(SlotId id);
  void Discard(SlotId id);
  void DropWaiting();
  DurationNs Spread() const;
  DurationNs LeastRtt() const;
  DurationNs HoldTime() const;
  DurationNs RepairTime() const;
  DurationNs RecoveryTime(TimeNs now_ns) const;
  bool RepairedInTime(const Slot& slot) const;
  void Protect(SlotId id, uint8_t path, bool copied, TimeNs now_ns);
  uint8_t PathForParity(TimeNs now_ns) const;

  BondMemory& memory_;
  LaneNumbers& numbers_;
  const uint16_t bond_;
  BondOptions options_;
  std::array<Path, kMaxPaths> paths_;
  double heaviest_ = 1;
  uint8_t preferred_ = kMaxPaths;
  TimeNs preferred_since_ns_ = 0;
  FairQueue queue_;
  size_t planned_packets_ = 0;
  size_t planned_bytes_ = 0;
  FecEncoder fec_;
  SlotList express_;
  SlotList sent_;             // those that are kept, in the order of their sending
  DurationNs rescue_ns_ = 0;  // that what was rescued takes longer than a repair
  TimeNs rescue_until_ns_ = 0;
  std::array<FlowUse, kFlowUses> flow_uses_{};

  std::array<Repair, kMaxRepairs> repairs_;
  size_t repairs_first_ = 0;
  size_t repairs_used_ = 0;

  // The packet that was just sent is to be sent over these paths too.
  SlotId copy_of_ = kNoSlot;
  uint8_t copy_paths_ = 0;

  BondProbe probe_;
  BondReport report_;
  int report_sendings_ = 0;  // that are still to be done
  std::array<MissingReport, kMaxMissing> missing_;
  size_t missing_first_ = 0;
  size_t missing_used_ = 0;
  int missing_sendings_ = 0;  // of the first one
  uint8_t feedback_over_ = kMaxPaths;

  std::array<LaneUse, kBondLanes> lanes_;
  // The least that waited in this and in the last period: what stays when bursts have gone.
  std::array<size_t, 2> least_backlog_{};
  TimeNs backlog_period_ns_ = 0;
  uint64_t demand_bytes_ = 0;  // enqueued in this window, as on the link
  TimeNs demand_window_ns_ = 0;
  double demand_bytes_per_s_ = 0;
  double goodput_bytes_per_s_ = 0;

  Together together_;
  uint8_t together_paths_ = 0;  // bits
  uint8_t quickest_ = 0;
  uint32_t newest_report_us_ = 0;
  bool has_report_ = false;
  TimeNs active_until_ns_ = 0;
  TimeNs last_packet_ns_ = 0;
  TimeNs next_look_ns_ = 0;
  TimeNs next_due_ns_ = 0;
  Counters counters_;
};

}  // namespace braid
