// The tunnel: device, sockets, workers, peers, paths and this machine's network around it, put
// together in the order in which they depend on each other and taken down in reverse. The daemon
// starts and stops it, changes it by command, and describes it.
//
// Lives on the thread of its io_context, which must outlive it. What waits in the loop refers to
// it, so after Stop() it is to be destroyed by a function that was posted to the loop later.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/packet_pool.h"
#include "io/tun.h"
#include "slowpath/config.h"
#include "slowpath/control_protocol.h"
#include "slowpath/egress_flows.h"
#include "slowpath/event_log.h"
#include "slowpath/handshake_arena.h"
#include "slowpath/handshake_counter.h"
#include "slowpath/health_watch.h"
#include "slowpath/host_network.h"
#include "slowpath/inbox.h"
#include "slowpath/kept_text.h"
#include "slowpath/measure_responder.h"
#include "slowpath/net_monitor.h"
#include "slowpath/nft_monitor.h"
#include "slowpath/path_meter.h"
#include "slowpath/path_quota.h"
#include "slowpath/peers.h"
#include "slowpath/slow_lane.h"
#include "slowpath/status_sources.h"
#include "slowpath/tunnel_sockets.h"
#include "slowpath/uplinks.h"
#include "slowpath/worker_group.h"

namespace braid {

class Tunnel final : private PeerHost {
 public:
  // Called once at most, in the loop: the tunnel cannot go on, and why. It is for the callee to
  // stop it.
  using OnFailure = std::function<void(absl::Status why)>;

  // `events` outlives it.
  Tunnel(boost::asio::io_context& io, Config config, EventLog& events, OnFailure on_failure);
  ~Tunnel();

  // How long to try where another process has what this needs, which may be one that is just
  // ending.
  enum class Patience : uint8_t {
    kWaits,  // some seconds, and nothing else goes on meanwhile: not in the loop
    kNone,
  };
  // An error is one line that says what to do; Stop() then takes back what was done. AlreadyExists:
  // somebody else has what this needs.
  [[nodiscard]] absl::Status Start(Patience patience);
  // Tells the peers, restores this machine's network, ends the workers, and lets go of all that
  // another one needs. Also after an error. False when a worker hangs: the process has to end then,
  // since neither this nor what that worker uses may be destroyed.
  [[nodiscard]] bool Stop();

  // Goes on with another configuration, whose differences are all live (config_change.h), or
  // changes nothing and says why. Sessions of peers that are the same go on.
  [[nodiscard]] absl::Status Apply(Config next);
  // Those of `next` whose preshared key is another one now, in the file of the same name. One whose
  // file cannot be read is none of them: Apply() says why.
  std::vector<const PeerConfig*> PeersWithAnotherKey(const Config& next) const;

  // Verbs about the tunnel: status, health, metrics, peers, peer, mode, throttle, path_….
  ControlResult OnVerb(std::string_view verb, const nlohmann::json& params);
  // What Prometheus takes.
  std::string MetricsText();
  // Each worker has given a sign of life lately.
  bool AreWorkersAlive() const;

 private:
  // Bring-up, in order.
  absl::Status HoldKillSwitch();
  absl::Status ReadKeys();
  absl::Status TakeBackLeftovers();
  absl::Status FollowLinks();
  void WatchTables();
  absl::Status OpenSockets();
  absl::Status OpenDevice();
  absl::Status SteerByLanes(int lanes);
  absl::Status OpenEgress();
  absl::Status StartWorkers();
  absl::Status AddPeers();
  absl::Status ListenForMeasurements();
  absl::Status BringUpNetwork();
  absl::StatusOr<DeviceMtu> ChooseMtu() const;

  // How the peers of now differ from those of another configuration.
  struct PeerChanges {
    struct Added {
      PeerConfig config;
      PeerKeys keys;
    };
    struct Kept {
      PeerSlot slot = kNoPeer;
      PeerConfig config;
    };
    std::vector<PeerSlot> removed;
    std::vector<Added> added;
    std::vector<Kept> changed;  // neither keys nor endpoints

    bool empty() const { return removed.empty() && added.empty() && changed.empty(); }
  };
  absl::StatusOr<PeerChanges> ComparePeers(const Config& next) const;
  absl::flat_hash_map<Key, const Peer*> PeersByKey() const;
  absl::Status ChangeNetwork(Config& next);
  absl::Status ChangeHost(const NetworkConfig& before);
  void ChangePeers(const PeerChanges& changes);
  void ChangeBond(const TunnelConfig& before);
  void PublishThrottle();
  void PublishRoutes();
  void PublishEgressRules(EgressFlows::Groups groups);

  // This machine's network around the tunnel.
  void OnNetwork();
  HostNetwork::Tunnel SeeTunnel() const;
  void OnFirstSession();
  void FollowNetwork();
  void TakeBackNetwork();
  std::vector<IpAddress> NameServers() const;

  // What comes to the slow path.
  void OnDatagram(MutableBytes datagram, const Route& back);
  void HandToWorker(MutableBytes datagram, const Route& back);
  void TakeEvents();
  void TakeJobs();
  void RetryCommands();
  void ScheduleTick();
  void Tick();

  StatusSources Sources();
  ControlResult OnModeVerb(const nlohmann::json& params);
  ControlResult OnThrottleVerb(const nlohmann::json& params);
  ControlResult OnPathVerb(std::string_view verb, const nlohmann::json& params);
  ControlResult DescribePeer(const nlohmann::json& params) const;
  uint64_t TunQueueDrops();
  void ForgetWhatWasTold();

  // PeerHost
  void SendDatagram(const Route& route, Bytes datagram) override;
  void Tell(const Command& command) override;
  void Retire(std::unique_ptr<const Keypair> keypair) override {
    workers_.Retire(std::move(keypair));
  }
  void RunJob(std::unique_ptr<HandshakeJob> job) override { arena_.Run(std::move(job)); }
  PeerActivity ActivityOf(PeerSlot peer) override { return workers_.ActivityOf(peer); }
  uint64_t NextHandshakeCounter() override;
  LinkMtu LinkMtuOf(const Route& route) override;
  void ResolveAnew(const Route& route) override;
  void OnSessionMtu(PeerSlot peer, uint16_t mtu) override;
  void OnSession(PeerSlot peer, bool established) override;
  void OnPathUsable(PeerSlot peer, uint8_t path, bool usable) override;
  void Report(const std::string& line) override;
  void ReportProblem(const std::string& line) override;

  PathBinding BindingOf(const Route& route) const;
  void SteerByAgreedLanes();
  // Of what stays as it is; once, however often it is met.
  void Warn(std::string warning);
  void TakeBackWarning(std::string_view warning);
  void Fail(absl::Status why);

  boost::asio::io_context& io_;
  Config config_;
  EventLog& event_log_;
  const OnFailure on_failure_;
  // As commands have changed them.
  BondOptions bonding_ = config_.tunnel.bonding;
  ThrottleConfig throttle_ = config_.throttle;
  boost::asio::steady_timer tick_;
  boost::asio::steady_timer retry_commands_;
  bool retrying_commands_ = false;
  const TimeNs started_ns_;
  std::vector<std::string> warnings_;

  Identity identity_;
  std::vector<PeerKeys> peer_keys_;  // of the configuration's peers, until they are there
  AeadSuite aeads_;
  std::optional<HandshakeCounter> counter_;
  std::optional<TunnelSockets> sockets_;
  std::optional<SlowLane> slow_lane_;
  std::optional<NetMonitor> network_;
  std::optional<NftMonitor> nftables_;
  ThisHost host_;
  std::optional<HostNetwork> host_network_;  // nothing where it could not be
  std::string network_problem_;              // what it said last; empty: all is well
  bool has_carried_ = false;                 // a session was established, ever
  std::optional<PathQuotas> quotas_;         // of a server, too: it has none
  std::optional<TunDevice> device_;
  bool steered_by_bpf_ = false;
  int steered_lanes_ = 0;  // that the steering program counts with
  DeviceMtu mtu_;
  uint64_t tun_queue_drops_ = 0;
  // As they were told last.
  KeptText status_;
  KeptText peers_text_;
  std::unique_ptr<PacketPool> stray_pool_;
  DropCounters stray_drops_;
  WorkerGroup workers_;
  std::unique_ptr<EgressFlows> egress_;  // where something may leave past the tunnel
  EgressFlows::Groups egress_groups_;    // opened, and not set yet
  PathMeters meters_;
  HealthWatch health_;
  std::optional<Peers> peers_;
  std::optional<Uplinks> uplinks_;  // of a client
  HandshakeArena arena_;
  Inbox events_;
  Inbox jobs_;
  std::unique_ptr<MeasureResponder> measure_;
  TimeNs next_look_ns_ = 0;
  TimeNs next_sample_ns_ = 0;
  bool running_ = false;  // the workers and the peers are there
  bool stopping_ = false;
};

}  // namespace braid
