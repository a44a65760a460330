#include "slowpath/uplinks.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "slowpath/net_setup.h"
#include "slowpath/path_binding.h"

namespace braid {
namespace {

constexpr int kSealBytes = static_cast<int>(kSealOverheadBytes);

std::string NameOf(const HostPort& endpoint) {
  return endpoint.host + ":" + std::to_string(endpoint.port);
}

}  // namespace

Uplinks::Uplinks(boost::asio::io_context& io, Tunnel tunnel)
    : tunnel_(std::move(tunnel)), paths_(tunnel_.config), resolver_(io) {}

absl::Status Uplinks::Open() {
  Follow();
  if (tunnel_.config.tunnel.auto_paths) return absl::OkStatus();
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = paths_[id];
    if (path && (path->binding || IsUsedUp(path->config))) return absl::OkStatus();
  }
  return absl::NotFoundError("/tunnel/paths/0: " + paths_[0]->problem);
}

absl::StatusOr<DeviceMtu> Uplinks::ChooseMtu() const {
  const int usual = kDefaultLinkMtu - kSealBytes - OuterHeaderBytes(false);
  const std::optional<int>& configured = tunnel_.config.network.mtu;
  int smallest = kMaxMtu;
  int largest = 0;
  absl::Status too_small;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = paths_[id];
    if (!path || !path->binding) continue;
    for (const PeerConfig& peer : tunnel_.config.tunnel.peers) {
      const auto remote =
          ChooseRemote(path->config, path->binding, RemotesOf(path->config, peer), LookUpRoute);
      const auto link =
          remote ? LinkMtuTowards(*remote, path->binding->address, path->binding->device_index)
                 : std::nullopt;
      const int carries = std::min(link.value_or(kDefaultLinkMtu) - kSealBytes -
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
      if (configured.value_or(0) > carries && remote) {
        return absl::FailedPreconditionError(
            where + ", less than network.mtu: lower that, or set it to \"auto\"");
      }
      smallest = std::min(smallest, carries);
      largest = std::max(largest, carries);
    }
  }
  if (largest == 0 && !too_small.ok()) return too_small;
  if (largest == 0) smallest = kDefaultLinkMtu - OuterHeaderBytes(true) - kSealBytes;
  return DeviceMtu{configured.value_or(smallest), configured.value_or(std::max(largest, usual))};
}

void Uplinks::Start(Peers& peers) {
  peers_ = &peers;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (paths_[id]) peers.AddPath(id, paths_[id]->config.name, paths_[id]->config.bonding);
  }
  TellProblems();
  RoutePaths(false);
  ResolveEndpoints();
}

void Uplinks::Close() {
  if (std::exchange(closed_, true)) return;
  resolver_.Close();
  if (peers_ == nullptr) return;
  LookAtQuotas(MonotonicNowNs());
  Keep(tunnel_.quotas.Save());
}

// --- Which paths there are ---

void Uplinks::Follow() {
  const bool changed = !(tunnel_.network == followed_);
  followed_ = tunnel_.network;
  const auto changes = paths_.Follow(
      followed_, [this](const PathConfig& path) { return ChooseBindingOf(path); },
      [this](uint8_t id) { return peers_ == nullptr || peers_->MayUsePath(id); });
  for (const ClientPaths::Change& change : changes) {
    switch (change.type) {
      case ClientPaths::Change::Type::kBegin:
        if (peers_ != nullptr) {
          const PathConfig& path = paths_[change.id]->config;
          peers_->AddPath(change.id, path.name, path.bonding);
        }
        break;
      case ClientPaths::Change::Type::kBind:
        OpenPath(change.id);
        break;
      case ClientPaths::Change::Type::kUnbind:
        ClosePath(change.id);
        break;
      case ClientPaths::Change::Type::kEnd:
        if (peers_ != nullptr) peers_->RemovePath(change.id, MonotonicNowNs());
        break;
    }
  }
  if (peers_ == nullptr) return;
  TellProblems();
  if (!changes.empty()) tunnel_.on_change();
  RoutePaths(false);
  ResolveEndpoints();
  if (!changed) return;
  peers_->PingPaths(MonotonicNowNs());
  peers_->SearchMtus(MonotonicNowNs());
}

BindingChoice Uplinks::ChooseBindingOf(const PathConfig& path) const {
  if (IsUsedUp(path)) {
    const auto wall_s = static_cast<int64_t>(WallNowNs() / kSecondNs);
    return {std::nullopt,
            "quota used up until " + tunnel_.quotas.Find(path.name)->NextReset(wall_s)};
  }
  return ChooseBinding(path, AllRemotesOf(path), followed_, LookUpRoute);
}

void Uplinks::OpenPath(uint8_t id) {
  const ClientPath& path = *paths_[id];
  const auto groups = tunnel_.sockets.AddPath(id, *path.binding);
  if (!groups.ok()) return paths_.Refuse(id, std::string(groups.status().message()));
  for (const uint16_t group : *groups) {
    tunnel_.slow_lane.Open(group);
    if (peers_ != nullptr) tunnel_.workers.AddSockets(tunnel_.sockets.OfGroup(group));
  }
  if (peers_ == nullptr) return;
  const std::string& device = path.binding->device;
  spdlog::info("path \"{}\" is open{}", path.config.name, device.empty() ? "" : " on " + device);
}

// The peers first, so that nothing is sent through sockets that are gone.
void Uplinks::ClosePath(uint8_t id) {
  if (peers_ != nullptr) peers_->SuspendPath(id, MonotonicNowNs());
  for (uint16_t group = 0; group < kMaxSocketGroups; ++group) {
    if (TunnelSockets::PathOfGroup(group) != id || tunnel_.sockets.slow()[group].fd < 0) continue;
    tunnel_.slow_lane.Close(group);
    auto keeper = tunnel_.sockets.Remove(group);
    if (peers_ != nullptr) tunnel_.workers.RemoveSockets(group, std::move(keeper));
  }
}

void Uplinks::Refuse(uint16_t group, uint32_t generation, std::string why) {
  const auto sockets = tunnel_.sockets.OfGroup(group);
  if (sockets == nullptr || sockets->generation != generation) return;  // closed meanwhile
  const auto id = static_cast<uint8_t>(TunnelSockets::PathOfGroup(group));
  ClosePath(id);
  paths_.Refuse(id, std::move(why));
  TellProblems();
}

// Each problem once, and that it is over.
void Uplinks::TellProblems() {
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = paths_[id];
    const std::string problem = path && !path->problem.empty()
                                    ? "path \"" + path->config.name + "\": " + path->problem
                                    : "";
    if (problem == std::exchange(told_problems_[id], problem) || problem.empty()) continue;
    spdlog::warn("{}", problem);
  }
  if (paths_.problem() == told_problem_) return;
  told_problem_ = paths_.problem();
  if (!told_problem_.empty()) spdlog::warn("{}", told_problem_);
}

std::vector<std::string> Uplinks::Devices() const {
  std::vector<std::string> devices;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = paths_[id];
    if (!path || !path->binding) continue;
    devices.push_back(path->binding->device);
    // One that is bound to nothing leaves by what leads to its servers.
    for (const Endpoint& remote : AllRemotesOf(path->config)) {
      const auto link = LookUpRoute(remote, path->binding->address, path->binding->device_index);
      const NetLink* found = link ? tunnel_.network.Find(*link) : nullptr;
      if (found != nullptr) devices.push_back(found->name);
    }
  }
  return devices;
}

PathBinding Uplinks::BindingOf(const Route& route) const {
  const auto& path = paths_[static_cast<size_t>(TunnelSockets::PathOfGroup(route.socket_group))];
  return path && path->binding ? *path->binding : PathBinding{"", 0, route.local};
}

// --- By configuration ---

void Uplinks::AddPeer(PeerSlot peer) {
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (!paths_[id]) continue;
    peers_->AddPathTo(peer, id, paths_[id]->config.name, paths_[id]->config.bonding);
  }
}

void Uplinks::OnConfig(const TunnelConfig& before) {
  for (const uint8_t id : paths_.SetConfig(before, tunnel_.config.tunnel)) {
    peers_->SetPathOptions(id, paths_[id]->config.bonding);
  }
  Follow();
}

// --- By command ---

absl::Status Uplinks::Add(const PathConfig& path) {
  const auto may_use = [this](uint8_t id) { return peers_->MayUsePath(id); };
  if (absl::Status status = paths_.Add(path, may_use); !status.ok()) return status;
  Follow();
  return absl::OkStatus();
}

absl::Status Uplinks::Remove(const std::string& name) {
  if (absl::Status status = paths_.Remove(name); !status.ok()) return status;
  Follow();
  return absl::OkStatus();
}

absl::Status Uplinks::Set(const PathChange& change) {
  const auto id = paths_.SetOptions(change);
  if (!id.ok()) return id.status();
  peers_->SetPathOptions(*id, paths_[*id]->config.bonding);
  return absl::OkStatus();
}

// --- Where they lead ---

std::vector<Endpoint> Uplinks::RemotesOf(const PathConfig& path, const PeerConfig& peer) const {
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

std::vector<Endpoint> Uplinks::AllRemotesOf(const PathConfig& path) const {
  std::vector<Endpoint> remotes;
  for (const PeerConfig& peer : tunnel_.config.tunnel.peers) {
    for (const Endpoint& remote : RemotesOf(path, peer)) remotes.push_back(remote);
  }
  return remotes;
}

void Uplinks::RoutePaths(bool resolved_anew) {
  for (const Peer* peer : peers_->all()) {
    for (uint8_t id = 0; id < kMaxPaths; ++id) {
      if (paths_[id] && paths_[id]->binding) RoutePath(*peer, id, resolved_anew);
    }
  }
}

// A route stands as long as the peer answers there, or the network leads there.
void Uplinks::RoutePath(const Peer& peer, uint8_t id, bool resolved_anew) {
  const ClientPath& path = *paths_[id];
  const PeerPath* known = peer.FindPath(id);
  const auto remotes = RemotesOf(path.config, peer.config);
  const auto remote = ChooseRemote(path.config, path.binding, remotes, LookUpRoute);
  if (known == nullptr || !remote) return;
  const Endpoint& now = known->route.remote;
  const bool has_other_family =
      now.is_set() && now.address.family != remote->address.family &&
      !LookUpRoute(now, path.binding->address, path.binding->device_index);
  const bool wanted =
      !now.is_set() || has_other_family || (resolved_anew && Peers::WantsResolving(peer));
  const uint16_t group = TunnelSockets::ClientGroup(id, remote->address);
  if (!wanted || tunnel_.sockets.slow()[group].fd < 0) return;
  peers_->SetPathRoute(peer.slot, id, {*remote, {}, group}, MonotonicNowNs());
}

void Uplinks::ResolveEndpoints() {
  for (const Peer* peer : peers_->all()) {
    for (uint8_t id = 0; id < kMaxPaths; ++id) {
      if (!paths_[id]) continue;
      for (const HostPort& endpoint : EndpointsOf(paths_[id]->config, peer->config)) {
        const bool is_new = !resolved_.contains(NameOf(endpoint));
        if (!endpoint.address.is_set() && (is_new || Peers::WantsResolving(*peer)))
          Resolve(endpoint);
      }
    }
  }
}

void Uplinks::Resolve(const HostPort& endpoint) {
  const std::string name = NameOf(endpoint);
  if (!resolving_.insert(name).second) return;
  resolver_.Resolve(endpoint.host, tunnel_.name_servers(),
                    [this, name, host = endpoint.host,
                     port = endpoint.port](absl::StatusOr<std::vector<IpAddress>> found) {
                      resolving_.erase(name);
                      if (!found.ok()) {
                        return spdlog::warn("cannot resolve \"{}\": {}", host,
                                            std::string(found.status().message()));
                      }
                      std::vector<Endpoint>& remotes = resolved_[name];
                      remotes.clear();
                      for (const IpAddress& address : *found) remotes.push_back({address, port});
                      Follow();  // what a path is bound to depends on where it leads
                      tunnel_.on_change();
                      RoutePaths(true);
                    });
}

// --- What they have used ---

void Uplinks::Tick(TimeNs now_ns) {
  LookAtQuotas(now_ns);
  if (paths_.waits()) Follow();
}

bool Uplinks::IsUsedUp(const PathConfig& path) const {
  return path.quota && tunnel_.quotas.Of(path.name, *path.quota).used_up();
}

void Uplinks::Count(const Route& route, size_t datagram_bytes) {
  slow_bytes_[static_cast<size_t>(TunnelSockets::PathOfGroup(route.socket_group))] +=
      datagram_bytes + static_cast<size_t>(OuterHeaderBytes(route.remote.address.is_v6()));
}

// A path whose quota is used up is treated as one without a link, also when it is the last: a limit
// is one.
void Uplinks::LookAtQuotas(TimeNs now_ns) {
  const auto wall_s = static_cast<int64_t>(WallNowNs() / kSecondNs);
  bool changed = false;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    const uint64_t bytes = BytesOver(id);
    if (!paths_[id] || !paths_[id]->config.quota) continue;
    const PathConfig& path = paths_[id]->config;
    PathQuota& quota = tunnel_.quotas.Of(path.name, *path.quota);
    const bool before = quota.used_up();
    quota.Count(bytes);
    quota.Look(wall_s, now_ns);
    if (quota.TakeWarning()) {
      spdlog::warn("path \"{}\": {} % of its quota are used until {}", path.name,
                   quota.kept().used_bytes * 100 / quota.config().bytes, quota.NextReset(wall_s));
    }
    if (quota.used_up() == before || closed_) continue;
    changed = true;
    if (quota.used_up()) peers_->ForbidPath(id, now_ns);
  }
  if (changed) Follow();
  Keep(tunnel_.quotas.SaveIfDue(now_ns));
}

// Since the last call, both ways, with the headers of IP and UDP.
uint64_t Uplinks::BytesOver(uint8_t id) {
  uint64_t bytes = std::exchange(slow_bytes_[id], 0);
  for (const Peer* peer : peers_->all()) {
    const auto totals = tunnel_.workers.TrafficOf(peer->slot, id);
    const PeerPath* path = peer->FindPath(id);
    const bool is_v6 = path != nullptr && path->route.remote.address.is_v6();
    const uint64_t now = totals.rx_bytes + totals.tx_bytes +
                         (totals.rx_datagrams + totals.tx_datagrams) *
                             static_cast<uint64_t>(OuterHeaderBytes(is_v6));
    if (counted_bytes_.size() <= peer->slot) counted_bytes_.resize(peer->slot + 1u);
    const uint64_t before = std::exchange(counted_bytes_[peer->slot][id], now);
    bytes += now >= before ? now - before : now;  // another path or peer has begun there
  }
  return bytes;
}

void Uplinks::Keep(const absl::Status& status) {
  if (!status.ok()) tunnel_.warn(std::string(status.message()));
}

}  // namespace braid
