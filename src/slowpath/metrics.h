// What Prometheus scrapes: the same sources as the status, as metric families named by its
// conventions (base units, "_total" of counters), in its text format.
//
// How many series that is: each reason of a drop and each worker has its own. A client's peers are
// there from the start, a server's from their first session on, so clients that are configured and
// never come cost nothing. Where very many are configured each has a few or none, and so have
// upstreams, so that the slow path is kept from nothing by a scrape; `braid status --json` has the
// rest.
#pragma once

#include <prometheus/metric_family.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slowpath/health.h"
#include "slowpath/status_sources.h"

namespace braid {

inline constexpr size_t kMaxPeersInDetail = 1000;
inline constexpr size_t kMaxPeersByName = 10'000;
inline constexpr size_t kMaxUpstreamsInDetail = 1000;  // of all groups

// name, type, names of the labels, meaning. In the order in which they are given out.
#define BRAID_METRICS(X)                                                                           \
  /* The daemon. */                                                                                \
  X(braid_build_info, Gauge, "version mode io aead", "Always 1; the labels tell what runs.")       \
  X(braid_health, Gauge, "component", "How a component is: 0 ok, 1 degraded, 2 failed.")           \
  X(braid_warnings, Gauge, "", "Warnings that stand in the status.")                               \
  X(braid_device_mtu_bytes, Gauge, "", "MTU of the tunnel's device.")                              \
  X(braid_slow_path_lag_seconds, Gauge, "",                                                        \
    "How late the slow path's timer came at most, in the last ten seconds.")                       \
  X(braid_slow_path_inbox_events, Gauge, "", "Events of the workers that wait for the slow path.") \
  X(process_cpu_seconds_total, Counter, "", "CPU time of all threads, user and system.")           \
  X(process_resident_memory_bytes, Gauge, "", "Memory that is in RAM.")                            \
  X(process_virtual_memory_bytes, Gauge, "", "Address space that is in use.")                      \
  X(process_open_fds, Gauge, "", "Open file descriptors.")                                         \
  X(process_max_fds, Gauge, "", "File descriptors that there may be.")                             \
  X(process_start_time_seconds, Gauge, "", "When the daemon was started, since 1970.")             \
  /* Workers. */                                                                                   \
  X(braid_worker_bytes_total, Counter, "worker direction",                                         \
    "Bytes of inner packets, of all peers.")                                                       \
  X(braid_worker_packets_total, Counter, "worker direction", "Inner packets, of all peers.")       \
  X(braid_worker_handed_over_packets_total, Counter, "worker",                                     \
    "Packets that the worker has given to the one that owns their lane.")                          \
  X(braid_worker_busy_seconds_total, Counter, "worker",                                            \
    "CPU time of the worker; while there is nothing to do it sleeps.")                             \
  X(braid_worker_silent_seconds, Gauge, "worker",                                                  \
    "How long the worker has owed a sign of life; 0 when it owes none.")                           \
  X(braid_worker_inbox_packets, Gauge, "worker", "Packets of other threads that wait for it.")     \
  X(braid_worker_inbox_commands, Gauge, "worker", "Commands of the slow path that wait for it.")   \
  X(braid_drops_total, Counter, "reason", "Packets that were not delivered, each counted once.")   \
  /* Handshakes and sessions. */                                                                   \
  X(braid_peers, Gauge, "", "Peers that are configured.")                                          \
  X(braid_sessions, Gauge, "", "Peers that there is a session with.")                              \
  X(braid_handshakes_begun_total, Counter, "",                                                     \
    "Initiations that were sent, or that came and were let in.")                                   \
  X(braid_handshakes_completed_total, Counter, "", "Handshakes that gave both ends their keys.")   \
  X(braid_handshakes_refused_total, Counter, "",                                                   \
    "Initiations that came and were not answered; the drops tell why.")                            \
  X(braid_handshakes_timed_out_total, Counter, "",                                                 \
    "Handshakes that the other end did not go on with.")                                           \
  X(braid_handshake_jobs, Gauge, "", "Initiations that are being worked on.")                      \
  X(braid_peer_established, Gauge, "peer", "1 while there is a session with the peer, else 0.")    \
  X(braid_peer_last_handshake_timestamp_seconds, Gauge, "peer",                                    \
    "When the last handshake with it was completed, since 1970.")                                  \
  X(braid_peer_mtu_bytes, Gauge, "peer", "The largest inner packet of its session.")               \
  X(braid_peer_bytes_total, Counter, "peer direction", "Bytes of inner packets.")                  \
  X(braid_peer_packets_total, Counter, "peer direction", "Inner packets.")                         \
  /* Paths. Those of a client are called as configured, a server calls them by number. */          \
  X(braid_path_up, Gauge, "peer path", "1 while the path is used or stands by, else 0.")           \
  X(braid_path_bytes_total, Counter, "peer path direction", "Bytes of datagrams.")                 \
  X(braid_path_datagrams_total, Counter, "peer path direction", "Datagrams.")                      \
  X(braid_path_loss_ratio, Gauge, "peer path direction",                                           \
    "Share of the datagrams that is lost; what is sent is only measured in a bond.")               \
  X(braid_path_rtt_seconds, Gauge, "peer path", "Round trip of pings, smoothed.")                  \
  X(braid_path_mtu_bytes, Gauge, "peer path", "The largest inner packet that it carries.")         \
  X(braid_path_capacity_bytes_per_second, Gauge, "peer path",                                      \
    "What it is found to carry, sending.")                                                         \
  X(braid_path_goodput_bytes_per_second, Gauge, "peer path",                                       \
    "What has arrived over it lately, sending.")                                                   \
  X(braid_path_queue_seconds, Gauge, "peer path", "How long datagrams wait on the way, sending.")  \
  X(braid_path_jitter_seconds, Gauge, "peer path", "Mean deviation of the delay.")                 \
  X(braid_path_quota_used_bytes, Gauge, "path", "Of the path's quota, this month.")                \
  X(braid_path_quota_limit_bytes, Gauge, "path", "The path's quota of a month.")                   \
  /* Bonds: of peers that have one. */                                                             \
  X(braid_bond_active, Gauge, "peer", "1 while what is sent goes through the bond, else 0.")       \
  X(braid_bond_queue_packets, Gauge, "peer", "Packets that wait for a path.")                      \
  X(braid_bond_queue_bytes, Gauge, "peer", "Bytes that wait for a path.")                          \
  X(braid_bond_queue_drops_total, Counter, "peer reason",                                          \
    "Packets dropped in the queue: by CoDel, as it was full, or as no path took them.")            \
  X(braid_bond_queue_marks_total, Counter, "peer", "Packets that CoDel has marked by ECN.")        \
  X(braid_bond_express_packets_total, Counter, "peer",                                             \
    "Packets of interactive or sparse flows, which leave first.")                                  \
  X(braid_bond_copies_total, Counter, "peer", "Packets that left over a second path, too.")        \
  X(braid_bond_repairs_total, Counter, "peer", "Lost packets that were sent again.")               \
  X(braid_bond_repairs_too_late_total, Counter, "peer",                                            \
    "Lost packets that it was too late to send again.")                                            \
  X(braid_bond_parity_packets_total, Counter, "peer direction", "Packets of parity.")              \
  X(braid_bond_recovered_packets_total, Counter, "peer", "Packets that were made of parity.")      \
  X(braid_bond_unrecovered_packets_total, Counter, "peer",                                         \
    "Packets for which there was too little parity.")                                              \
  X(braid_bond_lost_datagrams_total, Counter, "peer", "Datagrams from it that were lost.")         \
  X(braid_bond_duplicate_packets_total, Counter, "peer", "Packets that came again.")               \
  X(braid_bond_reorder_hold_seconds, Gauge, "peer",                                                \
    "How long the other end is asked to wait for what is missing.")                                \
  X(braid_bond_reorder_packets, Gauge, "peer", "Packets that wait for earlier ones now.")          \
  X(braid_bond_held_packets_total, Counter, "peer", "Packets that had to wait for earlier ones.")  \
  X(braid_bond_held_seconds_total, Counter, "peer", "How long they waited, all together.")         \
  X(braid_bond_given_up_packets_total, Counter, "peer",                                            \
    "Packets that were not waited for any longer.")                                                \
  X(braid_bond_late_packets_total, Counter, "peer", "Packets that came after that.")               \
  /* What leaves past the tunnel. */                                                               \
  X(braid_egress_tcp_open_flows, Gauge, "", "TCP flows past the tunnel that are there.")           \
  X(braid_egress_tcp_connecting_flows, Gauge, "", "Those that are not known to get there yet.")    \
  X(braid_egress_tcp_flows_total, Counter, "outcome", "TCP flows past the tunnel, by their fate.") \
  X(braid_egress_tcp_resets_total, Counter, "", "Those of them that one end has reset.")           \
  X(braid_egress_tcp_bytes_total, Counter, "direction", "Bytes of TCP flows past the tunnel.")     \
  /* UDP and DNS past the tunnel. */                                                               \
  X(braid_egress_udp_open_sessions, Gauge, "", "UDP sessions past the tunnel that are there.")     \
  X(braid_egress_udp_sessions_total, Counter, "outcome",                                           \
    "UDP sessions past the tunnel, by their fate.")                                                \
  X(braid_egress_udp_datagrams_total, Counter, "direction", "Datagrams past the tunnel.")          \
  X(braid_egress_udp_bytes_total, Counter, "direction", "Bytes of them.")                          \
  X(braid_egress_udp_lost_total, Counter, "reason", "Datagrams that went nowhere.")                \
  X(braid_egress_dns_queries_total, Counter, "outcome", "Queries past the tunnel, by their fate.") \
  X(braid_egress_dns_tcp_queries_total, Counter, "", "Those that were asked by TCP.")              \
  X(braid_egress_dns_cached_answers, Gauge, "", "Answers that are kept.")                          \
  /* Upstreams of groups, and their pools where they have one. */                                  \
  X(braid_egress_upstream_up, Gauge, "group upstream",                                             \
    "0 where its last check found it not to work, else 1.")                                        \
  X(braid_egress_upstream_breaker_open, Gauge, "group upstream",                                   \
    "Its circuit breaker: 0 closed, 0.5 half open, 1 open.")                                       \
  X(braid_egress_upstream_open_flows, Gauge, "group upstream",                                     \
    "Connections through it that are there, or being made.")                                       \
  X(braid_egress_upstream_flows_total, Counter, "group upstream outcome",                          \
    "Connections through it that were begun, and those of them that it failed.")                   \
  X(braid_egress_upstream_latency_seconds, Gauge, "group upstream",                                \
    "How long connecting through it takes, smoothed.")                                             \
  X(braid_egress_pool_idle_connections, Gauge, "group upstream",                                   \
    "Warm connections to it that wait for a flow.")                                                \
  X(braid_egress_pool_target_connections, Gauge, "group upstream",                                 \
    "Warm connections that there are to be.")                                                      \
  X(braid_egress_pool_taken_total, Counter, "group upstream",                                      \
    "Warm connections that flows have taken.")                                                     \
  X(braid_egress_pool_empty_total, Counter, "group upstream",                                      \
    "Flows that found no warm connection.")                                                        \
  X(braid_egress_pool_expired_total, Counter, "group upstream",                                    \
    "Warm connections that waited too long.")                                                      \
  X(braid_egress_pool_stale_total, Counter, "group upstream",                                      \
    "Warm connections that their server had closed.")

enum class Metric : uint8_t {
#define X(name, type, labels, meaning) name,
  BRAID_METRICS(X)
#undef X
};

struct MetricInfo {
  std::string_view name;
  prometheus::MetricType type;
  std::string_view labels;  // separated by spaces
  std::string_view meaning;
};

inline constexpr MetricInfo kMetrics[] = {
#define X(name, type, labels, meaning) {#name, prometheus::MetricType::type, labels, meaning},
    BRAID_METRICS(X)
#undef X
};

enum class PeerDetail : uint8_t {
  kNone,  // only the sums
  kFew,   // those of kOfEachPeer
  kAll,
};
constexpr PeerDetail DetailFor(size_t configured_peers) {
  if (configured_peers > kMaxPeersByName) return PeerDetail::kNone;
  return configured_peers > kMaxPeersInDetail ? PeerDetail::kFew : PeerDetail::kAll;
}
inline constexpr Metric kOfEachPeer[] = {Metric::braid_peer_established,
                                         Metric::braid_peer_last_handshake_timestamp_seconds,
                                         Metric::braid_peer_bytes_total};
inline constexpr Metric kOfEachUpstream[] = {Metric::braid_egress_upstream_up,
                                             Metric::braid_egress_upstream_breaker_open};

// Those that there is something of now, in the order of kMetrics. A counter begins anew with the
// daemon; those of a path also when another one comes under its name, those of upstreams when their
// group is changed.
std::vector<prometheus::MetricFamily> CollectMetrics(const StatusSources& sources,
                                                     const HealthInputs& health);
// Of a daemon whose tunnel is down: its health and the process.
std::vector<prometheus::MetricFamily> CollectMetrics(const HealthReport& health);
// The text format, version 0.0.4.
std::string RenderMetrics(const std::vector<prometheus::MetricFamily>& families);

}  // namespace braid
