// What of one worker's traffic leaves past the tunnel, by rule: decides for each new flow, blocks,
// and turns the packets of TCP flows round into this machine's own TCP, where a relay accepts them
// (egress/tcp_relay.h).
//
//   application ── S:s → D:d ──► TUN ──► here ──► N:p → L:l ──► TUN ──► the kernel's TCP, the relay
//   application ◄─ D:d → S:s ─── TUN ◄── here ◄── L:l → N:p ─── TUN ◄── the kernel's TCP, the relay
//
// N is a made-up neighbour of the device, one for each worker, and p the flow's own port there; L:l
// is where the worker's relay listens. Super-packets are turned round whole, checksums patched. Of
// flows that last the kernel does this by itself (flow_shortcuts.h).
//
// A flow's SYN is held until the slow path has said whether it gets there, so that its initiator
// sees what it would see without this: a connection, a reset, an ICMP error, or nothing. Where too
// many wait, one more takes the place of the one that has waited longest, if that is a second: it
// asks again if it still wants to. UDP goes to a relay of its own (egress/udp_relay.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/counters.h"
#include "fastpath/egress_options.h"
#include "fastpath/flow_shortcuts.h"
#include "fastpath/held_syns.h"
#include "fastpath/learned_names.h"
#include "fastpath/segmenter.h"
#include "fastpath/tcp_sessions.h"
#include "fastpath/tun_answers.h"
#include "fastpath/worker_state.h"

namespace braid {

class Egress {
 public:
  Egress(WorkerState& state, TunAnswers& answers, const EgressOptions& options);

  // The rules from now on, and which names addresses are known by, where that matters; they outlive
  // it, or the next call. Flows that are there stay where they are. nullptr: there are none.
  void SetRules(const EgressRules* rules, const LearnedNames* names);

  // Takes the packet, which the segmenter has begun with, if it is one for here: it goes on, is
  // handed over, or dropped and counted. Else false. `handed` when another worker read it.
  bool Take(PacketPtr& packet, const Segmenter& segmenter, bool handed);
  // What became of a flow that was told of by kTcpBegins.
  void OnVerdict(const TcpVerdict& verdict);

  // Lets ports go that have rested.
  void Expire();
  TimeNs NextDue() const;

  // Settles what was written, once the backend has flushed.
  void AfterFlush();

  // Flows that are there or held, at any time.
  uint64_t tcp_sessions() const { return tcp_sessions_.load(std::memory_order_relaxed); }

 private:
  using Place = TcpSessions::Place;
  static constexpr Place kNowhere = TcpSessions::kNowhere;
  static constexpr size_t kMaxHeld = 64;       // packets turned round between two flushes
  static constexpr int kMaxHeldSyns = 12'000;  // of all workers, which do not have the same shares
  static constexpr HeldSyns::Slot kNoSyn = HeldSyns::kNone;
  static constexpr DurationNs kHeldAtLeastNs = kSecondNs;  // as TCP waits before it asks again
  static constexpr uint8_t kTurnedBeforeShortcut = 16;
  // Decisions that are remembered: sets of so many, of which the one that was needed longest ago
  // makes room. A power of two.
  static constexpr size_t kKnownSets = 2048;
  static constexpr size_t kKnownOfSet = 4;

  // Of one address family.
  struct Sessions {
    Sessions(const EgressNeighbours& of, const EgressOptions& options, const WorkerOptions& worker);

    EgressNeighbours neighbours;
    IpAddress own;  // this worker's neighbour
    TcpSessions tcp;
    std::vector<HeldSyns::Slot> syns;  // by place
  };
  struct KnownFlow {
    FlowKey key;
    uint32_t generation = 0;  // of the rules that decided; 0: there is none
    EgressAction action;
    TimeNs needed_ns = 0;
  };
  struct Turned {
    PacketPtr packet;
    HeldSyns::Slot syn = kNoSyn;  // a held one instead
    iovec part;
    WriteRequest request;
  };

  Sessions& Of(bool v6) { return v6 ? v6_ : v4_; }
  bool ComesBack(PacketPtr& packet, const Segmenter& segmenter, const FlowKey& flow, bool handed);
  bool HandOver(int worker, PacketPtr& packet, const Segmenter& segmenter, bool handed);
  const EgressAction& ActionFor(const FlowKey& flow, bool begins);
  bool StillHolds(const KnownFlow& known, bool begins) const;
  void TellOfQuery(const Segmenter& segmenter, const FlowKey& flow);
  void Block(const EgressAction& action, const Segmenter& segmenter);
  void RelayDatagrams(const EgressAction& action, const Segmenter& segmenter, const FlowKey& flow);
  void AnswerEcho(PacketPtr packet, const Segmenter& segmenter);
  void Begin(const EgressAction& action, const Segmenter& segmenter, const FlowKey& flow);
  void OnSegment(Sessions& of, Place place, PacketPtr packet, const Segmenter& segmenter);
  void TurnRound(PacketPtr packet, const Segmenter& segmenter, const FlowKey& to);
  Turned& NextTurned();
  void Write(Turned& turned, MutableBytes from_tun);
  void CountTurned(Sessions& of, Place place);
  void RemoveShortcut(Sessions& of, Place place);
  void Open(Sessions& of, Place place);
  void End(Sessions& of, Place place);
  void Refuse(Sessions& of, const TcpVerdict& verdict);
  FlowKey ToRelay(const Sessions& of, Place place) const;
  bool MakeRoom(const Sessions& of);
  void GiveUp(Sessions& of, Place place);
  TcpFlowId IdOf(const Sessions& of, Place place) const;
  void TellGone(const TcpFlowId& flow);
  void CountSessions();

  WorkerState& state_;
  TunAnswers& answers_;
  const std::vector<EgressDatagrams*> datagrams_;  // by relay
  FlowShortcuts* const shortcuts_;
  Sessions v4_;
  Sessions v6_;
  const EgressRules* rules_ = nullptr;
  const LearnedNames* names_ = nullptr;  // nullptr: names do not matter
  uint32_t generation_ = 0;
  std::vector<KnownFlow> known_;
  HeldSyns syns_;
  std::array<Turned, kMaxHeld> turned_;
  size_t turned_used_ = 0;
  std::atomic<uint64_t> tcp_sessions_{0};
};

}  // namespace braid
