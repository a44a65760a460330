// Whether a machine answers questions of DNS. Blocking, one second and a half at most.
#pragma once

#include "absl/status/status.h"
#include "base/address.h"

namespace braid {

// By this machine's routes, as programs would ask it: NameResolver goes past the tunnel instead.
// Any answer counts, a refusal too.
[[nodiscard]] absl::Status AskNameServer(const IpAddress& server);

}  // namespace braid
