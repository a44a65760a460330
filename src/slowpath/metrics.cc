#include "slowpath/metrics.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/strings/str_split.h"
#include "slowpath/control_protocol.h"
#include "slowpath/path_commands.h"
#include "slowpath/process_usage.h"

namespace braid {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr char kReceive[] = "receive";
constexpr char kTransmit[] = "transmit";

template <typename T>
double Seconds(T ns) {
  return static_cast<double>(ns) / kSecondNs;
}

// Labels are UTF-8; of what is not, its bytes are replaced.
std::string Utf8(const std::string& text) {
  return nlohmann::json::parse(ToJsonText(nlohmann::json(text))).get<std::string>();
}

// One family for each metric.
class Families {
 public:
  Families() : families_(std::size(kMetrics)), labels_(std::size(kMetrics)) {
    for (size_t i = 0; i < families_.size(); ++i) {
      const MetricInfo& info = kMetrics[i];
      families_[i].name = info.name;
      families_[i].help = info.meaning;
      families_[i].type = info.type;
      labels_[i] = absl::StrSplit(std::string(info.labels), ' ', absl::SkipEmpty());
    }
  }

  // `labels` are the values of those that the metric has, in their order.
  template <typename T>
  void Add(Metric metric, T value, std::initializer_list<std::string_view> labels = {}) {
    const auto i = static_cast<size_t>(metric);
    assert(labels.size() == labels_[i].size());
    ClientMetric& one = families_[i].metric.emplace_back();
    for (size_t label = 0; label < labels.size(); ++label) {
      one.label.push_back({labels_[i][label], std::string(labels.begin()[label])});
    }
    const bool counts = kMetrics[i].type == MetricType::Counter;
    (counts ? one.counter.value : one.gauge.value) = static_cast<double>(value);
  }

  std::vector<MetricFamily> Take() && {
    std::erase_if(families_, [](const MetricFamily& family) { return family.metric.empty(); });
    return std::move(families_);
  }

 private:
  std::vector<MetricFamily> families_;
  std::vector<std::vector<std::string>> labels_;
};

void AddHealth(const HealthReport& health, Families& to) {
  for (const HealthReport::Component& component : health.components) {
    to.Add(Metric::braid_health, static_cast<int>(component.health), {component.name});
  }
}

void AddDaemon(const StatusSources& sources, const HealthInputs& health, Families& to) {
  to.Add(Metric::braid_build_info, 1,
         {BRAID_VERSION, sources.config.role == Role::kClient ? "client" : "server",
          sources.workers.backend_name(), sources.aeads[Cipher::kChaCha20Poly1305]->backend});
  AddHealth(JudgeHealth(health), to);
  to.Add(Metric::braid_warnings, sources.warnings.size());
  to.Add(Metric::braid_device_mtu_bytes, sources.mtu);
  to.Add(Metric::braid_slow_path_lag_seconds, Seconds(health.slow_path_lag_ns));
  to.Add(Metric::braid_slow_path_inbox_events, sources.workers.waiting_events());
}

void AddProcess(Families& to) {
  const ProcessUsage usage = UsageOfThisProcess();
  to.Add(Metric::process_cpu_seconds_total, Seconds(usage.cpu_ns));
  to.Add(Metric::process_resident_memory_bytes, usage.resident_bytes);
  to.Add(Metric::process_virtual_memory_bytes, usage.virtual_bytes);
  to.Add(Metric::process_open_fds, usage.open_files);
  to.Add(Metric::process_max_fds, usage.most_files);
  to.Add(Metric::process_start_time_seconds, usage.started_s);
}

void AddWorkers(const StatusSources& sources, const HealthInputs& health, Families& to) {
  for (int worker = 0; worker < sources.workers.workers(); ++worker) {
    const std::string label = std::to_string(worker);
    const auto totals = sources.workers.TotalsOf(worker);
    to.Add(Metric::braid_worker_bytes_total, totals.rx_bytes, {label, kReceive});
    to.Add(Metric::braid_worker_bytes_total, totals.tx_bytes, {label, kTransmit});
    to.Add(Metric::braid_worker_packets_total, totals.rx_packets, {label, kReceive});
    to.Add(Metric::braid_worker_packets_total, totals.tx_packets, {label, kTransmit});
    to.Add(Metric::braid_worker_handed_over_packets_total, totals.handed_over, {label});
    to.Add(Metric::braid_worker_busy_seconds_total, Seconds(totals.busy_ns), {label});
    to.Add(Metric::braid_worker_silent_seconds,
           Seconds(health.workers_silent_ns[static_cast<size_t>(worker)]), {label});
    to.Add(Metric::braid_worker_inbox_packets, totals.inbox_packets, {label});
    to.Add(Metric::braid_worker_inbox_commands, totals.inbox_commands, {label});
  }
  for (size_t i = 0; i < kDropReasons; ++i) {
    to.Add(Metric::braid_drops_total, DropsFor(sources, static_cast<Drop>(i)), {kDropNames[i]});
  }
}

void AddHandshakes(const Peers& peers, Families& to) {
  const auto is_established = [](const auto& peer) { return peer->established(); };
  to.Add(Metric::braid_peers, peers.all().size());
  to.Add(Metric::braid_sessions,
         std::count_if(peers.all().begin(), peers.all().end(), is_established));
  const HandshakeCounts& counts = peers.handshakes();
  to.Add(Metric::braid_handshakes_begun_total, counts.begun);
  to.Add(Metric::braid_handshakes_completed_total, counts.completed);
  to.Add(Metric::braid_handshakes_refused_total, counts.refused);
  to.Add(Metric::braid_handshakes_timed_out_total, counts.timed_out);
  to.Add(Metric::braid_handshake_jobs, peers.jobs_under_way());
}

// Whether there has been anything to tell of it.
bool IsKnown(const Peer& peer) { return peer.initiates || peer.completed_once; }

void AddPeer(const StatusSources& sources, const Peer& peer, bool in_detail,
             const std::string& name, Families& to) {
  const auto totals = sources.workers.TrafficOf(peer.slot);
  to.Add(Metric::braid_peer_established, peer.established() ? 1 : 0, {name});
  if (peer.established_ns != 0) {
    // In whole seconds: two clocks are read, and it should stay the same.
    const double ago_s = Seconds(sources.now_ns - peer.established_ns);
    to.Add(Metric::braid_peer_last_handshake_timestamp_seconds,
           std::round(Seconds(WallNowNs()) - ago_s), {name});
  }
  to.Add(Metric::braid_peer_bytes_total, totals.rx_bytes, {name, kReceive});
  to.Add(Metric::braid_peer_bytes_total, totals.tx_bytes, {name, kTransmit});
  if (!in_detail) return;
  if (peer.established()) to.Add(Metric::braid_peer_mtu_bytes, peer.mtu, {name});
  to.Add(Metric::braid_peer_packets_total, totals.rx_packets, {name, kReceive});
  to.Add(Metric::braid_peer_packets_total, totals.tx_packets, {name, kTransmit});
}

void AddBondPath(const BondGauges::Path& path, const std::string& peer, const std::string& name,
                 Families& to) {
  to.Add(Metric::braid_path_loss_ratio, path.loss.Get(), {peer, name, kTransmit});
  to.Add(Metric::braid_path_capacity_bytes_per_second, path.bytes_per_s.Get(), {peer, name});
  to.Add(Metric::braid_path_goodput_bytes_per_second, path.goodput_bytes_per_s.Get(), {peer, name});
  to.Add(Metric::braid_path_queue_seconds, Seconds(path.queue_ns.Get()), {peer, name});
  to.Add(Metric::braid_path_jitter_seconds, Seconds(path.jitter_ns.Get()), {peer, name});
}

void AddPath(const StatusSources& sources, const Peer& peer, size_t id, const std::string& of_peer,
             Families& to) {
  const PeerPath& path = peer.paths[id];
  const std::string name = Utf8(path.name);
  const BondGauges* bond = sources.workers.BondOf(peer.slot);
  const auto traffic = sources.workers.TrafficOf(peer.slot, static_cast<int>(id));
  to.Add(Metric::braid_path_up, PathStateName(peer, id, bond) != "down" ? 1 : 0, {of_peer, name});
  to.Add(Metric::braid_path_bytes_total, traffic.rx_bytes, {of_peer, name, kReceive});
  to.Add(Metric::braid_path_bytes_total, traffic.tx_bytes, {of_peer, name, kTransmit});
  to.Add(Metric::braid_path_datagrams_total, traffic.rx_datagrams, {of_peer, name, kReceive});
  to.Add(Metric::braid_path_datagrams_total, traffic.tx_datagrams, {of_peer, name, kTransmit});
  to.Add(Metric::braid_path_loss_ratio, sources.meters.Of(peer.slot, id).rx_loss,
         {of_peer, name, kReceive});
  if (path.rtt_ms) to.Add(Metric::braid_path_rtt_seconds, *path.rtt_ms / 1000, {of_peer, name});
  if (path.mtu() != 0 && !path.refused) {
    to.Add(Metric::braid_path_mtu_bytes, path.mtu(), {of_peer, name});
  }
  if (bond != nullptr) AddBondPath(bond->paths[id], of_peer, name, to);
}

void AddBond(const BondGauges& bond, const std::string& peer, Families& to) {
  to.Add(Metric::braid_bond_active, bond.bonded.Get() ? 1 : 0, {peer});
  to.Add(Metric::braid_bond_queue_packets, bond.queued_packets.Get(), {peer});
  to.Add(Metric::braid_bond_queue_bytes, bond.queued_bytes.Get(), {peer});
  to.Add(Metric::braid_bond_queue_drops_total, bond.codel_drops.Get(), {peer, "codel"});
  to.Add(Metric::braid_bond_queue_drops_total, bond.overflows.Get(), {peer, "full"});
  to.Add(Metric::braid_bond_queue_drops_total, bond.gone_stale.Get(), {peer, "stale"});
  to.Add(Metric::braid_bond_queue_marks_total, bond.codel_marks.Get(), {peer});
  to.Add(Metric::braid_bond_express_packets_total, bond.express_packets.Get(), {peer});
  to.Add(Metric::braid_bond_copies_total, bond.copies.Get(), {peer});
  to.Add(Metric::braid_bond_repairs_total, bond.repairs.Get(), {peer});
  to.Add(Metric::braid_bond_repairs_too_late_total, bond.repairs_too_late.Get(), {peer});
  to.Add(Metric::braid_bond_parity_packets_total, bond.parity_received.Get(), {peer, kReceive});
  to.Add(Metric::braid_bond_parity_packets_total, bond.parity_sent.Get(), {peer, kTransmit});
  to.Add(Metric::braid_bond_recovered_packets_total, bond.recovered.Get(), {peer});
  to.Add(Metric::braid_bond_unrecovered_packets_total, bond.unrecoverable.Get(), {peer});
  to.Add(Metric::braid_bond_lost_datagrams_total, bond.lost.Get(), {peer});
  to.Add(Metric::braid_bond_duplicate_packets_total, bond.duplicates.Get(), {peer});
  to.Add(Metric::braid_bond_reorder_hold_seconds, Seconds(bond.hold_ns.Get()), {peer});
  to.Add(Metric::braid_bond_reorder_packets, bond.held_packets.Get(), {peer});
  to.Add(Metric::braid_bond_held_packets_total, bond.held_packets_total.Get(), {peer});
  to.Add(Metric::braid_bond_held_seconds_total, Seconds(bond.held_ns_total.Get()), {peer});
  to.Add(Metric::braid_bond_given_up_packets_total, bond.given_up.Get(), {peer});
  to.Add(Metric::braid_bond_late_packets_total, bond.late.Get(), {peer});
}

void AddPeers(const StatusSources& sources, Families& to) {
  const PeerDetail detail = DetailFor(sources.peers.all().size());
  if (detail == PeerDetail::kNone) return;
  const bool in_detail = detail == PeerDetail::kAll;
  for (const Peer* peer : sources.peers.all()) {
    if (!IsKnown(*peer)) continue;
    const std::string name = Utf8(peer->config.name);
    AddPeer(sources, *peer, in_detail, name, to);
    if (!in_detail) continue;
    for (size_t id = 0; id < peer->paths.size(); ++id) {
      if (peer->paths[id].exists) AddPath(sources, *peer, id, name, to);
    }
    if (const BondGauges* bond = sources.workers.BondOf(peer->slot)) AddBond(*bond, name, to);
  }
}

void AddQuotas(const StatusSources& sources, Families& to) {
  if (sources.paths == nullptr) return;
  for (size_t id = 0; id < kMaxPaths; ++id) {
    const std::optional<ClientPath>& path = (*sources.paths)[id];
    if (!path || !path->config.quota) continue;
    const PathQuota* quota = sources.quotas.Find(path->config.name);
    if (quota == nullptr) continue;
    const std::string name = Utf8(path->config.name);
    to.Add(Metric::braid_path_quota_used_bytes, quota->kept().used_bytes, {name});
    to.Add(Metric::braid_path_quota_limit_bytes, quota->config().bytes, {name});
  }
}

// Several users of one server are told apart.
std::string UpstreamLabel(const UpstreamGroupConfig& group, size_t index) {
  const UpstreamConfig& upstream = group.upstreams[index];
  const auto of_server =
      std::count_if(group.upstreams.begin(), group.upstreams.end(),
                    [&](const UpstreamConfig& one) { return one.address == upstream.address; });
  const std::string address = DescribeEndpoint(upstream.address);
  return of_server > 1 && !upstream.username.empty() ? Utf8(upstream.username + "@" + address)
                                                     : address;
}

double BreakerValue(CircuitBreaker::State state) {
  if (state == CircuitBreaker::State::kHalfOpen) return 0.5;
  return state == CircuitBreaker::State::kOpen ? 1 : 0;
}

void AddUpstream(const UpstreamGroup::Figures& figures, bool in_detail, const std::string& group,
                 const std::string& name, Families& to) {
  const UpstreamFigures& choice = figures.choice;
  to.Add(Metric::braid_egress_upstream_up, choice.up ? 1 : 0, {group, name});
  to.Add(Metric::braid_egress_upstream_breaker_open, BreakerValue(choice.breaker), {group, name});
  if (!in_detail) return;
  to.Add(Metric::braid_egress_upstream_open_flows, choice.open, {group, name});
  to.Add(Metric::braid_egress_upstream_flows_total, choice.begun, {group, name, "begun"});
  to.Add(Metric::braid_egress_upstream_flows_total, choice.failed, {group, name, "failed"});
  if (choice.latency_ns != 0) {
    to.Add(Metric::braid_egress_upstream_latency_seconds, Seconds(choice.latency_ns),
           {group, name});
  }
  if (!figures.has_pool) return;
  to.Add(Metric::braid_egress_pool_idle_connections, figures.pool_idle, {group, name});
  to.Add(Metric::braid_egress_pool_target_connections, figures.pool_target, {group, name});
  to.Add(Metric::braid_egress_pool_taken_total, figures.pool.taken, {group, name});
  to.Add(Metric::braid_egress_pool_empty_total, figures.pool.empty, {group, name});
  to.Add(Metric::braid_egress_pool_expired_total, figures.pool.expired, {group, name});
  to.Add(Metric::braid_egress_pool_stale_total, figures.pool.stale, {group, name});
}

void AddUpstreams(const EgressFlows::Groups& groups, Families& to) {
  size_t upstreams = 0;
  for (const auto& group : groups) upstreams += group->config().upstreams.size();
  const bool in_detail = upstreams <= kMaxUpstreamsInDetail;
  for (const auto& group : groups) {
    const std::string name = Utf8(group->config().name);
    const std::vector<UpstreamGroup::Figures> figures = group->figures();
    for (size_t i = 0; i < figures.size(); ++i) {
      AddUpstream(figures[i], in_detail, name, UpstreamLabel(group->config(), i), to);
    }
  }
}

void AddEgress(const StatusSources& sources, Families& to) {
  if (sources.egress == nullptr) return;
  const EgressFlows::Totals totals = sources.egress->totals();
  to.Add(Metric::braid_egress_tcp_open_flows, totals.flows);
  to.Add(Metric::braid_egress_tcp_connecting_flows, totals.under_way);
  to.Add(Metric::braid_egress_tcp_flows_total, totals.opened, {"opened"});
  to.Add(Metric::braid_egress_tcp_flows_total, totals.refused, {"refused"});
  to.Add(Metric::braid_egress_tcp_flows_total, totals.unreachable, {"unreachable"});
  to.Add(Metric::braid_egress_tcp_flows_total, totals.timed_out, {"timed_out"});
  to.Add(Metric::braid_egress_tcp_resets_total, totals.reset);
  to.Add(Metric::braid_egress_tcp_bytes_total, totals.up_bytes, {kTransmit});
  to.Add(Metric::braid_egress_tcp_bytes_total, totals.down_bytes, {kReceive});
  const auto& udp = totals.udp;
  to.Add(Metric::braid_egress_udp_open_sessions, udp.sessions);
  to.Add(Metric::braid_egress_udp_sessions_total, udp.begun, {"begun"});
  to.Add(Metric::braid_egress_udp_sessions_total, udp.refused, {"refused"});
  to.Add(Metric::braid_egress_udp_sessions_total, udp.expired, {"expired"});
  to.Add(Metric::braid_egress_udp_sessions_total, udp.evicted, {"evicted"});
  to.Add(Metric::braid_egress_udp_datagrams_total, udp.up_packets, {kTransmit});
  to.Add(Metric::braid_egress_udp_datagrams_total, udp.down_packets, {kReceive});
  to.Add(Metric::braid_egress_udp_bytes_total, udp.up_bytes, {kTransmit});
  to.Add(Metric::braid_egress_udp_bytes_total, udp.down_bytes, {kReceive});
  to.Add(Metric::braid_egress_udp_lost_total, udp.fragments, {"fragment"});
  to.Add(Metric::braid_egress_udp_lost_total, udp.malformed, {"malformed"});
  to.Add(Metric::braid_egress_udp_lost_total, udp.too_big, {"too_big"});
  to.Add(Metric::braid_egress_udp_lost_total, udp.unsent, {"unsent"});
  to.Add(Metric::braid_egress_udp_lost_total, udp.not_waiting, {"not_waiting"});
  const DnsForwarder::Totals dns = sources.egress->dns_totals();
  to.Add(Metric::braid_egress_dns_queries_total, dns.answered, {"answered"});
  to.Add(Metric::braid_egress_dns_queries_total, dns.timed_out, {"timed_out"});
  to.Add(Metric::braid_egress_dns_queries_total, dns.unreachable, {"unreachable"});
  to.Add(Metric::braid_egress_dns_queries_total, dns.malformed, {"malformed"});
  to.Add(Metric::braid_egress_dns_queries_total, dns.refused, {"refused"});
  to.Add(Metric::braid_egress_dns_tcp_queries_total, dns.over_tcp);
  to.Add(Metric::braid_egress_dns_cached_answers, dns.cache.entries);
  AddUpstreams(sources.egress->groups(), to);
}

}  // namespace

std::vector<MetricFamily> CollectMetrics(const StatusSources& sources, const HealthInputs& health) {
  Families families;
  AddDaemon(sources, health, families);
  AddProcess(families);
  AddWorkers(sources, health, families);
  AddHandshakes(sources.peers, families);
  AddPeers(sources, families);
  AddQuotas(sources, families);
  AddEgress(sources, families);
  return std::move(families).Take();
}

std::vector<MetricFamily> CollectMetrics(const HealthReport& health) {
  Families families;
  AddHealth(health, families);
  AddProcess(families);
  return std::move(families).Take();
}

std::string RenderMetrics(const std::vector<MetricFamily>& families) {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return std::move(text).str();
}

}  // namespace braid
