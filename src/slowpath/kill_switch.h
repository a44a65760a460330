// The kill switch: a table of nftables that lets nothing leave beside the tunnel. It outlives the
// daemon; the devices that it is for stand in a file.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace braid {

// For the tunnel of this device as well as those that it was engaged for before; in the place of
// the earlier table, without a gap.
[[nodiscard]] absl::Status EngageKillSwitch(const std::string& state_dir,
                                            const std::string& device);
// As it was when it was engaged last. OK where it never was, or was lifted since.
[[nodiscard]] absl::Status LoadKillSwitch(const std::string& state_dir);
// Puts it back where somebody has taken it away, as by flushing all of nftables' rules.
[[nodiscard]] absl::Status HoldKillSwitch(const std::string& state_dir);
// For good. OK where there is none.
[[nodiscard]] absl::Status LiftKillSwitch(const std::string& state_dir);
bool IsKillSwitchKept(const std::string& state_dir);

}  // namespace braid
