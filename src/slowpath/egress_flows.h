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
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "egress/tcp_relay.h"
#include "fastpath/flow_shortcuts.h"
#include "fastpath/mailbox.h"
#include "slowpath/egress_network.h"
#include "slowpath/tcp_dialer.h"

namespace braid {

class EgressFlows {
 public:
  // The addresses of `network` are the device's already. `mailboxes`: of the workers, by index.
  // `shortcuts`: nullptr where there are none.
  static absl::StatusOr<std::unique_ptr<EgressFlows>> Open(boost::asio::io_context& io,
                                                           const EgressNetwork& network,
                                                           const std::string& device,
                                                           int max_sessions,
                                                           std::unique_ptr<FlowShortcuts> shortcuts,
                                                           std::vector<WorkerMailbox*> mailboxes);
  ~EgressFlows();

  // For the workers, by index.
  std::vector<EgressOptions> WorkerOptions() const;

  void Start();
  // Both ends of every flow are closed, nothing more is told to workers. Before they are destroyed.
  void Close();

  // kTcpBegins, kTcpGone.
  void OnEvent(const Event& event);

  struct Totals {
    uint64_t flows = 0;      // that relays have
    uint64_t under_way = 0;  // not known yet whether they get there
    uint64_t opened = 0, refused = 0, unreachable = 0, timed_out = 0;
    uint64_t up_bytes = 0, down_bytes = 0, reset = 0;
  };
  Totals totals() const;
  bool has_shortcuts() const { return shortcuts_ != nullptr; }

 private:
  EgressFlows(boost::asio::io_context& io, const EgressNetwork& network, int max_sessions,
              std::vector<WorkerMailbox*> mailboxes);

  void Begin(const Event& event);
  void OnDialed(const TcpFlowId& flow, bool early, Dialed dialed);
  void Say(const TcpVerdict& verdict);
  bool TrySay(const TcpVerdict& verdict);
  void SayAgain();
  TcpRelay& RelayOf(const TcpFlowId& flow) { return *relays_[flow.worker]; }

  const EgressNetwork network_;
  std::unique_ptr<FlowShortcuts> shortcuts_;
  const std::vector<WorkerMailbox*> mailboxes_;
  const size_t sessions_per_worker_;  // of each family
  std::vector<std::unique_ptr<TcpRelay>> relays_;
  TcpDialer dialer_;
  std::deque<TcpVerdict> unsaid_;  // where a mailbox was full
  boost::asio::steady_timer say_again_;
  bool closed_ = false;
  Totals totals_;
};

}  // namespace braid
