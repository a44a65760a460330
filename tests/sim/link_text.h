// Links and changes as people write them: "50/10/0/256" is 50 Mbit/s, 10 ms one way, 0 % loss and a
// queue of 256 kB.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "linkem/link_settings.h"

namespace braid::sim {

// Several with commas between. More of a link may follow its queue: jitter in ms, then reordering
// in % with 2 ms.
absl::StatusOr<std::vector<linkem::LinkSettings>> ParseLinks(const std::string& text);

}  // namespace braid::sim
