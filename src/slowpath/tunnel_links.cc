#include "slowpath/tunnel_links.h"

#include <ifaddrs.h>
#include <net/route.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <set>
#include <sstream>

#include "slowpath/config.h"
#include "slowpath/net_setup.h"

namespace braid {
namespace {

constexpr char kLoopback[] = "lo";
constexpr int kMaxLinksBelow = 4;  // VLAN on bridge on bond on card

class LinkFinder {
 public:
  LinkFinder(const HostFiles& files, const AddressLookup& lookup)
      : files_(files), lookup_(lookup) {}

  void AddDefaultRoutes();
  void AddFrom(const Config& config);
  void Remove(const std::string& device);
  std::vector<TunnelLink> Take() { return std::move(links_); }

 private:
  void Add(const std::string& device, const std::string& why, int depth = 0);
  void AddWithAddress(const IpAddress& address, const std::string& why);

  const HostFiles& files_;
  const AddressLookup& lookup_;
  std::vector<TunnelLink> links_;
};

void LinkFinder::Add(const std::string& device, const std::string& why, int depth) {
  if (device.empty() || device == kLoopback) return;
  for (const TunnelLink& link : links_) {
    if (link.device == device) return;
  }
  links_.push_back({device, why});
  if (depth == kMaxLinksBelow) return;
  for (const std::string& name : files_.List("/sys/class/net/" + device)) {
    if (name.rfind("lower_", 0) == 0) Add(name.substr(6), "below " + device, depth + 1);
  }
}

void LinkFinder::AddWithAddress(const IpAddress& address, const std::string& why) {
  for (const auto& [one, device] : lookup_.devices) {
    if (one == address) Add(device, why);
  }
}

void LinkFinder::AddDefaultRoutes() {
  std::istringstream v4(files_.Read("/proc/net/route").value_or(""));
  for (std::string line; std::getline(v4, line);) {
    std::istringstream fields(line);
    std::string device, destination, gateway, flags, references, use, metric, mask;
    fields >> device >> destination >> gateway >> flags >> references >> use >> metric >> mask;
    const bool is_default = destination == "00000000" && mask == "00000000";
    if (!is_default || (strtoul(flags.c_str(), nullptr, 16) & RTF_REJECT) != 0) continue;
    Add(device, "default route");
  }
  std::istringstream v6(files_.Read("/proc/net/ipv6_route").value_or(""));
  for (std::string line; std::getline(v6, line);) {
    std::istringstream fields(line);
    std::string destination, length, source, source_length, gateway, metric, references, use, flags,
        device;
    fields >> destination >> length >> source >> source_length >> gateway >> metric >> references >>
        use >> flags >> device;
    if (destination != std::string(32, '0') || length != "00") continue;
    if ((strtoul(flags.c_str(), nullptr, 16) & RTF_REJECT) != 0) continue;
    Add(device, "default route");
  }
}

void LinkFinder::AddFrom(const Config& config) {
  for (const Endpoint& listen : config.tunnel.listen) {
    if (!listen.address.is_unspecified()) {
      AddWithAddress(listen.address, "listens on " + listen.address.ToString());
    }
  }
  if (config.role != Role::kClient) return;
  for (const PathConfig& path : config.tunnel.paths) {
    const std::string why = "path " + path.name;
    Add(path.interface, why);
    if (path.address.is_set()) AddWithAddress(path.address, why);
    if (!path.interface.empty() || path.address.is_set()) continue;
    for (const PeerConfig& peer : config.tunnel.peers) {
      const auto& endpoints =
          path.endpoint ? std::vector<HostPort>{*path.endpoint} : peer.endpoints;
      for (const HostPort& endpoint : endpoints) {
        // A name that is not resolved yet is taken to be reached by a default route.
        if (!endpoint.address.is_set()) continue;
        AddWithAddress(lookup_.source_towards({endpoint.address, endpoint.port}), why);
      }
    }
  }
}

void LinkFinder::Remove(const std::string& device) {
  std::erase_if(links_, [&](const TunnelLink& link) { return link.device == device; });
}

}  // namespace

AddressLookup LookUpAddresses() {
  AddressLookup lookup{{},
                       [](const Endpoint& remote) { return LocalAddressTowards(remote, {}, ""); }};
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return lookup;
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(all, freeifaddrs);
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr) continue;
    const auto family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    sockaddr_storage address{};
    const size_t bytes = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::copy_n(reinterpret_cast<const char*>(one->ifa_addr), bytes,
                reinterpret_cast<char*>(&address));
    lookup.devices.emplace_back(Endpoint::From(address).address, one->ifa_name);
  }
  return lookup;
}

std::vector<TunnelLink> FindTunnelLinks(const HostFiles& files, const Config* config,
                                        const AddressLookup& lookup) {
  LinkFinder finder(files, lookup);
  if (config != nullptr) finder.AddFrom(*config);
  finder.AddDefaultRoutes();
  if (config != nullptr) finder.Remove(config->network.device);
  return finder.Take();
}

std::vector<int> NodesOf(const HostFiles& files, const std::vector<TunnelLink>& links) {
  std::set<int> nodes;
  for (const TunnelLink& link : links) {
    const auto node = files.ReadInteger("/sys/class/net/" + link.device + "/device/numa_node");
    if (node.ok() && *node >= 0) nodes.insert(static_cast<int>(*node));
  }
  return {nodes.begin(), nodes.end()};
}

}  // namespace braid
