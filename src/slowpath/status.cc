#include "slowpath/status.h"

#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/rounded.h"
#include "slowpath/bond_status.h"
#include "slowpath/key_file.h"
#include "slowpath/net_setup.h"
#include "slowpath/path_commands.h"
#include "slowpath/process_usage.h"
#include "slowpath/throttle_commands.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

Json DescribeDaemon(const Config& config, const char* state) {
  Json json;
  json["state"] = state;
  json["version"] = BRAID_VERSION;
  json["mode"] = config.role == Role::kClient ? "client" : "server";
  json["device"] = config.network.device;
  json["pid"] = getpid();
  return json;
}

double SecondsSince(TimeNs then_ns, TimeNs now_ns) {
  return Rounded(static_cast<double>(now_ns - then_ns) / kSecondNs, 1);
}

// A client's have a port for each lane, so none is told.
std::string LocalAddress(const StatusSources& sources, const Peer& peer, size_t id) {
  const Route& route = peer.paths[id].route;
  if (!route.remote.is_set()) return "";
  if (sources.paths == nullptr) {
    const Endpoint& listen = sources.config.tunnel.listen[route.socket_group];
    return Endpoint{route.local.is_set() ? route.local : listen.address, listen.port}.ToString();
  }
  const std::optional<ClientPath>& path = (*sources.paths)[id];
  if (!path || !path->binding) return "";
  const IpAddress local =
      LocalAddressTowards(route.remote, path->binding->address, path->binding->device);
  return local.is_set() ? local.ToString() : "";
}

// What a client's path has by its configuration and the network of now.
void DescribeClientPath(const StatusSources& sources, size_t id, Json& json) {
  if (sources.paths == nullptr || !(*sources.paths)[id]) return;
  const ClientPath& path = *(*sources.paths)[id];
  const std::string device = path.binding ? path.binding->device : path.config.interface;
  json["interface"] = device.empty() ? Json() : Json(device);
  if (!path.problem.empty()) json["problem"] = path.problem;
  DescribePathOptions(path.config.bonding, json["options"]);
  if (path.config.quota) json["quota"] = DescribeQuota(path.config, sources.quotas);
}

Json DescribePath(const StatusSources& sources, const Peer& peer, size_t id) {
  const PeerPath& path = peer.paths[id];
  const auto traffic = sources.workers.TrafficOf(peer.slot, static_cast<int>(id));
  const PathMeters::Reading& meter = sources.meters.Of(peer.slot, id);
  Json json;
  json["name"] = path.name;
  json["interface"] = Json();
  json["problem"] = path.refused ? Json(kCarriesTooLittle) : Json();
  DescribeClientPath(sources, id, json);
  json["local"] = LocalAddress(sources, peer, id);
  json["remote"] = path.route.remote.is_set() ? Json(path.route.remote.ToString()) : Json();
  json["state"] = std::string(PathStateName(peer, id, sources.workers.BondOf(peer.slot)));
  json["mtu"] = path.mtu() != 0 && !path.refused ? Json(path.mtu()) : Json();
  json["rtt_ms"] = path.rtt_ms ? Json(Rounded(*path.rtt_ms, 3)) : Json();
  json["loss"] = Rounded(meter.rx_loss, 4);
  json["rx_bytes"] = traffic.rx_bytes;
  json["tx_bytes"] = traffic.tx_bytes;
  json["rate_mbps"] = Rounded((meter.tx_bytes_per_s + meter.rx_bytes_per_s) * 8 / 1e6, 2);
  if (const BondGauges* bond = sources.workers.BondOf(peer.slot)) {
    json["sending"] = DescribeBondPath(bond->paths[id]);
  }
  return json;
}

Json DescribePeer(const StatusSources& sources, const Peer& peer) {
  const auto totals = sources.workers.TrafficOf(peer.slot);
  Json json;
  json["name"] = peer.config.name;
  json["public_key"] = EncodeKey(peer.keys->public_key);
  json["established"] = peer.established();
  json["cipher"] =
      peer.established() ? Json(std::string(CipherName(peer.current->aead->cipher))) : Json();
  json["last_handshake_s"] =
      peer.established_ns == 0 ? Json() : Json(SecondsSince(peer.established_ns, sources.now_ns));
  json["mtu"] = peer.established() ? Json(peer.mtu) : Json();
  json["rx_bytes"] = totals.rx_bytes;
  json["tx_bytes"] = totals.tx_bytes;
  json["rx_packets"] = totals.rx_packets;
  json["tx_packets"] = totals.tx_packets;
  if (const BondGauges* bond = sources.workers.BondOf(peer.slot)) {
    json["bond"] = DescribeBond(*bond);
  }
  if (auto throttle = DescribePeerThrottle(sources.throttle, peer, sources.workers)) {
    json["throttle"] = std::move(*throttle);
  }
  json["paths"] = Json::array();
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    if (peer.paths[id].exists) json["paths"].push_back(DescribePath(sources, peer, id));
  }
  return json;
}

Json DescribeWorker(const StatusSources& sources, int worker) {
  const auto totals = sources.workers.TotalsOf(worker);
  Json json;
  json["cpu"] = totals.cpu >= 0 ? Json(totals.cpu) : Json();
  json["rx_packets"] = totals.rx_packets;
  json["tx_packets"] = totals.tx_packets;
  json["handed_over"] = totals.handed_over;
  json["lanes"] = totals.lanes;
  return json;
}

Json DescribeOffloads(const StatusSources& sources) {
  Json json;
  json["vnet_hdr"] = true;
  json["checksum"] = sources.offloads.checksum;
  json["tso"] = sources.offloads.tso;
  json["uso"] = sources.offloads.uso;
  json["udp_gso"] = sources.config.performance.offloads && !sources.workers.SegmentationRefused();
  json["udp_gro"] = sources.config.performance.offloads;
  json["steering"] = sources.steered_by_bpf ? "bpf" : "ring";
  return json;
}

Json DescribeUpstream(const UpstreamGroup::Figures& figures) {
  constexpr const char* kBreakers[] = {"closed", "open", "half_open"};
  using Relays = UpstreamGroup::RelaysDatagrams;
  Json json;
  json["address"] = figures.address;
  json["up"] = figures.choice.up;
  json["breaker"] = kBreakers[static_cast<size_t>(figures.choice.breaker)];
  json["breaker_opened"] = figures.choice.breaker_opened;
  json["weight_now"] = figures.choice.weight_now;
  json["open"] = figures.choice.open;
  json["begun"] = figures.choice.begun;
  json["failed"] = figures.choice.failed;
  json["latency_ms"] = figures.choice.latency_ns == 0
                           ? Json()
                           : Json(static_cast<double>(figures.choice.latency_ns) / 1e6);
  json["udp"] = figures.relays_datagrams == Relays::kNotKnown
                    ? Json()
                    : Json(figures.relays_datagrams == Relays::kYes);
  if (!figures.trouble.empty()) json["trouble"] = figures.trouble;
  if (figures.has_pool) {
    json["pool"] = {{"idle", figures.pool_idle},       {"target", figures.pool_target},
                    {"taken", figures.pool.taken},     {"empty", figures.pool.empty},
                    {"expired", figures.pool.expired}, {"stale", figures.pool.stale}};
  }
  return json;
}

Json DescribeEgress(const StatusSources& sources) {
  const EgressFlows::Totals totals = sources.egress->totals();
  Json tcp;
  tcp["flows"] = totals.flows;
  tcp["connecting"] = totals.under_way;
  tcp["opened"] = totals.opened;
  tcp["refused"] = totals.refused;
  tcp["unreachable"] = totals.unreachable;
  tcp["timed_out"] = totals.timed_out;
  tcp["reset"] = totals.reset;
  tcp["tx_bytes"] = totals.up_bytes;
  tcp["rx_bytes"] = totals.down_bytes;
  Json json;
  json["rules"] = sources.config.proxy->rules.size();
  json["shortcuts"] = sources.egress->has_shortcuts();
  json["tcp"] = std::move(tcp);
  json["udp"] = {{"sessions", totals.udp.sessions},   {"begun", totals.udp.begun},
                 {"refused", totals.udp.refused},     {"expired", totals.udp.expired},
                 {"evicted", totals.udp.evicted},     {"tx_packets", totals.udp.up_packets},
                 {"tx_bytes", totals.udp.up_bytes},   {"rx_packets", totals.udp.down_packets},
                 {"rx_bytes", totals.udp.down_bytes}, {"fragments", totals.udp.fragments},
                 {"malformed", totals.udp.malformed}, {"too_big", totals.udp.too_big},
                 {"unsent", totals.udp.unsent},       {"not_waiting", totals.udp.not_waiting}};
  const DnsForwarder::Totals dns = sources.egress->dns_totals();
  json["dns"] = {{"queries", dns.queries},       {"answered", dns.answered},
                 {"from_cache", dns.from_cache}, {"repeated", dns.repeated},
                 {"timed_out", dns.timed_out},   {"unreachable", dns.unreachable},
                 {"malformed", dns.malformed},   {"refused", dns.refused},
                 {"under_way", dns.under_way},   {"over_tcp", dns.over_tcp},
                 {"unasked", dns.unasked},       {"channels", dns.channels},
                 {"cached", dns.cache.entries},  {"cached_bytes", dns.cache.bytes}};
  json["groups"] = Json::object();
  for (const auto& group : sources.egress->groups()) {
    Json& to = json["groups"][group->config().name];
    to = Json::array();
    for (const UpstreamGroup::Figures& one : group->figures()) to.push_back(DescribeUpstream(one));
  }
  return json;
}

}  // namespace

Json DescribePeers(const StatusSources& sources) {
  Json json;
  json["peers"] = Json::array();
  for (const Peer* peer : sources.peers.all()) {
    json["peers"].push_back(DescribePeer(sources, *peer));
  }
  return json;
}

Json DescribeStopped(const Config& config, const std::string& failure) {
  Json json = DescribeDaemon(config, failure.empty() ? "stopped" : "failed");
  json["memory_rss_bytes"] = ResidentBytes();
  json["warnings"] = Json::array();
  if (!failure.empty()) json["warnings"].push_back(failure);
  json["peers"] = Json::array();
  json["workers"] = Json::array();
  json["drops"] = Json::object();
  return json;
}

Json DescribeStatus(const StatusSources& sources) {
  const Config& config = sources.config;
  Json json = DescribeDaemon(config, "running");
  json["uptime_s"] = SecondsSince(sources.started_ns, sources.now_ns);
  json["io"] = std::string(sources.workers.backend_name());
  json["aead"] = std::string(sources.aeads[Cipher::kChaCha20Poly1305]->backend);
  json["memory_rss_bytes"] = ResidentBytes();
  json["offloads"] = DescribeOffloads(sources);
  json["network"]["mtu"] = sources.mtu;
  json["network"]["addresses"] = Json::array();
  for (const IpPrefix& prefix : config.network.addresses) {
    json["network"]["addresses"].push_back(prefix.ToString());
  }
  json["throttle"] = DescribeLimits(sources.throttle.total);
  if (sources.egress != nullptr) json["egress"] = DescribeEgress(sources);
  json["warnings"] = sources.warnings;
  json.update(DescribePeers(sources));
  json["workers"] = Json::array();
  for (int worker = 0; worker < sources.workers.workers(); ++worker) {
    json["workers"].push_back(DescribeWorker(sources, worker));
  }
  json["handed_over"] = sources.workers.HandedOver();
  for (size_t i = 0; i < kDropReasons; ++i) {
    const auto reason = static_cast<Drop>(i);
    json["drops"][std::string(kDropNames[i])] = DropsFor(sources, reason);
  }
  return json;
}

}  // namespace braid
