// Where a client's path leaves this machine: which device and which address its sockets are bound
// to, as the configuration wants it and the network of now allows it.
//
//   "interface"  that device, always.
//   "address"    the device that has the address, so that the path leaves by this link whatever the
//                main table prefers. Where no route leads from there to the endpoint, the kernel's
//                route from the address is taken as it is, with a warning; where the address is the
//                loopback's or a dummy's that is how it has to be.
//   neither      the kernel's routes decide.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "slowpath/config.h"
#include "slowpath/net_snapshot.h"

namespace braid {

struct PathBinding {
  std::string device;    // empty: none
  int device_index = 0;  // another device of the same name is another one
  IpAddress address;     // unset: the kernel's choice

  bool operator==(const PathBinding&) const = default;
};

struct BindingChoice {
  std::optional<PathBinding> binding;  // nothing: the path cannot be used now
  std::string problem;                 // what is wrong and what to do; empty: nothing
};

// `remotes` are those of the path's endpoints whose address is known.
BindingChoice ChooseBinding(const PathConfig& path, const std::vector<Endpoint>& remotes,
                            const NetSnapshot& network, const RouteLookup& look_up);

// The first of `remotes` that the path can send to; the first at all when no route is there (yet).
// Nothing where all are of another family than the path's address.
std::optional<Endpoint> ChooseRemote(const PathConfig& path,
                                     const std::optional<PathBinding>& binding,
                                     const std::vector<Endpoint>& remotes,
                                     const RouteLookup& look_up);

}  // namespace braid
