// A client's paths at work: what they are bound to, as the network comes and goes; where they lead,
// as names resolve; what they have used of their quotas. ClientPaths decides which there are; this
// opens and closes their sockets and tells the workers and the peers.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "slowpath/client_paths.h"
#include "slowpath/config.h"
#include "slowpath/name_resolver.h"
#include "slowpath/net_snapshot.h"
#include "slowpath/path_quota.h"
#include "slowpath/peers.h"
#include "slowpath/slow_lane.h"
#include "slowpath/tunnel_sockets.h"
#include "slowpath/worker_group.h"

namespace braid {

// The inner packet that a device may have, and the largest that it may come to have.
struct DeviceMtu {
  int now = 0;
  int largest = 0;
};

class Uplinks {
 public:
  // What belongs to the tunnel, and outlives this.
  struct Tunnel {
    const Config& config;
    const NetSnapshot& network;
    TunnelSockets& sockets;
    SlowLane& slow_lane;
    WorkerGroup& workers;
    PathQuotas& quotas;
    std::function<std::vector<IpAddress>()> name_servers;  // whom to ask for endpoints
    std::function<void()> on_change;                       // of what paths leave by
    std::function<void(const std::string&)> warn;          // of what stays
  };

  Uplinks(boost::asio::io_context& io, Tunnel tunnel);

  // Binds what can be bound. One that cannot be used now is waited for, as long as there is another
  // one; an error says why there is none.
  [[nodiscard]] absl::Status Open();
  // Configured, or what the smallest path carries. A name that is not resolved yet is taken to be
  // behind an ordinary link.
  absl::StatusOr<DeviceMtu> ChooseMtu() const;
  // Now that workers run and peers are there, who outlive this: from here on they are told.
  void Start(Peers& peers);
  void Close();

  // Brings the paths into line with what the configuration and the commands want and the network
  // allows. To be called when the network has changed.
  void Follow();
  void Tick(TimeNs now_ns);
  // Names are resolved once, and again as long as their peer does not answer.
  void ResolveEndpoints();

  // Bytes of the slow lane, with the headers of IP and UDP.
  void Count(const Route& route, size_t datagram_bytes);
  // The workers could not use the sockets of this group and generation.
  void Refuse(uint16_t group, uint32_t generation, std::string why);

  // A peer came while this runs.
  void AddPeer(PeerSlot peer);
  // The configuration of the tunnel has changed from what it was. CheckConfig() before.
  [[nodiscard]] absl::Status CheckConfig(const TunnelConfig& after) const {
    return paths_.CheckConfig(tunnel_.config.tunnel, after);
  }
  void OnConfig(const TunnelConfig& before);

  // By command.
  [[nodiscard]] absl::Status Add(const PathConfig& path);
  [[nodiscard]] absl::Status Remove(const std::string& name);
  [[nodiscard]] absl::Status Set(const PathChange& change);

  const ClientPaths& paths() const { return paths_; }
  // In the order of the configuration, as far as the addresses are known.
  std::vector<Endpoint> RemotesOf(const PathConfig& path, const PeerConfig& peer) const;
  // The devices that paths leave by now.
  std::vector<std::string> Devices() const;
  // Where datagrams along it leave this machine.
  PathBinding BindingOf(const Route& route) const;

 private:
  void OpenPath(uint8_t id);
  void ClosePath(uint8_t id);
  BindingChoice ChooseBindingOf(const PathConfig& path) const;
  std::vector<Endpoint> AllRemotesOf(const PathConfig& path) const;
  void RoutePaths(bool resolved_anew);
  void RoutePath(const Peer& peer, uint8_t id, bool resolved_anew);
  void Resolve(const HostPort& endpoint);
  void TellProblems();
  bool IsUsedUp(const PathConfig& path) const;
  void LookAtQuotas(TimeNs now_ns);
  uint64_t BytesOver(uint8_t id);
  void Keep(const absl::Status& status);

  const Tunnel tunnel_;
  ClientPaths paths_;
  Peers* peers_ = nullptr;  // before Start()
  bool closed_ = false;
  NetSnapshot followed_;  // the network as it was when the paths followed it
  NameResolver resolver_;
  std::map<std::string, std::vector<Endpoint>> resolved_;  // by host and port
  std::set<std::string> resolving_;
  std::array<std::string, kMaxPaths> told_problems_;
  std::string told_problem_;
  // Bytes over each path: of the slow lane since they were counted for its quota, and of the
  // workers up to then, by peer.
  std::array<uint64_t, kMaxPaths> slow_bytes_{};
  std::vector<std::array<uint64_t, kMaxPaths>> counted_bytes_;
};

}  // namespace braid
