// The TUN device's place in the system: addresses, MTU, queue, up. Through rtnetlink (libnl-route).
// What is set here goes away with the device.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"

namespace braid {

struct DeviceSetup {
  std::string name;
  std::vector<IpPrefix> addresses;
  int mtu = 0;
  // The largest super-packet that TUN gives: one whose segments fit one segmented send.
  int gso_max_bytes = 0;
};

[[nodiscard]] absl::Status SetUpDevice(const DeviceSetup& setup);

// The MTU of the route to `remote`, as the kernel would send from `local` or `interface` (either may
// be unset). Nothing when there is no route now.
std::optional<int> RouteMtu(const Endpoint& remote, const IpAddress& local,
                            const std::string& interface);

// Outer headers in front of the sealed packet: IPv4 or IPv6, and UDP.
constexpr int OuterHeaderBytes(bool v6) { return (v6 ? 40 : 20) + 8; }

}  // namespace braid
