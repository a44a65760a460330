// One end of a simulated bond: a BondSender and a BondReceiver with what a worker does around them.
// Sealing is counting; what the real thing must never do is looked for here and noted as a
// violation.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/limits.h"
#include "bonding/bond_memory.h"
#include "bonding/bond_messages.h"
#include "bonding/bond_receiver.h"
#include "bonding/bond_sender.h"
#include "fastpath/replay_window.h"
#include "sim/event_loop.h"
#include "sim/inner_packet.h"

namespace braid::sim {

// What must not happen, and did. Of each kind the first is told: one whose text differs in more
// than its numbers.
class Violations {
 public:
  void Note(TimeNs now_ns, const std::string& what);
  bool empty() const { return kinds_.empty(); }
  const std::string& text() const { return text_; }

 private:
  std::set<std::string> kinds_;
  std::string text_;
};

using Parity = std::shared_ptr<const std::vector<uint8_t>>;

// A datagram on its way.
struct Frame {
  uint32_t session = 0;
  uint8_t lane = 0;
  uint8_t path = 0;
  uint32_t path_seq = 0;
  uint64_t sequence = 0;
  uint32_t bytes = 0;       // of the datagram
  uint16_t slot_bytes = 0;  // of a packet in it, at the sender
  std::variant<InnerPacket, BondProbe, std::shared_ptr<const BondReport>,
               std::shared_ptr<const MissingReport>, Parity>
      inside;
};

class BondEnd final : public LaneNumbers {
 public:
  // Ethernet, IPv4 and UDP in front of a datagram.
  static constexpr uint32_t kLinkOverheadBytes = 42;

  struct Settings {
    std::string name;
    BondOptions options;
    size_t slots = kBondSlots;
    size_t packet_bytes = 1420;
    DurationNs clock_ahead_ns = 0;                   // of the loop's: the two ends' clocks differ
    DurationNs most_late_ns = 500 * kMicrosecondNs;  // that a sleeping thread wakes up
  };
  struct Counters {
    uint64_t enqueued = 0;  // packets
    uint64_t departures = 0;
    uint64_t first_sendings = 0;  // of them: of packets
    uint64_t bulk_sendings = 0;   // of those: from the queue
    uint64_t sent_again = 0;      // of them: repairs and copies
    uint64_t not_sealed = 0;
    uint64_t packets_not_sealed = 0;  // of them: first sendings of packets
    uint64_t parity_sendings = 0;
    uint64_t control_bytes = 0;
    uint64_t refused = 0;  // packets for which there was no slot
    uint64_t delivered = 0;
    uint64_t recovered = 0;   // of them: made of parity
    uint64_t overtaken = 0;   // delivered behind a later packet of their ordered lane
    uint64_t not_held = 0;    // delivered out of order because there was no slot
    uint64_t wakes = 0;       // because something was due
    uint64_t idle_wakes = 0;  // and then there was nothing
    DurationNs longest_hold_ns = 0;
  };
  using SendFrame = std::function<void(Frame&&)>;
  using DeliverPacket = std::function<void(const InnerPacket&)>;

  BondEnd(EventLoop& loop, Violations& violations, const Settings& settings, SendFrame send_frame,
          DeliverPacket deliver);

  void SetOptions(const BondOptions& options);
  void SetPath(uint8_t path, bool usable, const BondPathOptions& options);

  // Another path has this id from now on.
  void ForgetPath(uint8_t path);

  // For such a share of the departures there is no key.
  void SetCannotSeal(double share) { cannot_seal_ = share; }

  // A packet of a host behind this end.
  void Send(const InnerPacket& packet);
  void Receive(Frame&& frame);

  // A new session, because one of the ends was restarted.
  void BeginSession(uint32_t session, bool restarted);
  void Clear();

  const BondSender& sender() const { return *sender_; }
  const BondReceiver& receiver() const { return *receiver_; }
  const BondMemory& memory() const { return memory_; }
  const Counters& counters() const { return counters_; }
  uint64_t path_bytes(uint8_t path) const { return path_bytes_[path]; }
  uint64_t enqueued_bytes() const { return enqueued_bytes_; }
  TimeNs local_ns() const { return loop_.now_ns() + settings_.clock_ahead_ns; }

 private:
  // Of a lane of this end's sending side. A datagram is known by path byte, lane and sequence: of
  // each sequence one bit for each path and copy that it was sealed for.
  struct Sealing {
    uint64_t next_sequence = 0;
    std::array<uint32_t, kMaxPaths> next_path_seq{};
    std::vector<uint32_t> sealed;
  };
  // And of the other's.
  struct Opening {
    ReplayWindow window;
    std::array<uint32_t, kMaxPaths> next_path_seq{};
    bool begun = false;
    uint64_t next_delivered = 0;      // one more than the highest sequence that was delivered
    std::map<uint64_t, TimeNs> held;  // by sequence: since when
  };
  struct HeldLabel {
    uint64_t sequence;
    TimeNs since_ns;
  };

  uint64_t Take(uint8_t lane) override { return sealing_[lane - kFirstBondLane].next_sequence++; }

  void MakeHalves();
  void Run();
  void Wake();
  bool SendWhatIsDue();
  void Depart(const Departure& departure);
  void KeepForParity(const Frame& frame);
  void Place(const Frame& frame, const BondReceiver::Datagram& datagram,
             BondReceiver::Verdict verdict);
  bool DrainRecovered();
  uint16_t SlotBytes(const InnerPacket& packet) const;
  InnerPacket PacketOf(SlotId id);
  bool DrainReady();
  void Deliver(uint8_t lane, uint64_t sequence, const InnerPacket& packet, bool no_slot);
  void CheckOrder(uint8_t lane, uint64_t sequence, bool no_slot);
  void CheckDue();
  uint32_t AdvancePath(Opening& opening, uint8_t path, uint32_t path_seq) const;
  void Note(const std::string& what) {
    violations_.Note(loop_.now_ns(), settings_.name + ": " + what);
  }

  EventLoop& loop_;
  Violations& violations_;
  const Settings settings_;
  const SendFrame send_frame_;
  const DeliverPacket deliver_;
  BondOptions options_;
  double cannot_seal_ = 0;
  BondMemory memory_;
  std::unique_ptr<BondSender> sender_;
  std::unique_ptr<BondReceiver> receiver_;
  std::array<BondPathOptions, kMaxPaths> path_options_;
  std::array<bool, kMaxPaths> path_usable_{};
  uint32_t session_ = 1;
  std::array<Sealing, kBondLanes> sealing_;
  std::array<Opening, kBondLanes> opening_;
  std::array<uint64_t, kMaxPaths> path_bytes_{};
  // As the other end has said last, and the least that it has said while anything was held.
  DurationNs told_wait_ns_ = 0;
  DurationNs least_told_wait_ns_ = 0;
  DurationNs most_wait_ns_ = 0;  // that was allowed while anything was held
  bool told_repair_ = false;
  bool has_told_ = false;
  uint32_t told_at_us_ = 0;
  uint64_t enqueued_bytes_ = 0;
  int idle_wakes_in_a_row_ = 0;
  Counters counters_;
  Timer due_;
  Timer soon_;  // something came in: as soon as all has that comes now
};

}  // namespace braid::sim
