// The workers as the slow path holds them: starts and ends them, gives all of them the same
// commands, frees what they have let go of, and sums up what they count.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "fastpath/worker.h"
#include "slowpath/config.h"
#include "slowpath/peers.h"
#include "slowpath/tunnel_sockets.h"

namespace braid {

// How many peers workers have room for that are started for so many: others may come later.
size_t PeerRoom(size_t peers);

class WorkerGroup {
 public:
  // One worker for each of `cpus`, pinned there unless that is -1; see ChooseWorkers().
  explicit WorkerGroup(const std::vector<int>& cpus);
  ~WorkerGroup();

  // `device` and `sockets` outlive the group. `egress`: one for each worker; none where nothing
  // ever leaves past the tunnel.
  [[nodiscard]] absl::Status Start(const Config& config, const TunDevice& device, int mtu,
                                   const TunnelSockets& sockets,
                                   const std::vector<EgressOptions>& egress = {});
  // False when one has not ended within a second or so: it hangs, and the group may not be
  // destroyed.
  [[nodiscard]] bool Stop();

  // To every worker, in order; nothing is lost when a mailbox is full: commands wait then, and it
  // is for who gives them to give no more before Tick() has found room.
  void Tell(const Command& command);
  bool has_waiting() const;
  // Sockets that come, and those of a group that go: `keeper` closes them once no worker uses them.
  void AddSockets(std::shared_ptr<const SocketGroup> sockets);
  void RemoveSockets(uint16_t group, std::shared_ptr<const void> keeper);
  // Publishes another table; the one before is retired.
  void SetRoutes(std::shared_ptr<const RouteTable> routes);
  // The table as it is now; nullptr before the first.
  const RouteTable* routes() const { return routes_.get(); }
  // The same of the rules for classes.
  void SetClassRules(std::shared_ptr<const ClassRules> rules);
  // The same of the rules for what leaves past the tunnel.
  // `names`: of these rules; null where they do not matter.
  void SetEgressRules(std::shared_ptr<const EgressRules> rules,
                      std::shared_ptr<const LearnedNames> names);
  // The same of the limits, whose state goes with them: what has passed under the ones before is
  // forgotten.
  void SetThrottle(std::shared_ptr<Throttle> throttle);
  // Lets go of something that the workers were told to forget once all of them have done so.
  void Retire(std::shared_ptr<const void> withdrawn);
  // Sends what waited for room, frees what is no longer used. Now and then.
  void Tick();

  // Asks each worker that owes no answer yet for one, which it gives by carrying out a command that
  // does nothing. About once a second.
  void AskForLife(TimeNs now_ns);
  // For how long it has owed one; 0: it owes none.
  DurationNs SilentFor(int worker, TimeNs now_ns) const;

  // A packet of a worker's lane that came to the slow path's socket. False when there is no room.
  bool HandPacket(int worker, HandedPacket&& packet);

  PeerActivity ActivityOf(PeerSlot peer) const;
  struct PathTotals {
    uint64_t rx_bytes = 0, tx_bytes = 0, rx_datagrams = 0, tx_datagrams = 0, rx_expected = 0;
  };
  PathTotals TrafficOf(PeerSlot peer, int path) const;
  struct PeerTotals {
    uint64_t rx_bytes = 0, tx_bytes = 0, rx_packets = 0, tx_packets = 0;
  };
  PeerTotals TrafficOf(PeerSlot peer) const;
  // Of all peers.
  struct WorkerTotals {
    int cpu = -1;  // that it is pinned to; -1: none
    uint64_t rx_bytes = 0, tx_bytes = 0, rx_packets = 0, tx_packets = 0, handed_over = 0;
    std::vector<uint8_t> lanes;                    // that it has sealed or opened packets of
    DurationNs busy_ns = 0;                        // CPU time that it has had: else it sleeps
    size_t inbox_packets = 0, inbox_commands = 0;  // that wait for it
  };
  WorkerTotals TotalsOf(int worker) const;
  // nullptr when it has none.
  const BondGauges* BondOf(PeerSlot peer) const;
  // What a peer's limits, and that of all, have done to what was sent to it and came from it.
  struct ShaperTotals {
    uint64_t waiting_bytes = 0, delayed = 0, dropped = 0, marked = 0, refused = 0;
  };
  ShaperTotals SendShaperOf(PeerSlot peer) const;
  ShaperTotals ReceiveShaperOf(PeerSlot peer) const;
  uint64_t Drops(Drop reason) const;
  uint64_t HandedOver() const;
  bool SegmentationRefused() const;

  int workers() const { return static_cast<int>(mailboxes_.size()); }
  std::string_view backend_name() const { return backend_name_; }
  const std::string& fallback_reason() const { return fallback_reason_; }
  SlowPathMailbox& events() { return events_; }
  // That wait for the slow path.
  size_t waiting_events() const { return events_.events.ApproximateSize(); }
  std::vector<WorkerMailbox*> mailboxes();  // by index
  WorkerMailbox& mailbox(int worker) { return *mailboxes_[static_cast<size_t>(worker)]; }

 private:
  // Freed once every worker has carried out as many commands as it was given until then.
  struct Retired {
    std::vector<uint64_t> commands;
    std::shared_ptr<const void> withdrawn;
  };

  // The answer comes with the last command given until then.
  struct AskedForLife {
    uint64_t commands = 0;
    TimeNs at_ns = 0;
  };

  void Push(size_t worker, Command&& command);
  bool OwesLife(size_t worker) const;

  std::vector<std::unique_ptr<WorkerMailbox>> mailboxes_;
  SlowPathMailbox events_;
  std::vector<const WorkerState*> states_;  // of the workers, which read each other's counters
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::deque<Command>> waiting_;  // by worker, when its mailbox is full
  std::vector<uint64_t> commands_given_;      // by worker
  std::vector<AskedForLife> asked_for_life_;  // by worker
  std::deque<Retired> retired_;
  std::shared_ptr<const RouteTable> routes_;
  std::shared_ptr<const ClassRules> class_rules_;
  std::shared_ptr<const EgressRules> egress_rules_;
  std::shared_ptr<const LearnedNames> egress_names_;
  std::shared_ptr<Throttle> throttle_;
  std::string backend_name_;
  std::string fallback_reason_;
  const std::vector<int> cpus_;
};

}  // namespace braid
