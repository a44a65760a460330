// One change that bring-up makes to this machine. It says enough to be made, and to be taken back
// by somebody who knows nothing else: it stands in the journal (journal.h) before it is made.
#pragma once

#include <compare>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"
#include "slowpath/policy_routes.h"
#include "slowpath/xattrs.h"

namespace braid {

// A table of nftables that is braid's alone.
struct NftTable {
  std::string family;  // "inet", "ip"
  std::string name;    // begins with kOwnTablePrefix
  // Of libnftables' JSON, an array of commands that fill the table; as text.
  std::string contents;

  auto operator<=>(const NftTable&) const = default;
};
inline constexpr std::string_view kOwnTablePrefix = "braid_";

// Of a device, below /proc/sys/net: how strictly it filters, whether it forwards, and whether it
// takes routes from router advertisements.
struct Sysctl {
  std::string path;
  std::string before;
  std::string ours;

  auto operator<=>(const Sysctl&) const = default;
};

// The only file that is ever replaced, whatever a journal says.
inline constexpr char kResolvConf[] = "/etc/resolv.conf";

// Of a file's mode what is kept: whoever runs a file or borrows its owner's rights has no use for
// such a one.
inline constexpr uint32_t kKeptModeBits = 0666;

// A file that is replaced whole.
struct ReplacedFile {
  std::string path;
  bool existed = false;
  std::string link_target;  // empty: it is no symbolic link
  std::string before;       // of a regular file
  uint32_t mode = 0644;     // of a regular file; kKeptModeBits of it
  uint32_t owner = 0;
  uint32_t group = 0;
  Xattrs xattrs;
  std::string ours;

  auto operator<=>(const ReplacedFile&) const = default;
};

using HostChange = std::variant<OwnRoute, OwnRule, NftTable, Sysctl, ReplacedFile>;

// "route 192.0.2.0/24 past the tunnel in table 47009", for messages.
std::string Describe(const HostChange& change);
// It is the running kernel's; what is not survives it.
bool EndsWithBoot(const HostChange& change);

nlohmann::ordered_json ToJson(const HostChange& change);
// Nothing where it is none, or one that braid never makes.
std::optional<HostChange> HostChangeFrom(const nlohmann::ordered_json& json);

}  // namespace braid
