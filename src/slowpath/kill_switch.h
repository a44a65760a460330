// The kill switch: a table of nftables that lets nothing leave beside the tunnel. It outlives the
// daemon; the devices that it is for stand in a file.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "io/unique_fd.h"
#include "slowpath/host_change.h"

namespace braid {

// For the tunnel of this device as well as those that it was engaged for before, which a damaged
// file has lost; in the place of the earlier table, without a gap.
[[nodiscard]] absl::Status EngageKillSwitch(const std::string& state_dir,
                                            const std::string& device);
// The table as it was engaged last, also where somebody has taken it away, as by flushing all of
// nftables' rules. Nothing where it never was, or was lifted since.
absl::StatusOr<std::optional<NftTable>> KeptKillSwitch(const std::string& state_dir);
// Loads that. OK where there is none.
[[nodiscard]] absl::Status LoadKillSwitch(const std::string& state_dir);
// For no tunnel at all: nothing leaves but what carries braid's mark, until one is engaged.
[[nodiscard]] absl::Status ShutEverythingIn();
// Not for the tunnel of this device any more, as where it has another one now. NotFound where it is
// not for that; FailedPrecondition where it is for no other, so that nothing at all would leave.
[[nodiscard]] absl::Status ReleaseFromKillSwitch(const std::string& state_dir,
                                                 const std::string& device);
// Until the result goes nobody engages, releases or lifts it.
absl::StatusOr<UniqueFd> LockKillSwitch(const std::string& state_dir);
// For good. OK where there is none.
[[nodiscard]] absl::Status LiftKillSwitch(const std::string& state_dir);
bool IsKillSwitchKept(const std::string& state_dir);

struct KillSwitchState {
  std::set<std::string> kept_for;  // devices; none: it was never engaged, or was lifted
  bool is_loaded = false;          // nothing leaves beside them now
};
[[nodiscard]] absl::StatusOr<KillSwitchState> LookAtKillSwitch(const std::string& state_dir);

}  // namespace braid
