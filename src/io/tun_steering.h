// A BPF program on the TUN device that picks the queue of the worker that owns a packet's lane:
// flow_hash % lanes % queues, the same arithmetic as base/flow_hash.h, in the kernel.
//
// Without it the kernel chooses queues by a hash that it relearns from every write, and workers
// hand packets to each other by ring.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "io/unique_fd.h"

namespace braid {

// Loads the program. The descriptor keeps it alive until it is attached.
absl::StatusOr<UniqueFd> LoadLaneSteering(int lanes, int queues);

// Attaches it to the device that `tun_fd` is a queue of. The device then keeps the program.
absl::Status AttachLaneSteering(int tun_fd, int program_fd);

}  // namespace braid
