#include "slowpath/egress_flows.h"

#include <chrono>
#include <utility>

namespace braid {
namespace {

constexpr auto kDialTimeout = std::chrono::seconds(60);
constexpr size_t kMaxUnderWay = 10'000;
constexpr auto kSayAgainAfter = std::chrono::milliseconds(1);

}  // namespace

EgressFlows::EgressFlows(boost::asio::io_context& io, const EgressNetwork& network,
                         int max_sessions, std::vector<WorkerMailbox*> mailboxes)
    : network_(network),
      mailboxes_(std::move(mailboxes)),
      sessions_per_worker_((static_cast<size_t>(max_sessions) + mailboxes_.size() - 1) /
                           mailboxes_.size()),
      dialer_(io, kDialTimeout),
      say_again_(io) {}

absl::StatusOr<std::unique_ptr<EgressFlows>> EgressFlows::Open(
    boost::asio::io_context& io, const EgressNetwork& network, const std::string& device,
    int max_sessions, std::unique_ptr<FlowShortcuts> shortcuts,
    std::vector<WorkerMailbox*> mailboxes) {
  std::unique_ptr<EgressFlows> flows(
      new EgressFlows(io, network, max_sessions, std::move(mailboxes)));
  flows->shortcuts_ = std::move(shortcuts);
  for (size_t worker = 0; worker < flows->mailboxes_.size(); ++worker) {
    TcpRelay::Options options;
    options.index = static_cast<int>(worker);
    options.device = device;
    options.max_flows = 2 * static_cast<int>(flows->sessions_per_worker_);  // of both families
    for (const EgressNeighbours* of : {&network.v4, &network.v6}) {
      if (!of->is_set()) continue;
      options.listen.push_back(of->listener);
      options.neighbours.push_back(of->Of(options.index));
    }
    options.on_end = [mailbox = flows->mailboxes_[worker]](const TcpFlowId& flow) {
      if (!mailbox->verdicts.TryPush({TcpVerdict::Type::kEnd, flow, {}})) return false;
      mailbox->doorbell.Ring();
      return true;
    };
    auto relay = TcpRelay::Listen(std::move(options));
    if (!relay.ok()) return relay.status();
    flows->relays_.push_back(*std::move(relay));
  }
  return flows;
}

EgressFlows::~EgressFlows() { Close(); }

std::vector<EgressOptions> EgressFlows::WorkerOptions() const {
  std::vector<EgressOptions> options;
  for (const auto& relay : relays_) {
    EgressOptions& of = options.emplace_back();
    of.v4 = network_.v4;
    of.v6 = network_.v6;
    of.v4.listener_port = relay->PortOf(IpAddress::Family::kV4);
    of.v6.listener_port = relay->PortOf(IpAddress::Family::kV6);
    of.max_sessions = sessions_per_worker_;
    of.shortcuts = shortcuts_.get();
  }
  return options;
}

void EgressFlows::Start() {
  for (const auto& relay : relays_) relay->Start();
}

void EgressFlows::Close() {
  closed_ = true;
  say_again_.cancel();
  dialer_.Close();
  for (const auto& relay : relays_) relay->Stop();
}

void EgressFlows::OnEvent(const Event& event) {
  if (closed_) return;
  if (event.type == Event::Type::kTcpBegins) return Begin(event);
  RelayOf(event.tcp).Reset(event.tcp);
}

void EgressFlows::Begin(const Event& event) {
  const TcpFlowId flow = event.tcp;
  const Endpoint to{event.flow.destination, event.flow.destination_port, 0};
  if (dialer_.under_way() >= kMaxUnderWay) {
    ++totals_.refused;
    return Say({TcpVerdict::Type::kRefuse, flow, {}});
  }
  const bool early = event.action.early_accept;
  if (early && !RelayOf(flow).Expect(flow, UniqueFd())) {
    ++totals_.refused;
    return Say({TcpVerdict::Type::kRefuse, flow, {}});
  }
  if (early) Say({TcpVerdict::Type::kOpen, flow, {}});
  dialer_.Dial(to,
               [this, flow, early](Dialed dialed) { OnDialed(flow, early, std::move(dialed)); });
}

void EgressFlows::OnDialed(const TcpFlowId& flow, bool early, Dialed dialed) {
  TcpVerdict verdict{dialed.verdict, flow, dialed.error};
  TcpRelay& relay = RelayOf(flow);
  const bool opened = verdict.type == TcpVerdict::Type::kOpen &&
                      (early ? relay.Connect(flow, std::move(dialed.far))
                             : relay.Expect(flow, std::move(dialed.far)));
  if (verdict.type == TcpVerdict::Type::kOpen && !opened) verdict.type = TcpVerdict::Type::kRefuse;
  totals_.opened += opened;
  totals_.refused += verdict.type == TcpVerdict::Type::kRefuse;
  totals_.unreachable += verdict.type == TcpVerdict::Type::kUnreachable;
  totals_.timed_out += verdict.type == TcpVerdict::Type::kForget;
  if (!early) return Say(verdict);
  if (!opened) relay.Reset(flow);
}

// In their order, so none overtakes one that waits.
void EgressFlows::Say(const TcpVerdict& verdict) {
  if (unsaid_.empty() && TrySay(verdict)) return;
  unsaid_.push_back(verdict);
  if (unsaid_.size() == 1) SayAgain();
}

bool EgressFlows::TrySay(const TcpVerdict& verdict) {
  WorkerMailbox& mailbox = *mailboxes_[verdict.flow.worker];
  if (!mailbox.verdicts.TryPush(TcpVerdict(verdict))) return false;
  mailbox.doorbell.Ring();
  return true;
}

void EgressFlows::SayAgain() {
  say_again_.expires_after(kSayAgainAfter);
  say_again_.async_wait([this](const boost::system::error_code& error) {
    if (error || closed_) return;
    while (!unsaid_.empty() && TrySay(unsaid_.front())) unsaid_.pop_front();
    if (!unsaid_.empty()) SayAgain();
  });
}

EgressFlows::Totals EgressFlows::totals() const {
  Totals totals = totals_;
  totals.under_way = dialer_.under_way();
  for (const auto& relay : relays_) {
    const TcpRelay::Totals& of = relay->totals();
    totals.flows += of.flows.load(std::memory_order_relaxed);
    totals.up_bytes += of.up_bytes.Get();
    totals.down_bytes += of.down_bytes.Get();
    totals.reset += of.reset.Get();
  }
  return totals;
}

}  // namespace braid
