#include "slowpath/config_json.h"

#include <string>
#include <utility>

#include "slowpath/key_file.h"
#include "slowpath/path_commands.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

template <typename Values>
Json Texts(const Values& values) {
  Json json = Json::array();
  for (const auto& value : values) json.push_back(value.ToString());
  return json;
}

template <typename T>
Json OrAuto(const std::optional<T>& value) {
  return value ? Json(*value) : Json("auto");
}

Json NetworkJson(const NetworkConfig& network, Role role) {
  Json json;
  json["device"] = network.device;
  json["addresses"] = Texts(network.addresses);
  json["mtu"] = OrAuto(network.mtu);
  if (network.routes) {
    Json& routes = json["routes"];
    routes["default"] = network.routes->everything;
    routes["include"] = Texts(network.routes->include);
    routes["exclude"] = Texts(network.routes->exclude);
    if (network.routes->exclude_lan) routes["exclude"].push_back("lan");
  }
  json["nat"] = Json::array();
  for (const NatConfig& nat : network.nat) {
    json["nat"].push_back({{"source", nat.source.ToString()}, {"out", nat.out}});
  }
  if (network.dns) {
    json["dns"]["servers"] = Texts(network.dns->servers);
    json["dns"]["domains"] = network.dns->domains;
  }
  if (role == Role::kClient) json["kill_switch"] = network.kill_switch;
  return json;
}

Json SecurityJson(const SecurityConfig& security) {
  return {{"private_key_file", security.private_key_file},
          {"rekey_after_s", security.rekey_after_s},
          {"rekey_after_packets", security.rekey_after_packets},
          {"state_dir", security.state_dir}};
}

Json PathJson(const PathConfig& path) {
  Json json;
  json["name"] = path.name;
  if (path.address.is_set()) json["address"] = path.address.ToString();
  if (!path.interface.empty()) json["interface"] = path.interface;
  if (path.endpoint) json["endpoint"] = DescribeEndpoint(*path.endpoint);
  json["weight"] = path.bonding.weight;
  json["rate_mbps"] = path.bonding.fixed_bytes_per_s == 0
                          ? Json("auto")
                          : Json(static_cast<double>(path.bonding.fixed_bytes_per_s) * 8 / 1e6);
  json["standby"] = path.bonding.standby;
  if (path.quota) {
    json["quota"] = {{"gb", static_cast<double>(path.quota->bytes) / kBytesPerGb},
                     {"reset_day", path.quota->reset_day}};
  }
  return json;
}

// One path that neither an address nor a device was given for is what there is without "paths".
bool IsDefaultPath(const PathConfig& path) {
  return !path.address.is_set() && path.interface.empty();
}

Json PeerJson(const PeerConfig& peer, Role role) {
  Json json;
  json["name"] = peer.name;
  json["public_key"] = EncodeKey(peer.public_key);
  if (!peer.preshared_key_file.empty()) json["preshared_key_file"] = peer.preshared_key_file;
  if (role == Role::kClient) {
    json["endpoints"] = Json::array();
    for (const HostPort& endpoint : peer.endpoints) {
      json["endpoints"].push_back(DescribeEndpoint(endpoint));
    }
  }
  json["allowed_ips"] = Texts(peer.allowed_ips);
  json["keepalive_s"] = peer.keepalive_ms / 1000.0;
  return json;
}

Json PortsJson(const std::vector<PortRange>& ranges) {
  Json json = Json::array();
  for (const PortRange& range : ranges) {
    json.push_back(std::to_string(range.first) + "-" + std::to_string(range.last));
  }
  return json;
}

Json ClassRuleJson(const ClassRule& rule) {
  Json json;
  json["protocol"] = rule.protocol == kProtocolTcp ? "tcp" : "udp";
  json["ports"] = PortsJson(rule.ports);
  json["class"] = kTrafficClassNames[static_cast<size_t>(rule.traffic_class)];
  return json;
}

Json BondingJson(const TunnelConfig& tunnel) {
  const BondOptions& bonding = tunnel.bonding;
  Json json;
  json["mode"] = NameOf(bonding.mode);
  json["pin_flows"] = bonding.pin_flows;
  json["repair"] = bonding.repair ? "auto" : "off";
  json["fec"] = bonding.fec == FecMode::kRatio  ? Json(bonding.fec_ratio)
                : bonding.fec == FecMode::kAuto ? Json("auto")
                                                : Json("off");
  json["reorder_max_ms"] = bonding.reorder_max_ns / kMillisecondNs;
  json["classes"] = Json::array();
  for (const ClassRule& rule : tunnel.class_rules) json["classes"].push_back(ClassRuleJson(rule));
  return json;
}

Json TunnelJson(const TunnelConfig& tunnel, Role role) {
  Json json;
  if (role == Role::kServer) {
    json["listen"] = Json::array();
    for (const Endpoint& listen : tunnel.listen) {
      json["listen"].push_back({{"address", listen.address.ToString()}, {"port", listen.port}});
    }
  } else if (tunnel.auto_paths) {
    json["paths"] = "auto";
  } else if (!IsDefaultPath(tunnel.paths.at(0))) {
    for (const PathConfig& path : tunnel.paths) json["paths"].push_back(PathJson(path));
  }
  json["peers"] = Json::array();
  for (const PeerConfig& peer : tunnel.peers) json["peers"].push_back(PeerJson(peer, role));
  json["lanes"] = tunnel.lanes;
  json["bonding"] = BondingJson(tunnel);
  json["ciphers"] = Json::array();
  for (const Cipher cipher : tunnel.ciphers) json["ciphers"].push_back(CipherName(cipher));
  return json;
}

Json RateJson(const RateLimit& limit) {
  return {{"rate_mbps", static_cast<double>(limit.bytes_per_s) * 8 / 1e6},
          {"burst_kb", static_cast<double>(limit.burst_bytes) / 1000}};
}

// What is not limited is left out.
Json LimitsJson(const ThrottleLimits& limits) {
  Json json = Json::object();
  if (limits.send) json["send"] = RateJson(*limits.send);
  if (limits.receive) json["receive"] = RateJson(*limits.receive);
  return json;
}

Json ThrottleJson(const ThrottleConfig& throttle) {
  Json json = Json::object();
  if (throttle.total.send || throttle.total.receive) json["total"] = LimitsJson(throttle.total);
  if (throttle.peers.empty()) return json;
  // Put behind each other, since to look for each name would take long where there are many.
  Json::object_t peers;
  peers.reserve(throttle.peers.size());
  for (const auto& [name, limits] : throttle.peers) peers.emplace_back(name, LimitsJson(limits));
  json["peers"] = std::move(peers);
  return json;
}

Json HttpJson(const HttpConfig& http) {
  Json json;
  json["address"] = http.address.ToString();
  if (!http.token_file.empty()) json["token_file"] = http.token_file;
  if (http.tls) {
    json["tls"] = {{"certificate_file", http.tls->certificate_file},
                   {"key_file", http.tls->key_file}};
  }
  json["hosts"] = http.hosts;
  json["origins"] = http.origins;
  return json;
}

Json ControlJson(const ControlConfig& control) {
  Json json;
  json["socket"] = control.socket;
  if (control.http) json["http"] = HttpJson(*control.http);
  return json;
}

Json ProtocolJson(uint8_t protocol) {
  if (protocol == kProtocolTcp) return "tcp";
  return protocol == kProtocolUdp ? Json("udp") : Json(protocol);
}

Json EgressRuleJson(const EgressRule& rule, const std::vector<UpstreamGroupConfig>& groups) {
  constexpr const char* kTo[] = {"tunnel", "direct", "block"};
  Json json;
  Json match = Json::object();
  if (!rule.prefixes.empty()) match["prefix"] = Texts(rule.prefixes);
  if (!rule.sources.empty()) match["source"] = Texts(rule.sources);
  if (!rule.domains.empty()) match["domain"] = rule.domains;
  if (!rule.domain_suffixes.empty()) match["domain_suffix"] = rule.domain_suffixes;
  if (!rule.ports.empty()) match["port"] = PortsJson(rule.ports);
  for (const uint8_t protocol : rule.protocols) match["protocol"].push_back(ProtocolJson(protocol));
  if (!match.empty()) json["match"] = std::move(match);
  const bool is_to_group = rule.action.to == EgressAction::To::kGroup;
  json["to"] = is_to_group ? Json(groups[rule.action.group].name)
                           : Json(kTo[static_cast<size_t>(rule.action.to)]);
  if (rule.action.silent) json["silent"] = true;
  if (rule.action.early_accept) json["early_accept"] = true;
  return json;
}

Json UpstreamGroupJson(const UpstreamGroupConfig& group) {
  constexpr const char* kStrategies[] = {"round_robin", "least_connections", "weighted"};
  Json json;
  json["strategy"] = kStrategies[static_cast<size_t>(group.choice.strategy)];
  json["upstreams"] = Json::array();
  for (const UpstreamConfig& upstream : group.upstreams) {
    Json one = {{"address", DescribeEndpoint(upstream.address)}, {"weight", upstream.weight}};
    if (!upstream.username.empty()) {
      one["username"] = upstream.username;
      one["password_file"] = upstream.password_file;
    }
    json["upstreams"].push_back(std::move(one));
  }
  if (group.pool) {
    json["pool"] = {{"initial", group.pool->initial},
                    {"max", group.pool->max},
                    {"idle_s", group.pool->idle_ns / kSecondNs},
                    {"cleanup_s", group.pool->cleanup_ns / kSecondNs}};
  }
  json["breaker"] = {{"failures", group.choice.breaker.failures},
                     {"open_s", group.choice.breaker.open_ns / kSecondNs},
                     {"trials", group.choice.breaker.trials},
                     {"successes", group.choice.breaker.successes}};
  json["health"] = {{"every_s", group.health.every_s}, {"timeout_s", group.health.timeout_s}};
  if (group.health.connect) json["health"]["connect"] = DescribeEndpoint(*group.health.connect);
  json["pipelined"] = group.pipelined;
  json["names"] = group.names;
  return json;
}

Json ProxyJson(const ProxyConfig& proxy) {
  Json json;
  json["rules"] = Json::array();
  for (const EgressRule& rule : proxy.rules) {
    json["rules"].push_back(EgressRuleJson(rule, proxy.groups));
  }
  for (const UpstreamGroupConfig& group : proxy.groups) {
    json["groups"][group.name] = UpstreamGroupJson(group);
  }
  json["dns"]["servers"] = Texts(proxy.dns.servers);
  json["dns"]["cache"] = proxy.dns.cache;
  json["dns"]["timeout_s"] = proxy.dns.timeout_s;
  json["tcp_sessions"] = proxy.tcp_sessions;
  json["udp_sessions"] = proxy.udp_sessions;
  return json;
}

Json PerformanceJson(const PerformanceConfig& performance) {
  return {{"workers", OrAuto(performance.workers)},
          {"io", performance.io},
          {"aead", performance.aead},
          {"offloads", performance.offloads},
          {"pin", performance.pin},
          {"measure_port", performance.measure_port}};
}

}  // namespace

Json ToJson(const Config& config) {
  Json json;
  json["mode"] = config.role == Role::kClient ? "client" : "server";
  json["network"] = NetworkJson(config.network, config.role);
  json["security"] = SecurityJson(config.security);
  json["tunnel"] = TunnelJson(config.tunnel, config.role);
  json["throttle"] = ThrottleJson(config.throttle);
  if (config.proxy) json["proxy"] = ProxyJson(*config.proxy);
  json["control"] = ControlJson(config.control);
  json["performance"] = PerformanceJson(config.performance);
  json["log"]["level"] = config.log.level;
  json["log"]["format"] = config.log.format == LogFormat::kJson ? "json" : "text";
  return json;
}

}  // namespace braid
