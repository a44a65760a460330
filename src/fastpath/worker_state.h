// What the stages of one worker share: its pools, tables, counters, the time of the batch, and the
// ways out to other threads. Used by the worker's thread only, but for the counters.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/counters.h"
#include "base/packet_pool.h"
#include "fastpath/mailbox.h"
#include "fastpath/session.h"
#include "fastpath/session_table.h"
#include "fastpath/socket_table.h"
#include "io/backend.h"
#include "io/tun.h"

namespace braid {

struct WorkerState;

// Fixed at start.
struct WorkerOptions {
  int index = 0;
  int workers = 1;
  int cpu = -1;  // to be pinned to; -1: not pinned
  size_t max_peers = 1;
  size_t max_inner_bytes = kMaxMtu;  // that the device gives
  int lanes = kDefaultLanes;
  int tun_fd = -1;
  TunOffloads offloads;
  int max_gso_datagrams = 1;
  BackendChoice io = BackendChoice::kAuto;
  std::vector<WorkerSocket> sockets;      // to begin with
  std::vector<WorkerMailbox*> mailboxes;  // of all workers, by index
  // All workers, which look at each other's bonds and counters; the vector is filled before the
  // first one runs, and outlives them. May be nullptr for a single one.
  const std::vector<const WorkerState*>* group = nullptr;
  SlowPathMailbox* slow_path = nullptr;
  std::optional<EgressOptions> egress;  // nothing: nothing ever leaves past the tunnel
};

struct WorkerState {
  explicit WorkerState(const WorkerOptions& worker_options);

  Session* FindSession(PeerSlot peer) {
    return peer < sessions.size() ? sessions[peer].get() : nullptr;
  }
  LaneState* FindLane(Session& session, uint8_t lane) {
    return session.lanes[static_cast<size_t>(lane) / static_cast<size_t>(options.workers)];
  }
  // The lane's state, from the pool if it has none yet. nullptr when the pool is empty.
  LaneState* TakeLane(Session& session, uint8_t lane);
  // The slot is for another peer from now on.
  void EndSession(PeerSlot peer);
  bool Owns(uint8_t lane) const { return lane % options.workers == options.index; }
  // All of a peer's bond is one worker's.
  int BondWorkerOf(PeerSlot peer) const {
    return static_cast<int>(peer % static_cast<PeerSlot>(options.workers));
  }
  bool HasBond(PeerSlot peer) const { return BondWorkerOf(peer) == options.index; }
  // Whether what goes to the peer goes through its bond.
  bool IsBonded(PeerSlot peer) const {
    const auto worker = static_cast<size_t>(BondWorkerOf(peer));
    const WorkerState& owner = HasBond(peer) ? *this : *(*options.group)[worker];
    return owner.bonded[peer].load(std::memory_order_relaxed);
  }

  // The socket to send `lane` through. -1 when the group does not exist.
  int SocketOf(uint16_t group, uint8_t lane) const { return sockets.Find(group, lane); }

  // `packets` is how many inner packets that is.
  void HandTo(int worker, HandedPacket&& handed, uint64_t packets);
  bool Tell(Event&& event);  // false when there is no room, which is counted
  // A message, if it is one that an event holds. Others' events have room in spite of them.
  void TellOfDns(Event::Type type, const FlowKey& flow, Bytes message);
  // Asks the slow path for a handshake, once a second at most.
  void AskForHandshake(PeerSlot peer, Session& session);
  uint64_t RandomToken();

  const WorkerOptions options;
  TimeNs now_ns = 0;  // read once per batch

  std::unique_ptr<PacketPool> receive_pool;
  std::unique_ptr<PacketPool> train_pool;
  std::unique_ptr<Backend> backend;
  std::string backend_fallback_reason;

  const RouteTable* routes = nullptr;
  Throttle* throttle = nullptr;  // nullptr: nothing is limited
  SessionTable sessions_by_index;
  std::vector<std::unique_ptr<Session>> sessions;  // by peer slot, also of slots without a peer
  LanePool lane_pool;
  SocketTable sockets;

  // By peer slot, of the bonds of this worker; changed seldom. Read by the other workers.
  std::vector<std::atomic<bool>> bonded;

  // Read by the slow path.
  DropCounters drops;
  Counter handed_over;  // packets given to another worker
  // Inner traffic of peers that are no more.
  Counter ended_rx_packets;
  Counter ended_tx_packets;
  Counter ended_rx_bytes;
  Counter ended_tx_bytes;
  LaneSet lanes;        // that carried a packet here, of any peer
  std::atomic<bool> segmentation_refused{false};
};

}  // namespace braid
