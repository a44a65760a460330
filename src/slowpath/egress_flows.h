// The slow path's part in TCP flows that leave past the tunnel: for each that a worker tells of it
// finds out whether it gets there, gives the relay its far end, and tells the worker what to say to
// its initiator. Owns the relays, one for each worker.
//
// Lives on the thread of its io_context, which must outlive it; the workers' mailboxes outlive it,
// too.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "egress/tcp_relay.h"
#include "egress/udp_relay.h"
#include "fastpath/flow_shortcuts.h"
#include "fastpath/mailbox.h"
#include "slowpath/dns_forwarder.h"
#include "slowpath/egress_names.h"
#include "slowpath/egress_network.h"
#include "slowpath/tcp_dialer.h"
#include "slowpath/upstream_group.h"

namespace braid {

struct EgressFlowsOptions {
  EgressNetwork network;  // whose addresses are the device's already
  std::string device;
  int max_sessions = 0;
  std::unique_ptr<FlowShortcuts> shortcuts;  // null: there are none
  std::vector<WorkerMailbox*> mailboxes;     // of the workers, by index
  std::vector<int> tun_queues;               // as well
  bool uso = false;                          // what the device and the kernel take
  int max_gso_datagrams = 1;
  size_t max_udp_sessions = 0;
  SlowPathMailbox* slow_path = nullptr;
  std::function<std::vector<IpAddress>()> name_servers;  // for the names of upstreams
  UpstreamGroup::OnNews on_news;
};

class EgressFlows {
 public:
  static absl::StatusOr<std::unique_ptr<EgressFlows>> Open(boost::asio::io_context& io,
                                                           EgressFlowsOptions options);
  ~EgressFlows();

  // For the workers, by index.
  std::vector<EgressOptions> WorkerOptions() const;

  void Start();
  // Both ends of every flow are closed, nothing more is told to workers. Before they are destroyed.
  void Close();

  // The groups of another configuration, to be set in its place; those that are the same stay. An
  // error when a password cannot be read.
  using Groups = std::vector<std::shared_ptr<UpstreamGroup>>;
  absl::StatusOr<Groups> OpenGroups(const std::vector<UpstreamGroupConfig>& configs) const;
  // What is under way through others is finished. Returns the rules as workers are to have them.
  EgressNames::ForWorkers SetConfig(Groups groups, const ProxyConfig& config);
  // The machine's network has changed. Where it is left by another address than before, what was
  // made with that one is of no use: flows are reset, and all else is made anew.
  void OnNetwork();

  // kTcpBegins to kTunnelAnswer.
  static bool Takes(const Event& event);
  void OnEvent(const Event& event);

  struct Totals {
    uint64_t flows = 0;      // that relays have
    uint64_t under_way = 0;  // not known yet whether they get there
    uint64_t opened = 0, refused = 0, unreachable = 0, timed_out = 0;
    uint64_t up_bytes = 0, down_bytes = 0, reset = 0;
    struct {
      uint64_t sessions = 0, begun = 0, refused = 0, expired = 0, evicted = 0;
      uint64_t up_packets = 0, up_bytes = 0, down_packets = 0, down_bytes = 0;
      uint64_t fragments = 0, malformed = 0, too_big = 0, unsent = 0, not_waiting = 0;
    } udp;
  };
  Totals totals() const;
  const Groups& groups() const { return groups_; }
  DnsForwarder::Totals dns_totals() const;
  bool has_shortcuts() const { return options_.shortcuts != nullptr; }

 private:
  EgressFlows(boost::asio::io_context& io, EgressFlowsOptions options);

  absl::Status OpenTcpRelay(int worker);
  void OpenUdpRelay(int worker);
  bool TellSlowPath(Event&& event);
  void Begin(const Event& event);
  void BeginUdp(const Event& event);
  void OnAssociated(const UdpSessionId& session, UpstreamGroup::Association made);
  // A TCP flow of which it is not known yet whether it gets there.
  struct Begun {
    TcpFlowId flow;
    FlowKey key;
    EgressAction action;
    std::string name;           // of its destination, if any is known
    TcpDialer::GiveUp give_up;  // what is under way for it; null: nothing yet
  };
  Begun* Find(const TcpFlowId& flow);
  void GiveUp(const TcpFlowId& flow);
  void Reset(const TcpFlowId& flow);
  void DialAnew();
  void Dial(Begun& begun);
  void OnFirst(const TcpFlowId& flow, const std::string& name);
  UpstreamGroup* GroupOf(const EgressAction& action) const;
  void OpenDns();
  void Ask(const Event& event);
  DnsWays WaysOfDns();
  using Outward = absl::flat_hash_map<IpAddress, IpAddress>;
  Outward AddressesOutward() const;
  void NoteNewOutward();
  bool NoteOutward();
  size_t under_way() const;
  void Retire(const std::shared_ptr<UpstreamGroup>& group);
  void LetGoOfRetired();
  uint16_t NumberOf(const std::shared_ptr<UpstreamGroup>& group) const;
  void OnDialed(const TcpFlowId& flow, Dialed dialed);
  void Say(const TcpVerdict& verdict);
  bool TrySay(const TcpVerdict& verdict);
  void TellRelay(std::function<bool()> tell);
  void SayAgain();
  TcpRelay& RelayOf(const TcpFlowId& flow) { return *relays_[flow.worker]; }

  boost::asio::io_context& io_;
  const EgressFlowsOptions options_;
  const size_t sessions_per_worker_;  // of each family
  std::vector<std::unique_ptr<TcpRelay>> relays_;
  std::vector<std::unique_ptr<UdpRelay>> udp_relays_;
  // The control connection of each, by which a server ends it.
  absl::flat_hash_map<UdpSessionId, std::shared_ptr<Socks5Connection>> associations_;
  TcpDialer dialer_;
  EgressNames names_;
  EgressDnsConfig dns_config_;
  std::unique_ptr<DnsForwarder> dns_;
  absl::flat_hash_map<uint64_t, Begun> begun_;  // by worker and port
  Outward outward_;  // towards whom, and from which address the last time that there was one
  Groups groups_;
  // Until nothing is under way through them, nor about to be.
  struct Retired {
    std::shared_ptr<UpstreamGroup> group;
    TimeNs since_ns = 0;
  };
  std::vector<Retired> retired_;
  boost::asio::steady_timer look_at_retired_;
  absl::flat_hash_map<uint16_t, std::shared_ptr<UpstreamGroup>> groups_by_number_;
  uint16_t last_group_number_ = 0;
  std::deque<TcpVerdict> unsaid_;             // where a mailbox was full
  std::deque<std::function<bool()>> untold_;  // as well, a relay's
  boost::asio::steady_timer say_again_;
  bool closed_ = false;
  Totals totals_;
};

}  // namespace braid
