// The TUN device: opening its queues and agreeing with the kernel on offloads.
// Each read and each write is one vnet header (io/vnet_header.h) and one packet or super-packet.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "io/unique_fd.h"

namespace braid {

// What the kernel granted.
struct TunOffloads {
  bool checksum = false;  // partial checksums come and go
  bool tso = false;       // TCP super-packets, IPv4 and IPv6
  bool uso = false;       // UDP super-packets, IPv4 and IPv6 (Linux 6.2)
};

struct TunDevice {
  std::string name;
  std::vector<UniqueFd> queues;  // non-blocking; one for each worker
  TunOffloads offloads;
};

// Asks for exactly these; they belong to the device, not to a queue. False when the kernel refuses.
bool SetTunOffloads(int queue_fd, const TunOffloads& offloads);

// Somebody has taken the device away: nothing comes by its queues any more. One that has another
// name, or is in another namespace, is still there.
bool IsGone(const TunDevice& device);

// Creates the device, which lives as long as its queues. Asks for every offload when
// `want_offloads`, and goes on with what it gets.
absl::StatusOr<TunDevice> OpenTun(const std::string& name, int queues, bool want_offloads);

}  // namespace braid
