#include "slowpath/tunnel_probe.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>

#include "base/clock.h"
#include "io/udp.h"
#include "slowpath/bring_up.h"
#include "slowpath/client_paths.h"
#include "slowpath/config_keys.h"
#include "slowpath/control_client.h"
#include "slowpath/dns_probe.h"
#include "slowpath/handshake_counter.h"
#include "slowpath/journal.h"
#include "slowpath/key_file.h"
#include "slowpath/name_resolver.h"
#include "slowpath/path_binding.h"
#include "slowpath/peer_keys.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kStatusTimeout{3};
constexpr std::chrono::seconds kResolveTimeout{8};

using Resolved = std::map<std::string, absl::StatusOr<std::vector<IpAddress>>>;

// The folder, or where it is missing the one in which it is to be made.
absl::Status CheckWritable(const std::string& folder) {
  fs::path where = folder;
  std::error_code error;
  while (!fs::exists(where, error) && where.has_relative_path()) where = where.parent_path();
  if (access(where.c_str(), W_OK | X_OK) == 0 && fs::is_directory(where, error)) {
    return absl::OkStatus();
  }
  const int code = errno;
  return absl::ErrnoToStatus(code == 0 ? ENOTDIR : code, where.string());
}

// What a daemon that lives has changed is left of nobody.
size_t CountLeftovers(const std::string& path) {
  if (IsFileLocked(path)) return 0;
  const auto text = ReadSmallFile(path, kMaxJournalBytes, FilePrivacy::kAny);
  const auto journal = text.ok() ? ParseJournal(*text) : text.status();
  return journal.ok() ? journal->changes.size() : 0;
}

// All names at once; each is asked for as long as the daemon would.
Resolved Resolve(const std::set<std::string>& hosts) {
  Resolved resolved;
  if (hosts.empty()) return resolved;
  boost::asio::io_context io;
  NameResolver resolver(io);
  for (const std::string& host : hosts) {
    resolved.emplace(host, absl::DeadlineExceededError("no name server answers"));
    resolver.Resolve(host, {}, [&resolved, host](absl::StatusOr<std::vector<IpAddress>> found) {
      resolved.at(host) = std::move(found);
    });
  }
  io.run_for(kResolveTimeout);
  resolver.Close();
  return resolved;
}

std::set<std::string> HostsOf(const Config& config) {
  std::set<std::string> hosts;
  const auto add = [&hosts](const HostPort& endpoint) {
    if (!endpoint.address.is_set()) hosts.insert(endpoint.host);
  };
  for (const PathConfig& path : config.tunnel.paths) {
    if (path.endpoint) add(*path.endpoint);
  }
  for (const PeerConfig& peer : config.tunnel.peers) {
    std::for_each(peer.endpoints.begin(), peer.endpoints.end(), add);
  }
  return hosts;
}

std::vector<Endpoint> RemotesOf(const PathConfig& path, const PeerConfig& peer,
                                const Resolved& resolved) {
  std::vector<Endpoint> remotes;
  for (const HostPort& endpoint : EndpointsOf(path, peer)) {
    if (endpoint.address.is_set()) remotes.push_back({endpoint.address, endpoint.port});
    const auto found = resolved.find(endpoint.host);
    if (endpoint.address.is_set() || found == resolved.end() || !found->second.ok()) continue;
    for (const IpAddress& address : *found->second) remotes.push_back({address, endpoint.port});
  }
  return remotes;
}

// What is asked of servers by: this client's keys, and the counter of its handshakes.
class Handshakes {
 public:
  explicit Handshakes(const Config& config) : config_(config) {}

  absl::StatusOr<HandshakeAnswer> Ask(const HandshakeQuestion& question, const PeerConfig& peer) {
    if (absl::Status status = Prepare(); !status.ok()) return status;
    const auto preshared_key = ReadPresharedKey(peer);
    if (!preshared_key.ok()) return preshared_key.status();
    const auto keys = KeysTowards(peer, *identity_, *preshared_key);
    if (!keys.ok()) return keys.status();
    return AskForHandshake(question, *identity_, *keys,
                           [this] { return counter_->Next(WallNowNs()); });
  }

 private:
  absl::Status Prepare() {
    if (identity_) return absl::OkStatus();
    const auto key = ReadKeyFile(config_.security.private_key_file);
    if (!key.ok()) return key.status();
    identity_ = KeyPair::FromPrivate(*key);
    counter_.emplace(config_.security.state_dir, identity_->public_key);
    counter_->Load().IgnoreError();  // that nothing can be kept is another check's
    return absl::OkStatus();
  }

  const Config& config_;
  std::optional<Identity> identity_;
  std::optional<HandshakeCounter> counter_;
};

ProbedPath ProbePath(const ClientPath& path, const PeerConfig& peer, const Resolved& resolved) {
  ProbedPath state{.path = path.config.name,
                   .peer = peer.name,
                   .usable = path.binding.has_value(),
                   .problem = path.problem,
                   .answer = absl::CancelledError("not asked")};
  const std::vector<Endpoint> remotes = RemotesOf(path.config, peer, resolved);
  if (path.binding) state.device = path.binding->device;
  state.remote = ChooseRemote(path.config, path.binding, remotes, LookUpRoute);
  if (!state.remote || !path.binding) return state;
  state.link_mtu = LinkMtuTowards(*state.remote, path.binding->address, path.binding->device_index);
  return state;
}

void ProbePaths(const Resolved& resolved, TunnelState& state) {
  const Config& config = *state.config;
  ClientPaths paths(config);
  const auto choose = [&](const PathConfig& path) {
    std::vector<Endpoint> remotes;
    for (const PeerConfig& peer : config.tunnel.peers) {
      const auto more = RemotesOf(path, peer, resolved);
      remotes.insert(remotes.end(), more.begin(), more.end());
    }
    return ChooseBinding(path, remotes, state.network, LookUpRoute);
  };
  paths.Follow(state.network, choose, [](uint8_t) { return true; });
  Handshakes handshakes(config);
  for (size_t id = 0; id < kMaxPaths; ++id) {
    if (!paths[id]) continue;
    for (const PeerConfig& peer : config.tunnel.peers) {
      ProbedPath& path = state.paths.emplace_back(ProbePath(*paths[id], peer, resolved));
      if (state.status || !path.remote || !path.link_mtu) continue;
      const PathBinding& binding = *paths[id]->binding;
      path.answer = handshakes.Ask({*path.remote, binding.address, binding.device}, peer);
    }
  }
}

void FindDaemon(TunnelState& state) {
  const auto reply = CallControl(state.config->control.socket, "status", "{}", kStatusTimeout);
  state.daemon = reply.status();
  if (!reply.ok()) return;
  auto status = nlohmann::ordered_json::parse(*reply, nullptr, false);
  if (status.is_object() && status.value("device", "") == state.config->network.device) {
    state.status = std::move(status);
    return;
  }
  state.daemon = absl::FailedPreconditionError("the daemon behind " + state.config->control.socket +
                                               " runs another configuration");
}

void ProbeFiles(TunnelState& state) {
  const SecurityConfig& security = state.config->security;
  state.is_root = geteuid() == 0;
  state.state_dir = CheckWritable(security.state_dir);
  const auto key = ReadKeyFile(security.private_key_file);
  if (key.ok()) {
    state.kept_counter =
        HandshakeCounter::Kept(security.state_dir, KeyPair::FromPrivate(*key).public_key);
  }
  state.wall_ns = WallNowNs();
  state.leftovers = CountLeftovers(JournalPath(security.state_dir, state.config->network.device));
  state.kill_switch = LookAtKillSwitch(security.state_dir);
}

void ProbeListens(TunnelState& state) {
  for (const Endpoint& listen : state.config->tunnel.listen) {
    UdpSocketOptions options;
    options.address = listen.address;
    options.port = listen.port;
    state.listens.emplace_back(listen, state.status ? absl::OkStatus() : OpenUdp(options).status());
  }
}

}  // namespace

TunnelState ProbeTunnel(const std::string& file, const Environment& environment) {
  LoadedConfig loaded = LoadConfig(file, environment);
  CheckKeyFiles(loaded);
  CheckHttpFiles(loaded);
  CheckPasswordFiles(loaded);
  TunnelState state;
  state.file = file;
  state.mistakes = std::move(loaded.mistakes);
  state.warnings = std::move(loaded.warnings);
  state.config = std::move(loaded.config);
  if (!state.config) return state;
  state.network = ReadNetSnapshot().value_or(NetSnapshot());
  FindDaemon(state);
  ProbeFiles(state);
  ProbeListens(state);
  if (state.config->role == Role::kServer) return state;
  const Resolved resolved = Resolve(HostsOf(*state.config));
  state.names.assign(resolved.begin(), resolved.end());
  ProbePaths(resolved, state);
  if (!state.status || !state.config->network.dns) return state;
  for (const IpAddress& server : state.config->network.dns->servers) {
    state.dns.emplace_back(server, AskNameServer(server));
  }
  return state;
}

}  // namespace braid
