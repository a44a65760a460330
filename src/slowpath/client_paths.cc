#include "slowpath/client_paths.h"

#include <algorithm>
#include <utility>

#include "base/quoted.h"

namespace braid {
namespace {

absl::Status NoSuchPath(const std::string& name) {
  return absl::NotFoundError("there is no path " + Quoted(name) +
                             "; \"braid path list\" shows those that there are");
}

}  // namespace

std::string_view OriginName(ClientPath::Origin origin) {
  switch (origin) {
    case ClientPath::Origin::kConfig:
      return "configuration";
    case ClientPath::Origin::kAuto:
      return "default route";
    case ClientPath::Origin::kCommand:
      return "command";
  }
  return "";
}

ClientPaths::ClientPaths(const Config& config)
    : auto_(config.tunnel.auto_paths), tunnel_device_(config.network.device) {
  for (const PathConfig& path : config.tunnel.paths) {
    fixed_.push_back({path, ClientPath::Origin::kConfig});
  }
}

size_t ClientPaths::size() const {
  return static_cast<size_t>(std::count_if(paths_.begin(), paths_.end(),
                                           [](const auto& path) { return path.has_value(); }));
}

ClientPath* ClientPaths::Find(const std::string& name) {
  for (auto& path : paths_) {
    if (path && path->config.name == name) return &*path;
  }
  return nullptr;
}

absl::Status ClientPaths::Add(const PathConfig& path, MayUse may_use) {
  if (Find(path.name) != nullptr) {
    return absl::AlreadyExistsError("there is a path " + Quoted(path.name) +
                                    " already: take another name, or end that one first with "
                                    "\"braid path del\"");
  }
  if (size() == kMaxPaths) {
    return absl::ResourceExhaustedError(
        "there are " + std::to_string(kMaxPaths) +
        " paths, and that is the most there may be: end one first with \"braid path del\"");
  }
  if (!FreeId(path.name, may_use)) {
    return absl::UnavailableError(
        "the other end has not yet let go of a path that was ended: try again in some seconds");
  }
  fixed_.push_back({path, ClientPath::Origin::kCommand});
  return absl::OkStatus();
}

absl::Status ClientPaths::Remove(const std::string& name) {
  const ClientPath* path = Find(name);
  if (path == nullptr) return NoSuchPath(name);
  if (size() == 1) {
    return absl::FailedPreconditionError(Quoted(name) +
                                         " is the last path: add another one first, or end the "
                                         "tunnel with \"braid stop\"");
  }
  if (path->origin == ClientPath::Origin::kAuto) left_out_.insert(name);
  std::erase_if(fixed_, [&](const Wanted& wanted) { return wanted.config.name == name; });
  return absl::OkStatus();
}

absl::StatusOr<uint8_t> ClientPaths::SetOptions(const PathChange& change) {
  ClientPath* path = Find(change.name);
  if (path == nullptr) return NoSuchPath(change.name);
  change.ApplyTo(path->config.bonding);
  if (path->origin == ClientPath::Origin::kAuto) changed_[change.name] = path->config.bonding;
  for (Wanted& wanted : fixed_) {
    if (wanted.config.name == change.name) wanted.config.bonding = path->config.bonding;
  }
  return static_cast<uint8_t>(std::distance(
      paths_.begin(), std::find_if(paths_.begin(), paths_.end(),
                                   [path](const auto& one) { return one && &*one == path; })));
}

std::vector<ClientPaths::Wanted> ClientPaths::Merge(const TunnelConfig& before,
                                                    const TunnelConfig& after) const {
  std::vector<Wanted> merged;
  for (const PathConfig& path : after.paths) {
    const bool is_as_before =
        std::find(before.paths.begin(), before.paths.end(), path) != before.paths.end();
    const auto known = std::find_if(fixed_.begin(), fixed_.end(), [&](const Wanted& wanted) {
      return wanted.origin == ClientPath::Origin::kConfig && wanted.config.name == path.name;
    });
    if (!is_as_before) {
      merged.push_back({path, ClientPath::Origin::kConfig});
    } else if (known != fixed_.end()) {  // else a command has ended it
      merged.push_back(*known);
    }
  }
  for (const Wanted& wanted : fixed_) {
    const bool is_taken = std::any_of(merged.begin(), merged.end(), [&](const Wanted& one) {
      return one.config.name == wanted.config.name;
    });
    if (wanted.origin == ClientPath::Origin::kCommand && !is_taken) merged.push_back(wanted);
  }
  return merged;
}

absl::Status ClientPaths::CheckConfig(const TunnelConfig& before, const TunnelConfig& after) const {
  if (Merge(before, after).size() <= kMaxPaths) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      "/tunnel/paths: with those that commands have added there would be more than " +
      std::to_string(kMaxPaths) + " paths: end some with \"braid path del\"");
}

std::vector<uint8_t> ClientPaths::SetConfig(const TunnelConfig& before, const TunnelConfig& after) {
  fixed_ = Merge(before, after);
  auto_ = after.auto_paths;
  std::vector<uint8_t> changed;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (!paths_[id]) continue;
    PathConfig& now = paths_[id]->config;
    for (const Wanted& wanted : fixed_) {
      if (wanted.config.name != now.name || wanted.origin != paths_[id]->origin) continue;
      // As long as it is the same way out.
      if (wanted.config.address != now.address || wanted.config.interface != now.interface ||
          wanted.config.endpoint != now.endpoint) {
        continue;
      }
      if (wanted.config.bonding != now.bonding) changed.push_back(id);
      now = wanted.config;
    }
  }
  return changed;
}

// Those that somebody has asked for come first, the rest by how much the kernel prefers them.
std::vector<ClientPaths::Wanted> ClientPaths::WantedIn(const NetSnapshot& network) {
  std::vector<Wanted> wanted = fixed_;
  if (!auto_) return wanted;
  const auto is_taken = [&](const std::string& device) {
    return std::any_of(wanted.begin(), wanted.end(), [&](const Wanted& one) {
      return one.config.name == device || one.config.interface == device;
    });
  };
  std::vector<NetDefaultRoute> routes = network.default_routes;
  std::stable_sort(routes.begin(), routes.end(),
                   [](const auto& a, const auto& b) { return a.metric < b.metric; });
  problem_.clear();
  for (const NetDefaultRoute& route : routes) {
    const NetLink* link = network.Find(route.link);
    if (link == nullptr || link->loopback || !link->up || link->name == tunnel_device_) continue;
    if (left_out_.contains(link->name) || is_taken(link->name)) continue;
    if (wanted.size() == kMaxPaths) {
      problem_ = "interface " + Quoted(link->name) + " is no path: there are " +
                 std::to_string(kMaxPaths) + " already, and that is the most there may be";
      break;
    }
    PathConfig config;
    config.name = config.interface = link->name;
    if (const auto changed = changed_.find(link->name); changed != changed_.end()) {
      config.bonding = changed->second;
    }
    wanted.push_back({std::move(config), ClientPath::Origin::kAuto});
  }
  return wanted;
}

// That of the same name if it had one, else the one that was not used for the longest time.
std::optional<uint8_t> ClientPaths::FreeId(const std::string& name, MayUse may_use) const {
  std::optional<uint8_t> best;
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (paths_[id] || !may_use(id)) continue;
    if (last_name_[id] == name) return id;
    if (!best || last_use_[id] < last_use_[*best]) best = id;
  }
  return best;
}

std::vector<ClientPaths::Change> ClientPaths::Follow(const NetSnapshot& network, Choose choose,
                                                     MayUse may_use) {
  using Type = Change::Type;
  std::vector<Change> changes;
  const std::vector<Wanted> wanted = WantedIn(network);
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (!paths_[id]) continue;
    const bool stays = std::any_of(wanted.begin(), wanted.end(), [&](const Wanted& one) {
      return one.config == paths_[id]->config && one.origin == paths_[id]->origin;
    });
    if (stays) continue;
    if (paths_[id]->binding) changes.push_back({Type::kUnbind, id});
    changes.push_back({Type::kEnd, id});
    last_name_[id] = paths_[id]->config.name;
    last_use_[id] = ++uses_;
    paths_[id].reset();
  }
  waits_ = false;
  for (const Wanted& one : wanted) {
    if (Find(one.config.name) != nullptr) continue;
    // One that ended in this very call is not told of yet.
    const auto id = FreeId(one.config.name, [&](uint8_t free) {
      const bool just_ended =
          std::count(changes.begin(), changes.end(), Change{Type::kEnd, free}) != 0;
      return !just_ended && may_use(free);
    });
    if (!id) {
      waits_ = true;
      continue;
    }
    paths_[*id] = ClientPath{one.config, one.origin, std::nullopt, ""};
    changes.push_back({Type::kBegin, *id});
  }
  for (uint8_t id = 0; id < kMaxPaths; ++id) {
    if (!paths_[id]) continue;
    ClientPath& path = *paths_[id];
    BindingChoice choice = choose(path.config);
    path.problem = std::move(choice.problem);
    if (choice.binding == path.binding) continue;
    if (path.binding) changes.push_back({Type::kUnbind, id});
    if (choice.binding) changes.push_back({Type::kBind, id});
    path.binding = std::move(choice.binding);
  }
  return changes;
}

void ClientPaths::Refuse(uint8_t id, std::string problem) {
  if (!paths_[id]) return;
  paths_[id]->binding.reset();
  paths_[id]->problem = std::move(problem);
}

}  // namespace braid
