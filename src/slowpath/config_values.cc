#include "slowpath/config_values.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "slowpath/key_file.h"

namespace braid {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxInterfaceNameBytes = 15;
constexpr size_t kMaxHostNameBytes = 253;
constexpr size_t kMaxHostLabelBytes = 63;

bool IsBroadcast(const IpAddress& address) {
  return address.is_v4() && std::all_of(address.bytes.begin(), address.bytes.begin() + 4,
                                        [](uint8_t byte) { return byte == 0xff; });
}

// Why this is not the address of one machine; empty when it is.
std::string WhyNotOneMachine(const IpAddress& address) {
  if (IsIpv4Mapped(address)) {
    return absl::StrCat("must be written as IPv4: ",
                        IpAddress::V4(address.bytes.data() + 12).ToString());
  }
  if (address.is_multicast()) return "must not be a multicast address";
  if (IsBroadcast(address)) return "must not be the broadcast address";
  return "";
}

}  // namespace

std::optional<HostPort> ParseHostPort(std::string_view text) {
  if (const auto endpoint = Endpoint::Parse(text)) {
    return HostPort{endpoint->address.ToString(), endpoint->port, endpoint->address};
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const std::string host(text.substr(0, colon));
  const std::string port_text(text.substr(colon + 1));
  const bool has_digits = std::all_of(port_text.begin(), port_text.end(), absl::ascii_isdigit);
  uint32_t port = 0;
  if (!has_digits || !absl::SimpleAtoi(port_text, &port)) return std::nullopt;
  if (port == 0 || port > UINT16_MAX || !IsHostName(host)) return std::nullopt;
  return HostPort{host, static_cast<uint16_t>(port), IpAddress()};
}

bool IsIpv4Mapped(const IpAddress& address) {
  constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return address.is_v6() &&
         std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), address.bytes.begin());
}

// A name whose last label is a number would be taken for a broken IPv4 address.
bool IsHostName(std::string_view host) {
  if (host.empty() || host.size() > kMaxHostNameBytes) return false;
  if (host.ends_with('.')) host.remove_suffix(1);
  const std::vector<std::string> labels = absl::StrSplit(std::string(host), '.');
  const auto is_label = [](const std::string& label) {
    return !label.empty() && label.size() <= kMaxHostLabelBytes && label.front() != '-' &&
           label.back() != '-' && std::all_of(label.begin(), label.end(), [](unsigned char c) {
             return absl::ascii_isalnum(c) || c == '-' || c == '_';
           });
  };
  return std::all_of(labels.begin(), labels.end(), is_label) &&
         !std::all_of(labels.back().begin(), labels.back().end(), absl::ascii_isdigit);
}

bool IsHostAndPort(std::string_view text) { return ParseHostPort(text).has_value(); }

bool CheckAddress(const Node& node, const IpAddress& address, Unspecified unspecified) {
  std::string why = WhyNotOneMachine(address);
  if (unspecified == Unspecified::kRefused && address.is_unspecified()) {
    why = "must be the address of a machine, not the unspecified address";
  }
  if (why.empty()) return true;
  node.Wrong(std::move(why));
  return false;
}

std::optional<IpAddress> ReadAddress(const Node& node, Unspecified unspecified) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  const auto address = IpAddress::Parse(*text);
  if (!address) {
    node.Wrong(
        absl::StrCat("must be an address such as 10.0.0.1 or fd00::1, but is ", Quote(*text)));
  }
  if (!address || !CheckAddress(node, *address, unspecified)) return std::nullopt;
  return address;
}

std::optional<IpPrefix> ReadPrefix(const Node& node) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  const auto prefix = IpPrefix::Parse(*text);
  if (!prefix) {
    node.Wrong(absl::StrCat("must be an address with a length, such as 10.77.0.1/24, but is ",
                            Quote(*text)));
  }
  return prefix;
}

std::optional<IpPrefix> ReadNetworkPrefix(const Node& node) {
  const auto prefix = ReadPrefix(node);
  if (!prefix) return std::nullopt;
  const IpPrefix network = prefix->Network();
  if (IsIpv4Mapped(network.address)) {
    node.Wrong("must be written as IPv4");
    return std::nullopt;
  }
  if (network != *prefix) {
    node.Warn(absl::StrCat("has bits behind its length; ", network.ToString(), " is used"));
  }
  return network;
}

std::optional<Endpoint> ReadEndpoint(const Node& node, Unspecified unspecified) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  const auto endpoint = Endpoint::Parse(*text);
  if (!endpoint) {
    node.Wrong(
        absl::StrCat("must be an address and port, such as 127.0.0.1:7780, but is ", Quote(*text)));
  }
  if (!endpoint || !CheckAddress(node, endpoint->address, unspecified)) return std::nullopt;
  return endpoint;
}

std::optional<HostPort> ReadHostPort(const Node& node) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  auto endpoint = ParseHostPort(*text);
  if (!endpoint) {
    node.Wrong(absl::StrCat(
        "must be an address or host name with a port, such as 192.0.2.1:7700, [2001:db8::1]:7700 "
        "or hub.example.org:7700, but is ",
        Quote(*text)));
    return std::nullopt;
  }
  const bool is_literal = endpoint->address.is_set();
  if (is_literal && !CheckAddress(node, endpoint->address, Unspecified::kRefused)) {
    return std::nullopt;
  }
  return endpoint;
}

std::optional<std::string> ReadName(const Node& node) {
  auto name = node.Text();
  if (!name) return std::nullopt;
  const bool has_outer_space = *name != absl::StripAsciiWhitespace(*name);
  if (name->size() <= kMaxNameBytes && !has_outer_space) return name;
  node.Wrong(absl::StrCat("must have at most ", kMaxNameBytes,
                          " bytes, and neither begin nor end with a space"));
  return std::nullopt;
}

// As the kernel sees it, without its templates ("tun%d").
std::optional<std::string> ReadInterfaceName(const Node& node) {
  auto name = node.Text();
  if (!name) return std::nullopt;
  const bool has_good_size = name->size() <= kMaxInterfaceNameBytes;
  const bool has_good_characters = std::all_of(name->begin(), name->end(), [](unsigned char c) {
    return absl::ascii_isgraph(c) && c != '/' && c != ':' && c != '%';
  });
  if (has_good_size && has_good_characters && *name != "." && *name != "..") return name;
  node.Wrong(absl::StrCat("must be the name of an interface: at most ", kMaxInterfaceNameBytes,
                          " characters, none of them a space, \"/\", \":\" or \"%\""));
  return std::nullopt;
}

std::optional<Key> ReadPublicKey(const Node& node) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  const auto key = DecodeKey(*text);
  // The text is not repeated: it may be a private key in the wrong place.
  if (!key) node.Wrong("must be a public key: 32 bytes in base64, as \"braid pubkey\" prints it");
  return key;
}

std::optional<PortRange> ReadPorts(const Node& node) {
  if (!node.value().is_string()) {
    const auto port = node.Integer(1, UINT16_MAX);
    if (!port) return std::nullopt;
    return PortRange{static_cast<uint16_t>(*port), static_cast<uint16_t>(*port)};
  }
  const auto text = node.Text();
  if (!text) return std::nullopt;
  const std::vector<std::string> ends = absl::StrSplit(*text, '-');
  uint32_t first = 0;
  uint32_t last = 0;
  const auto is_number = [](const std::string& end) {
    return !end.empty() && std::all_of(end.begin(), end.end(), absl::ascii_isdigit);
  };
  const bool is_range = ends.size() <= 2 && is_number(ends.front()) && is_number(ends.back()) &&
                        absl::SimpleAtoi(ends.front(), &first) &&
                        absl::SimpleAtoi(ends.back(), &last);
  if (is_range && first >= 1 && first <= last && last <= UINT16_MAX) {
    return PortRange{static_cast<uint16_t>(first), static_cast<uint16_t>(last)};
  }
  node.Wrong(absl::StrCat(
      "must be a port from 1 to 65535 or a range such as \"16384-32767\", but is ", Quote(*text)));
  return std::nullopt;
}

std::optional<int> ReadAutoOrInteger(const Node& node, uint64_t min, uint64_t max) {
  if (node.Is("auto")) return std::nullopt;
  if (node.value().is_string()) {
    node.Wrong(absl::StrCat("must be \"auto\" or a number from ", min, " to ", max));
    return std::nullopt;
  }
  const auto number = node.Integer(min, max);
  return number ? std::optional<int>(static_cast<int>(*number)) : std::nullopt;
}

}  // namespace braid
