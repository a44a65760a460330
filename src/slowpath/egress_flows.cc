#include "slowpath/egress_flows.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace braid {
namespace {

constexpr auto kDialTimeout = std::chrono::seconds(60);
constexpr size_t kMaxUnderWay = 10'000;
constexpr auto kSayAgainAfter = std::chrono::milliseconds(1);

}  // namespace

EgressFlows::EgressFlows(boost::asio::io_context& io, EgressFlowsOptions options)
    : io_(io),
      options_(std::move(options)),
      sessions_per_worker_(
          (static_cast<size_t>(options_.max_sessions) + options_.mailboxes.size() - 1) /
          options_.mailboxes.size()),
      dialer_(io, kDialTimeout),
      say_again_(io) {}

absl::StatusOr<std::unique_ptr<EgressFlows>> EgressFlows::Open(boost::asio::io_context& io,
                                                               EgressFlowsOptions options) {
  std::unique_ptr<EgressFlows> flows(new EgressFlows(io, std::move(options)));
  const EgressFlowsOptions& of = flows->options_;
  for (size_t worker = 0; worker < of.mailboxes.size(); ++worker) {
    TcpRelay::Options relay_options;
    relay_options.index = static_cast<int>(worker);
    relay_options.device = of.device;
    relay_options.max_flows = 2 * static_cast<int>(flows->sessions_per_worker_);  // both families
    for (const EgressNeighbours* neighbours : {&of.network.v4, &of.network.v6}) {
      if (!neighbours->is_set()) continue;
      relay_options.listen.push_back(neighbours->listener);
      relay_options.neighbours.push_back(neighbours->Of(relay_options.index));
    }
    relay_options.on_end = [mailbox = of.mailboxes[worker]](const TcpFlowId& flow) {
      if (!mailbox->verdicts.TryPush({TcpVerdict::Type::kEnd, flow, {}})) return false;
      mailbox->doorbell.Ring();
      return true;
    };
    auto relay = TcpRelay::Listen(std::move(relay_options));
    if (!relay.ok()) return relay.status();
    flows->relays_.push_back(*std::move(relay));
  }
  return flows;
}

EgressFlows::~EgressFlows() { Close(); }

std::vector<EgressOptions> EgressFlows::WorkerOptions() const {
  std::vector<EgressOptions> all;
  for (const auto& relay : relays_) {
    EgressOptions& of = all.emplace_back();
    of.v4 = options_.network.v4;
    of.v6 = options_.network.v6;
    of.v4.listener_port = relay->PortOf(IpAddress::Family::kV4);
    of.v6.listener_port = relay->PortOf(IpAddress::Family::kV6);
    of.max_sessions = sessions_per_worker_;
    of.shortcuts = options_.shortcuts.get();
  }
  return all;
}

void EgressFlows::Start() {
  for (const auto& relay : relays_) relay->Start();
}

void EgressFlows::Close() {
  closed_ = true;
  say_again_.cancel();
  dialer_.Close();
  for (const Groups* groups : {&groups_, &retired_}) {
    for (const auto& group : *groups) group->Close();
  }
  for (const auto& relay : relays_) relay->Stop();
}

void EgressFlows::OnEvent(const Event& event) {
  if (closed_) return;
  if (event.type == Event::Type::kTcpBegins) return Begin(event);
  RelayOf(event.tcp).Reset(event.tcp);
}

absl::StatusOr<EgressFlows::Groups> EgressFlows::OpenGroups(
    const std::vector<UpstreamGroupConfig>& configs) const {
  Groups groups;
  for (const UpstreamGroupConfig& config : configs) {
    auto opened = UpstreamGroup::Open(io_, config, options_.name_servers, options_.on_news);
    if (!opened.ok()) return opened.status();
    const auto same = std::find_if(groups_.begin(), groups_.end(),
                                   [&](const auto& one) { return one->IsSameAs(**opened); });
    groups.push_back(same != groups_.end() ? *same : *std::move(opened));
  }
  return groups;
}

std::vector<EgressRule> EgressFlows::SetGroups(Groups groups, std::vector<EgressRule> rules) {
  const auto has = [](const Groups& among, const std::shared_ptr<UpstreamGroup>& group) {
    return std::find(among.begin(), among.end(), group) != among.end();
  };
  for (const auto& group : groups_) {
    if (!has(groups, group)) retired_.push_back(group);
  }
  for (const auto& group : groups) {
    if (has(groups_, group)) continue;
    while (groups_by_number_.contains(++last_group_number_)) {
    }
    groups_by_number_[last_group_number_] = group;
    group->Start();
  }
  groups_ = std::move(groups);
  LetGoOfRetired();
  for (EgressRule& rule : rules) {
    if (rule.action.to != EgressAction::To::kGroup) continue;
    for (const auto& [number, group] : groups_by_number_) {
      if (group == groups_[rule.action.group]) {
        rule.action.group = number;
        break;
      }
    }
  }
  return rules;
}

void EgressFlows::LetGoOfRetired() {
  std::erase_if(retired_, [this](const std::shared_ptr<UpstreamGroup>& group) {
    if (group->under_way() != 0) return false;
    group->Close();
    absl::erase_if(groups_by_number_, [&](const auto& one) { return one.second == group; });
    return true;
  });
}

size_t EgressFlows::under_way() const {
  size_t all = dialer_.under_way();
  for (const auto& group : groups_) all += group->under_way();
  for (const auto& group : retired_) all += group->under_way();
  return all;
}

void EgressFlows::Begin(const Event& event) {
  const TcpFlowId flow = event.tcp;
  const Endpoint to{event.flow.destination, event.flow.destination_port, 0};
  const bool to_group = event.action.to == EgressAction::To::kGroup;
  if (!retired_.empty()) LetGoOfRetired();
  const auto group =
      to_group ? groups_by_number_.find(event.action.group) : groups_by_number_.end();
  const bool is_gone = to_group && group == groups_by_number_.end();
  if (is_gone || under_way() >= kMaxUnderWay) {
    ++totals_.refused;
    return Say({TcpVerdict::Type::kRefuse, flow, {}});
  }
  const bool early = event.action.early_accept;
  if (early && !RelayOf(flow).Expect(flow, UniqueFd())) {
    ++totals_.refused;
    return Say({TcpVerdict::Type::kRefuse, flow, {}});
  }
  if (early) Say({TcpVerdict::Type::kOpen, flow, {}});
  auto on_dialed = [this, flow, early](Dialed dialed) { OnDialed(flow, early, std::move(dialed)); };
  if (!to_group) return dialer_.Dial(to, std::move(on_dialed));
  group->second->Open({to.address, "", to.port}, std::move(on_dialed));
}

void EgressFlows::OnDialed(const TcpFlowId& flow, bool early, Dialed dialed) {
  TcpVerdict verdict{dialed.verdict, flow, dialed.error};
  TcpRelay& relay = RelayOf(flow);
  const bool opened = verdict.type == TcpVerdict::Type::kOpen &&
                      (early ? relay.Connect(flow, std::move(dialed.far), std::move(dialed.hold))
                             : relay.Expect(flow, std::move(dialed.far), std::move(dialed.hold)));
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
  WorkerMailbox& mailbox = *options_.mailboxes[verdict.flow.worker];
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
  totals.under_way = under_way();
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
