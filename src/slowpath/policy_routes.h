// Routes and routing rules of braid's own, through rtnetlink.
//
// All of them carry braid's protocol number, and a removal asks for it: what somebody else has made
// is never touched, however alike it looks.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"

namespace braid {

// In the range that the kernel leaves to administrators; "ip route" shows it as "proto 183".
inline constexpr uint8_t kOwnProtocol = 183;

struct OwnRoute {
  enum class Type : uint8_t {
    kThroughDevice,
    kThrow,  // the rules that follow decide
  };
  Type type = Type::kThroughDevice;
  IpPrefix to;  // its host bits are cleared
  uint32_t table = 0;
  std::string device;  // of kThroughDevice

  std::string Describe() const;
  auto operator<=>(const OwnRoute&) const = default;
};

// "What does not carry `unless_mark` looks into `table`."
struct OwnRule {
  IpAddress::Family family = IpAddress::Family::kNone;
  uint32_t priority = 0;
  uint32_t unless_mark = 0;
  uint32_t table = 0;

  std::string Describe() const;
  auto operator<=>(const OwnRule&) const = default;
};

// AlreadyExists where there is one like it, whose ever it is.
[[nodiscard]] absl::Status AddRoute(const OwnRoute& route);
[[nodiscard]] absl::Status AddRule(const OwnRule& rule);
// OK also where there is none.
[[nodiscard]] absl::Status RemoveRoute(const OwnRoute& route);
[[nodiscard]] absl::Status RemoveRule(const OwnRule& rule);

// Braid's own, as the kernel has them now; one question to it. A device that nobody knows any more
// has no name.
absl::StatusOr<std::vector<OwnRoute>> OwnRoutesIn(IpAddress::Family family, uint32_t table);
absl::StatusOr<std::vector<OwnRule>> OwnRules(IpAddress::Family family);

// Whether any route of the family is in the table.
absl::StatusOr<bool> IsTableInUse(IpAddress::Family family, uint32_t table);

}  // namespace braid
