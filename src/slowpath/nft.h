// Tables of nftables that are braid's own, through libnftables' JSON interface. Nothing outside of
// them is looked at or changed.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "slowpath/config.h"
#include "slowpath/host_change.h"

namespace braid {

// Makes the table with its contents in one transaction. AlreadyExists where there is one of its
// name.
[[nodiscard]] absl::Status MakeTable(const NftTable& table);
// The same, in the place of one of its name if there is one, without a gap.
[[nodiscard]] absl::Status ReplaceTable(const NftTable& table);
absl::StatusOr<bool> HasTable(const NftTable& table);
// All that is in the table of this name now, in nftables' own words; the same text as long as
// nobody changes it. Empty where there is none.
absl::StatusOr<std::string> ShowTable(const NftTable& table);
// OK also where there is none.
[[nodiscard]] absl::Status RemoveTable(const NftTable& table);

// `guarded`: devices that nothing was forwarded from before, the tunnel's among them. Now what NAT
// is for is, and the answers to it, and all else stays refused; for IPv6 that holds for all devices
// or for none, as forwarding does.
struct NatGuard {
  std::vector<std::string> guarded;
  bool guards_v6 = false;
};
NftTable NatTable(const std::string& tunnel_device, const std::vector<NatConfig>& nat,
                  const NatGuard& guard);

// Nothing leaves but what docs/host-network.md names.
NftTable KillSwitchTable(const std::vector<std::string>& tunnel_devices);

}  // namespace braid
