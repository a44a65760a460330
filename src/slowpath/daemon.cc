#include "slowpath/daemon.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "io/tun.h"
#include "io/tun_steering.h"
#include "slowpath/control_server.h"
#include "slowpath/cpu_topology.h"
#include "slowpath/handshake_arena.h"
#include "slowpath/handshake_counter.h"
#include "slowpath/key_file.h"
#include "slowpath/measure_responder.h"
#include "slowpath/net_setup.h"
#include "slowpath/path_meter.h"
#include "slowpath/peer_address.h"
#include "slowpath/peers.h"
#include "slowpath/status.h"
#include "slowpath/tunnel_sockets.h"
#include "slowpath/worker_group.h"
#include "slowpath/worker_layout.h"

namespace braid {
namespace {

namespace asio = boost::asio;

constexpr int kDefaultLinkMtu = 1500;
constexpr int kDatagramsPerWake = 64;  // from one socket, before others have their turn
constexpr int kEventsPerWake = 256;
constexpr int kJobsPerWake = 64;
constexpr auto kRetryCommandsAfter = std::chrono::milliseconds(1);
// Packets of workers' lanes that came to the slow lane's socket: what a server sends on a lane
// before the client has told where that lane is.
constexpr int kStrayBuffers = 512;
constexpr auto kResolveEvery = std::chrono::seconds(5);
constexpr DurationNs kWaitForPredecessorNs = 2 * kSecondNs;
constexpr auto kPredecessorPoll = std::chrono::milliseconds(50);

// No more than there are handshakes to do at once.
int HandshakeThreads(const Config& config) {
  const size_t cpus = AffinityOfThisProcess().size();
  return static_cast<int>(std::max<size_t>(std::min(cpus, config.tunnel.peers.size()), 1));
}

class Daemon final : private PeerHost {
 public:
  explicit Daemon(const Config& config)
      : config_(config),
        signals_(io_, SIGINT, SIGTERM),
        tick_(io_),
        retry_commands_(io_),
        workers_(ChooseWorkers(config).cpus),
        meters_(config.tunnel.peers.size()),
        arena_(HandshakeThreads(config)) {}

  absl::Status Run();

 private:
  // Bring-up, in order. What each one made is a member, so it goes away in reverse order.
  absl::Status ReadKeys();
  absl::Status OpenSockets();
  absl::Status OpenDevice();
  absl::Status SteerByLanes(int lanes);
  absl::Status StartWorkers();
  absl::Status AddPeers();
  absl::Status ListenForMeasurements();
  absl::Status ListenForControl();
  absl::StatusOr<int> ChooseMtu();
  std::vector<PeerPath> ClientPaths() const;
  const HostPort* EndpointOf(const PathConfig& path, const PeerConfig& peer) const;

  // The slow lane's sockets.
  struct SlowSocket {
    asio::posix::stream_descriptor descriptor;
    uint16_t group;
    bool answers_from_local;
  };
  void WaitForDatagrams(SlowSocket& socket);
  void ReadDatagrams(SlowSocket& socket);
  void OnDatagram(MutableBytes datagram, const Route& back);

  // What other threads tell.
  struct Inbox {
    Doorbell& doorbell;
    std::function<bool()> is_empty;
    std::function<void()> take_some;
    std::optional<asio::posix::stream_descriptor> descriptor;
  };
  void WaitFor(Inbox& inbox);
  void TakeFrom(Inbox& inbox);
  void TakeEvents();
  void TakeJobs();
  void RetryCommands();
  void ScheduleTick();
  void Tick();
  void ResolveEndpoints();
  void Resolve(PeerSlot peer, uint8_t path, const HostPort& endpoint);
  uint64_t TunQueueDrops();
  ControlResult OnControl(std::string_view verb, const nlohmann::json& params);
  ControlResult DescribePeer(const nlohmann::json& params) const;
  void Shutdown();

  // PeerHost
  void SendDatagram(const Route& route, Bytes datagram) override;
  void Tell(const Command& command) override;
  void Retire(std::unique_ptr<const Keypair> keypair) override {
    workers_.Retire(std::move(keypair));
  }
  void RunJob(std::unique_ptr<HandshakeJob> job) override { arena_.Run(std::move(job)); }
  PeerActivity ActivityOf(PeerSlot peer) override { return workers_.ActivityOf(peer); }
  uint64_t NextHandshakeCounter() override { return counter_->Next(WallNowNs()); }
  void OnSessionMtu(PeerSlot peer, uint16_t mtu) override;
  void Report(const std::string& line) override { spdlog::info("{}", line); }

  void SteerByAgreedLanes();
  void Warn(std::string warning);

  const Config& config_;
  asio::io_context io_{1};
  asio::signal_set signals_;
  asio::steady_timer tick_;
  asio::steady_timer retry_commands_;
  bool retrying_commands_ = false;
  const TimeNs started_ns_ = MonotonicNowNs();
  std::vector<std::string> warnings_;

  Identity identity_;
  std::vector<Secret> preshared_keys_;
  AeadSuite aeads_;
  std::optional<HandshakeCounter> counter_;
  std::optional<TunnelSockets> sockets_;
  std::optional<TunDevice> device_;
  bool steered_by_bpf_ = false;
  int steered_lanes_ = 0;  // that the steering program counts with
  int own_mtu_ = 0;        // as configured, or as the paths allow
  int mtu_ = 0;            // of the device
  uint64_t tun_queue_drops_ = 0;
  std::unique_ptr<PacketPool> stray_pool_;
  DropCounters stray_drops_;
  WorkerGroup workers_;
  PathMeters meters_;
  std::optional<Peers> peers_;
  HandshakeArena arena_;
  std::vector<std::unique_ptr<SlowSocket>> slow_sockets_;
  Inbox events_{workers_.events().doorbell, [this] { return workers_.events().events.Empty(); },
                [this] { TakeEvents(); }, std::nullopt};
  Inbox jobs_{arena_.doorbell(), [this] { return arena_.Empty() || workers_.has_waiting(); },
              [this] { TakeJobs(); }, std::nullopt};
  std::unique_ptr<MeasureResponder> measure_;
  std::unique_ptr<ControlServer> control_;
  asio::ip::udp::resolver resolver_{io_};
  std::chrono::steady_clock::time_point next_resolve_{};
  TimeNs next_sample_ns_ = 0;
  bool stopping_ = false;
};

// --- Bring-up ---

absl::Status Daemon::Run() {
  for (auto step :
       {&Daemon::ReadKeys, &Daemon::OpenSockets, &Daemon::OpenDevice, &Daemon::StartWorkers,
        &Daemon::AddPeers, &Daemon::ListenForMeasurements, &Daemon::ListenForControl}) {
    absl::Status status = (this->*step)();
    // The kernel may need a moment to let go of what a killed daemon has held.
    const TimeNs give_up_ns = MonotonicNowNs() + kWaitForPredecessorNs;
    while (absl::IsAlreadyExists(status) && MonotonicNowNs() < give_up_ns) {
      std::this_thread::sleep_for(kPredecessorPoll);
      status = (this->*step)();
    }
    if (!status.ok()) return status;
  }
  signals_.async_wait([this](const boost::system::error_code& error, int) {
    if (!error) Shutdown();
  });
  WaitFor(events_);
  WaitFor(jobs_);
  for (auto& socket : slow_sockets_) WaitForDatagrams(*socket);
  ResolveEndpoints();
  Tick();
  spdlog::info("running as {} on {}: {} workers, {}, MTU {}",
               config_.role == Role::kClient ? "client" : "server", config_.network.device,
               workers_.workers(), workers_.backend_name(), mtu_);
  sd_notify(0, "READY=1");
  io_.run();
  workers_.Stop();
  spdlog::info("stopped");
  return absl::OkStatus();
}

absl::Status Daemon::ReadKeys() {
  const auto private_key = ReadKeyFile(config_.security.private_key_file);
  if (!private_key.ok()) return private_key.status();
  identity_ = Identity::FromPrivate(*private_key);
  for (const PeerConfig& peer : config_.tunnel.peers) {
    preshared_keys_.emplace_back();
    if (peer.preshared_key_file.empty()) continue;
    auto key = ReadKeyFile(peer.preshared_key_file);
    if (!key.ok()) return key.status();
    preshared_keys_.back() = *key;
  }
  auto aeads = ChooseAeads(config_.performance.aead);
  if (!aeads.ok()) return aeads.status();
  aeads_ = *aeads;
  counter_.emplace(config_.security.state_dir, identity_.public_key);
  if (absl::Status status = counter_->Load(); !status.ok()) {
    Warn(std::string(status.message()) + "; handshakes depend on this machine's clock alone");
  }
  return absl::OkStatus();
}

absl::Status Daemon::OpenSockets() {
  auto sockets = TunnelSockets::Open(config_, workers_.workers());
  if (!sockets.ok()) return sockets.status();
  sockets_ = *std::move(sockets);
  for (const std::string& warning : sockets_->warnings()) Warn(warning);
  auto pool = PacketPool::Create(kStrayBuffers);
  if (!pool.ok()) return pool.status();
  stray_pool_ = *std::move(pool);
  stray_pool_->BindToThisThread();
  const auto& slow = sockets_->slow();
  for (size_t group = 0; group < slow.size(); ++group) {
    if (slow[group].fd < 0) continue;
    slow_sockets_.push_back(std::make_unique<SlowSocket>(
        SlowSocket{asio::posix::stream_descriptor(io_, dup(slow[group].fd)),
                   static_cast<uint16_t>(group), slow[group].answers_from_local}));
  }
  return absl::OkStatus();
}

absl::Status Daemon::OpenDevice() {
  const auto mtu = ChooseMtu();
  if (!mtu.ok()) return mtu.status();
  own_mtu_ = mtu_ = *mtu;
  auto device = OpenTun(config_.network.device, workers_.workers(), config_.performance.offloads);
  if (!device.ok()) return device.status();
  device_ = *std::move(device);
  if (config_.performance.offloads && !(device_->offloads.tso && device_->offloads.uso)) {
    Warn(std::string("this kernel's TUN has no ") +
         (device_->offloads.tso ? "UDP" : "TCP and UDP") + " segmentation offload");
  }
  if (workers_.workers() > 1) {
    absl::Status status = SteerByLanes(config_.tunnel.lanes);
    steered_by_bpf_ = status.ok();
    if (!status.ok()) {
      Warn(std::string(status.message()) + ": workers hand packets to each other instead");
    }
  }
  return SetUpDevice(config_.network.device, config_.network.addresses, mtu_);
}

absl::Status Daemon::SteerByLanes(int lanes) {
  steered_lanes_ = lanes;
  auto program = LoadLaneSteering(lanes, workers_.workers());
  if (!program.ok()) return program.status();
  return AttachLaneSteering(device_->queues[0].get(), program->get());
}

absl::Status Daemon::StartWorkers() {
  if (absl::Status status = workers_.Start(config_, *device_, *sockets_); !status.ok()) {
    return status;
  }
  if (!workers_.fallback_reason().empty()) {
    Warn(workers_.fallback_reason() + ": going on with epoll");
  }
  return absl::OkStatus();
}

const HostPort* Daemon::EndpointOf(const PathConfig& path, const PeerConfig& peer) const {
  if (path.endpoint) return &*path.endpoint;
  for (const HostPort& endpoint : peer.endpoints) {
    const bool same_family = !endpoint.address.is_set() || !path.address.is_set() ||
                             endpoint.address.family == path.address.family;
    if (same_family) return &endpoint;
  }
  return nullptr;
}

// Configured, or what the smallest path carries. A name that is not resolved yet, and the clients
// of a server, are taken to be behind an ordinary link.
absl::StatusOr<int> Daemon::ChooseMtu() {
  const int seal = static_cast<int>(kSealOverheadBytes);
  int smallest = kMaxMtu;
  if (config_.role == Role::kServer) {
    for (const Endpoint& listen : config_.tunnel.listen) {
      smallest =
          std::min(smallest, kDefaultLinkMtu - OuterHeaderBytes(listen.address.is_v6()) - seal);
    }
    return config_.network.mtu.value_or(smallest);
  }
  for (size_t i = 0; i < config_.tunnel.paths.size(); ++i) {
    const PathConfig& path = config_.tunnel.paths[i];
    for (const PeerConfig& peer : config_.tunnel.peers) {
      const HostPort* endpoint = EndpointOf(path, peer);
      if (endpoint == nullptr) continue;
      const bool v6 = endpoint->address.is_set() ? endpoint->address.is_v6() : true;
      int link_mtu = kDefaultLinkMtu;
      if (endpoint->address.is_set()) {
        link_mtu = RouteMtu({endpoint->address, endpoint->port}, path.address, path.interface)
                       .value_or(kDefaultLinkMtu);
      }
      const int carries = link_mtu - OuterHeaderBytes(v6) - seal;
      const std::string where = "/tunnel/paths/" + std::to_string(i) + ": path \"" + path.name +
                                "\" carries inner packets of " + std::to_string(carries) +
                                " bytes at most";
      if (carries < static_cast<int>(kMinMtu)) {
        return absl::FailedPreconditionError(where + ", and 1280 is the least that IPv6 allows");
      }
      if (config_.network.mtu.value_or(0) > carries && endpoint->address.is_set()) {
        return absl::FailedPreconditionError(
            where + ", less than network.mtu: lower that, or set it to \"auto\"");
      }
      smallest = std::min(smallest, carries);
    }
  }
  return config_.network.mtu.value_or(std::min(smallest, static_cast<int>(kMaxMtu)));
}

// A server has none of its own: its peers come in over theirs.
std::vector<PeerPath> Daemon::ClientPaths() const {
  std::vector<PeerPath> paths;
  if (config_.role == Role::kServer) return paths;
  for (const PathConfig& config : config_.tunnel.paths) {
    PeerPath path;
    path.name = config.name;
    paths.push_back(std::move(path));
  }
  return paths;
}

absl::Status Daemon::AddPeers() {
  PeersOptions options;
  options.role = config_.role;
  options.identity = identity_;
  options.aeads = aeads_;
  options.ciphers = config_.tunnel.ciphers;
  options.lanes = config_.tunnel.lanes;
  options.mtu = static_cast<uint16_t>(mtu_);
  options.rekey_after_ns = static_cast<DurationNs>(config_.security.rekey_after_s) * kSecondNs;
  options.rekey_after_packets = config_.security.rekey_after_packets;
  peers_.emplace(std::move(options), static_cast<PeerHost&>(*this));
  std::vector<RouteTable::Route> routes;
  for (size_t i = 0; i < config_.tunnel.peers.size(); ++i) {
    const PeerConfig& peer = config_.tunnel.peers[i];
    absl::Status status = peers_->Add(peer, preshared_keys_[i], ClientPaths());
    if (!status.ok()) return status;
    for (const IpPrefix& prefix : peer.allowed_ips) {
      routes.push_back({prefix, static_cast<PeerSlot>(i)});
    }
  }
  workers_.SetRoutes(std::make_unique<RouteTable>(routes));
  return absl::OkStatus();
}

// A tunnel that cannot be measured is still a tunnel.
absl::Status Daemon::ListenForMeasurements() {
  if (config_.performance.measure_port == 0) return absl::OkStatus();
  MeasureResponderOptions options;
  for (const IpPrefix& prefix : config_.network.addresses) {
    options.addresses.push_back(prefix.address);
  }
  options.port = config_.performance.measure_port;
  options.device = config_.network.device;
  options.public_key = EncodeKey(identity_.public_key);
  // This machine reaches its own inner addresses without the tunnel.
  options.allows = [this, own = options.addresses](const IpAddress& address) {
    return std::find(own.begin(), own.end(), address) == own.end() &&
           workers_.routes()->Lookup(address) != kNoPeer;
  };
  measure_ = std::make_unique<MeasureResponder>(io_, std::move(options));
  if (absl::Status status = measure_->Listen(); !status.ok()) {
    Warn("performance.measure_port: " + std::string(status.message()) +
         "; no peer can measure there");
  }
  return absl::OkStatus();
}

absl::Status Daemon::ListenForControl() {
  auto server = ControlServer::Listen(io_, config_.control.socket,
                                      [this](std::string_view verb, const nlohmann::json& params) {
                                        return OnControl(verb, params);
                                      });
  if (!server.ok()) return server.status();
  control_ = *std::move(server);
  return absl::OkStatus();
}

// --- Datagrams of the slow lane ---

void Daemon::WaitForDatagrams(SlowSocket& socket) {
  socket.descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                               [this, &socket](const boost::system::error_code& error) {
                                 if (error || stopping_) return;
                                 ReadDatagrams(socket);
                                 WaitForDatagrams(socket);
                               });
}

void Daemon::ReadDatagrams(SlowSocket& socket) {
  std::array<uint8_t, kPacketDataBytes> buffer;
  for (int i = 0; i < kDatagramsPerWake; ++i) {
    Arrival arrival{};
    const size_t bytes = ReceiveDatagram(socket.descriptor.native_handle(), buffer, arrival);
    if (bytes == 0) return;
    OnDatagram(
        {buffer.data(), bytes},
        {arrival.source, socket.answers_from_local ? arrival.local : IpAddress{}, socket.group});
  }
}

void Daemon::OnDatagram(MutableBytes datagram, const Route& back) {
  if (!peers_->OnDatagram(datagram, back, MonotonicNowNs())) return;
  // It belongs to a worker's lane.
  PacketPtr packet = stray_pool_->Take();
  if (packet == nullptr) return stray_drops_.Count(Drop::no_buffer);
  std::copy(datagram.begin(), datagram.end(), packet->data());
  packet->length = static_cast<uint32_t>(datagram.size());
  const uint8_t lane = datagram[8];
  // A client's socket is one lane's, so it can tell that the server has lost this lane.
  const int16_t socket_lane = config_.role == Role::kClient ? kSlowLane : Incoming::kAnyLane;
  HandedPacket handed{HandedPacket::From::kNetwork,
                      std::move(packet),
                      {back, socket_lane, static_cast<uint16_t>(datagram.size())}};
  if (!workers_.HandPacket(lane, std::move(handed))) stray_drops_.Count(Drop::inbox_full);
}

void Daemon::SendDatagram(const Route& route, Bytes datagram) {
  const auto& slow = sockets_->slow();
  if (route.socket_group >= slow.size() || slow[route.socket_group].fd < 0) return;
  braid::SendDatagram(slow[route.socket_group].fd, route.remote, route.local, datagram);
}

// --- What workers and handshakes tell ---

void Daemon::WaitFor(Inbox& inbox) {
  if (!inbox.descriptor) inbox.descriptor.emplace(io_, dup(inbox.doorbell.fd()));
  inbox.doorbell.AnnounceSleep();
  if (!inbox.is_empty()) {
    inbox.doorbell.AnnounceAwake();
    asio::post(io_, [this, &inbox] { TakeFrom(inbox); });
    return;
  }
  inbox.descriptor->async_wait(asio::posix::stream_descriptor::wait_read,
                               [this, &inbox](const boost::system::error_code& error) {
                                 if (error || stopping_) return;
                                 uint64_t count;
                                 const int fd = inbox.descriptor->native_handle();
                                 (void)!read(fd, &count, sizeof(count));
                                 TakeFrom(inbox);
                               });
}

void Daemon::TakeFrom(Inbox& inbox) {
  if (stopping_) return;
  inbox.take_some();
  WaitFor(inbox);
}

void Daemon::TakeEvents() {
  Event event;
  for (int i = 0; i < kEventsPerWake && workers_.events().events.TryPop(event); ++i) {
    if (event.type == Event::Type::kDatagram) {
      OnDatagram({event.bytes.data(), event.length}, event.back);
    } else {
      peers_->OnEvent(event, MonotonicNowNs());
    }
  }
}

// A handshake gives workers several commands, so none ends while commands wait: what waits stays
// short, and under more load initiations are refused instead.
void Daemon::TakeJobs() {
  for (int i = 0; i < kJobsPerWake && !workers_.has_waiting(); ++i) {
    std::unique_ptr<HandshakeJob> job = arena_.TryTake();
    if (job == nullptr) return;
    peers_->OnJobDone(std::move(job), MonotonicNowNs());
  }
}

// Commands that found a full mailbox are brought soon, not at the next tick; jobs waited for that.
void Daemon::RetryCommands() {
  if (retrying_commands_ || !workers_.has_waiting()) return;
  retrying_commands_ = true;
  retry_commands_.expires_after(kRetryCommandsAfter);
  retry_commands_.async_wait([this](const boost::system::error_code& error) {
    retrying_commands_ = false;
    if (error || stopping_) return;
    workers_.Tick();
    RetryCommands();
    if (!workers_.has_waiting()) arena_.doorbell().Ring();
  });
}

// --- Time ---

void Daemon::ScheduleTick() {
  tick_.expires_after(std::chrono::nanoseconds(Peers::kTickNs));
  tick_.async_wait([this](const boost::system::error_code& error) {
    if (!error && !stopping_) Tick();
  });
}

void Daemon::Tick() {
  const TimeNs now_ns = MonotonicNowNs();
  peers_->Tick(now_ns);
  workers_.Tick();
  if (now_ns >= next_sample_ns_) {
    const auto paths_of = [this](PeerSlot slot) {
      const Peer& peer = *peers_->all()[slot];
      return peer.established() ? peer.paths.size() : 0;
    };
    const auto totals_of = [this](PeerSlot slot, int path) {
      return workers_.TrafficOf(slot, path);
    };
    meters_.Sample(paths_of, totals_of, now_ns);
    next_sample_ns_ = now_ns + kSecondNs;
  }
  if (std::chrono::steady_clock::now() >= next_resolve_) ResolveEndpoints();
  ScheduleTick();
}

// Addresses are set once; names are resolved again as long as their peer does not answer.
void Daemon::ResolveEndpoints() {
  next_resolve_ = std::chrono::steady_clock::now() + kResolveEvery;
  if (config_.role == Role::kServer) return;
  for (size_t slot = 0; slot < config_.tunnel.peers.size(); ++slot) {
    if (!Peers::WantsResolving(*peers_->all()[slot])) continue;
    for (size_t id = 0; id < config_.tunnel.paths.size(); ++id) {
      const HostPort* endpoint = EndpointOf(config_.tunnel.paths[id], config_.tunnel.peers[slot]);
      if (endpoint == nullptr) continue;
      const auto path = static_cast<uint8_t>(id);
      if (endpoint->address.is_set()) {
        const Route route{{endpoint->address, endpoint->port},
                          {},
                          TunnelSockets::ClientGroup(static_cast<int>(id), endpoint->address)};
        if (!peers_->all()[slot]->paths[id].route.remote.is_set()) {
          peers_->SetPathRoute(static_cast<PeerSlot>(slot), path, route, MonotonicNowNs());
        }
      } else {
        Resolve(static_cast<PeerSlot>(slot), path, *endpoint);
      }
    }
  }
}

void Daemon::Resolve(PeerSlot peer, uint8_t path, const HostPort& endpoint) {
  resolver_.async_resolve(
      endpoint.host, std::to_string(endpoint.port),
      [this, peer, path, host = endpoint.host](const boost::system::error_code& error,
                                               const asio::ip::udp::resolver::results_type& found) {
        if (error == asio::error::operation_aborted) return;
        if (error) return spdlog::warn("cannot resolve \"{}\": {}", host, error.message());
        const IpAddress& own = config_.tunnel.paths[path].address;
        for (const auto& entry : found) {
          sockaddr_storage address{};
          std::memcpy(&address, entry.endpoint().data(), entry.endpoint().size());
          const Endpoint remote = Endpoint::From(address);
          if (own.is_set() && own.family != remote.address.family) continue;
          const uint16_t group = TunnelSockets::ClientGroup(path, remote.address);
          if (sockets_->slow()[group].fd < 0) continue;
          return peers_->SetPathRoute(peer, path, {remote, {}, group}, MonotonicNowNs());
        }
      });
}

void Daemon::Tell(const Command& command) {
  workers_.Tell(command);
  RetryCommands();
  if (command.type == Command::Type::kSendUnder) SteerByAgreedLanes();
}

// Two ends that want different numbers of lanes agree on the smaller, and the steering program has
// to count with that. There is one program for the whole device, and it does not know whom a packet
// is for: a client steers for its servers when they agree on one number, a server's clients may
// each have another, so what goes to them is handed over where it has to be.
void Daemon::SteerByAgreedLanes() {
  if (!steered_by_bpf_ || config_.role == Role::kServer) return;
  int agreed = 0;
  for (const auto& peer : peers_->all()) {
    if (!peer->established()) continue;
    if (agreed != 0 && peer->current->lanes != agreed) return;
    agreed = peer->current->lanes;
  }
  if (agreed == 0 || agreed == steered_lanes_) return;
  if (absl::Status status = SteerByLanes(agreed); !status.ok()) {
    Warn(std::string(status.message()) + " for " + std::to_string(agreed) +
         " lanes: workers hand packets to each other");
  }
}

// A client whose MTU is automatic follows what its servers carry, so that its own kernel fragments
// or refuses what would not fit.
void Daemon::OnSessionMtu(PeerSlot, uint16_t) {
  if (config_.network.mtu || config_.role == Role::kServer) return;
  int smallest = own_mtu_;
  for (const auto& peer : peers_->all()) {
    if (peer->established()) smallest = std::min<int>(smallest, peer->mtu);
  }
  if (smallest == mtu_) return;
  if (absl::Status status = SetDeviceMtu(config_.network.device, smallest); !status.ok()) {
    return spdlog::warn("{}", std::string(status.message()));
  }
  mtu_ = smallest;
  spdlog::info("{} now has MTU {}", config_.network.device, mtu_);
}

// --- Control ---

// The device is as old as this process, so the kernel's count begins with it. The last one that was
// read stands when there is no other: somebody may have renamed the device.
uint64_t Daemon::TunQueueDrops() {
  if (const auto drops = DeviceQueueDrops(config_.network.device); drops.ok()) {
    tun_queue_drops_ = *drops;
  }
  return tun_queue_drops_;
}

ControlResult Daemon::OnControl(std::string_view verb, const nlohmann::json& params) {
  if (stopping_) return ControlError{ControlCode::kUnavailable, "the daemon is stopping"};
  if (verb == "status") {
    return ToJsonText(
        DescribeStatus({config_, *peers_, workers_, meters_, device_->offloads, aeads_,
                        stray_drops_, TunQueueDrops(), sockets_->ReceiveQueueDrops(),
                        steered_by_bpf_, mtu_, warnings_, started_ns_, MonotonicNowNs()}));
  }
  if (verb == "stop") {
    asio::post(io_, [this] { Shutdown(); });
    return std::string("{}");
  }
  if (verb == "peer") return DescribePeer(params);
  return UnknownVerb(verb);
}

// What somebody needs who wants to reach one peer through the tunnel.
ControlResult Daemon::DescribePeer(const nlohmann::json& params) const {
  const auto name = params.find("name");
  if (name == params.end() || !name->is_string()) {
    return ControlError{ControlCode::kBadParams, "\"name\" must be the name of a peer"};
  }
  for (size_t slot = 0; slot < config_.tunnel.peers.size(); ++slot) {
    const PeerConfig& peer = config_.tunnel.peers[slot];
    if (peer.name != name->get_ref<const std::string&>()) continue;
    nlohmann::ordered_json json;
    json["name"] = peer.name;
    json["public_key"] = EncodeKey(peer.public_key);
    const Peer& state = *peers_->all()[slot];
    json["established"] = state.established();
    json["up"] = state.established() && std::any_of(state.paths.begin(), state.paths.end(),
                                                    [](const PeerPath& path) { return path.up; });
    json["addresses"] = nlohmann::ordered_json::array();
    for (const IpAddress& address : PeerAddresses(config_, peer)) {
      json["addresses"].push_back(address.ToString());
    }
    json["device"] = config_.network.device;
    json["measure_port"] = config_.performance.measure_port;
    return ToJsonText(json);
  }
  return ControlError{ControlCode::kNotFound,
                      "there is no peer of this name; \"braid status\" lists them"};
}

// In reverse order of the bring-up; io_.run() returns when nothing is left to wait for.
void Daemon::Shutdown() {
  if (stopping_) return;
  stopping_ = true;
  sd_notify(0, "STOPPING=1");
  spdlog::info("stopping");
  if (measure_) measure_->Close();
  arena_.Stop();
  peers_->Close(MonotonicNowNs());
  resolver_.cancel();
  tick_.cancel();
  signals_.cancel();
  for (auto& socket : slow_sockets_) socket->descriptor.cancel();
  retry_commands_.cancel();
  for (Inbox* inbox : {&events_, &jobs_}) {
    if (inbox->descriptor) inbox->descriptor->cancel();
  }
  workers_.Stop();
  // The device goes before the control socket: who waits for the socket's end finds nothing left.
  device_.reset();
  control_->Close();
}

void Daemon::Warn(std::string warning) {
  spdlog::warn("{}", warning);
  warnings_.push_back(std::move(warning));
}

}  // namespace

absl::Status RunDaemon(const Config& config) { return Daemon(config).Run(); }

}  // namespace braid
