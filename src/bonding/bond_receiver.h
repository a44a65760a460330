// The receiving half of a bond: puts the packets of each lane in order again, finds out what is
// lost, and makes the reports for the sender. Sans I/O; one thread. What it is given has been
// opened: it is authentic.
//
// Order. The sender says how long a packet that is missing may still come by itself, and how long
// it may take to be sent again; both together are the most that later packets of its lane wait.
// Where nothing is sent again they wait only until the packet is proven lost: a path keeps the
// order of what it carries, nearly, so when every path has brought a later packet of the lane, or
// so many datagrams are known to be lost as packets are missing, none of them will come.
//
// Where a busy path falls silent the sender needs longer to notice, and sends much again: then
// packets wait as long as they may.
//
// Loss. The datagrams of a lane are numbered on each path, so a gap there is a loss, once those
// that may have been overtaken have had time to come.
#pragma once

#include <array>
#include <cstdint>

#include "bonding/bond_memory.h"
#include "bonding/bond_messages.h"
#include "bonding/fec_decoder.h"

namespace braid {

class BondReceiver {
 public:
  // Packets of a lane this far ahead of the one that is missing are not held for it any more.
  static constexpr uint64_t kWindow = 8192;

  struct Counters {
    uint64_t held = 0;      // packets that waited
    uint64_t given_up = 0;  // that were not waited for any longer
    uint64_t late = 0;      // came after that, and were delivered late
    uint64_t duplicates = 0;
    uint64_t recovered = 0;          // made of parity, before they came
    uint64_t lost = 0;               // datagrams proven lost
    DurationNs held_for_ns = 0;      // all together
    DurationNs longest_hold_ns = 0;  // of any packet so far
  };

  BondReceiver(BondMemory& memory, uint16_t bond)
      : memory_(memory), bond_(bond), fec_(memory, bond) {}
  ~BondReceiver() { Clear(); }
  BondReceiver(const BondReceiver&) = delete;
  BondReceiver& operator=(const BondReceiver&) = delete;

  void SetReorderMax(DurationNs most_ns) { reorder_max_ns_ = most_ns; }

  // Each datagram that opened, also one that was there before; `advance` is by how many numbers it
  // is ahead of the newest one of its lane and path before.
  struct Datagram {
    uint8_t lane = 0;
    uint8_t path = 0;
    uint32_t path_seq = 0;
    uint32_t advance = 0;
    uint64_t sequence = 0;
    uint32_t bytes = 0;
    bool duplicate = false;
  };
  enum class Verdict : uint8_t {
    kDeliver,  // now; then what TakeReady() gives
    kHold,     // put it into a slot, and give it to Hold()
    kDuplicate,
  };
  // Where the whole path was silent, what is missing since before then is no loss of the path:
  // `advance` becomes 1.
  Verdict OnDatagram(Datagram& datagram, TimeNs now_ns);

  // Is given each datagram that came for the first time, and gives packets that did not.
  FecDecoder& fec() { return fec_; }
  const FecDecoder& fec() const { return fec_; }
  // For a packet that it has given and that did not come meanwhile.
  Verdict OnRecovered(uint8_t lane, uint64_t sequence) {
    ++counters_.recovered;
    return Place(lane, sequence);
  }

  // A slot to hold a packet in. kNoSlot: there is none, deliver it. Lengths and flags are the
  // caller's.
  SlotId TakeSlot() { return memory_.slab.Take(); }
  void Hold(SlotId id, const Datagram& datagram, TimeNs now_ns);

  // Held packets that are to be delivered now, in their order: after a datagram was delivered, and
  // when NextDue() has come. The slot is the caller's, who gives it back.
  SlotId TakeReady(TimeNs now_ns);

  void OnProbe(uint8_t path, const BondProbe& probe, TimeNs arrived_ns, TimeNs now_ns);
  // What is to be told to the sender now.
  bool TakeReport(TimeNs now_ns, BondReport& report);
  bool TakeMissing(TimeNs now_ns, MissingReport& missing);

  TimeNs NextDue() const;
  // Another path has this id from now on.
  void ForgetPath(uint8_t path);
  // The other end has begun anew, and with it all numbers.
  void Clear();

  const Counters& counters() const { return counters_; }
  size_t held_now() const { return held_now_; }

 private:
  struct PathState {
    PathReport report;
    TimeNs heard_ns = 0;
    TimeNs resumed_ns = 0;  // when it was heard again after silence
    DurationNs gap_ns = 0;  // between datagrams, smoothed
  };

  struct LanePath {
    uint64_t next_sequence = 0;  // everything that comes over this path from now on is not before
    TimeNs heard_ns = 0;         // 0: never
  };

  struct Lane {
    bool begun = false;
    uint64_t next = 0;     // that is to be delivered
    uint64_t highest = 0;  // one more than the newest sequence
    uint64_t held = 0;
    SlotList waiting;         // in the order of their coming
    TimeNs look_ns = kNever;  // when what waits may be proven not to come
    std::array<LanePath, kMaxPaths> paths;
  };

  // Datagrams of a lane and path that have not come though later ones have.
  struct Hole {
    uint8_t lane = 0;
    uint8_t path = 0;
    uint8_t told = 0;    // so often
    uint16_t count = 0;  // 0: free
    uint32_t first = 0;
    TimeNs since_ns = 0;
    TimeNs tell_ns = 0;
  };
  static constexpr size_t kMaxHoles = 256;

  Verdict Place(uint8_t lane_byte, uint64_t sequence);
  void NoteGap(const Datagram& datagram, TimeNs now_ns);
  void FillHole(const Datagram& datagram, TimeNs now_ns);
  bool GiveUp(uint8_t lane_id, Lane& lane, TimeNs now_ns);
  bool HasFallenSilent(TimeNs now_ns) const;
  bool ProvenLost(uint8_t lane_id, const Lane& lane, TimeNs now_ns) const;
  TimeNs Deadline(const Lane& lane) const;

  BondMemory& memory_;
  const uint16_t bond_;
  FecDecoder fec_;
  DurationNs reorder_max_ns_ = 200 * kMillisecondNs;

  // As the sender has said.
  DurationNs hold_ns_ = 0;
  DurationNs repair_ns_ = 0;
  DurationNs report_every_ns_ = 0;
  TimeNs reports_until_ns_ = 0;
  TimeNs next_report_ns_ = 0;
  uint32_t newest_probe_us_ = 0;
  bool has_probe_ = false;

  std::array<PathState, kMaxPaths> paths_;
  std::array<Lane, kBondLanes> lanes_;
  uint32_t waiting_lanes_ = 0;  // bits: those that hold packets
  bool path_silent_ = false;    // what it brought no more will come over another
  std::array<Hole, kMaxHoles> holes_;
  size_t holes_used_ = 0;  // the first so many may be in use
  TimeNs holes_due_ns_ = UINT64_MAX;
  DurationNs grace_ns_ = kLeastGraceNs;  // that a datagram may be late on its path
  static constexpr DurationNs kLeastGraceNs = kMillisecondNs;
  size_t held_now_ = 0;
  Counters counters_;
};

}  // namespace braid
