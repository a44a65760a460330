// The bonds of one worker: a session whose paths limit what it can send, or that has several, is
// sent by one worker alone, through a bond (bonding/bond_sender.h). This ties that to the packet
// path: slots are filled from TUN, departures sealed into trains, datagrams of a bond's lanes given
// to its receiver, messages written and read.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/reserved_pool.h"
#include "base/timer_heap.h"
#include "bonding/bond_memory.h"
#include "bonding/bond_receiver.h"
#include "bonding/bond_sender.h"
#include "fastpath/bond_gauges.h"
#include "fastpath/bond_wire.h"
#include "fastpath/class_rules.h"
#include "fastpath/segmenter.h"
#include "fastpath/shaper.h"
#include "fastpath/trains.h"
#include "fastpath/worker_state.h"

namespace braid {

// A peer's bond at this end. Its lanes are beside those of the workers; all of them come over one
// socket a path.
struct Bond final : public LaneNumbers {
  struct Lane {
    LaneSender sender;
    LaneReceiver receiver;
  };

  Bond(BondMemory& memory, PeerSlot peer)
      : sender(memory, *this, static_cast<uint16_t>(peer)),
        receiver(memory, static_cast<uint16_t>(peer)) {}

  LaneRef lane(uint8_t id) {
    Lane& lane = lanes[id - kFirstBondLane];
    return {id, &lane.sender, &lane.receiver, &sources};
  }

  // Another path has this id from now on.
  void ForgetPath(uint8_t path) {
    for (Lane& lane : lanes) lane.receiver.ForgetPath(path);
    receiver.ForgetPath(path);
    sources.paths[path] = {};
  }

  Sources sources;
  uint64_t generation = 0;  // of the peer's counters
  BondSender sender;
  BondReceiver receiver;
  std::array<Lane, kBondLanes> lanes;
  TimeNs refused_ns = 0;  // data of it was last not opened, since its peer floods
  TimeNs shown_ns = 0;
  BondGauges gauges;

 private:
  uint64_t Take(uint8_t lane) override {
    return lanes[lane - kFirstBondLane].sender.TakeSequence();
  }
};

class Bonds {
 public:
  Bonds(WorkerState& state, Trains& trains);

  // The peer's, from what is reserved if it has none yet.
  Bond& Take(PeerSlot peer);
  Bond* Find(PeerSlot peer) { return bonds_[peer]; }

  // What the slow path has said of a session's paths is news.
  void OnPathsChanged(PeerSlot peer, Session& session);
  void SetOptions(const BondOptions& options);
  // nullptr: there are none.
  void SetClassRules(const ClassRules* rules) { class_rules_ = rules; }
  // Of what is sent. All that goes to a peer with a limit goes through its bond, and waits here
  // before it does. nullptr: there are none.
  void SetLimits(ThrottleWay* way);
  // The peer wants to be sent to in another mode than the others, or no longer.
  void SetMode(PeerSlot peer, std::optional<BondingMode> mode);
  // The session's keys are gone.
  void OnSessionEnd(PeerSlot peer);
  // The peer is no more; the next of this slot has nothing of its bond.
  void End(PeerSlot peer);

  // The peer was sent more than a little past its bond.
  void NoteDirect(PeerSlot peer);
  // Whether what is sent to a peer that knows no bonds, and so has no queue, is within its limits.
  bool Police(PeerSlot peer, size_t bytes) { return shaper_.Police(peer, bytes, state_.now_ns); }
  // The packet that the segmenter has begun with, cut.
  void Enqueue(PeerSlot peer, Session& session, Segmenter& segmenter);

  // An opened message of a bond's lane; `wall_ns`: see Incoming.
  ControlVerdict OnMessage(PeerSlot peer, uint8_t path, Bytes plain, uint64_t wall_ns);

  // The bond is to be looked at before this batch ends.
  void Touch(PeerSlot peer) { timers_.Set(peer, state_.now_ns); }
  TimeNs NextDue() const { return std::min(timers_.due_ns(), shaper_.NextDue()); }
  // Sends what may leave. What the bonds' receivers then have to deliver is told by
  // `deliver(peer, bond)`.
  template <typename Deliver>
  void Run(Deliver&& deliver);

  PacketSlab& slab() { return memory_.slab; }
  // How long packets of the peer may wait for a limit.
  Shaper::Delays DelaysOf(PeerSlot peer) const;

  // For the slow path, at any time: nullptr when the peer has no bond here.
  const BondGauges* GaugesOf(PeerSlot peer) const {
    const Bond* bond = shown_[peer].load(std::memory_order_acquire);
    return bond == nullptr ? nullptr : &bond->gauges;
  }
  const ShaperGauges* ShaperGaugesOf(PeerSlot peer) const { return shaper_.GaugesOf(peer); }

 private:
  static constexpr DurationNs kShowEveryNs = 20 * kMillisecondNs;

  TrafficClass ClassOf(const Segmenter& segmenter) const;
  void ReleaseShaped();
  void ApplyOptions(PeerSlot peer, Bond& bond);
  void SendAll(PeerSlot peer, Bond& bond);
  bool Send(Session& session, Bond& bond, const Departure& departure);
  void Review(PeerSlot peer, Bond& bond);
  void CountAllLanes(PeerSlot peer, BondReport& report) const;
  void SetTimer(PeerSlot peer, const Bond& bond);
  void Show(PeerSlot peer, Bond& bond);
  // Whether all workers are to send to this peer through its bond, or each by itself.
  void SetBonded(PeerSlot peer, bool bonded) {
    state_.bonded[peer].store(bonded, std::memory_order_relaxed);
  }

  WorkerState& state_;
  Trains& trains_;
  BondMemory memory_;
  BondOptions options_;
  const ClassRules* class_rules_ = nullptr;
  std::vector<std::optional<BondingMode>> modes_;  // by peer: another than that of the options
  ReservedPool<Bond> pool_;
  std::vector<Bond*> bonds_;  // by peer
  std::vector<std::atomic<const Bond*>> shown_;
  TimerHeap timers_;
  Shaper shaper_;
};

template <typename Deliver>
void Bonds::Run(Deliver&& deliver) {
  if (shaper_.NextDue() <= state_.now_ns) ReleaseShaped();
  // Each bond at most once a batch.
  while (timers_.due_ns() <= state_.now_ns) {
    const PeerSlot peer = timers_.first();
    Bond& bond = *bonds_[peer];
    deliver(peer, bond);
    SendAll(peer, bond);
    SetTimer(peer, bond);
    Review(peer, bond);
    if (state_.now_ns >= bond.shown_ns + kShowEveryNs) Show(peer, bond);
  }
}

}  // namespace braid
