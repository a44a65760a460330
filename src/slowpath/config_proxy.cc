#include "slowpath/config_proxy.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "slowpath/config_values.h"

namespace braid {
namespace {

constexpr size_t kMaxValues = 65'536;  // of one condition
constexpr uint64_t kMinTcpSessions = 16;
constexpr uint64_t kMaxTcpSessions = 60'000;

constexpr std::array<std::string_view, 3> kTo = {"tunnel", "direct", "block"};

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
  const Section match(node, {"prefix", "source", "port", "protocol"});
  if (!node.value().is_object()) return;
  ReadPrefixes(match, "prefix", to.prefixes);
  ReadPrefixes(match, "source", to.sources);
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

void ReadRule(const Node& node, EgressRule& to) {
  const Section rule(node, {"match", "to", "silent", "early_accept"});
  if (!node.value().is_object()) return;
  if (const auto match = rule.Find("match")) ReadMatch(*match, to);
  const auto where = rule.Need("to", "\"tunnel\", \"direct\" or \"block\"");
  const auto index = where ? where->OneOf(kTo) : std::nullopt;
  if (!index) return;
  to.action.to = static_cast<EgressAction::To>(*index);
  rule.Boolean("silent", to.action.silent);
  rule.Boolean("early_accept", to.action.early_accept);
  if (to.action.silent && to.action.to != EgressAction::To::kBlock) {
    rule.Wrong("silent", "belongs to a rule with \"to\": \"block\"");
  }
  if (to.action.to != EgressAction::To::kDirect) {
    if (to.action.early_accept) {
      rule.Wrong("early_accept", "belongs to a rule with \"to\": \"direct\"");
    }
    return;
  }
  if (to.protocols != std::vector<uint8_t>{kProtocolTcp}) {
    where->Wrong("carries TCP alone: add \"protocol\": \"tcp\" to \"match\"");
  }
}

}  // namespace

void ReadProxy(const Node& node, ProxyConfig& to) {
  const Section proxy(node, {"rules", "tcp_sessions"});
  if (!node.value().is_object()) return;
  proxy.Integer("tcp_sessions", kMinTcpSessions, kMaxTcpSessions, to.tcp_sessions);
  const auto rules = proxy.Need("rules",
                                "a list such as [{\"match\": {\"port\": 25}, \"to\": "
                                "\"block\"}]");
  if (!rules) return;
  for (const Node& rule : rules->List(0, kMaxEgressRules)) ReadRule(rule, to.rules.emplace_back());
}

}  // namespace braid
