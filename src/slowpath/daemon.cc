#include "slowpath/daemon.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <utility>

#include "io/tun.h"
#include "io/tun_steering.h"
#include "slowpath/client_paths.h"
#include "slowpath/control_server.h"
#include "slowpath/cpu_topology.h"
#include "slowpath/handshake_arena.h"
#include "slowpath/handshake_counter.h"
#include "slowpath/host_network.h"
#include "slowpath/key_file.h"
#include "slowpath/kill_switch.h"
#include "slowpath/measure_responder.h"
#include "slowpath/mode_commands.h"
#include "slowpath/name_resolver.h"
#include "slowpath/net_monitor.h"
#include "slowpath/net_setup.h"
#include "slowpath/next_hop.h"
#include "slowpath/path_binding.h"
#include "slowpath/path_commands.h"
#include "slowpath/path_meter.h"
#include "slowpath/path_quota.h"
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

std::vector<HostPort> EndpointsOf(const PathConfig& path, const PeerConfig& peer) {
  return path.endpoint ? std::vector<HostPort>{*path.endpoint} : peer.endpoints;
}

std::string NameOf(const HostPort& endpoint) {
  return endpoint.host + ":" + std::to_string(endpoint.port);
}

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
        counted_bytes_(config.tunnel.peers.size()),
        workers_(ChooseWorkers(config).cpus),
        meters_(config.tunnel.peers.size()),
        arena_(HandshakeThreads(config)) {}

  absl::Status Run();

 private:
  // Bring-up, in order. What each one made is a member, so it goes away in reverse order.
  absl::Status HoldKillSwitch();
  absl::Status ReadKeys();
  absl::Status TakeBackLeftovers();
  absl::Status FollowLinks();
  absl::Status OpenSockets();
  absl::Status OpenDevice();
  absl::Status SteerByLanes(int lanes);
  absl::Status StartWorkers();
  absl::Status AddPeers();
  absl::Status ListenForMeasurements();
  absl::Status ListenForControl();
  absl::Status BringUpNetwork();
  absl::StatusOr<int> ChooseMtu();

  // This machine's network around the tunnel.
  void OnNetwork();
  HostNetwork::Tunnel SeeTunnel() const;
  void OnFirstSession();
  void FollowNetwork();
  void TakeBackNetwork();
  std::vector<IpAddress> NameServers() const;

  // A client's paths.
  absl::Status OpenPaths();
  void AddPath(uint8_t id) {
    const PathConfig& config = (*paths_)[id]->config;
    peers_->AddPath(id, config.name, config.bonding);
  }
  void FollowPaths();
  absl::Status OpenPath(uint8_t id);
  void ClosePath(uint8_t id);
  void RoutePaths(bool resolved_anew);
  void RoutePath(PeerSlot slot, uint8_t id, bool resolved_anew);
  void TellProblems();
  bool IsUsedUp(const PathConfig& path) {
    return path.quota && quotas_->Of(path.name, *path.quota).used_up();
  }
  void LookAtQuotas(TimeNs now_ns);
  uint64_t BytesOver(uint8_t id);
  void KeepQuotas(const absl::Status& status);
  std::vector<Endpoint> RemotesOf(const PathConfig& path, const PeerConfig& peer) const;
  BindingChoice ChooseBindingOf(const PathConfig& path);

  // The slow lane's sockets.
  struct SlowSocket {
    asio::posix::stream_descriptor descriptor;
    uint16_t group;
    bool answers_from_local;
    bool closed = false;
  };
  void OpenSlowSocket(uint16_t group);
  void WaitForDatagrams(const std::shared_ptr<SlowSocket>& socket);
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
  void Resolve(const HostPort& endpoint);
  uint64_t TunQueueDrops();
  ControlResult OnControl(std::string_view verb, const nlohmann::json& params);
  ControlResult DescribePeer(const nlohmann::json& params) const;
  ControlResult OnModeVerb(const nlohmann::json& params);
  ControlResult OnPathVerb(std::string_view verb, const nlohmann::json& params);
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
  LinkMtu LinkMtuOf(const Route& route) override;
  void ResolveAnew(const Route& route) override;
  void OnSessionMtu(PeerSlot peer, uint16_t mtu) override;
  void Report(const std::string& line) override { spdlog::info("{}", line); }
  void ReportProblem(const std::string& line) override { spdlog::error("{}", line); }

  PathBinding BindingOf(const Route& route) const;
  void SteerByAgreedLanes();
  void Warn(std::string warning);

  const Config& config_;
  BondOptions bonding_ = config_.tunnel.bonding;  // as commands have changed it
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
  std::optional<NetMonitor> network_;
  ThisHost host_;
  std::optional<HostNetwork> host_network_;  // nothing where it could not be
  bool has_carried_ = false;                 // a session was established, ever
  absl::Status failed_;                      // what the daemon stops for
  // Of a client.
  NetSnapshot followed_;  // the network as it was when the paths followed it
  std::optional<ClientPaths> paths_;
  std::map<std::string, std::vector<Endpoint>> resolved_;  // by host and port
  std::set<std::string> resolving_;
  std::array<std::string, kMaxPaths> told_problems_;
  std::optional<PathQuotas> quotas_;  // of a server's, too: it has none
  // Bytes over each path: of the slow lane since they were counted for its quota, and of the
  // workers up to then, by peer.
  std::array<uint64_t, kMaxPaths> slow_bytes_{};
  std::vector<std::array<uint64_t, kMaxPaths>> counted_bytes_;
  std::string told_problem_;
  std::optional<TunDevice> device_;
  bool steered_by_bpf_ = false;
  int steered_lanes_ = 0;  // that the steering program counts with
  int mtu_ = 0;            // of the device
  int largest_mtu_ = 0;    // that any path may come to carry
  uint64_t tun_queue_drops_ = 0;
  std::unique_ptr<PacketPool> stray_pool_;
  DropCounters stray_drops_;
  WorkerGroup workers_;
  PathMeters meters_;
  std::optional<Peers> peers_;
  HandshakeArena arena_;
  std::array<std::shared_ptr<SlowSocket>, kMaxSocketGroups> slow_sockets_;
  Inbox events_{workers_.events().doorbell, [this] { return workers_.events().events.Empty(); },
                [this] { TakeEvents(); }, std::nullopt};
  Inbox jobs_{arena_.doorbell(), [this] { return arena_.Empty() || workers_.has_waiting(); },
              [this] { TakeJobs(); }, std::nullopt};
  std::unique_ptr<MeasureResponder> measure_;
  std::unique_ptr<ControlServer> control_;
  NameResolver resolver_{io_};
  std::chrono::steady_clock::time_point next_resolve_{};
  TimeNs next_sample_ns_ = 0;
  bool running_ = false;  // the workers and the peers are there
  bool stopping_ = false;
};

// --- Bring-up ---

absl::Status Daemon::Run() {
  for (auto step : {&Daemon::HoldKillSwitch, &Daemon::ReadKeys, &Daemon::TakeBackLeftovers,
                    &Daemon::FollowLinks, &Daemon::OpenSockets, &Daemon::OpenDevice,
                    &Daemon::StartWorkers, &Daemon::AddPeers, &Daemon::ListenForMeasurements,
                    &Daemon::ListenForControl, &Daemon::BringUpNetwork}) {
    absl::Status status = (this->*step)();
    // The kernel may need a moment to let go of what a killed daemon has held.
    const TimeNs give_up_ns = MonotonicNowNs() + kWaitForPredecessorNs;
    while (absl::IsAlreadyExists(status) && MonotonicNowNs() < give_up_ns) {
      std::this_thread::sleep_for(kPredecessorPoll);
      status = (this->*step)();
    }
    if (status.ok()) continue;
    TakeBackNetwork();
    return status;
  }
  signals_.async_wait([this](const boost::system::error_code& error, int) {
    if (!error) Shutdown();
  });
  WaitFor(events_);
  WaitFor(jobs_);
  if (paths_) {
    TellProblems();
    RoutePaths(false);
  }
  ResolveEndpoints();
  Tick();
  spdlog::info("running as {} on {}: {} workers, {}, MTU {}",
               config_.role == Role::kClient ? "client" : "server", config_.network.device,
               workers_.workers(), workers_.backend_name(), mtu_);
  sd_notify(0, "READY=1");
  io_.run();
  workers_.Stop();
  spdlog::info("stopped");
  return failed_;
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
  quotas_.emplace(config_.security.state_dir, identity_.public_key);
  if (config_.role == Role::kClient) KeepQuotas(quotas_->Load());
  return absl::OkStatus();
}

// What a daemon that was killed has left of its changes to this machine.
absl::Status Daemon::TakeBackLeftovers() {
  const NetworkConfig& wanted = config_.network;
  const bool changes_host = wanted.routes || wanted.dns || !wanted.nat.empty();
  auto journal = Journal::Open(JournalPath(config_.security.state_dir, config_.network.device));
  if (!journal.ok() && (changes_host || absl::IsAlreadyExists(journal.status()))) {
    return journal.status();
  }
  if (!journal.ok()) return absl::OkStatus();  // that nothing can be kept there was said before
  host_network_.emplace(config_, host_, *std::move(journal),
                        [](const std::string& line) { spdlog::warn("{}", line); });
  return host_network_->TakeBackLeftovers();
}

// Before anything else, which may fail.
absl::Status Daemon::HoldKillSwitch() {
  const std::string& state_dir = config_.security.state_dir;
  if (config_.network.kill_switch) return EngageKillSwitch(state_dir, config_.network.device);
  if (IsKillSwitchKept(state_dir)) {
    Warn("the kill switch of an earlier run is on; \"braid cleanup --all\" lifts it");
  }
  return absl::OkStatus();
}

absl::Status Daemon::FollowLinks() {
  network_.emplace(io_, [this](const NetSnapshot&) { OnNetwork(); });
  return network_->Start();
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
  for (uint16_t group = 0; group < kMaxSocketGroups; ++group) OpenSlowSocket(group);
  return config_.role == Role::kClient ? OpenPaths() : absl::OkStatus();
}

absl::Status Daemon::OpenDevice() {
  const auto mtu = ChooseMtu();
  if (!mtu.ok()) return mtu.status();
  mtu_ = *mtu;
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
  if (absl::Status status = workers_.Start(config_, *device_, largest_mtu_, *sockets_);
      !status.ok()) {
    return status;
  }
  if (!workers_.fallback_reason().empty()) {
    Warn(workers_.fallback_reason() + ": going on with epoll");
  }
  return absl::OkStatus();
}

// Configured, or what the smallest path carries. A name that is not resolved yet, and the clients
// of a server, are taken to be behind an ordinary link.
absl::StatusOr<int> Daemon::ChooseMtu() {
  const int seal = static_cast<int>(kSealOverheadBytes);
  const int usual = kDefaultLinkMtu - seal - OuterHeaderBytes(false);
  int smallest = kMaxMtu;
  if (config_.role == Role::kServer) {
    for (const Endpoint& listen : config_.tunnel.listen) {
      smallest =
          std::min(smallest, kDefaultLinkMtu - OuterHeaderBytes(listen.address.is_v6()) - seal);
    }
    largest_mtu_ = config_.network.mtu.value_or(smallest);
    return largest_mtu_;
  }
  int largest = 0;
  absl::Status too_small;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = (*paths_)[id];
    if (!path || !path->binding) continue;
    for (const PeerConfig& peer : config_.tunnel.peers) {
      const auto remote =
          ChooseRemote(path->config, path->binding, RemotesOf(path->config, peer), LookUpRoute);
      const auto link =
          remote ? LinkMtuTowards(*remote, path->binding->address, path->binding->device_index)
                 : std::nullopt;
      const int carries = std::min(link.value_or(kDefaultLinkMtu) - seal -
                                       OuterHeaderBytes(!remote || remote->address.is_v6()),
                                   static_cast<int>(kMaxMtu));
      const std::string where = "path \"" + path->config.name + "\" carries inner packets of " +
                                std::to_string(carries) + " bytes at most";
      if (carries < static_cast<int>(kMinMtu)) {
        // It is refused when it is to be used; the others go on without it.
        too_small =
            absl::FailedPreconditionError(where + ", and 1280 is the least that IPv6 allows");
        continue;
      }
      if (config_.network.mtu.value_or(0) > carries && remote) {
        return absl::FailedPreconditionError(
            where + ", less than network.mtu: lower that, or set it to \"auto\"");
      }
      smallest = std::min(smallest, carries);
      largest = std::max(largest, carries);
    }
  }
  if (largest == 0 && !too_small.ok()) return too_small;
  largest_mtu_ = config_.network.mtu.value_or(std::max(largest, usual));
  if (largest == 0) smallest = kDefaultLinkMtu - OuterHeaderBytes(true) - seal;
  return config_.network.mtu.value_or(smallest);
}

absl::Status Daemon::AddPeers() {
  PeersOptions options;
  options.role = config_.role;
  options.identity = identity_;
  options.aeads = aeads_;
  options.ciphers = config_.tunnel.ciphers;
  options.lanes = config_.tunnel.lanes;
  options.workers = workers_.workers();
  options.mtu = static_cast<uint16_t>(largest_mtu_);
  // On a server that cannot steer them some would come to a worker, which passes short ones on
  // only.
  options.answers_probes = sockets_->steered();
  options.sends_parity = config_.tunnel.bonding.fec != FecMode::kOff;
  options.rekey_after_ns = static_cast<DurationNs>(config_.security.rekey_after_s) * kSecondNs;
  options.rekey_after_packets = config_.security.rekey_after_packets;
  peers_.emplace(std::move(options), static_cast<PeerHost&>(*this));
  std::vector<RouteTable::Route> routes;
  for (size_t i = 0; i < config_.tunnel.peers.size(); ++i) {
    const PeerConfig& peer = config_.tunnel.peers[i];
    absl::Status status = peers_->Add(peer, preshared_keys_[i]);
    if (!status.ok()) return status;
    for (const IpPrefix& prefix : peer.allowed_ips) {
      routes.push_back({prefix, static_cast<PeerSlot>(i)});
    }
  }
  workers_.SetRoutes(std::make_unique<RouteTable>(routes));
  workers_.Tell({.type = Command::Type::kSetBond, .bond = bonding_});
  if (!config_.tunnel.class_rules.empty()) {
    workers_.SetClassRules(std::make_shared<ClassRules>(config_.tunnel.class_rules));
  }
  running_ = true;
  for (uint8_t id = 0; paths_ && id < kMaxPaths; ++id) {
    if ((*paths_)[id]) AddPath(id);
  }
  return absl::OkStatus();
}

// --- This machine's network around the tunnel ---

absl::Status Daemon::BringUpNetwork() {
  if (!host_network_) return absl::OkStatus();
  return host_network_->Follow(network_->network(), SeeTunnel());
}

void Daemon::OnNetwork() {
  if (paths_) FollowPaths();
  FollowNetwork();
}

HostNetwork::Tunnel Daemon::SeeTunnel() const {
  HostNetwork::Tunnel tunnel{.has_carried = has_carried_};
  for (uint8_t id = 0; paths_ && id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = (*paths_)[id];
    if (!path || !path->binding) continue;
    tunnel.path_devices.push_back(path->binding->device);
    // One that is bound to nothing leaves by what leads to its servers.
    for (const PeerConfig& peer : config_.tunnel.peers) {
      for (const Endpoint& remote : RemotesOf(path->config, peer)) {
        const auto link = LookUpRoute(remote, path->binding->address, path->binding->device_index);
        const NetLink* found = link ? network_->network().Find(*link) : nullptr;
        if (found != nullptr) tunnel.path_devices.push_back(found->name);
      }
    }
  }
  return tunnel;
}

// From now on the routes lead into the tunnel: a server that never answered cuts nobody off. What
// cannot be done then is done nowhere.
void Daemon::OnFirstSession() {
  has_carried_ = true;
  if (!host_network_) return;
  absl::Status status = host_network_->Follow(network_->network(), SeeTunnel());
  if (status.ok()) return;
  spdlog::error("{}", std::string(status.message()));
  failed_ = std::move(status);
  asio::post(io_, [this] { Shutdown(); });
}

// What does not work now is tried again when the network changes.
void Daemon::FollowNetwork() {
  if (!host_network_ || !running_ || stopping_) return;
  const absl::Status status = host_network_->Follow(network_->network(), SeeTunnel());
  if (!status.ok()) spdlog::error("{}", std::string(status.message()));
}

// What could not be taken back stays in the journal, for the next start or "braid cleanup".
void Daemon::TakeBackNetwork() {
  if (!host_network_) return;
  if (absl::Status status = host_network_->TakeBack(); !status.ok()) {
    spdlog::error("{}; \"braid cleanup\" tries again", std::string(status.message()));
  }
}

// Whom to ask for the names of servers: not those that are reached through the tunnel.
std::vector<IpAddress> Daemon::NameServers() const {
  const std::string text = host_network_ ? host_network_->ResolvConfBefore() : "";
  std::vector<IpAddress> servers = NameServersIn(text);
  if (config_.network.dns) {
    const std::vector<IpAddress>& inside = config_.network.dns->servers;
    std::erase_if(servers, [&inside](const IpAddress& server) {
      return std::find(inside.begin(), inside.end(), server) != inside.end();
    });
  }
  return servers;
}

// --- A client's paths ---

// One that cannot be used now is waited for, as long as there is another one.
absl::Status Daemon::OpenPaths() {
  paths_.emplace(config_);
  FollowPaths();
  if (config_.tunnel.auto_paths) return absl::OkStatus();
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = (*paths_)[id];
    if (path && (path->binding || IsUsedUp(path->config))) return absl::OkStatus();
  }
  return absl::NotFoundError("/tunnel/paths/0: " + (*paths_)[0]->problem);
}

// Brings the paths into line with what the configuration and the commands want and the network
// allows.
void Daemon::FollowPaths() {
  const bool changed = !(network_->network() == followed_);
  followed_ = network_->network();
  const auto changes = paths_->Follow(
      followed_, [this](const PathConfig& path) { return ChooseBindingOf(path); },
      [this](uint8_t id) { return !running_ || peers_->MayUsePath(id); });
  for (const ClientPaths::Change& change : changes) {
    switch (change.type) {
      case ClientPaths::Change::Type::kBegin:
        if (running_) AddPath(change.id);
        break;
      case ClientPaths::Change::Type::kBind:
        if (absl::Status status = OpenPath(change.id); !status.ok()) {
          paths_->Refuse(change.id, std::string(status.message()));
        }
        break;
      case ClientPaths::Change::Type::kUnbind:
        ClosePath(change.id);
        break;
      case ClientPaths::Change::Type::kEnd:
        if (running_) peers_->RemovePath(change.id, MonotonicNowNs());
        break;
    }
  }
  if (!running_) return;
  TellProblems();
  if (!changes.empty()) FollowNetwork();
  RoutePaths(false);
  ResolveEndpoints();
  if (!changed) return;
  peers_->PingPaths(MonotonicNowNs());
  peers_->SearchMtus(MonotonicNowNs());
}

BindingChoice Daemon::ChooseBindingOf(const PathConfig& path) {
  if (IsUsedUp(path)) {
    const auto wall_s = static_cast<int64_t>(WallNowNs() / kSecondNs);
    return {std::nullopt, "quota used up until " + quotas_->Find(path.name)->NextReset(wall_s)};
  }
  std::vector<Endpoint> remotes;
  for (const PeerConfig& peer : config_.tunnel.peers) {
    for (const Endpoint& remote : RemotesOf(path, peer)) remotes.push_back(remote);
  }
  return ChooseBinding(path, remotes, followed_, LookUpRoute);
}

absl::Status Daemon::OpenPath(uint8_t id) {
  const ClientPath& path = *(*paths_)[id];
  const auto groups = sockets_->AddPath(id, *path.binding);
  if (!groups.ok()) return groups.status();
  for (const uint16_t group : *groups) {
    OpenSlowSocket(group);
    if (running_) workers_.AddSockets(sockets_->OfGroup(group));
  }
  if (running_) {
    const std::string& device = path.binding->device;
    spdlog::info("path \"{}\" is open{}", path.config.name, device.empty() ? "" : " on " + device);
  }
  return absl::OkStatus();
}

// The peers first, so that nothing is sent through sockets that are gone.
void Daemon::ClosePath(uint8_t id) {
  if (running_) peers_->SuspendPath(id, MonotonicNowNs());
  for (uint16_t group = 0; group < kMaxSocketGroups; ++group) {
    if (TunnelSockets::PathOfGroup(group) != id || sockets_->slow()[group].fd < 0) continue;
    slow_sockets_[group]->closed = true;
    slow_sockets_[group]->descriptor.close();
    slow_sockets_[group].reset();
    auto keeper = sockets_->Remove(group);
    if (running_) workers_.RemoveSockets(group, std::move(keeper));
  }
}

// Each problem once, and that it is over.
void Daemon::TellProblems() {
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = (*paths_)[id];
    const std::string problem = path && !path->problem.empty()
                                    ? "path \"" + path->config.name + "\": " + path->problem
                                    : "";
    if (problem == std::exchange(told_problems_[id], problem) || problem.empty()) continue;
    spdlog::warn("{}", problem);
  }
  if (paths_->problem() == told_problem_) return;
  told_problem_ = paths_->problem();
  if (!told_problem_.empty()) spdlog::warn("{}", told_problem_);
}

// A path whose quota is used up is treated as one without a link, also when it is the last: a limit
// is one.
void Daemon::LookAtQuotas(TimeNs now_ns) {
  const auto wall_s = static_cast<int64_t>(WallNowNs() / kSecondNs);
  bool changed = false;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const uint64_t bytes = BytesOver(id);
    if (!(*paths_)[id] || !(*paths_)[id]->config.quota) continue;
    const PathConfig& path = (*paths_)[id]->config;
    PathQuota& quota = quotas_->Of(path.name, *path.quota);
    const bool before = quota.used_up();
    quota.Count(bytes);
    quota.Look(wall_s, now_ns);
    if (quota.TakeWarning()) {
      spdlog::warn("path \"{}\": {} % of its quota are used until {}", path.name,
                   quota.kept().used_bytes * 100 / quota.config().bytes, quota.NextReset(wall_s));
    }
    if (quota.used_up() == before || stopping_) continue;
    changed = true;
    if (quota.used_up()) peers_->ForbidPath(id, now_ns);
  }
  if (changed) FollowPaths();
  KeepQuotas(quotas_->SaveIfDue(now_ns));
}

// Since the last call, both ways, with the headers of IP and UDP.
uint64_t Daemon::BytesOver(uint8_t id) {
  uint64_t bytes = std::exchange(slow_bytes_[id], 0);
  for (size_t slot = 0; slot < counted_bytes_.size(); ++slot) {
    const auto totals = workers_.TrafficOf(static_cast<PeerSlot>(slot), id);
    const PeerPath* path = peers_->all()[slot]->FindPath(id);
    const bool is_v6 = path != nullptr && path->route.remote.address.is_v6();
    const uint64_t now = totals.rx_bytes + totals.tx_bytes +
                         (totals.rx_datagrams + totals.tx_datagrams) *
                             static_cast<uint64_t>(OuterHeaderBytes(is_v6));
    const uint64_t before = std::exchange(counted_bytes_[slot][id], now);
    bytes += now >= before ? now - before : now;  // another path of this id has begun
  }
  return bytes;
}

void Daemon::KeepQuotas(const absl::Status& status) {
  if (!status.ok()) Warn(std::string(status.message()));
}

// In the order of the configuration, as far as the addresses are known.
std::vector<Endpoint> Daemon::RemotesOf(const PathConfig& path, const PeerConfig& peer) const {
  std::vector<Endpoint> remotes;
  for (const HostPort& endpoint : EndpointsOf(path, peer)) {
    if (endpoint.address.is_set()) {
      remotes.push_back({endpoint.address, endpoint.port});
      continue;
    }
    const auto found = resolved_.find(NameOf(endpoint));
    if (found == resolved_.end()) continue;
    remotes.insert(remotes.end(), found->second.begin(), found->second.end());
  }
  return remotes;
}

void Daemon::RoutePaths(bool resolved_anew) {
  for (size_t slot = 0; slot < config_.tunnel.peers.size(); ++slot) {
    for (uint8_t id = 0; id < kMaxPaths; ++id) {
      if ((*paths_)[id] && (*paths_)[id]->binding) {
        RoutePath(static_cast<PeerSlot>(slot), id, resolved_anew);
      }
    }
  }
}

// A route stands as long as the peer answers there, or the network leads there.
void Daemon::RoutePath(PeerSlot slot, uint8_t id, bool resolved_anew) {
  const ClientPath& path = *(*paths_)[id];
  const Peer& peer = *peers_->all()[slot];
  const PeerPath* known = peer.FindPath(id);
  const auto remotes = RemotesOf(path.config, config_.tunnel.peers[slot]);
  const auto remote = ChooseRemote(path.config, path.binding, remotes, LookUpRoute);
  if (known == nullptr || !remote) return;
  const Endpoint& now = known->route.remote;
  const bool has_other_family =
      now.is_set() && now.address.family != remote->address.family &&
      !LookUpRoute(now, path.binding->address, path.binding->device_index);
  const bool wanted =
      !now.is_set() || has_other_family || (resolved_anew && Peers::WantsResolving(peer));
  const uint16_t group = TunnelSockets::ClientGroup(id, remote->address);
  if (!wanted || sockets_->slow()[group].fd < 0) return;
  peers_->SetPathRoute(slot, id, {*remote, {}, group}, MonotonicNowNs());
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

void Daemon::OpenSlowSocket(uint16_t group) {
  const TunnelSockets::SlowSocket& slow = sockets_->slow()[group];
  if (slow.fd < 0) return;
  slow_sockets_[group] = std::make_shared<SlowSocket>(SlowSocket{
      asio::posix::stream_descriptor(io_, dup(slow.fd)), group, slow.answers_from_local});
  WaitForDatagrams(slow_sockets_[group]);
}

void Daemon::WaitForDatagrams(const std::shared_ptr<SlowSocket>& socket) {
  socket->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                [this, socket](const boost::system::error_code& error) {
                                  if (error || stopping_ || socket->closed) return;
                                  ReadDatagrams(*socket);
                                  if (!socket->closed) WaitForDatagrams(socket);
                                });
}

void Daemon::ReadDatagrams(SlowSocket& socket) {
  std::array<uint8_t, kPacketDataBytes> buffer;
  for (int i = 0; i < kDatagramsPerWake && !socket.closed; ++i) {
    Arrival arrival{};
    const size_t bytes = ReceiveDatagram(socket.descriptor.native_handle(), buffer, arrival);
    if (bytes == 0) return;
    OnDatagram(
        {buffer.data(), bytes},
        {arrival.source, socket.answers_from_local ? arrival.local : IpAddress{}, socket.group});
  }
}

void Daemon::OnDatagram(MutableBytes datagram, const Route& back) {
  const uint64_t link_bytes =
      datagram.size() + static_cast<size_t>(OuterHeaderBytes(back.remote.address.is_v6()));
  if (!peers_->OnDatagram(datagram, back, MonotonicNowNs())) {
    if (paths_) slow_bytes_[TunnelSockets::PathOfGroup(back.socket_group)] += link_bytes;
    return;
  }
  // It belongs to a worker's lane.
  PacketPtr packet = stray_pool_->Take();
  if (packet == nullptr) return stray_drops_.Count(Drop::no_buffer);
  std::copy(datagram.begin(), datagram.end(), packet->data());
  packet->length = static_cast<uint32_t>(datagram.size());
  Header header{};
  ReadHeader(datagram, header);
  const uint32_t owner = IsBondLane(header.lane) ? header.session : header.lane;
  // A client's socket is one lane's, so it can tell that the server has lost this lane.
  const int16_t socket_lane = config_.role == Role::kClient ? kSlowLane : Incoming::kAnyLane;
  HandedPacket handed{HandedPacket::From::kNetwork,
                      std::move(packet),
                      {back, socket_lane, static_cast<uint16_t>(datagram.size())}};
  if (!workers_.HandPacket(static_cast<int>(owner % static_cast<uint32_t>(workers_.workers())),
                           std::move(handed))) {
    stray_drops_.Count(Drop::inbox_full);
  }
}

void Daemon::SendDatagram(const Route& route, Bytes datagram) {
  const auto& slow = sockets_->slow();
  if (route.socket_group >= slow.size() || slow[route.socket_group].fd < 0) return;
  braid::SendDatagram(slow[route.socket_group].fd, route.remote, route.local, datagram);
  if (!paths_) return;
  slow_bytes_[TunnelSockets::PathOfGroup(route.socket_group)] +=
      datagram.size() + static_cast<size_t>(OuterHeaderBytes(route.remote.address.is_v6()));
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
    } else if (event.type == Event::Type::kNoSockets) {
      const auto id = static_cast<uint8_t>(TunnelSockets::PathOfGroup(event.group));
      ClosePath(id);
      paths_->Refuse(id, std::string(event.bytes.begin(), event.bytes.begin() + event.length));
      TellProblems();
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
  if (std::chrono::steady_clock::now() >= next_resolve_) {
    next_resolve_ = std::chrono::steady_clock::now() + kResolveEvery;
    ResolveEndpoints();
    FollowNetwork();
  }
  if (paths_) LookAtQuotas(now_ns);
  if (paths_ && paths_->waits()) FollowPaths();
  ScheduleTick();
}

// Names are resolved once, and again as long as their peer does not answer.
void Daemon::ResolveEndpoints() {
  if (!paths_) return;
  for (size_t slot = 0; slot < config_.tunnel.peers.size(); ++slot) {
    const Peer& peer = *peers_->all()[slot];
    for (uint8_t id = 0; id < kMaxPaths; ++id) {
      if (!(*paths_)[id]) continue;
      for (const HostPort& endpoint :
           EndpointsOf((*paths_)[id]->config, config_.tunnel.peers[slot])) {
        const bool is_new = !resolved_.contains(NameOf(endpoint));
        if (!endpoint.address.is_set() && (is_new || Peers::WantsResolving(peer)))
          Resolve(endpoint);
      }
    }
  }
}

void Daemon::Resolve(const HostPort& endpoint) {
  const std::string name = NameOf(endpoint);
  if (!resolving_.insert(name).second) return;
  resolver_.Resolve(endpoint.host, NameServers(),
                    [this, name, host = endpoint.host,
                     port = endpoint.port](absl::StatusOr<std::vector<IpAddress>> found) {
                      resolving_.erase(name);
                      if (stopping_) return;
                      if (!found.ok()) {
                        return spdlog::warn("cannot resolve \"{}\": {}", host,
                                            std::string(found.status().message()));
                      }
                      std::vector<Endpoint>& remotes = resolved_[name];
                      remotes.clear();
                      for (const IpAddress& address : *found) remotes.push_back({address, port});
                      FollowPaths();  // what a path is bound to depends on where it leads
                      FollowNetwork();
                      RoutePaths(true);
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

// Where datagrams along it leave this machine.
PathBinding Daemon::BindingOf(const Route& route) const {
  if (paths_) {
    const auto& path =
        (*paths_)[static_cast<size_t>(TunnelSockets::PathOfGroup(route.socket_group))];
    if (path && path->binding) return *path->binding;
  }
  return {"", 0, route.local};
}

PeerHost::LinkMtu Daemon::LinkMtuOf(const Route& route) {
  const int overhead =
      OuterHeaderBytes(route.remote.address.is_v6()) + static_cast<int>(kSealOverheadBytes);
  const PathBinding binding = BindingOf(route);
  const auto link = LinkMtuTowards(route.remote, binding.address, binding.device_index);
  const int mtu = std::clamp(link.value_or(0) - overhead, 0, static_cast<int>(kMaxMtu));
  return {static_cast<uint16_t>(mtu), overhead};
}

void Daemon::ResolveAnew(const Route& route) {
  const PathBinding binding = BindingOf(route);
  const auto next_hop = NextHopTowards(route.remote, binding.address, binding.device_index);
  if (next_hop) ForgetUnresolved(*next_hop);
}

// A client whose MTU is automatic follows what its servers carry, so that its own kernel fragments
// or refuses what would not fit.
void Daemon::OnSessionMtu(PeerSlot, uint16_t) {
  if (!has_carried_) OnFirstSession();
  if (config_.network.mtu || config_.role == Role::kServer) return;
  int smallest = largest_mtu_;
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
    return ToJsonText(DescribeStatus(
        {config_, *peers_, workers_, meters_, device_->offloads, aeads_, stray_drops_,
         TunQueueDrops(), sockets_->ReceiveQueueDrops(), steered_by_bpf_, mtu_, warnings_,
         started_ns_, MonotonicNowNs(), paths_ ? &*paths_ : nullptr, *quotas_}));
  }
  if (verb == "stop") {
    asio::post(io_, [this] { Shutdown(); });
    return std::string("{}");
  }
  if (verb == "peer") return DescribePeer(params);
  if (verb == "mode") return OnModeVerb(params);
  if (verb.substr(0, kPathVerbs.size()) == kPathVerbs) return OnPathVerb(verb, params);
  return UnknownVerb(verb);
}

ControlResult Daemon::OnModeVerb(const nlohmann::json& params) {
  const auto mode = ReadMode(params);
  if (!mode.ok()) return ToControlError(mode.status());
  if (*mode) {
    bonding_.mode = **mode;
    Tell({.type = Command::Type::kSetBond, .bond = bonding_});
    peers_->SetMode(bonding_.mode, MonotonicNowNs());
    spdlog::info("the bonding mode is {} by command", NameOf(bonding_.mode));
  }
  return ToJsonText(DescribeModes(bonding_.mode, *peers_));
}

ControlResult Daemon::OnPathVerb(std::string_view verb, const nlohmann::json& params) {
  if (!paths_) {
    return ControlError{ControlCode::kConflict,
                        "this is a server, which has no paths of its own: its clients have them"};
  }
  const auto may_use = [this](uint8_t id) { return peers_->MayUsePath(id); };
  if (verb == "path_add") {
    const auto path = ReadPathToAdd(params, config_);
    if (!path.ok()) return ToControlError(path.status());
    if (absl::Status status = paths_->Add(*path, may_use); !status.ok()) {
      return ToControlError(status);
    }
    FollowPaths();
    spdlog::info("path \"{}\" was added by command", path->name);
    return DescribeAddedPath(*paths_, path->name);
  }
  if (verb == "path_del") {
    const auto name = ReadPathToRemove(params);
    if (!name.ok()) return ToControlError(name.status());
    if (absl::Status status = paths_->Remove(*name); !status.ok()) return ToControlError(status);
    FollowPaths();
    spdlog::info("path \"{}\" was ended by command", *name);
    return std::string("{}");
  }
  if (verb == "path_set") {
    const auto change = ParsePathChange(params);
    if (!change.ok()) return ToControlError(change.status());
    const auto id = paths_->SetOptions(*change);
    if (!id.ok()) return ToControlError(id.status());
    peers_->SetPathOptions(*id, (*paths_)[*id]->config.bonding);
    spdlog::info("path \"{}\" was changed by command", change->name);
    return std::string("{}");
  }
  if (verb == "path_list") return ToJsonText(DescribePaths(*paths_, *peers_, workers_, *quotas_));
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
  resolver_.Close();
  tick_.cancel();
  signals_.cancel();
  if (network_) network_->Close();
  for (auto& socket : slow_sockets_) {
    if (socket != nullptr) socket->descriptor.cancel();
  }
  retry_commands_.cancel();
  for (Inbox* inbox : {&events_, &jobs_}) {
    if (inbox->descriptor) inbox->descriptor->cancel();
  }
  workers_.Stop();
  if (paths_) {
    LookAtQuotas(MonotonicNowNs());
    KeepQuotas(quotas_->Save());
  }
  TakeBackNetwork();
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
