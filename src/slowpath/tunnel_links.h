// The network devices that the tunnel's datagrams use: those that the configuration names, by name
// or by address, those that lead to its endpoints, and those of the default routes.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "slowpath/host_files.h"

namespace braid {

struct Config;

struct TunnelLink {
  std::string device;
  std::string why;  // "default route", "path fibre", "below bond0"

  bool operator==(const TunnelLink&) const = default;
};

// What the kernel says of addresses in this network namespace.
struct AddressLookup {
  std::vector<std::pair<IpAddress, std::string>> devices;  // the device that has each address
  // The address from which one would send to `remote`; not set when there is no route.
  std::function<IpAddress(const Endpoint& remote)> source_towards;
};
AddressLookup LookUpAddresses();

// In the order in which they were found, none twice, those below a bond, bridge or VLAN behind it.
// `config` may be null. The loopback and the tunnel's own device are never among them.
std::vector<TunnelLink> FindTunnelLinks(const HostFiles& files, const Config* config,
                                        const AddressLookup& lookup);

// The memory nodes that these devices are attached to, as far as the machine tells.
std::vector<int> NodesOf(const HostFiles& files, const std::vector<TunnelLink>& links);

}  // namespace braid
