#include "cli/first_config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "slowpath/key_file.h"

namespace braid {
namespace {

constexpr size_t kMaxClientNameBytes = 32;
constexpr uint32_t kFirstClient = 2;
constexpr uint32_t kMaxNumber = 65'000;  // of a client, in whatever large network

bool IsFree(const IpPrefix& wanted, const std::vector<IpPrefix>& taken) {
  return std::none_of(taken.begin(), taken.end(),
                      [&](const IpPrefix& one) { return wanted.Overlaps(one); });
}

IpPrefix Prefix(const std::string& text) { return *IpPrefix::Parse(text); }

IpAddress HostOf(const IpPrefix& network, uint32_t number) {
  IpAddress address = network.address;
  const auto last = static_cast<size_t>(address.bytes_used()) - 1;
  for (size_t i = 0; i < sizeof(number); ++i) {
    address.bytes[last - i] |= static_cast<uint8_t>(number >> 8 * i);
  }
  return address;
}

// How many hosts can have a number from 1 on; the last one of IPv4 is the broadcast address.
uint32_t LastNumber(const IpPrefix& network) {
  const int host_bits = network.address.bits() - network.length;
  if (host_bits >= 17) return kMaxNumber;
  const uint32_t all = (uint32_t{1} << host_bits) - 1;
  return std::min(kMaxNumber, network.address.is_v4() && all > 0 ? all - 1 : all);
}

std::vector<std::string> Quoted(const std::vector<IpPrefix>& prefixes) {
  std::vector<std::string> texts;
  for (const IpPrefix& prefix : prefixes) texts.push_back('"' + prefix.ToString() + '"');
  return texts;
}

std::string List(const std::vector<std::string>& quoted) {
  return "[" + absl::StrJoin(quoted, ", ") + "]";
}

std::vector<IpPrefix> HostPrefixes(const InnerNetworks& inner, uint32_t number) {
  std::vector<IpPrefix> hosts = inner.AddressesOf(number);
  for (IpPrefix& host : hosts) host.length = host.address.bits();
  return hosts;
}

std::vector<IpPrefix> Networks(const InnerNetworks& inner) {
  std::vector<IpPrefix> networks = {inner.v4};
  if (inner.v6) networks.push_back(*inner.v6);
  return networks;
}

// Of a client, in the list of a server; its lines behind `indent`.
std::string PeerEntry(const FirstClient& client, const std::string& indent) {
  return absl::StrCat(indent, "- name: \"", client.name, "\"\n", indent,
                      "  public_key: ", EncodeKey(client.public_key), "\n", indent,
                      "  preshared_key_file: ", PresharedKeyFileOf(client.name), "\n", indent,
                      "  allowed_ips: ", List(Quoted(HostPrefixes(client.inner, client.number))),
                      "\n");
}

}  // namespace

std::vector<IpPrefix> InnerNetworks::AddressesOf(uint32_t number) const {
  std::vector<IpPrefix> addresses = {{HostOf(v4, number), v4.length}};
  if (v6) addresses.push_back({HostOf(*v6, number), v6->length});
  return addresses;
}

absl::StatusOr<InnerNetworks> ChooseInnerNetworks(const std::vector<IpPrefix>& taken, bool has_v6) {
  std::vector<IpPrefix> v4, v6;
  for (int net = 77; net < 100; ++net) {
    v4.push_back(Prefix(absl::StrCat("10.", net, ".0.0/24")));
    v6.push_back(Prefix(absl::StrCat("fd", net, "::/64")));
  }
  for (const char* other : {"172.27.77.0/24", "192.168.177.0/24", "100.77.77.0/24"}) {
    v4.push_back(Prefix(other));
  }
  const auto is_free = [&](const IpPrefix& one) { return IsFree(one, taken); };
  const auto found_v4 = std::find_if(v4.begin(), v4.end(), is_free);
  const auto found_v6 = std::find_if(v6.begin(), v6.end(), is_free);
  if (found_v4 == v4.end() || (has_v6 && found_v6 == v6.end())) {
    return absl::ResourceExhaustedError(
        "this machine is in all the networks that the tunnel would have inside; choose one with "
        "--inner");
  }
  return InnerNetworks{*found_v4, has_v6 ? std::optional(*found_v6) : std::nullopt};
}

bool IsPublic(const IpAddress& address) {
  static const std::vector<IpPrefix> kOthers = {
      Prefix("0.0.0.0/8"),       Prefix("10.0.0.0/8"),     Prefix("100.64.0.0/10"),
      Prefix("127.0.0.0/8"),     Prefix("169.254.0.0/16"), Prefix("172.16.0.0/12"),
      Prefix("192.168.0.0/16"),  Prefix("192.0.2.0/24"),   Prefix("198.18.0.0/15"),
      Prefix("198.51.100.0/24"), Prefix("203.0.113.0/24"), Prefix("224.0.0.0/3")};
  static const IpPrefix kGlobalV6 = Prefix("2000::/3");
  static const IpPrefix kDocumentation = Prefix("2001:db8::/32");
  if (address.is_v6()) return kGlobalV6.Contains(address) && !kDocumentation.Contains(address);
  return std::none_of(kOthers.begin(), kOthers.end(),
                      [&](const IpPrefix& other) { return other.Contains(address); });
}

std::optional<OwnAddress> FindOwnAddress(const NetSnapshot& network) {
  std::vector<NetDefaultRoute> routes = network.default_routes;
  std::stable_sort(routes.begin(), routes.end(), [](const auto& a, const auto& b) {
    return std::pair(a.family, a.metric) < std::pair(b.family, b.metric);
  });
  std::optional<OwnAddress> found;
  for (const NetDefaultRoute& route : routes) {
    const NetLink* link = network.Find(route.link);
    if (link == nullptr) continue;
    for (const NetAddress& one : network.addresses) {
      if (one.link != route.link || one.address.family != route.family) continue;
      const bool is_link_local = Prefix("fe80::/10").Contains(one.address);
      if (is_link_local || (found && (found->is_public || !IsPublic(one.address)))) continue;
      found = OwnAddress{one.address, link->name, IsPublic(one.address)};
    }
  }
  return found;
}

absl::Status CheckClientName(std::string_view name) {
  const bool is_good = !name.empty() && name.size() <= kMaxClientNameBytes &&
                       absl::ascii_isalnum(static_cast<unsigned char>(name.front())) &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
                       });
  if (is_good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--name: must have at most ", kMaxClientNameBytes,
                   " letters, digits, \"-\", \"_\" and \".\", and begin with a letter or a digit"));
}

std::string PresharedKeyFileOf(const std::string& client_name) { return client_name + ".psk"; }

std::string ServerText(const FirstServer& server, const FirstClient& client) {
  std::string text = absl::StrCat(
      "# The server's end of a tunnel, as braid init wrote it. Further clients:\n"
      "# braid init client --server-config THIS_FILE --name NAME\n"
      "mode: server\n"
      "\n"
      "network:\n"
      "  addresses: ",
      List(Quoted(server.inner.AddressesOf(1))), "\n");
  if (!server.nat_device.empty()) {
    absl::StrAppend(&text, "  nat:  # what clients send leaves with this machine's address\n");
    for (const IpPrefix& network : Networks(server.inner)) {
      absl::StrAppend(&text, "    - {source: \"", network.ToString(), "\", out: \"",
                      server.nat_device, "\"}\n");
    }
  }
  absl::StrAppend(&text,
                  "\n"
                  "security:\n"
                  "  private_key_file: ",
                  kServerKeyFile,
                  "\n\n"
                  "tunnel:\n"
                  "  listen:\n"
                  "    - {address: \"0.0.0.0\", port: ",
                  server.port, "}\n");
  if (server.listens_v6) {
    absl::StrAppend(&text, "    - {address: \"::\", port: ", server.port, "}\n");
  }
  absl::StrAppend(&text, "  peers:\n", PeerEntry(client, "    "));
  return text;
}

std::string ClientText(const FirstClient& client) {
  std::string text = absl::StrCat(
      "# A client's end of a tunnel, as braid init wrote it.\n"
      "mode: client\n"
      "\n"
      "network:\n"
      "  addresses: ",
      List(Quoted(client.inner.AddressesOf(client.number))), "\n");
  if (client.default_route) absl::StrAppend(&text, "  routes: {default: true}\n");
  if (!client.dns_servers.empty()) {
    absl::StrAppend(&text, "  dns: {servers: [\"", absl::StrJoin(client.dns_servers, "\", \""),
                    "\"]}\n");
  }
  if (client.kill_switch) absl::StrAppend(&text, "  kill_switch: true\n");
  std::vector<IpPrefix> owned = Networks(client.inner);
  if (client.default_route) owned = {Prefix("0.0.0.0/0"), Prefix("::/0")};
  absl::StrAppend(&text,
                  "\n"
                  "security:\n"
                  "  private_key_file: ",
                  kClientKeyFile,
                  "\n\n"
                  "tunnel:\n",
                  client.auto_paths
                      ? "  paths: auto  # one for each interface with a default route\n"
                      : "  # With several links: one path for each interface with a default "
                        "route.\n"
                        "  # paths: auto\n",
                  "  peers:\n"
                  "    - name: server\n"
                  "      public_key: ",
                  EncodeKey(client.server_public_key),
                  "\n"
                  "      preshared_key_file: ",
                  kClientPresharedKeyFile,
                  "\n"
                  "      endpoints: [\"",
                  absl::StrJoin(client.endpoints, "\", \""),
                  "\"]\n"
                  "      allowed_ips: ",
                  List(Quoted(owned)), "\n");
  return text;
}

absl::StatusOr<InnerNetworks> InnerNetworksOf(const Config& server) {
  InnerNetworks inner;
  for (const IpPrefix& address : server.network.addresses) {
    const IpPrefix network = address.Network();
    if (network.address.is_v4() && !inner.v4.address.is_set()) inner.v4 = network;
    if (network.address.is_v6() && !inner.v6) inner.v6 = network;
  }
  if (inner.v4.address.is_set()) return inner;
  return absl::FailedPreconditionError(
      "/network/addresses: has no IPv4 network to give the client an address in");
}

absl::StatusOr<uint32_t> FreeNumber(const Config& server, const InnerNetworks& inner) {
  std::vector<IpPrefix> taken;
  for (const IpPrefix& address : server.network.addresses) {
    taken.push_back({address.address, address.address.bits()});
  }
  for (const PeerConfig& peer : server.tunnel.peers) {
    for (const IpPrefix& owned : peer.allowed_ips) {
      const int inner_length = owned.address.is_v4() ? inner.v4.length
                               : inner.v6            ? inner.v6->length
                                                     : owned.length;
      // Who owns the whole network, or more, leaves single hosts of it to others.
      if (owned.length > inner_length) taken.push_back(owned);
    }
  }
  uint32_t last = LastNumber(inner.v4);
  if (inner.v6) last = std::min(last, LastNumber(*inner.v6));
  for (uint32_t number = kFirstClient; number <= last; ++number) {
    const auto hosts = HostPrefixes(inner, number);
    if (std::all_of(hosts.begin(), hosts.end(),
                    [&](const IpPrefix& host) { return IsFree(host, taken); })) {
      return number;
    }
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("/network/addresses: all of ", inner.v4.ToString(),
                   " are given away; widen the network, at the server and its clients"));
}

namespace {

// Where the peers' list ends, and how far its dashes are indented.
struct ListEnd {
  size_t line = 0;  // the new entry comes before it
  size_t indent = 0;
};

std::optional<ListEnd> FindPeersEnd(const std::string& text,
                                    const std::vector<std::string>& lines) try {
  const YAML::Node peers = YAML::Load(text)["tunnel"]["peers"];
  if (!peers.IsSequence() || peers.size() == 0 || peers.Style() == YAML::EmitterStyle::Flow) {
    return std::nullopt;
  }
  const YAML::Mark mark = peers.Mark();
  if (mark.line < 0 || mark.column < 0) return std::nullopt;
  ListEnd end{static_cast<size_t>(mark.line) + 1, static_cast<size_t>(mark.column)};
  // The list goes on as long as lines are indented further than its dashes, or are dashes.
  for (size_t i = end.line; i < lines.size(); ++i) {
    const size_t indent = lines[i].find_first_not_of(' ');
    if (indent == std::string::npos || lines[i][indent] == '#') continue;
    const bool is_dash = indent == end.indent && lines[i][indent] == '-';
    if (indent <= end.indent && !is_dash) break;
    end.line = i + 1;
  }
  return end;
} catch (const YAML::Exception&) {
  return std::nullopt;
}

bool DiffersByOnePeer(const std::string& before, const std::string& after,
                      const std::string& name) {
  auto old_config = ParseConfig(before, ConfigFormat::kYaml, "/", {}).config;
  auto new_config = ParseConfig(after, ConfigFormat::kYaml, "/", {}).config;
  if (!old_config || !new_config || new_config->tunnel.peers.empty()) return false;
  if (new_config->tunnel.peers.back().name != name) return false;
  new_config->tunnel.peers.pop_back();
  return *old_config == *new_config;
}

}  // namespace

std::string PeerJson(const FirstClient& client) {
  return absl::StrCat(
      "{\"name\": \"", client.name, "\", \"public_key\": \"", EncodeKey(client.public_key),
      "\", \"preshared_key_file\": \"", PresharedKeyFileOf(client.name),
      "\", \"allowed_ips\": ", List(Quoted(HostPrefixes(client.inner, client.number))), "}");
}

absl::StatusOr<std::string> AddClient(const std::string& text, const FirstClient& client) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (const auto end = FindPeersEnd(text, lines)) {
    std::string entry = PeerEntry(client, std::string(end->indent, ' '));
    entry.pop_back();  // the newline: lines are joined with one
    lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(end->line), entry);
    std::string changed = absl::StrJoin(lines, "\n");
    if (DiffersByOnePeer(text, changed, client.name)) return changed;
  }
  return absl::FailedPreconditionError(
      "it is not a YAML list with a dash for each peer, so it is left as it is");
}

}  // namespace braid
