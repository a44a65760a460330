#include "slowpath/config_proxy.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "slowpath/config_file.h"
#include "slowpath/config_values.h"
#include "slowpath/key_file.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

constexpr size_t kMaxValues = 65'536;  // of one condition
constexpr uint64_t kMinTcpSessions = 16;
constexpr uint64_t kMaxTcpSessions = 60'000;
constexpr uint64_t kMinUdpSessions = 16;
constexpr uint64_t kMaxUdpSessions = 1 << 20;

constexpr size_t kMaxGroups = 256;
constexpr size_t kMaxCredentialBytes = 255;  // RFC 1929
constexpr uint64_t kMaxWeight = 1000;
constexpr uint64_t kMaxWarm = 10'000;
constexpr uint64_t kDayS = 86'400;
constexpr uint16_t kSocksPort = 1080;
constexpr size_t kMaxDnsServers = 8;
constexpr uint64_t kMaxDnsTimeoutS = 60;

constexpr std::array<std::string_view, 3> kTo = {"tunnel", "direct", "block"};
constexpr std::array<std::string_view, 3> kStrategies = {"round_robin", "least_connections",
                                                         "weighted"};

// One value, or a list of several.
std::vector<Node> ValuesOf(const Node& node) {
  if (!node.value().is_array()) return {node};
  return node.List(1, kMaxValues);
}

void ReadPrefixes(const Section& match, std::string_view key, std::vector<IpPrefix>& to) {
  const auto values = match.Find(key);
  if (!values) return;
  for (const Node& value : ValuesOf(*values)) {
    if (const auto prefix = ReadNetworkPrefix(value)) to.push_back(*prefix);
  }
}

// In lower case, without a dot at either end: ".example.com" is often written for a suffix.
void ReadDomains(const Section& match, std::string_view key, std::vector<std::string>& to) {
  const auto values = match.Find(key);
  if (!values) return;
  for (const Node& value : ValuesOf(*values)) {
    const auto text = value.Text();
    if (!text) continue;
    std::string name = absl::AsciiStrToLower(*text);
    if (name.ends_with('.')) name.pop_back();
    if (key == "domain_suffix" && name.starts_with('.')) name.erase(0, 1);
    if (IsHostName(name)) {
      to.push_back(std::move(name));
    } else {
      value.Wrong("must be the name of a host or a domain, such as \"example.com\"");
    }
  }
}

void ReadProtocol(const Node& node, std::vector<uint8_t>& to) {
  if (node.Is("tcp")) return to.push_back(kProtocolTcp);
  if (node.Is("udp")) return to.push_back(kProtocolUdp);
  if (node.Is("icmp")) return void(to.insert(to.end(), {kProtocolIcmp, kProtocolIcmpV6}));
  if (node.value().is_string()) {
    return node.Wrong("must be \"tcp\", \"udp\", \"icmp\" or the number of a protocol");
  }
  if (const auto number = node.Integer(0, UINT8_MAX)) to.push_back(static_cast<uint8_t>(*number));
}

bool IsOfPorts(uint8_t protocol) { return protocol == kProtocolTcp || protocol == kProtocolUdp; }

void ReadMatch(const Node& node, EgressRule& to) {
  const Section match(node, {"prefix", "source", "port", "protocol", "domain", "domain_suffix"});
  if (!node.value().is_object()) return;
  ReadPrefixes(match, "prefix", to.prefixes);
  ReadPrefixes(match, "source", to.sources);
  ReadDomains(match, "domain", to.domains);
  ReadDomains(match, "domain_suffix", to.domain_suffixes);
  if (const auto ports = match.Find("port")) {
    const std::vector<Node> values = ValuesOf(*ports);
    if (values.size() > kMaxPortRangesPerRule) ports->Wrong("has too many ranges of ports");
    for (const Node& value : values) {
      if (const auto range = ReadPorts(value)) to.ports.push_back(*range);
    }
  }
  if (const auto protocols = match.Find("protocol")) {
    for (const Node& value : ValuesOf(*protocols)) ReadProtocol(value, to.protocols);
    if (!to.ports.empty() && std::none_of(to.protocols.begin(), to.protocols.end(), IsOfPorts)) {
      protocols->Wrong("has no ports, but \"port\" asks for some");
    }
  }
}

// One of three ways, or a group.
bool ReadTo(const Node& node, const std::vector<UpstreamGroupConfig>& groups, EgressAction& to) {
  for (size_t i = 0; i < kTo.size(); ++i) {
    if (!node.Is(kTo[i])) continue;
    to.to = static_cast<EgressAction::To>(i);
    return true;
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!node.Is(groups[i].name)) continue;
    to.to = EgressAction::To::kGroup;
    to.group = static_cast<uint16_t>(i);
    return true;
  }
  node.Wrong(groups.empty()
                 ? "must be \"tunnel\", \"direct\", \"block\" or the name of one of \"groups\", "
                   "of which there are none"
                 : "must be \"tunnel\", \"direct\", \"block\" or the name of one of \"groups\"");
  return false;
}

void ReadRule(const Node& node, const std::vector<UpstreamGroupConfig>& groups, EgressRule& to) {
  const Section rule(node, {"match", "to", "silent", "early_accept"});
  if (!node.value().is_object()) return;
  if (const auto match = rule.Find("match")) ReadMatch(*match, to);
  const auto where = rule.Need("to", "\"tunnel\", \"direct\", \"block\" or the name of a group");
  if (!where || !ReadTo(*where, groups, to.action)) return;
  rule.Boolean("silent", to.action.silent);
  rule.Boolean("early_accept", to.action.early_accept);
  const bool relays =
      to.action.to == EgressAction::To::kDirect || to.action.to == EgressAction::To::kGroup;
  if (to.action.silent && to.action.to != EgressAction::To::kBlock) {
    rule.Wrong("silent", "belongs to a rule with \"to\": \"block\"");
  }
  if (to.action.early_accept && !relays) {
    rule.Wrong("early_accept", "belongs to a rule to \"direct\" or to a group");
  }
  const bool asks_for_others =
      !std::all_of(to.protocols.begin(), to.protocols.end(), [](uint8_t protocol) {
        return IsOfPorts(protocol) || protocol == kProtocolIcmp || protocol == kProtocolIcmpV6;
      });
  if (relays && asks_for_others) where->Wrong("carries TCP and UDP alone");
}

void ReadEgressDns(const Node& node, EgressDnsConfig& to) {
  const Section dns(node, {"servers", "cache", "timeout_s"});
  if (!node.value().is_object()) return;
  dns.Boolean("cache", to.cache);
  dns.Integer("timeout_s", 1, kMaxDnsTimeoutS, to.timeout_s);
  const auto servers = dns.Find("servers");
  if (!servers) return;
  for (const Node& server : servers->List(0, kMaxDnsServers)) {
    const auto text = server.Text();
    const auto address = text ? IpAddress::Parse(*text) : std::nullopt;
    if (address) {
      if (CheckAddress(server, *address, Unspecified::kRefused)) {
        to.servers.push_back({*address, kDnsPort, 0});
      }
    } else if (text) {
      if (const auto read = ReadEndpoint(server, Unspecified::kRefused))
        to.servers.push_back(*read);
    }
  }
}

// --- Groups ---

// "HOST", "HOST:PORT"; 1080 is where SOCKS is, if nothing else is said.
std::optional<HostPort> ReadUpstreamAddress(const Node& node) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  auto read = ParseHostPort(*text);
  if (const auto address = IpAddress::Parse(*text)) {
    read = HostPort{address->ToString(), kSocksPort, *address};
  } else if (!read && IsHostName(*text)) {
    read = HostPort{*text, kSocksPort, {}};
  }
  if (!read) {
    node.Wrong("must be an address or a name with a port, such as \"192.0.2.7:1080\"");
    return std::nullopt;
  }
  const bool is_literal = read->address.is_set();
  if (is_literal && !CheckAddress(node, read->address, Unspecified::kRefused)) return std::nullopt;
  return read;
}

void ReadUpstream(const Node& node, const std::string& folder, UpstreamConfig& to) {
  const Section upstream(node, {"address", "weight", "username", "password_file"});
  if (!node.value().is_object()) return;
  if (const auto address = upstream.Need("address", "such as \"192.0.2.7:1080\"")) {
    if (const auto read = ReadUpstreamAddress(*address)) to.address = *read;
  }
  upstream.Integer("weight", 1, kMaxWeight, to.weight);
  upstream.Text("username", to.username);
  if (to.username.size() > kMaxCredentialBytes) {
    upstream.Wrong("username", "is longer than the 255 bytes that SOCKS5 has for it");
  }
  const auto file = upstream.Find("password_file");
  if (!to.username.empty() && !file) {
    return upstream.Wrong("username", "wants a \"password_file\" beside it");
  }
  if (!file) return;
  if (to.username.empty()) return file->Wrong("wants a \"username\" beside it");
  const auto name = file->Text();
  if (!name) return;
  to.password_file = (std::filesystem::path(folder) / *name).lexically_normal().string();
  node.report().PasswordFile(file->pointer(), to.password_file);
}

void ReadUpstreams(const Section& group, const std::string& folder, UpstreamGroupConfig& to) {
  const auto list = group.Need("upstreams", "a list such as [{\"address\": \"192.0.2.7:1080\"}]");
  if (!list) return;
  std::unordered_set<std::string> seen;
  for (const Node& node : list->List(1, UpstreamChoice::kMaxUpstreams)) {
    UpstreamConfig& upstream = to.upstreams.emplace_back();
    ReadUpstream(node, folder, upstream);
    const std::string key =
        absl::StrCat(upstream.address.host, ":", upstream.address.port, " ", upstream.username);
    if (!upstream.address.host.empty() && !seen.insert(key).second) {
      node.Wrong("stands here twice: give one of them the \"weight\" of both");
    }
  }
}

template <typename T>
void ReadSeconds(const Section& section, std::string_view key, uint64_t max_s, T& to_ns) {
  uint64_t seconds = to_ns / kSecondNs;
  section.Integer(key, 1, max_s, seconds);
  to_ns = seconds * kSecondNs;
}

void ReadPool(const Node& node, WarmPoolOptions& to) {
  const Section pool(node, {"initial", "max", "idle_s", "cleanup_s"});
  if (!node.value().is_object()) return;
  pool.Integer("initial", 0, kMaxWarm, to.initial);
  to.max = std::max(to.max, to.initial);
  pool.Integer("max", 1, kMaxWarm, to.max);
  if (to.max < to.initial) {
    pool.Wrong("max", absl::StrCat("is less than \"initial\", which is ", to.initial));
  }
  ReadSeconds(pool, "idle_s", kDayS, to.idle_ns);
  ReadSeconds(pool, "cleanup_s", kDayS, to.cleanup_ns);
}

void ReadBreaker(const Node& node, CircuitBreaker::Options& to) {
  const Section breaker(node, {"failures", "open_s", "trials", "successes"});
  if (!node.value().is_object()) return;
  breaker.Integer("failures", 1, 1000, to.failures);
  ReadSeconds(breaker, "open_s", kDayS, to.open_ns);
  breaker.Integer("trials", 1, 1000, to.trials);
  breaker.Integer("successes", 1, 1000, to.successes);
}

void ReadHealth(const Node& node, UpstreamHealthConfig& to) {
  const Section health(node, {"every_s", "timeout_s", "connect"});
  if (!node.value().is_object()) return;
  health.Integer("every_s", 1, kDayS, to.every_s);
  health.Integer("timeout_s", 1, 60, to.timeout_s);
  if (const auto connect = health.Find("connect")) to.connect = ReadHostPort(*connect);
}

void ReadGroup(const Node& node, const std::string& folder, UpstreamGroupConfig& to) {
  const Section group(node,
                      {"strategy", "upstreams", "pool", "breaker", "health", "pipelined", "names"});
  if (!node.value().is_object()) return;
  if (std::find(kTo.begin(), kTo.end(), to.name) != kTo.end()) {
    node.Wrong(absl::StrCat("cannot be named ", to.name, ", which is a way of its own"));
  }
  group.Choice("strategy", kStrategies, to.choice.strategy);
  ReadUpstreams(group, folder, to);
  if (const auto pool = group.Find("pool")) ReadPool(*pool, to.pool.emplace());
  if (const auto breaker = group.Find("breaker")) ReadBreaker(*breaker, to.choice.breaker);
  if (const auto health = group.Find("health")) ReadHealth(*health, to.health);
  group.Boolean("pipelined", to.pipelined);
  group.Boolean("names", to.names);
}

void ReadGroups(const Node& node, const std::string& folder, ProxyConfig& to) {
  if (!node.value().is_object()) {
    return node.Wrong(
        "must be a section such as {\"office\": {\"upstreams\": [{\"address\": "
        "\"192.0.2.7:1080\"}]}}");
  }
  if (node.value().size() > kMaxGroups) return node.Wrong("has too many groups");
  for (const auto& [name, value] : node.value().items()) {
    UpstreamGroupConfig& group = to.groups.emplace_back();
    group.name = name;
    const Node of(value, absl::StrCat(node.pointer(), "/", PointerStep(name)), node.report());
    // As the names of peers and paths are.
    const nlohmann::json name_alone = name;
    ReadName(Node(name_alone, of.pointer(), of.report()));
    ReadGroup(of, folder, group);
  }
}

}  // namespace

absl::StatusOr<std::string> ReadPasswordFile(const std::string& path) {
  auto password = ReadSmallFile(path, kMaxCredentialBytes + 2, FilePrivacy::kOwnerOnly);
  if (!password.ok()) {
    password = InFile(path, password.status());
    return password;
  }
  const size_t last = password->find_last_not_of("\r\n");
  password->erase(last == password->npos ? 0 : last + 1);
  const bool is_one_line = password->find_first_of("\r\n") == password->npos;
  if (!password->empty() && password->size() <= kMaxCredentialBytes && is_one_line) return password;
  Wipe(*password);
  password =
      absl::InvalidArgumentError(absl::StrCat(path, ": does not hold a password, which is 1 to ",
                                              kMaxCredentialBytes, " bytes on one line"));
  return password;
}

void ReadProxy(const Node& node, const std::string& folder, ProxyConfig& to) {
  const Section proxy(node, {"rules", "groups", "dns", "tcp_sessions", "udp_sessions"});
  if (!node.value().is_object()) return;
  proxy.Integer("tcp_sessions", kMinTcpSessions, kMaxTcpSessions, to.tcp_sessions);
  proxy.Integer("udp_sessions", kMinUdpSessions, kMaxUdpSessions, to.udp_sessions);
  if (const auto dns = proxy.Find("dns")) ReadEgressDns(*dns, to.dns);
  if (const auto groups = proxy.Find("groups")) ReadGroups(*groups, folder, to);
  const auto rules = proxy.Need("rules",
                                "a list such as [{\"match\": {\"port\": 25}, \"to\": "
                                "\"block\"}]");
  if (!rules) return;
  for (const Node& rule : rules->List(0, kMaxEgressRules)) {
    ReadRule(rule, to.groups, to.rules.emplace_back());
  }
}

}  // namespace braid
