// A group of SOCKS5 servers through which flows leave: connects for each flow through the one that
// is best for it, and through another where that one fails; looks after the servers' health, and
// keeps connections to them warm. Lives on the thread of its io_context, which must outlive it.
//
//   Open() ─► choose ─► a warm connection, or a new one ─► CONNECT ─► it gets there, or why not
//               ▲                 │
//               └── it failed ────┘
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "absl/status/statusor.h"
#include "egress/upstream_choice.h"
#include "egress/warm_pool.h"
#include "slowpath/config.h"
#include "slowpath/name_resolver.h"
#include "slowpath/socks5_connection.h"
#include "slowpath/tcp_dialer.h"

namespace braid {

class UpstreamGroup {
 public:
  // What happens: "upstream_up", "upstream_down", "breaker_open", "breaker_closed".
  using OnNews = std::function<void(std::string_view type, const nlohmann::ordered_json& data)>;
  using OnDialed = TcpDialer::OnDialed;
  using GiveUp = TcpDialer::GiveUp;

  // A relay of datagrams at an upstream, which lasts as long as `control` does.
  struct Association {
    std::shared_ptr<Socks5Connection> control;  // null: there is none to be had
    Endpoint relay;
    std::shared_ptr<void> hold;
  };
  using OnAssociated = std::function<void(Association)>;

  // Reads the passwords. `name_servers`: whom to ask for the names of servers.
  static absl::StatusOr<std::unique_ptr<UpstreamGroup>> Open(
      boost::asio::io_context& io, const UpstreamGroupConfig& config,
      std::function<std::vector<IpAddress>()> name_servers, OnNews on_news);
  ~UpstreamGroup();

  void Start();
  // Nothing is called after this, and what was made here and is not released is closed.
  void Close();

  // Calls `on_dialed` once, in the loop, later; not after Close().
  GiveUp Open(const Socks5Target& to, OnDialed on_dialed);
  void Associate(OnAssociated on_associated);

  // The network is another one: names are looked up anew, warm connections go, and all is tried
  // again.
  void Reset();

  // --- Read by status and metrics ---

  enum class RelaysDatagrams : uint8_t { kNotKnown, kYes, kNo };
  struct Figures {
    std::string address;
    UpstreamFigures choice;
    RelaysDatagrams relays_datagrams = RelaysDatagrams::kNotKnown;
    std::string trouble;  // what its last check found wrong; empty: nothing
    bool has_pool = false;
    size_t pool_idle = 0, pool_target = 0;
    WarmPoolTotals pool;
  };
  std::vector<Figures> figures() const;
  const UpstreamGroupConfig& config() const { return config_; }
  // Of the servers, as far as they are known.
  std::vector<IpAddress> addresses() const;
  // By configuration and passwords.
  bool IsSameAs(const UpstreamGroup& other) const;
  // Flows that are not known to get there yet.
  size_t under_way() const { return flows_.size(); }

 private:
  using Connection = std::shared_ptr<Socks5Connection>;
  struct Upstream;
  struct Flow;
  using FlowPtr = std::shared_ptr<Flow>;

  UpstreamGroup(boost::asio::io_context& io, const UpstreamGroupConfig& config,
                std::function<std::vector<IpAddress>()> name_servers, OnNews on_news);

  void Begin(const FlowPtr& flow);
  void Try(const FlowPtr& flow);
  void TryFresh(const FlowPtr& flow, bool pipelined);
  void RequestOf(const FlowPtr& flow);
  void OnGreeted(const FlowPtr& flow, const Socks5Outcome& outcome);
  void OnAnswered(const FlowPtr& flow, const Socks5Outcome& outcome);
  void OnUpstreamFailed(const FlowPtr& flow, const Socks5Outcome& outcome);
  void Succeed(const FlowPtr& flow);
  void End(const FlowPtr& flow, Dialed dialed);
  void Abandon(const FlowPtr& flow);
  DurationNs GreetWithin(const Upstream& upstream) const;
  std::shared_ptr<void> HoldOf(Upstream& upstream);

  void Tick();
  void Resolve(size_t index);
  void FillPool(size_t index);
  static void EmptyPool(Upstream& upstream);
  void CheckHealth(size_t index);
  void OnChecked(size_t index, const Connection& connection, const Socks5Outcome& outcome,
                 DurationNs greeted_ns);
  void CheckDatagrams(size_t index);
  void CountEnded();
  void TellOfBreakers();
  nlohmann::ordered_json NewsOf(const Upstream& upstream) const;

  boost::asio::io_context& io_;
  const UpstreamGroupConfig config_;
  const std::function<std::vector<IpAddress>()> name_servers_;
  const OnNews on_news_;
  NameResolver resolver_;
  boost::asio::steady_timer tick_;
  UpstreamChoice choice_;
  std::vector<std::unique_ptr<Upstream>> upstreams_;
  std::unordered_set<FlowPtr> flows_;           // under way
  std::unordered_set<Connection> connections_;  // of checks and of pools, not settled yet
  const std::shared_ptr<bool> closed_ = std::make_shared<bool>(false);
};

}  // namespace braid
