// The TUN device's place in the system: addresses, MTU, queue, up. Through rtnetlink (libnl-route).
// What is set here goes away with the device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"

namespace braid {

// Adds the addresses, sets the MTU and brings the device up.
[[nodiscard]] absl::Status SetUpDevice(const std::string& name,
                                       const std::vector<IpPrefix>& addresses, int mtu);

// Adds addresses that nothing is to be sent from unless it asks for them.
[[nodiscard]] absl::Status AddInnerAddresses(const std::string& name,
                                             const std::vector<IpPrefix>& addresses);

// Sets the MTU, and with it the largest super-packet that the kernel gives: one whose segments fit
// one segmented send.
[[nodiscard]] absl::Status SetDeviceMtu(const std::string& name, int mtu);

// How many packets the device has dropped since it was made because no room was left in the queue
// that its reader takes them from (the kernel's tx_dropped).
absl::StatusOr<uint64_t> DeviceQueueDrops(const std::string& name);

// The address that the kernel would send from, where `local` or `interface` (either may be unset)
// leave it the choice. Unset when there is no route now.
IpAddress LocalAddressTowards(const Endpoint& remote, const IpAddress& local,
                              const std::string& interface);

inline constexpr int kDefaultLinkMtu = 1500;  // where none is known

// Outer headers in front of the sealed packet: IPv4 or IPv6, and UDP.
constexpr int OuterHeaderBytes(bool v6) { return (v6 ? 40 : 20) + 8; }

}  // namespace braid
