// Reads the single values that a configuration is made of: addresses, endpoints, names, keys.
// Each function gives nothing after reporting a mistake.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/address.h"
#include "base/bytes.h"
#include "slowpath/config.h"
#include "slowpath/config_node.h"

namespace braid {

enum class Unspecified : bool { kRefused, kAllowed };  // 0.0.0.0 and ::

// Refuses what is not the address of one machine: multicast, broadcast, IPv4-mapped.
bool CheckAddress(const Node& node, const IpAddress& address, Unspecified unspecified);

bool IsIpv4Mapped(const IpAddress& address);

std::optional<IpAddress> ReadAddress(const Node& node, Unspecified unspecified);
std::optional<IpPrefix> ReadPrefix(const Node& node);
// Of a network: host bits are cleared, with a warning.
std::optional<IpPrefix> ReadNetworkPrefix(const Node& node);
// An address and a port.
std::optional<Endpoint> ReadEndpoint(const Node& node, Unspecified unspecified);
// An address or a host name, and a port.
std::optional<HostPort> ParseHostPort(std::string_view text);
std::optional<HostPort> ReadHostPort(const Node& node);

// RFC 1123, with underscores.
bool IsHostName(std::string_view host);
// An address (of IPv6 in brackets) or a name, and a port.
bool IsHostAndPort(std::string_view text);

// Of a path or a peer.
std::optional<std::string> ReadName(const Node& node);
std::optional<std::string> ReadInterfaceName(const Node& node);

std::optional<Key> ReadPublicKey(const Node& node);

// A port, or a range as text: "16384-32767".
std::optional<PortRange> ReadPorts(const Node& node);

// "auto", which gives nothing, or a whole number.
std::optional<int> ReadAutoOrInteger(const Node& node, uint64_t min, uint64_t max);

}  // namespace braid
