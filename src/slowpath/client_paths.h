// The paths of a client: which there are to be, by configuration, command and, with "auto", by the
// default routes; which id each has; and what its sockets are bound to. The network as it is goes
// in, what is to be done comes out: no I/O here.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/limits.h"
#include "slowpath/config.h"
#include "slowpath/net_snapshot.h"
#include "slowpath/path_binding.h"

namespace braid {

struct ClientPath {
  enum class Origin : uint8_t { kConfig, kAuto, kCommand };

  PathConfig config;
  Origin origin = Origin::kConfig;
  std::optional<PathBinding> binding;  // nothing: it has no link now
  std::string problem;                 // empty: none
};

std::string_view OriginName(ClientPath::Origin origin);

class ClientPaths {
 public:
  // In this order. A path that changes its device or address is unbound and bound again.
  struct Change {
    enum class Type : uint8_t {
      kBegin,   // there is a path of this id
      kBind,    // its sockets are to be opened
      kUnbind,  // they are to be closed
      kEnd,     // there is none of this id any more
    };
    Type type = Type::kBegin;
    uint8_t id = 0;

    bool operator==(const Change&) const = default;
  };
  using Choose = absl::FunctionRef<BindingChoice(const PathConfig& path)>;
  // Whether no end still has anything to do with an earlier path of this id.
  using MayUse = absl::FunctionRef<bool(uint8_t id)>;

  explicit ClientPaths(const Config& config);

  // By command; for as long as this object lives. Errors say what to do.
  [[nodiscard]] absl::Status Add(const PathConfig& path, MayUse may_use);
  [[nodiscard]] absl::Status Remove(const std::string& name);
  // Its id. The path goes on as it is but for its options, which it has again when it comes back.
  [[nodiscard]] absl::StatusOr<uint8_t> SetOptions(const PathChange& change);

  // Another configuration than the one before. What a command has changed of a path stands unless
  // the configuration changes that path, too. The paths come and go with the next Follow(); the ids
  // of those are told that go on with other options. ResourceExhausted, and no change: there would
  // be too many.
  [[nodiscard]] absl::Status CheckConfig(const TunnelConfig& before,
                                         const TunnelConfig& after) const;
  std::vector<uint8_t> SetConfig(const TunnelConfig& before, const TunnelConfig& after);

  // What to do so that all is as it is to be in this network. It is taken to be done.
  std::vector<Change> Follow(const NetSnapshot& network, Choose choose, MayUse may_use);
  // Its sockets could not be opened, or not be used. It is tried again when the network changes.
  void Refuse(uint8_t id, std::string problem);

  const std::optional<ClientPath>& operator[](size_t id) const { return paths_[id]; }
  size_t size() const;
  // One that is to be waits until an id may be used again: Follow() finds out.
  bool waits() const { return waits_; }
  // What concerns none of the paths that there are; empty: nothing.
  const std::string& problem() const { return problem_; }

 private:
  struct Wanted {
    PathConfig config;
    ClientPath::Origin origin;
  };

  std::vector<Wanted> Merge(const TunnelConfig& before, const TunnelConfig& after) const;
  std::vector<Wanted> WantedIn(const NetSnapshot& network);
  // Nothing when there is none, or none that may be used yet.
  std::optional<uint8_t> FreeId(const std::string& name, MayUse may_use) const;
  ClientPath* Find(const std::string& name);

  bool auto_;
  const std::string tunnel_device_;
  std::vector<Wanted> fixed_;                       // of the configuration and by command
  std::map<std::string, BondPathOptions> changed_;  // of "auto", by command
  std::set<std::string> left_out_;  // interfaces that a command took away from "auto"
  std::array<std::optional<ClientPath>, kMaxPaths> paths_;  // by id
  std::array<std::string, kMaxPaths> last_name_;            // that an id belonged to
  std::array<uint64_t, kMaxPaths> last_use_{};
  uint64_t uses_ = 0;
  bool waits_ = false;
  std::string problem_;
};

}  // namespace braid
