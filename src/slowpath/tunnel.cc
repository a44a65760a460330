#include "slowpath/tunnel.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/tun_steering.h"
#include "slowpath/cpu_topology.h"
#include "slowpath/host_files.h"
#include "slowpath/key_file.h"
#include "slowpath/kill_switch.h"
#include "slowpath/metrics.h"
#include "slowpath/mode_commands.h"
#include "slowpath/net_setup.h"
#include "slowpath/next_hop.h"
#include "slowpath/path_commands.h"
#include "slowpath/peer_address.h"
#include "slowpath/peer_keys.h"
#include "slowpath/predecessor.h"
#include "slowpath/status.h"
#include "slowpath/throttle_commands.h"
#include "slowpath/worker_layout.h"

namespace braid {
namespace {

namespace asio = boost::asio;

constexpr int kEventsPerWake = 256;
constexpr int kJobsPerWake = 64;
constexpr auto kRetryCommandsAfter = std::chrono::milliseconds(1);
// Packets of workers' lanes that came to the slow lane's socket: what a server sends on a lane
// before the client has told where that lane is.
constexpr int kStrayBuffers = 512;
// Names, and what somebody has taken away of this machine's network.
constexpr DurationNs kLookEveryNs = 5 * kSecondNs;
constexpr char kKillSwitchOfEarlierRun[] =
    "the kill switch of an earlier run is on; \"braid cleanup --all\" lifts it";
constexpr char kKillSwitchStays[] =
    "the kill switch stays on until \"braid cleanup --all\" lifts it";
// A refused reload leaves the configuration that runs in force, which a mere start would bring up
// again: the reload has to come in between.
constexpr char kStartAnewWithThat[] =
    "\"braid stop --tunnel\", \"braid reload\" and \"braid start\", in this order, do it";

// As many as can run at once. Peers may become more; and there are none before the first handshake.
int HandshakeThreads() {
  return static_cast<int>(std::max<size_t>(AffinityOfThisProcess().size(), 1));
}

// Whether what is changed of this machine's network has to be kept, so that it can be taken back,
// or, the kill switch, looked after.
bool ChangesHost(const NetworkConfig& wanted) {
  return wanted.routes || wanted.dns || !wanted.nat.empty() || wanted.kill_switch;
}

}  // namespace

Tunnel::Tunnel(asio::io_context& io, Config config, EventLog& events, OnFailure on_failure)
    : io_(io),
      config_(std::move(config)),
      event_log_(events),
      on_failure_(std::move(on_failure)),
      tick_(io),
      retry_commands_(io),
      started_ns_(MonotonicNowNs()),
      workers_(ChooseWorkers(config_).cpus),
      meters_(PeerRoom(config_.tunnel.peers.size())),
      arena_(HandshakeThreads()),
      events_(
          io, workers_.events().doorbell, [this] { return workers_.events().events.Empty(); },
          [this] { TakeEvents(); }),
      jobs_(
          io, arena_.doorbell(), [this] { return arena_.Empty() || workers_.has_waiting(); },
          [this] { TakeJobs(); }) {}

Tunnel::~Tunnel() = default;

// --- Bring-up ---

absl::Status Tunnel::Start(Patience patience) {
  for (auto step : {&Tunnel::HoldKillSwitch, &Tunnel::ReadKeys, &Tunnel::TakeBackLeftovers,
                    &Tunnel::FollowLinks, &Tunnel::OpenSockets, &Tunnel::OpenDevice,
                    &Tunnel::OpenEgress, &Tunnel::StartWorkers, &Tunnel::AddPeers,
                    &Tunnel::ListenForMeasurements, &Tunnel::BringUpNetwork}) {
    const auto take = [&] { return (this->*step)(); };
    const absl::Status status = patience == Patience::kWaits ? TakeOver(take) : take();
    if (!status.ok()) return status;
  }
  events_.Start();
  jobs_.Start();
  Tick();
  spdlog::info("running as {} on {}: {} workers, {}, MTU {}",
               config_.role == Role::kClient ? "client" : "server", config_.network.device,
               workers_.workers(), workers_.backend_name(), mtu_.now);
  return absl::OkStatus();
}

// Before anything else, which may fail.
absl::Status Tunnel::HoldKillSwitch() {
  const std::string& state_dir = config_.security.state_dir;
  if (config_.network.kill_switch) return EngageKillSwitch(state_dir, config_.network.device);
  if (IsKillSwitchKept(state_dir)) Warn(kKillSwitchOfEarlierRun);
  return absl::OkStatus();
}

absl::Status Tunnel::ReadKeys() {
  const auto private_key = ReadKeyFile(config_.security.private_key_file);
  if (!private_key.ok()) return private_key.status();
  identity_ = Identity::FromPrivate(*private_key);
  for (const PeerConfig& peer : config_.tunnel.peers) {
    const auto preshared_key = ReadPresharedKey(peer);
    if (!preshared_key.ok()) return preshared_key.status();
    auto keys = KeysTowards(peer, identity_, *preshared_key);
    if (!keys.ok()) return keys.status();
    peer_keys_.push_back(*std::move(keys));
  }
  auto aeads = ChooseAeads(config_.performance.aead);
  if (!aeads.ok()) return aeads.status();
  aeads_ = *aeads;
  counter_.emplace(config_.security.state_dir, identity_.public_key);
  if (absl::Status status = counter_->Load(); !status.ok()) {
    Warn(std::string(status.message()) + "; handshakes depend on this machine's clock alone");
  }
  quotas_.emplace(config_.security.state_dir, identity_.public_key);
  if (config_.role == Role::kServer) return absl::OkStatus();
  if (absl::Status status = quotas_->Load(); !status.ok()) Warn(std::string(status.message()));
  return absl::OkStatus();
}

// What a daemon that was killed has left of its changes to this machine.
absl::Status Tunnel::TakeBackLeftovers() {
  auto journal = Journal::Open(JournalPath(config_.security.state_dir, config_.network.device));
  if (!journal.ok() && (ChangesHost(config_.network) || absl::IsAlreadyExists(journal.status()))) {
    return journal.status();
  }
  if (!journal.ok()) return absl::OkStatus();  // that nothing can be kept there was said before
  host_network_.emplace(config_, host_, *std::move(journal),
                        [this](const std::string& line) { Warn(line); });
  return host_network_->TakeBack();
}

absl::Status Tunnel::FollowLinks() {
  WatchTables();
  network_.emplace(io_, [this](const NetSnapshot&) { OnNetwork(); });
  return network_->Start();
}

// Where a table of braid's own is wanted.
void Tunnel::WatchTables() {
  if (nftables_ || (!config_.network.kill_switch && config_.network.nat.empty())) return;
  nftables_.emplace(io_, [this] { FollowNetwork(); });
  if (absl::Status status = nftables_->Start(); !status.ok()) {
    Warn(std::string(status.message()) + "; its tables are looked at every five seconds");
  }
}

absl::Status Tunnel::OpenSockets() {
  auto sockets = TunnelSockets::Open(config_, workers_.workers());
  if (!sockets.ok()) return sockets.status();
  sockets_ = *std::move(sockets);
  for (const std::string& warning : sockets_->warnings()) Warn(warning);
  auto pool = PacketPool::Create(kStrayBuffers);
  if (!pool.ok()) return pool.status();
  stray_pool_ = *std::move(pool);
  stray_pool_->BindToThisThread();
  slow_lane_.emplace(io_, *sockets_, [this](MutableBytes datagram, const Route& back) {
    OnDatagram(datagram, back);
  });
  for (uint16_t group = 0; group < kMaxSocketGroups; ++group) slow_lane_->Open(group);
  if (config_.role == Role::kServer) return absl::OkStatus();
  uplinks_.emplace(
      io_, Uplinks::Tunnel{config_, network_->network(), *sockets_, *slow_lane_, workers_, *quotas_,
                           [this] { return NameServers(); }, [this] { FollowNetwork(); },
                           [this](const std::string& what) { Warn(what); }});
  absl::Status opened = uplinks_->Open();
  // That may be otherwise in a moment, and no name was wrong.
  return absl::IsNotFound(opened) ? absl::UnavailableError(opened.message()) : opened;
}

absl::Status Tunnel::OpenDevice() {
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
  return SetUpDevice(config_.network.device, config_.network.addresses, mtu_.now);
}

// Of a server, the clients are taken to be behind ordinary links.
absl::StatusOr<DeviceMtu> Tunnel::ChooseMtu() const {
  if (uplinks_) return uplinks_->ChooseMtu();
  int smallest = kMaxMtu;
  for (const Endpoint& listen : config_.tunnel.listen) {
    smallest = std::min(smallest, kDefaultLinkMtu - OuterHeaderBytes(listen.address.is_v6()) -
                                      static_cast<int>(kSealOverheadBytes));
  }
  const int mtu = config_.network.mtu.value_or(smallest);
  return DeviceMtu{mtu, mtu};
}

absl::Status Tunnel::SteerByLanes(int lanes) {
  auto program = LoadLaneSteering(lanes, workers_.workers());
  if (!program.ok()) return program.status();
  absl::Status status = AttachLaneSteering(device_->queues[0].get(), program->get());
  if (status.ok()) steered_lanes_ = lanes;
  return status;
}

absl::Status Tunnel::OpenEgress() {
  if (!config_.proxy) return absl::OkStatus();
  const std::string& device = config_.network.device;
  const auto network = ChooseEgressNetwork(network_->network(), MayHaveIpv6(device));
  if (!network.ok()) return network.status();
  if (absl::Status status = AddInnerAddresses(device, network->addresses); !status.ok()) {
    return status;
  }
  const int sessions = config_.proxy->tcp_sessions;
  auto shortcuts = AttachFlowShortcuts(device, static_cast<size_t>(sessions));
  if (!shortcuts.ok()) {
    Warn(absl::StrCat(shortcuts.status().message(),
                      ": TCP flows past the tunnel go through the workers, which is slower"));
    shortcuts = nullptr;
  }
  EgressFlowsOptions options;
  options.network = *network;
  options.device = device;
  options.max_sessions = sessions;
  options.shortcuts = *std::move(shortcuts);
  options.mailboxes = workers_.mailboxes();
  for (const UniqueFd& queue : device_->queues) options.tun_queues.push_back(queue.get());
  options.uso = device_->offloads.uso;
  options.max_gso_datagrams = config_.performance.offloads ? ProbeMaxGsoDatagrams() : 1;
  options.max_udp_sessions = static_cast<size_t>(config_.proxy->udp_sessions);
  options.slow_path = &workers_.events();
  options.name_servers = [this] { return NameServers(); };
  options.on_news = [this](std::string_view type, const nlohmann::ordered_json& data) {
    event_log_.Publish(type, data);
  };
  auto egress = EgressFlows::Open(io_, std::move(options));
  if (!egress.ok()) return egress.status();
  egress_ = *std::move(egress);
  auto groups = egress_->OpenGroups(config_.proxy->groups);
  if (groups.ok()) egress_groups_ = *std::move(groups);
  return groups.status();
}

absl::Status Tunnel::StartWorkers() {
  const auto egress = egress_ ? egress_->WorkerOptions() : std::vector<EgressOptions>();
  if (absl::Status status = workers_.Start(config_, *device_, mtu_.largest, *sockets_, egress);
      !status.ok()) {
    return status;
  }
  if (egress_) egress_->Start();
  PublishEgressRules(std::exchange(egress_groups_, {}));
  if (!workers_.fallback_reason().empty()) {
    Warn(workers_.fallback_reason() + ": going on with epoll");
  }
  return absl::OkStatus();
}

absl::Status Tunnel::AddPeers() {
  PeersOptions options;
  options.role = config_.role;
  options.identity = identity_;
  options.aeads = aeads_;
  options.ciphers = config_.tunnel.ciphers;
  options.lanes = config_.tunnel.lanes;
  options.workers = workers_.workers();
  options.max_peers = PeerRoom(config_.tunnel.peers.size());
  options.mtu = static_cast<uint16_t>(mtu_.largest);
  // On a server that cannot steer them some would come to a worker, which passes short ones on
  // only.
  options.answers_probes = sockets_->steered();
  options.sends_parity = config_.tunnel.bonding.fec != FecMode::kOff;
  options.rekey_after_ns = static_cast<DurationNs>(config_.security.rekey_after_s) * kSecondNs;
  options.rekey_after_packets = config_.security.rekey_after_packets;
  peers_.emplace(std::move(options), static_cast<PeerHost&>(*this));
  for (size_t i = 0; i < config_.tunnel.peers.size(); ++i) {
    const auto slot =
        peers_->Add(config_.tunnel.peers[i], std::move(peer_keys_[i]), MonotonicNowNs());
    if (!slot.ok()) return slot.status();
  }
  peer_keys_.clear();
  PublishRoutes();
  workers_.Tell({.type = Command::Type::kSetBond, .bond = bonding_});
  if (auto throttle = MakeThrottle(throttle_, *peers_, workers_.workers())) {
    workers_.SetThrottle(std::move(throttle));
  }
  if (!config_.tunnel.class_rules.empty()) {
    workers_.SetClassRules(std::make_shared<ClassRules>(config_.tunnel.class_rules));
  }
  running_ = true;
  if (uplinks_) uplinks_->Start(*peers_);
  return absl::OkStatus();
}

void Tunnel::PublishEgressRules(EgressFlows::Groups groups) {
  if (!egress_) return;
  EgressNames::ForWorkers made = egress_->SetConfig(std::move(groups), *config_.proxy);
  workers_.SetEgressRules(std::move(made.rules), std::move(made.names));
}

void Tunnel::PublishRoutes() {
  std::vector<RouteTable::Route> routes;
  for (const Peer* peer : peers_->all()) {
    for (const IpPrefix& prefix : peer->config.allowed_ips) routes.push_back({prefix, peer->slot});
  }
  workers_.SetRoutes(std::make_unique<RouteTable>(routes));
}

// A tunnel that cannot be measured is still a tunnel.
absl::Status Tunnel::ListenForMeasurements() {
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

absl::Status Tunnel::BringUpNetwork() {
  if (!host_network_) return absl::OkStatus();
  return host_network_->Follow(network_->network(), SeeTunnel());
}

// In reverse order of the bring-up: so this machine's network is as it was even where a worker
// hangs. What waits in the loop still refers to this object, but to none of what it lets go of.
bool Tunnel::Stop() {
  if (std::exchange(stopping_, true)) return true;
  if (measure_) measure_->Close();
  arena_.Stop();
  if (peers_) peers_->Close(MonotonicNowNs());
  tick_.cancel();
  retry_commands_.cancel();
  if (nftables_) nftables_->Close();
  if (network_) network_->Close();
  events_.Close();
  jobs_.Close();
  if (egress_) egress_->Close();  // whose flows are told of it through device and workers
  TakeBackNetwork();
  const bool have_workers_ended = workers_.Stop();
  if (uplinks_) uplinks_->Close();
  if (!have_workers_ended) return false;
  slow_lane_.reset();
  sockets_.reset();
  device_.reset();
  return true;
}

void Tunnel::Fail(absl::Status why) {
  if (stopping_) return;
  asio::post(io_, [this, why = std::move(why)] {
    if (!stopping_) on_failure_(why);
  });
}

// --- Another configuration ---

// What may fail comes first, and is taken back by itself.
absl::Status Tunnel::Apply(Config next) {
  const auto peers = ComparePeers(next);
  if (!peers.ok()) return peers.status();
  if (uplinks_) {
    if (absl::Status status = uplinks_->CheckConfig(next.tunnel); !status.ok()) return status;
  }
  auto groups = egress_ ? egress_->OpenGroups(next.proxy->groups)
                        : absl::StatusOr<EgressFlows::Groups>(EgressFlows::Groups());
  if (!groups.ok()) return groups.status();
  if (absl::Status status = ChangeNetwork(next); !status.ok()) return status;
  const TunnelConfig before = std::exchange(config_.tunnel, std::move(next.tunnel));
  const ThrottleConfig limits_before = std::exchange(config_.throttle, std::move(next.throttle));
  config_.log = std::move(next.log);
  const bool has_other_rules =
      config_.proxy != next.proxy || (egress_ && *groups != egress_->groups());
  config_.proxy = std::move(next.proxy);
  ForgetWhatWasTold();
  if (has_other_rules) PublishEgressRules(*std::move(groups));
  if (!peers->empty()) ChangePeers(*peers);
  if (config_.throttle != limits_before || !peers->empty()) {
    throttle_ = ThrottleAfterReload(throttle_, limits_before, config_.throttle, *peers_);
    PublishThrottle();
  }
  ChangeBond(before);
  if (uplinks_) uplinks_->OnConfig(before);
  FollowNetwork();
  return absl::OkStatus();
}

absl::StatusOr<Tunnel::PeerChanges> Tunnel::ComparePeers(const Config& next) const {
  PeerChanges changes;
  absl::flat_hash_map<Key, const Peer*> known = PeersByKey();
  for (const PeerConfig& config : next.tunnel.peers) {
    const auto preshared_key = ReadPresharedKey(config);
    if (!preshared_key.ok()) return preshared_key.status();
    const auto found = known.find(config.public_key);
    const Peer* peer = found == known.end() ? nullptr : found->second;
    // What is under way from where a peer was would lead back there, so another session is begun.
    if (peer != nullptr && peer->keys->preshared_key == *preshared_key &&
        peer->config.endpoints == config.endpoints) {
      if (!(peer->config == config)) changes.changed.push_back({peer->slot, config});
      known.erase(found);
      continue;
    }
    auto keys = KeysTowards(config, identity_, *preshared_key);
    if (!keys.ok()) return keys.status();
    changes.added.push_back({config, *std::move(keys)});
  }
  for (const auto& [key, peer] : known) changes.removed.push_back(peer->slot);
  const size_t room = peers_->room(MonotonicNowNs());
  if (changes.added.size() > room) {
    return absl::ResourceExhaustedError(
        "/tunnel/peers: there is room for " + std::to_string(room) +
        " more peers while the tunnel runs, not for " + std::to_string(changes.added.size()) +
        "; that of peers that have gone is free ten seconds later. To start anew with that, " +
        kStartAnewWithThat);
  }
  return changes;
}

absl::flat_hash_map<Key, const Peer*> Tunnel::PeersByKey() const {
  absl::flat_hash_map<Key, const Peer*> peers;
  peers.reserve(peers_->all().size());
  for (const Peer* peer : peers_->all()) peers[peer->config.public_key] = peer;
  return peers;
}

std::vector<const PeerConfig*> Tunnel::PeersWithAnotherKey(const Config& next) const {
  std::vector<const PeerConfig*> peers;
  const absl::flat_hash_map<Key, const Peer*> known = PeersByKey();
  for (const PeerConfig& config : next.tunnel.peers) {
    const auto found = known.find(config.public_key);
    if (found == known.end() || config.preshared_key_file.empty()) continue;
    const Peer& peer = *found->second;
    if (peer.config.preshared_key_file != config.preshared_key_file) continue;
    const auto key = ReadPresharedKey(config);
    if (key.ok() && !(peer.keys->preshared_key == *key)) peers.push_back(&config);
  }
  return peers;
}

// What a command engages or lifts for good comes last: nothing that fails leaves it behind.
absl::Status Tunnel::ChangeNetwork(Config& next) {
  if (!host_network_ && ChangesHost(next.network)) {
    return absl::FailedPreconditionError(
        "/network: " + config_.security.state_dir +
        " could not be written to when the tunnel was started, and what is changed of this "
        "machine's network has to be kept there. When that is mended, " +
        kStartAnewWithThat);
  }
  const bool had_kill_switch = config_.network.kill_switch;
  const bool wants_kill_switch = next.network.kill_switch;
  std::swap(config_.network, next.network);
  absl::Status status = ChangeHost(next.network);
  if (status.ok() && wants_kill_switch && !had_kill_switch) {
    const bool was_kept = IsKillSwitchKept(config_.security.state_dir);
    status = EngageKillSwitch(config_.security.state_dir, config_.network.device);
    // Not so where it was on for an earlier run, or another tunnel.
    if (!status.ok() && !was_kept) (void)LiftKillSwitch(config_.security.state_dir);
  }
  if (status.ok()) {
    if (had_kill_switch && !wants_kill_switch) Warn(kKillSwitchStays);
    if (!wants_kill_switch) return status;
    TakeBackWarning(kKillSwitchStays);
    TakeBackWarning(kKillSwitchOfEarlierRun);
    return status;
  }
  std::swap(config_.network, next.network);
  if (host_network_) {
    if (absl::Status back = host_network_->OnConfig(next.network); !back.ok()) {
      spdlog::error("{}", std::string(back.message()));
    }
  }
  FollowNetwork();
  return status;
}

absl::Status Tunnel::ChangeHost(const NetworkConfig& before) {
  if (!host_network_) return absl::OkStatus();
  WatchTables();
  if (absl::Status status = host_network_->OnConfig(before); !status.ok()) return status;
  return host_network_->Follow(network_->network(), SeeTunnel());
}

void Tunnel::ChangePeers(const PeerChanges& changes) {
  const TimeNs now_ns = MonotonicNowNs();
  for (const PeerSlot slot : changes.removed) {
    spdlog::info("peer \"{}\" is no more", peers_->Find(slot)->config.name);
  }
  peers_->Remove(changes.removed, now_ns);
  for (const PeerChanges::Kept& kept : changes.changed) {
    peers_->SetConfig(kept.slot, kept.config);
  }
  for (const PeerChanges::Added& added : changes.added) {
    const auto slot = peers_->Add(added.config, added.keys, now_ns);
    if (!slot.ok()) {  // that there is room was seen
      ReportProblem(std::string(slot.status().message()));
      continue;
    }
    if (uplinks_) uplinks_->AddPeer(*slot);
    spdlog::info("peer \"{}\" has come", added.config.name);
  }
  PublishRoutes();
}

// Limits are told to workers by slot, so they are told again when peers have come or gone.
void Tunnel::PublishThrottle() {
  workers_.SetThrottle(MakeThrottle(throttle_, *peers_, workers_.workers()));
}

void Tunnel::ChangeBond(const TunnelConfig& before) {
  const TunnelConfig& now = config_.tunnel;
  if (now.bonding != before.bonding) {
    bonding_ = BondAfterReload(bonding_, before.bonding, now.bonding);
    Tell({.type = Command::Type::kSetBond, .bond = bonding_});
    peers_->SetSendsParity(bonding_.fec != FecMode::kOff);
    if (now.bonding.mode != before.bonding.mode) peers_->SetMode(bonding_.mode, MonotonicNowNs());
  }
  if (now.class_rules == before.class_rules) return;
  workers_.SetClassRules(std::make_shared<ClassRules>(now.class_rules));
}

// --- This machine's network around the tunnel ---

void Tunnel::OnNetwork() {
  if (stopping_) return;
  if (running_ && IsGone(*device_)) {
    return Fail(absl::UnavailableError("somebody has taken the device " + config_.network.device +
                                       " away"));
  }
  if (uplinks_) uplinks_->Follow();
  FollowNetwork();
  if (egress_) egress_->OnNetwork();
}

HostNetwork::Tunnel Tunnel::SeeTunnel() const {
  return {.path_devices = uplinks_ ? uplinks_->Devices() : std::vector<std::string>{},
          .has_carried = has_carried_};
}

// From now on the routes lead into the tunnel: a server that never answered cuts nobody off. What
// cannot be done then is done nowhere.
void Tunnel::OnFirstSession() {
  has_carried_ = true;
  if (!host_network_) return;
  absl::Status status = host_network_->Follow(network_->network(), SeeTunnel());
  if (status.ok()) return;
  spdlog::error("{}", std::string(status.message()));
  Fail(std::move(status));
}

// What does not work now is tried again when the network changes, and every five seconds: told is
// only what is new.
void Tunnel::FollowNetwork() {
  if (!host_network_ || !running_ || stopping_) return;
  const absl::Status status = host_network_->Follow(network_->network(), SeeTunnel());
  const std::string before = std::exchange(network_problem_, std::string(status.message()));
  if (!status.ok() && network_problem_ != before) spdlog::error("{}", network_problem_);
}

// What could not be taken back stays in the journal, for the next start or "braid cleanup".
void Tunnel::TakeBackNetwork() {
  if (!host_network_) return;
  if (absl::Status status = host_network_->TakeBack(); !status.ok()) {
    spdlog::error("{}; \"braid cleanup\" tries again", std::string(status.message()));
  }
  host_network_.reset();  // and the lock of its journal
}

// Whom to ask for the names of servers: not those that are reached through the tunnel.
std::vector<IpAddress> Tunnel::NameServers() const {
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

// --- What comes to the slow path ---

void Tunnel::OnDatagram(MutableBytes datagram, const Route& back) {
  if (stopping_) return;
  const size_t bytes = datagram.size();
  if (peers_->OnDatagram(datagram, back, MonotonicNowNs())) return HandToWorker(datagram, back);
  if (uplinks_) uplinks_->Count(back, bytes);
}

void Tunnel::HandToWorker(MutableBytes datagram, const Route& back) {
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

void Tunnel::SendDatagram(const Route& route, Bytes datagram) {
  slow_lane_->Send(route, datagram);
  if (uplinks_) uplinks_->Count(route, datagram.size());
}

void Tunnel::TakeEvents() {
  Event event;
  for (int i = 0; i < kEventsPerWake && workers_.events().events.TryPop(event); ++i) {
    if (event.type == Event::Type::kDatagram) {
      OnDatagram({event.bytes.data(), event.length}, event.back);
    } else if (event.type == Event::Type::kNoSockets) {
      uplinks_->Refuse(event.group, event.generation, event.Text());
    } else if (EgressFlows::Takes(event)) {
      egress_->OnEvent(event);
    } else if (event.type == Event::Type::kDied) {
      Fail(absl::InternalError("a worker has died: " + event.Text()));
    } else {
      peers_->OnEvent(event, MonotonicNowNs());
    }
  }
}

// A handshake gives workers several commands, so none ends while commands wait: what waits stays
// short, and under more load initiations are refused instead.
void Tunnel::TakeJobs() {
  for (int i = 0; i < kJobsPerWake && !workers_.has_waiting(); ++i) {
    std::unique_ptr<HandshakeJob> job = arena_.TryTake();
    if (job == nullptr) return;
    peers_->OnJobDone(std::move(job), MonotonicNowNs());
  }
}

// Commands that found a full mailbox are brought soon, not at the next tick; jobs waited for that.
void Tunnel::RetryCommands() {
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

void Tunnel::ScheduleTick() {
  tick_.expires_after(std::chrono::nanoseconds(Peers::kTickNs));
  tick_.async_wait([this](const boost::system::error_code& error) {
    if (error || stopping_) return;
    const auto due = tick_.expiry().time_since_epoch();
    health_.OnTimer(static_cast<TimeNs>(std::chrono::nanoseconds(due).count()), MonotonicNowNs());
    Tick();
  });
}

void Tunnel::Tick() {
  const TimeNs now_ns = MonotonicNowNs();
  peers_->Tick(now_ns);
  workers_.Tick();
  if (now_ns >= next_sample_ns_) {
    const auto paths_of = [this](PeerSlot slot) {
      const Peer* peer = peers_->Find(slot);
      return peer != nullptr && peer->established() ? peer->paths.size() : 0;
    };
    const auto totals_of = [this](PeerSlot slot, int path) {
      return workers_.TrafficOf(slot, path);
    };
    meters_.Sample(paths_of, totals_of, now_ns);
    health_.Sample([this](Drop reason) { return workers_.Drops(reason); }, now_ns);
    workers_.AskForLife(now_ns);
    for (KeptText* told : {&status_, &peers_text_}) told->FreeIfOld(now_ns);
    next_sample_ns_ = now_ns + kSecondNs;
  }
  if (now_ns >= next_look_ns_) {
    next_look_ns_ = now_ns + kLookEveryNs;
    if (uplinks_) uplinks_->ResolveEndpoints();
    FollowNetwork();
  }
  if (uplinks_) uplinks_->Tick(now_ns);
  ScheduleTick();
}

// --- What peers ask of this end ---

void Tunnel::Tell(const Command& command) {
  workers_.Tell(command);
  RetryCommands();
  if (command.type == Command::Type::kSendUnder) SteerByAgreedLanes();
}

// Two ends that want different numbers of lanes agree on the smaller, and the steering program has
// to count with that. There is one program for the whole device, and it does not know whom a packet
// is for: a client steers for its servers when they agree on one number, a server's clients may
// each have another, so what goes to them is handed over where it has to be.
void Tunnel::SteerByAgreedLanes() {
  if (!steered_by_bpf_ || config_.role == Role::kServer) return;
  int agreed = 0;
  for (const Peer* peer : peers_->all()) {
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

uint64_t Tunnel::NextHandshakeCounter() { return counter_->Next(WallNowNs()); }

PathBinding Tunnel::BindingOf(const Route& route) const {
  return uplinks_ ? uplinks_->BindingOf(route) : PathBinding{"", 0, route.local};
}

PeerHost::LinkMtu Tunnel::LinkMtuOf(const Route& route) {
  const int overhead =
      OuterHeaderBytes(route.remote.address.is_v6()) + static_cast<int>(kSealOverheadBytes);
  const PathBinding binding = BindingOf(route);
  const auto link = LinkMtuTowards(route.remote, binding.address, binding.device_index);
  const int mtu = std::clamp(link.value_or(0) - overhead, 0, static_cast<int>(kMaxMtu));
  return {static_cast<uint16_t>(mtu), overhead};
}

void Tunnel::ResolveAnew(const Route& route) {
  const PathBinding binding = BindingOf(route);
  const auto next_hop = NextHopTowards(route.remote, binding.address, binding.device_index);
  if (next_hop) ForgetUnresolved(*next_hop);
}

// A client whose MTU is automatic follows what its servers carry, so that its own kernel fragments
// or refuses what would not fit.
void Tunnel::OnSessionMtu(PeerSlot, uint16_t) {
  if (!has_carried_) OnFirstSession();
  if (config_.network.mtu || config_.role == Role::kServer) return;
  int smallest = mtu_.largest;
  for (const Peer* peer : peers_->all()) {
    if (peer->established()) smallest = std::min<int>(smallest, peer->mtu);
  }
  if (smallest == mtu_.now) return;
  if (absl::Status status = SetDeviceMtu(config_.network.device, smallest); !status.ok()) {
    return spdlog::warn("{}", std::string(status.message()));
  }
  mtu_.now = smallest;
  spdlog::info("{} now has MTU {}", config_.network.device, mtu_.now);
}

void Tunnel::OnSession(PeerSlot peer, bool established) {
  event_log_.Publish(established ? "session_established" : "session_lost",
                     {{"peer", peers_->Find(peer)->config.name}});
}

void Tunnel::OnPathUsable(PeerSlot peer, uint8_t path, bool usable) {
  const Peer& of = *peers_->Find(peer);
  event_log_.Publish(usable ? "path_up" : "path_down",
                     {{"peer", of.config.name}, {"path", of.paths[path].name}});
}

void Tunnel::Report(const std::string& line) { spdlog::info("{}", line); }

void Tunnel::ReportProblem(const std::string& line) { spdlog::error("{}", line); }

void Tunnel::Warn(std::string warning) {
  if (std::find(warnings_.begin(), warnings_.end(), warning) != warnings_.end()) return;
  spdlog::warn("{}", warning);
  event_log_.Publish("warning", {{"text", warning}});
  warnings_.push_back(std::move(warning));
}

void Tunnel::TakeBackWarning(std::string_view warning) { std::erase(warnings_, warning); }

// --- Control ---

StatusSources Tunnel::Sources() {
  return {config_,         *peers_,           workers_,
          meters_,         device_->offloads, aeads_,
          stray_drops_,    TunQueueDrops(),   sockets_->ReceiveQueueDrops(),
          steered_by_bpf_, mtu_.now,          warnings_,
          started_ns_,     MonotonicNowNs(),  uplinks_ ? &uplinks_->paths() : nullptr,
          *quotas_,        throttle_,         egress_.get()};
}

std::string Tunnel::MetricsText() {
  const StatusSources sources = Sources();
  return RenderMetrics(CollectMetrics(sources, health_.See(sources, network_problem_)));
}

bool Tunnel::AreWorkersAlive() const {
  return braid::AreWorkersAlive(SilencesOf(workers_, MonotonicNowNs()));
}

// The device is as old as the tunnel, so the kernel's count begins with it. The last one that was
// read stands when there is no other: somebody may have renamed the device.
uint64_t Tunnel::TunQueueDrops() {
  if (const auto drops = DeviceQueueDrops(config_.network.device); drops.ok()) {
    tun_queue_drops_ = *drops;
  }
  return tun_queue_drops_;
}

void Tunnel::ForgetWhatWasTold() {
  for (KeptText* told : {&status_, &peers_text_}) told->Forget();
}

ControlResult Tunnel::OnVerb(std::string_view verb, const nlohmann::json& params) {
  if (verb == "status") {
    return status_.Get(event_log_.last_id(),
                       [this] { return ToJsonText(DescribeStatus(Sources())); });
  }
  if (verb == "peers") {
    return peers_text_.Get(event_log_.last_id(),
                           [this] { return ToJsonText(DescribePeers(Sources())); });
  }
  if (verb == "health") {
    return ToJsonText(DescribeHealth(JudgeHealth(health_.See(Sources(), network_problem_))));
  }
  if (verb == "peer") return DescribePeer(params);
  if (verb == "mode") return OnModeVerb(params);
  if (verb == "throttle") return OnThrottleVerb(params);
  if (verb.substr(0, kPathVerbs.size()) == kPathVerbs) return OnPathVerb(verb, params);
  return UnknownVerb(verb);
}

ControlResult Tunnel::OnModeVerb(const nlohmann::json& params) {
  const auto mode = ReadMode(params);
  if (!mode.ok()) return ToControlError(mode.status());
  if (*mode) {
    ForgetWhatWasTold();
    bonding_.mode = **mode;
    Tell({.type = Command::Type::kSetBond, .bond = bonding_});
    peers_->SetMode(bonding_.mode, MonotonicNowNs());
    spdlog::info("the bonding mode is {} by command", NameOf(bonding_.mode));
  }
  return ToJsonText(DescribeModes(bonding_.mode, *peers_));
}

ControlResult Tunnel::OnThrottleVerb(const nlohmann::json& params) {
  const auto throttle = ReadThrottleChange(params, throttle_, *peers_);
  if (!throttle.ok()) return ToControlError(throttle.status());
  if (*throttle != throttle_) {
    ForgetWhatWasTold();
    throttle_ = *throttle;
    PublishThrottle();
    spdlog::info("the limits of rates were changed by command");
  }
  return ToJsonText(DescribeThrottle(throttle_, *peers_, workers_));
}

ControlResult Tunnel::OnPathVerb(std::string_view verb, const nlohmann::json& params) {
  if (!uplinks_) {
    return ControlError{ControlCode::kConflict,
                        "this is a server, which has no paths of its own: its clients have them"};
  }
  if (verb == "path_list") {
    return ToJsonText(DescribePaths(uplinks_->paths(), *peers_, workers_, *quotas_));
  }
  ForgetWhatWasTold();
  if (verb == "path_add") {
    const auto path = ReadPathToAdd(params, config_);
    if (!path.ok()) return ToControlError(path.status());
    if (absl::Status status = uplinks_->Add(*path); !status.ok()) return ToControlError(status);
    spdlog::info("path \"{}\" was added by command", path->name);
    return DescribeAddedPath(uplinks_->paths(), path->name);
  }
  if (verb == "path_del") {
    const auto name = ReadPathToRemove(params);
    if (!name.ok()) return ToControlError(name.status());
    if (absl::Status status = uplinks_->Remove(*name); !status.ok()) return ToControlError(status);
    spdlog::info("path \"{}\" was ended by command", *name);
    return std::string("{}");
  }
  if (verb == "path_set") {
    const auto change = ParsePathChange(params);
    if (!change.ok()) return ToControlError(change.status());
    if (absl::Status status = uplinks_->Set(*change); !status.ok()) return ToControlError(status);
    spdlog::info("path \"{}\" was changed by command", change->name);
    return std::string("{}");
  }
  return UnknownVerb(verb);
}

// What somebody needs who wants to reach one peer through the tunnel.
ControlResult Tunnel::DescribePeer(const nlohmann::json& params) const {
  const auto name = params.find("name");
  if (name == params.end() || !name->is_string()) {
    return ControlError{ControlCode::kBadParams, "\"name\" must be the name of a peer"};
  }
  for (const Peer* peer : peers_->all()) {
    if (peer->config.name != name->get_ref<const std::string&>()) continue;
    nlohmann::ordered_json json;
    json["name"] = peer->config.name;
    json["public_key"] = EncodeKey(peer->config.public_key);
    json["established"] = peer->established();
    json["up"] = peer->established() && std::any_of(peer->paths.begin(), peer->paths.end(),
                                                    [](const PeerPath& path) { return path.up; });
    json["addresses"] = nlohmann::ordered_json::array();
    for (const IpAddress& address : PeerAddresses(config_, peer->config)) {
      json["addresses"].push_back(address.ToString());
    }
    json["device"] = config_.network.device;
    json["measure_port"] = config_.performance.measure_port;
    return ToJsonText(json);
  }
  return ControlError{ControlCode::kNotFound,
                      "there is no peer of this name; \"braid status\" lists them"};
}

}  // namespace braid
