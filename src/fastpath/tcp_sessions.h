// The TCP flows of one worker that leave past the tunnel. Each has a port of its own: towards the
// relay (slowpath/tcp_relay.h) its packets come from a made-up neighbour's address and that port.
// Sans I/O.
//
//   free ─Begin─► pending ─Open─► open ─End─► resting ─Expire─► free
//    ▲               │Cancel
//    └───────────────┘
//
// A port rests for a while before another flow has it, and ports come back in the order in which
// they went, so that what is under way of one flow never reaches the next. A live flow is never
// overwritten: when all are in use, Begin() says so.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.h"
#include "fastpath/flow_index.h"

namespace braid {

class TcpSessions {
 public:
  using Place = FlowIndex::Place;
  static constexpr Place kNowhere = FlowIndex::kNowhere;

  enum class State : uint8_t {
    kFree,
    kPending,  // its SYN is held until it is known whether it gets there
    kOpen,
    kResting,  // over, but for what is still under way
  };

  struct Session {
    FlowKey flow;  // as its initiator sees it
    State state = State::kFree;
    bool is_detached = false;
    bool initiator_answered = false;  // what it was told, by taking the connection
    bool initiator_ended = false;     // it has sent a FIN, whose end is next_sequence
    bool has_shortcut = false;
    uint8_t turned = 0;          // packets, as far as that matters
    uint16_t port = 0;           // the made-up neighbour's
    uint32_t next_sequence = 0;  // what comes next of the initiator
    uint32_t generation = 0;     // counts the flows that had this place
    TimeNs rests_until_ns = 0;
    Place next = kNowhere;  // in the list that it is in
  };

  // Ports of the neighbour, in the order in which they are to be used first; all different, none
  // is 0. There are more of them than may be in use at once, since others rest.
  TcpSessions(std::span<const uint16_t> ports, size_t max_in_use);

  Place Find(const FlowKey& flow) const {
    return index_.Find(flow,
                       [this](Place place) -> const FlowKey& { return sessions_[place].flow; });
  }
  // The one whose port that is; kNowhere when it has never been used, or rests no more.
  Place FindPort(uint16_t port) const;
  Session& operator[](Place place) { return sessions_[place]; }
  const Session& operator[](Place place) const { return sessions_[place]; }

  // Fewer are in use than may be, and not all others rest.
  bool HasRoom() const { return in_use_ < max_in_use_ && free_.first != kNowhere; }
  // A flow that is not there yet. kNowhere when there is no room.
  Place Begin(const FlowKey& flow);
  void Open(Place place) { sessions_[place].state = State::kOpen; }
  // One that is pending is over before anything of it went on, so that its port need not rest.
  void Cancel(Place place);
  // Its packets are still known while it rests.
  void End(Place place, TimeNs now_ns);
  // One that rests is not found any more: its initiator has begun anew with the same key.
  void Detach(Place place);

  // The one that has rested longest, of which there is one, is free.
  Place Expire();
  TimeNs NextDue() const {
    return resting_.first == kNowhere ? kNever : sessions_[resting_.first].rests_until_ns;
  }

  size_t in_use() const { return in_use_; }  // that do not rest
  size_t places() const { return sessions_.size(); }

 private:
  // What is under way is retransmitted within.
  static constexpr DurationNs kRestNs = 2 * kSecondNs;

  struct List {
    Place first = kNowhere, last = kNowhere;
  };
  void Append(List& list, Place place);
  Place TakeFirst(List& list);

  const size_t max_in_use_;
  std::vector<Session> sessions_;
  std::vector<Place> by_port_;  // 65,536
  FlowIndex index_;
  List free_;
  List resting_;
  size_t in_use_ = 0;
};

}  // namespace braid
