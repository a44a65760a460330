// How threads speak to each other: bounded rings and an eventfd. A worker has one mailbox; other
// workers put packets into it, the slow path puts commands, and relays what became of TCP flows.
// The slow path has one; workers put events into it.
//
// Sleeping: the owner announces it, looks once more, then waits on the eventfd. Whoever puts
// something in writes the eventfd only if the owner had announced it.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/packet.h"
#include "base/record_ring.h"
#include "base/ring.h"
#include "fastpath/class_rules.h"
#include "fastpath/egress_options.h"
#include "fastpath/egress_rules.h"
#include "fastpath/keypair.h"
#include "fastpath/learned_names.h"
#include "fastpath/path_set.h"
#include "fastpath/route_table.h"
#include "fastpath/socket_table.h"
#include "fastpath/throttle.h"
#include "io/backend.h"
#include "io/unique_fd.h"

namespace braid {

class Doorbell {
 public:
  Doorbell() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  int fd() const { return fd_.get(); }

  // The owner, before it looks at its rings for the last time; and after it woke.
  void AnnounceSleep() {
    sleeping_.store(true, std::memory_order_relaxed);
    // Either this thread sees what was put in, or whoever did so sees that it sleeps.
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  void AnnounceAwake() { sleeping_.store(false, std::memory_order_relaxed); }

  // Anyone, after having put something in.
  void Ring() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!sleeping_.load(std::memory_order_relaxed)) return;
    if (!sleeping_.exchange(false, std::memory_order_acq_rel)) return;
    const uint64_t one = 1;
    (void)!write(fd_.get(), &one, sizeof(one));
  }

 private:
  UniqueFd fd_;
  std::atomic<bool> sleeping_{false};
};

// A packet on its way to the worker that owns its lane.
struct HandedPacket {
  enum class From : uint8_t {
    kTun,
    kNetwork,  // incoming
    kDirect,   // peer: it was sent more than a little without its bond; no packet
  };
  From from = From::kTun;
  PacketPtr packet;
  Incoming incoming{};
  PeerSlot peer = kNoPeer;
};

// What the slow path tells a worker.
struct Command {
  enum class Type : uint8_t {
    kNone,
    kSetRoutes,      // routes
    kAddKeypair,     // peer, keypair: open what arrives under it
    kSendUnder,      // peer, keypair (nullptr: stop sending), mtu
    kRemoveKeypair,  // peer, keypair: forget it; it is freed once this command has been passed
    kSetPath,        // peer, path, route
    kUsePath,        // peer, path: send over it
    kSetPathUp,      // peer, path, up, far, path_options
    kSetClassRules,  // class_rules: of all bonds
    kSetEgress,      // egress_rules: what leaves past the tunnel; nullptr: nothing does;
                     // egress_names: by which names, nullptr: they do not matter
    kSetBond,        // bond: how all bonds behave
    kSetThrottle,    // throttle: the limits of all peers; nullptr: there are none
    kSetPeerMode,    // peer, mode: another than that of all bonds, or no other
    kEndPath,        // peer, path: there is none of this id any more; the next is another
    kEndPeer,        // peer, whose keypairs were removed: the next of this slot is another
    kAddSockets,     // sockets, which may go once this command has been passed
    kRemoveSockets,  // group; its sockets are closed once this command has been passed
    kStop,
  };
  Type type = Type::kNone;
  PeerSlot peer = kNoPeer;
  const RouteTable* routes = nullptr;
  const ClassRules* class_rules = nullptr;
  const EgressRules* egress_rules = nullptr;
  const LearnedNames* egress_names = nullptr;
  Throttle* throttle = nullptr;
  const Keypair* keypair = nullptr;
  uint16_t mtu = 0;
  uint16_t group = 0;
  uint8_t path = 0;
  Route route{};
  bool up = false;
  bool far = false;
  BondPathOptions path_options{};
  BondOptions bond{};
  std::optional<BondingMode> mode{};
  const SocketGroup* sockets = nullptr;
};

// What a worker tells the slow path.
struct Event {
  // A handshake, or a packet of the slow lane, that came to a worker's socket. Longer ones are
  // none.
  static constexpr size_t kMaxDatagramBytes = 512;

  enum class Type : uint8_t {
    kNone,
    kDatagram,       // bytes, length, back
    kNeedHandshake,  // peer
    kOpened,         // peer, keypair_id: the first packet of some lane opened under this keypair
    kPeerClosed,     // peer, keypair_id
    kNoSockets,      // group, generation, bytes, length: why the worker could not add its sockets
    kTcpBegins,      // flow, action, tcp: it is for the slow path to say whether it gets there
    kTcpGone,        // tcp: its initiator has given it up, or the worker has
    kUdpBegins,      // udp, action: it is for the slow path to find a relay of datagrams for it
    kUdpGone,        // udp: it is over
    kTcpFirst,       // tcp, bytes, length: the name that its first bytes say, if any
    kDnsQuery,       // flow, action, bytes, length: a datagram for a name server
    kTunnelQuery,    // flow, bytes, length: as well, which goes through the tunnel
    kTunnelAnswer,   // flow, bytes, length: from the port of one, which came through the tunnel
    kDied,           // bytes, length: the worker's thread has ended, and why
  };
  Type type = Type::kNone;
  PeerSlot peer = kNoPeer;
  uint64_t keypair_id = 0;
  Route back{};
  uint16_t group = 0;
  uint32_t generation = 0;
  FlowKey flow{};
  EgressAction action{};
  TcpFlowId tcp{};
  UdpSessionId udp{};
  uint16_t length = 0;
  std::array<uint8_t, kMaxDatagramBytes> bytes;

  // As much of it as there is room for.
  void SetText(std::string_view text) {
    length = static_cast<uint16_t>(std::min(text.size(), bytes.size()));
    std::copy_n(text.begin(), length, bytes.begin());
  }
  std::string Text() const { return {bytes.begin(), bytes.begin() + length}; }
};

struct WorkerMailbox {
  WorkerMailbox() : packets(kInboxSlots), commands(kInboxSlots), verdicts(kVerdictSlots) {}

  Ring<HandedPacket> packets;
  Ring<Command> commands;
  Ring<TcpVerdict> verdicts;  // of flows past the tunnel, from the slow path and the relays
  Doorbell doorbell;
  // Commands carried out so far: what the slow path waits for before it frees anything.
  std::atomic<uint64_t> commands_done{0};
};

// UDP packets that leave past the tunnel, for one relay of them. A record is an EgressAction and
// then what the device gave, vnet header and packet. All of one inner source goes to one relay,
// whichever worker has read it.
struct EgressDatagrams {
  explicit EgressDatagrams(int workers) {
    const size_t each = std::max(kEgressDatagramBytes / std::bit_ceil(static_cast<size_t>(workers)),
                                 kLeastEgressDatagramBytes);
    for (int i = 0; i < workers; ++i) packets.push_back(std::make_unique<RecordRing>(each));
  }
  bool Empty() const {
    return std::all_of(packets.begin(), packets.end(), [](const auto& of) { return of->Empty(); });
  }

  std::vector<std::unique_ptr<RecordRing>> packets;  // by worker
  Doorbell doorbell;
};

struct SlowPathMailbox {
  SlowPathMailbox() : events(kEventSlots) {}

  Ring<Event> events;
  Doorbell doorbell;
};

}  // namespace braid
