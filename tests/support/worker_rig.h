// Workers as the daemon runs them, real threads over real sockets, with the test in the place of
// everything around them: TUN (one end of a socket pair behaves like a queue: a message a read),
// the peer behind the network, and the slow path.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/flow_hash.h"
#include "fastpath/worker.h"
#include "io/udp.h"
#include "support/packets.h"
#include "support/test_keys.h"

namespace braid::testing {

inline constexpr int kRigLanes = 16;
inline constexpr int kPatienceMs = 5000;

inline bool WaitReadable(int fd, int timeout_ms) {
  pollfd wait{fd, POLLIN, 0};
  return poll(&wait, 1, timeout_ms) == 1;
}

class WorkerRig {
 public:
  struct Options {
    BackendChoice io = BackendChoice::kEpoll;
    int workers = 2;
    bool socket_for_each_lane = false;  // as a client has them; else one for each worker
    std::vector<int> tun_fds;           // a real device's queues; none: socket pairs
    TunOffloads offloads = {true, true, true};
    std::optional<EgressOptions> egress = {};
  };

  explicit WorkerRig(const Options& rig_options) : options(rig_options) {
    PrepareAeadThread();
    const IpAddress loopback = IpAddress::Parse("127.0.0.1").value();
    peer_socket = OpenUdp({loopback, 0, "", false, false}).value();
    std::vector<WorkerOptions> each(static_cast<size_t>(options.workers));
    for (int i = 0; i < options.workers; ++i)
      mailboxes.push_back(std::make_unique<WorkerMailbox>());
    for (int lane = 0; options.socket_for_each_lane && lane < kRigLanes; ++lane) {
      sockets.push_back(OpenUdp({loopback, 0, "", false, true}).value());
      each[static_cast<size_t>(lane % options.workers)].sockets.push_back(
          {sockets.back().fd.get(), 0, static_cast<int16_t>(lane), false});
    }
    for (int i = 0; i < options.workers; ++i) {
      WorkerOptions& worker = each[static_cast<size_t>(i)];
      if (options.tun_fds.empty()) {
        int pair[2];
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
        near_tun_.emplace_back(pair[0]);
        tun.emplace_back(pair[1]);
        worker.tun_fd = pair[0];
      } else {
        worker.tun_fd = options.tun_fds[static_cast<size_t>(i)];
      }
      if (!options.socket_for_each_lane) {
        sockets.push_back(OpenUdp({loopback, 0, "", false, true}).value());
        worker.sockets.push_back({sockets.back().fd.get(), 0, Incoming::kAnyLane, false});
      }
      worker.index = i;
      worker.workers = options.workers;
      worker.max_peers = 2;
      worker.lanes = kRigLanes;
      worker.offloads = options.offloads;
      worker.max_gso_datagrams = 64;
      worker.io = options.io;
      for (auto& mailbox : mailboxes) worker.mailboxes.push_back(mailbox.get());
      worker.slow_path = &events;
      worker.egress = options.egress;
      worker.group = &states_;
      workers.push_back(std::make_unique<Worker>(worker, *mailboxes[static_cast<size_t>(i)]));
      states_.push_back(&workers.back()->state());
    }
    for (auto& worker : workers) {
      const absl::Status status = worker->Start();
      EXPECT_TRUE(status.ok()) << status;
    }
  }

  ~WorkerRig() {
    Stop();
    // Packets go back to the pools of workers before those go away.
    HandedPacket unread;
    for (auto& mailbox : mailboxes) {
      while (mailbox->packets.TryPop(unread)) unread.packet.reset();
    }
  }

  void Stop() {
    for (auto& worker : workers) EXPECT_TRUE(worker->Stop());
  }

  // --- The slow path ---

  void Tell(const Command& command) {
    for (auto& mailbox : mailboxes) {
      while (!mailbox->commands.TryPush(Command(command))) std::this_thread::yield();
      mailbox->doorbell.Ring();
    }
    ++commands_given;
  }

  void Say(const TcpVerdict& verdict) {
    WorkerMailbox& mailbox = *mailboxes[verdict.flow.worker];
    while (!mailbox.verdicts.TryPush(TcpVerdict(verdict))) std::this_thread::yield();
    mailbox.doorbell.Ring();
  }

  // All that was told so far is carried out.
  bool AwaitCommands() {
    return Await([this] {
      for (auto& mailbox : mailboxes) {
        if (mailbox->commands_done.load(std::memory_order_acquire) < commands_given) return false;
      }
      return true;
    });
  }

  template <typename Condition>
  static bool Await(Condition&& condition) {
    for (int i = 0; i < kPatienceMs * 5; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return condition();
  }

  // Peer 0 owns 10.77.0.2 and fd00::2 and is reached at `peer_socket`; peer 1 owns 10.77.0.3.
  void SetUpPeer(uint16_t mtu = 1420) {
    const RouteTable::Route prefixes[] = {{IpPrefix::Parse("10.77.0.2/32").value(), 0},
                                          {IpPrefix::Parse("fd00::2/128").value(), 0},
                                          {IpPrefix::Parse("10.77.0.3/32").value(), 1}};
    routes = std::make_unique<RouteTable>(prefixes);
    Tell({.type = Command::Type::kSetRoutes, .routes = routes.get()});
    Tell({.type = Command::Type::kSetPath,
          .peer = 0,
          .path = 0,
          .route = {peer_socket.local, {}, 0}});
    Tell({.type = Command::Type::kUsePath, .peer = 0, .path = 0});
    const KeypairOfBothEnds& keys = AddKeypair();
    Tell({.type = Command::Type::kSendUnder, .peer = 0, .keypair = &keys.server, .mtu = mtu});
    EXPECT_TRUE(AwaitCommands());
  }

  // Keys of another handshake, known to the workers from here on.
  const KeypairOfBothEnds& AddKeypair() {
    const uint64_t id = ++keypairs_made_;
    static const AeadSuite aeads = ChooseAeads("auto").value();
    KeypairOfBothEnds keys = MakeKeypair(id, aeads[Cipher::kChaCha20Poly1305]);
    for (Keypair* one : {&keys.client, &keys.server}) {
      one->lanes = kRigLanes;
      one->seal_until_ns = one->open_until_ns = MonotonicNowNs() + 300 * kSecondNs;
    }
    auto& kept = keypairs[keys.client.local_index];
    kept = std::make_unique<KeypairOfBothEnds>(keys);
    Tell({.type = Command::Type::kAddKeypair, .peer = 0, .keypair = &kept->server});
    return *kept;
  }

  uint64_t Drops(Drop reason) const {
    uint64_t drops = 0;
    for (const auto& worker : workers) drops += worker->state().drops.Get(reason);
    return drops;
  }
  uint64_t AllDrops() const {
    uint64_t drops = 0;
    for (size_t i = 0; i < kDropReasons; ++i) drops += Drops(static_cast<Drop>(i));
    return drops;
  }
  uint64_t HandedOver() const {
    uint64_t packets = 0;
    for (const auto& worker : workers) packets += worker->state().handed_over.Get();
    return packets;
  }

  std::optional<Event> NextEvent(Event::Type type) {
    std::optional<Event> found;
    Await([&] {
      Event event;
      while (!found && events.events.TryPop(event)) {
        if (event.type == type) found = event;
      }
      return found.has_value();
    });
    return found;
  }

  // --- The kernel behind TUN ---

  static uint8_t LaneOf(Bytes packet) { return static_cast<uint8_t>(FlowHash(packet) % kRigLanes); }

  // The kernel has a packet for the tunnel; it puts it into this worker's queue.
  void IntoTun(size_t worker, const Buffer& packet, const VnetHeader& vnet = {}) {
    const Buffer message = BehindVnetHeader(vnet, packet);
    EXPECT_TRUE(Await([&] {
      return write(tun[worker].get(), message.data(), message.size()) ==
             static_cast<ssize_t>(message.size());
    }));
  }

  struct FromTun {
    size_t worker = 0;
    VnetHeader vnet{};
    Buffer packet;
  };
  // What the workers have written next, on any queue.
  std::optional<FromTun> NextFromTun(int timeout_ms = kPatienceMs) {
    std::vector<pollfd> waits;
    for (const UniqueFd& fd : tun) waits.push_back({fd.get(), POLLIN, 0});
    if (poll(waits.data(), waits.size(), timeout_ms) <= 0) return std::nullopt;
    for (size_t i = 0; i < waits.size(); ++i) {
      if ((waits[i].revents & POLLIN) == 0) continue;
      Buffer bytes(70'000);
      const ssize_t size = read(tun[i].get(), bytes.data(), bytes.size());
      if (size < static_cast<ssize_t>(kVnetHeaderBytes)) return std::nullopt;
      FromTun out{i, LoadNative<VnetHeader>(bytes.data()), {}};
      out.packet.assign(bytes.begin() + kVnetHeaderBytes, bytes.begin() + size);
      return out;
    }
    return std::nullopt;
  }

  // --- The peer ---

  struct Opened {
    Header header{};
    Buffer plain;
    Endpoint from;
  };

  // The next datagram that came to the peer, opened.
  std::optional<Opened> NextAtPeer(int timeout_ms = kPatienceMs) {
    return NextAt(peer_socket.fd.get(), timeout_ms);
  }
  std::optional<Opened> NextAt(int fd, int timeout_ms = kPatienceMs) {
    if (!WaitReadable(fd, timeout_ms)) return std::nullopt;
    Buffer datagram(2048);
    Arrival arrival{};
    datagram.resize(ReceiveDatagram(fd, datagram, arrival));
    Opened out;
    out.from = arrival.source;
    EXPECT_EQ(ReadHeader(datagram, out.header), HeaderVerdict::kOk);
    const auto keys = keypairs.find(out.header.session);
    if (keys == keypairs.end() || out.header.lane >= kRigLanes) {
      ADD_FAILURE() << "sealed for nobody";
      return std::nullopt;
    }
    LaneReceiver::Opened opened;
    const auto drop = receivers[out.header.lane].Open(keys->second->client, out.header, datagram,
                                                      MonotonicNowNs(), opened);
    EXPECT_FALSE(drop) << kDropNames[static_cast<size_t>(drop.value_or(Drop{}))];
    if (drop) return std::nullopt;
    out.plain.assign(opened.plain.begin(), opened.plain.end());
    return out;
  }

  Buffer Seal(const KeypairOfBothEnds& keys, uint8_t lane, Bytes plain, Kind kind = Kind::kData,
              uint8_t flags = 0, uint8_t path = 0) {
    Buffer datagram(plain.size() + kSealOverheadBytes);
    EXPECT_FALSE(senders[lane].Prepare(keys.client, lane, MonotonicNowNs()));
    senders[lane].Seal(kind, path, flags, plain, datagram.data());
    return datagram;
  }
  Buffer SealControl(const KeypairOfBothEnds& keys, uint8_t lane, const ControlMessage& message) {
    std::array<uint8_t, kMaxControlBytes> plain;
    const size_t bytes = WriteControlMessage(message, plain);
    return Seal(keys, lane, {plain.data(), bytes}, Kind::kControl);
  }

  // From the peer to the socket, which is the worker's of that number (or the lane's).
  void ToSocket(size_t socket, const Buffer& datagram) {
    SendDatagram(peer_socket.fd.get(), sockets[socket].local, {}, datagram);
  }

  const KeypairOfBothEnds& first_keys() const { return *keypairs.begin()->second; }

  const Options options;
  UdpSocket peer_socket;
  std::vector<UdpSocket> sockets;
  std::vector<UniqueFd> tun;  // our ends
  std::vector<std::unique_ptr<WorkerMailbox>> mailboxes;
  SlowPathMailbox events;
  std::unique_ptr<RouteTable> routes;
  std::map<uint32_t, std::unique_ptr<KeypairOfBothEnds>> keypairs;  // by the peer's index
  std::vector<std::unique_ptr<Worker>> workers;
  std::array<LaneSender, kRigLanes> senders;  // the peer's
  std::array<LaneReceiver, kRigLanes> receivers;
  uint64_t commands_given = 0;

 private:
  std::vector<UniqueFd> near_tun_;
  std::vector<const WorkerState*> states_;
  uint64_t keypairs_made_ = 0;
};

}  // namespace braid::testing
