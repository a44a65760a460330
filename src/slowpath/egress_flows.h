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
#include "fastpath/flow_shortcuts.h"
#include "fastpath/mailbox.h"
#include "slowpath/egress_network.h"
#include "slowpath/tcp_dialer.h"
#include "slowpath/upstream_group.h"

namespace braid {

struct EgressFlowsOptions {
  EgressNetwork network;  // whose addresses are the device's already
  std::string device;
  int max_sessions = 0;
  std::unique_ptr<FlowShortcuts> shortcuts;              // null: there are none
  std::vector<WorkerMailbox*> mailboxes;                 // of the workers, by index
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
  // What is under way through others is finished. Returns the rules as workers are to have them:
  // a group's number is never another one's.
  std::vector<EgressRule> SetGroups(Groups groups, std::vector<EgressRule> rules);

  // kTcpBegins, kTcpGone.
  void OnEvent(const Event& event);

  struct Totals {
    uint64_t flows = 0;      // that relays have
    uint64_t under_way = 0;  // not known yet whether they get there
    uint64_t opened = 0, refused = 0, unreachable = 0, timed_out = 0;
    uint64_t up_bytes = 0, down_bytes = 0, reset = 0;
  };
  Totals totals() const;
  const Groups& groups() const { return groups_; }
  bool has_shortcuts() const { return options_.shortcuts != nullptr; }

 private:
  EgressFlows(boost::asio::io_context& io, EgressFlowsOptions options);

  void Begin(const Event& event);
  size_t under_way() const;
  void LetGoOfRetired();
  void OnDialed(const TcpFlowId& flow, bool early, Dialed dialed);
  void Say(const TcpVerdict& verdict);
  bool TrySay(const TcpVerdict& verdict);
  void SayAgain();
  TcpRelay& RelayOf(const TcpFlowId& flow) { return *relays_[flow.worker]; }

  boost::asio::io_context& io_;
  const EgressFlowsOptions options_;
  const size_t sessions_per_worker_;  // of each family
  std::vector<std::unique_ptr<TcpRelay>> relays_;
  TcpDialer dialer_;
  Groups groups_;
  Groups retired_;  // until nothing is under way through them
  absl::flat_hash_map<uint16_t, std::shared_ptr<UpstreamGroup>> groups_by_number_;
  uint16_t last_group_number_ = 0;
  std::deque<TcpVerdict> unsaid_;  // where a mailbox was full
  boost::asio::steady_timer say_again_;
  bool closed_ = false;
  Totals totals_;
};

}  // namespace braid
