#include "slowpath/egress_flows.h"

#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/udp.h"
#include "slowpath/net_setup.h"

namespace braid {
namespace {

constexpr auto kDialTimeout = std::chrono::seconds(60);
// More than workers hold, who know which one is to make room.
constexpr size_t kMaxUnderWay = 16'000;
// Of no machine (RFC 5737, RFC 3849): what leads there is the way in general.
constexpr const char* kSomewhere[] = {"192.0.2.1", "2001:db8::1"};
constexpr uint16_t kAnyPort = 9;
constexpr int kUdpBufferBytes = 1 << 20;
constexpr auto kSayAgainAfter = std::chrono::milliseconds(1);
// Workers may have told of flows for a group by rules from before.
constexpr auto kLookAtRetiredEvery = std::chrono::seconds(1);
constexpr DurationNs kRetiredAtLeastNs = 2 * kSecondNs;

uint64_t KeyOf(const TcpFlowId& flow) {
  return uint64_t{flow.worker} << 32 | uint64_t{flow.v6} << 16 | flow.port;
}

// Speaks with the server's relay, from the address that has asked for it.
UniqueFd OpenRelayedUdp(const UpstreamGroup::Association& of) {
  const IpAddress local = of.control->local().address;
  const bool is_of_its_family = local.family == of.relay.address.family;
  UniqueFd fd = ConnectUdp(of.relay, is_of_its_family ? local : IpAddress());
  if (!fd) return fd;
  const int on = 1;
  setsockopt(fd.get(), SOL_UDP, UDP_GRO, &on, sizeof(on));
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kUdpBufferBytes, sizeof(kUdpBufferBytes));
  return fd;
}

}  // namespace

EgressFlows::EgressFlows(boost::asio::io_context& io, EgressFlowsOptions options)
    : io_(io),
      options_(std::move(options)),
      sessions_per_worker_(
          (static_cast<size_t>(options_.max_sessions) + options_.mailboxes.size() - 1) /
          options_.mailboxes.size()),
      dialer_(io, kDialTimeout),
      look_at_retired_(io),
      say_again_(io) {}

absl::StatusOr<std::unique_ptr<EgressFlows>> EgressFlows::Open(boost::asio::io_context& io,
                                                               EgressFlowsOptions options) {
  std::unique_ptr<EgressFlows> flows(new EgressFlows(io, std::move(options)));
  for (int worker = 0; worker < static_cast<int>(flows->options_.mailboxes.size()); ++worker) {
    if (absl::Status status = flows->OpenTcpRelay(worker); !status.ok()) return status;
    flows->OpenUdpRelay(worker);
  }
  return flows;
}

absl::Status EgressFlows::OpenTcpRelay(int worker) {
  WorkerMailbox* const mailbox = options_.mailboxes[static_cast<size_t>(worker)];
  TcpRelay::Options options;
  options.index = worker;
  options.device = options_.device;
  options.max_flows = 2 * static_cast<int>(sessions_per_worker_);  // of both families
  for (const EgressNeighbours* neighbours : {&options_.network.v4, &options_.network.v6}) {
    if (!neighbours->is_set()) continue;
    options.listen.push_back(neighbours->listener);
    options.neighbours.push_back(neighbours->Of(worker));
  }
  options.on_end = [mailbox](const TcpFlowId& flow) {
    if (!mailbox->verdicts.TryPush({TcpVerdict::Type::kEnd, flow, {}})) return false;
    mailbox->doorbell.Ring();
    return true;
  };
  options.on_first = [this](const TcpFlowId& flow, const std::string& name) {
    Event event;
    event.type = Event::Type::kTcpFirst;
    event.tcp = flow;
    event.SetText(name);
    return TellSlowPath(std::move(event));
  };
  auto relay = TcpRelay::Listen(std::move(options));
  if (relay.ok()) relays_.push_back(*std::move(relay));
  return relay.status();
}

void EgressFlows::OpenUdpRelay(int worker) {
  const size_t workers = options_.mailboxes.size();
  UdpRelay::Options options;
  options.index = worker;
  options.workers = static_cast<int>(workers);
  options.tun_fd = options_.tun_queues[static_cast<size_t>(worker)];
  options.uso = options_.uso;
  options.max_gso_datagrams = options_.max_gso_datagrams;
  options.max_sessions = (options_.max_udp_sessions + workers - 1) / workers;
  options.calls.on_begin = [this](const UdpSessionId& session, const EgressAction& action) {
    Event event;
    event.type = Event::Type::kUdpBegins;
    event.udp = session;
    event.action = action;
    return TellSlowPath(std::move(event));
  };
  options.calls.on_end = [this](const UdpSessionId& session) {
    Event event;
    event.type = Event::Type::kUdpGone;
    event.udp = session;
    return TellSlowPath(std::move(event));
  };
  options.calls.on_query = [this](const FlowKey& flow, const EgressAction& action, Bytes query) {
    static_assert(UdpRelay::kMaxQueryBytes <= Event::kMaxDatagramBytes);
    if (options_.slow_path->events.ApproximateSize() > kMostDnsEvents) return false;
    Event event;
    event.type = Event::Type::kDnsQuery;
    event.flow = flow;
    event.action = action;
    event.length = static_cast<uint16_t>(query.size());
    std::copy(query.begin(), query.end(), event.bytes.begin());
    return TellSlowPath(std::move(event));
  };
  udp_relays_.push_back(std::make_unique<UdpRelay>(std::move(options)));
}

// On a relay's thread.
bool EgressFlows::TellSlowPath(Event&& event) {
  if (!options_.slow_path->events.TryPush(std::move(event))) return false;
  options_.slow_path->doorbell.Ring();
  return true;
}

EgressFlows::~EgressFlows() { Close(); }

std::vector<EgressOptions> EgressFlows::WorkerOptions() const {
  std::vector<EgressOptions> all;
  for (size_t worker = 0; worker < relays_.size(); ++worker) {
    const auto& relay = relays_[worker];
    EgressOptions& of = all.emplace_back();
    for (const auto& udp : udp_relays_) of.datagrams.push_back(&udp->datagrams());
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
  for (const auto& relay : udp_relays_) relay->Start();
}

void EgressFlows::Close() {
  closed_ = true;
  say_again_.cancel();
  look_at_retired_.cancel();
  dialer_.Close();
  for (const auto& group : groups_) group->Close();
  for (const Retired& retired : retired_) retired.group->Close();
  if (dns_) dns_->Close();
  begun_.clear();
  for (const auto& [session, control] : std::exchange(associations_, {})) control->Close();
  for (const auto& relay : relays_) relay->BeginStop();
  for (const auto& relay : relays_) relay->Stop();
  for (const auto& relay : udp_relays_) relay->Stop();
}

bool EgressFlows::Takes(const Event& event) {
  return event.type >= Event::Type::kTcpBegins && event.type <= Event::Type::kTunnelAnswer;
}

void EgressFlows::OnEvent(const Event& event) {
  if (closed_) return;
  switch (event.type) {
    case Event::Type::kTcpBegins:
      return Begin(event);
    case Event::Type::kTcpGone:
      if (const Begun* const begun = Find(event.tcp)) {
        const bool is_accepted = begun->action.early_accept;
        GiveUp(event.tcp);
        if (!is_accepted) return;  // the relay does not know of it
      }
      return Reset(event.tcp);
    case Event::Type::kTcpFirst:
      return OnFirst(event.tcp, event.Text());
    case Event::Type::kDnsQuery:
      return Ask(event);
    case Event::Type::kTunnelQuery:
      return names_.OnTunnelQuery(event.flow, {event.bytes.data(), event.length});
    case Event::Type::kTunnelAnswer:
      return names_.OnTunnelAnswer(event.flow, {event.bytes.data(), event.length});
    case Event::Type::kUdpBegins:
      return BeginUdp(event);
    case Event::Type::kUdpGone:
      if (auto control = associations_.extract(event.udp)) control.mapped()->Close();
      return;
    default:
      return;
  }
}

// --- Groups ---

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

EgressNames::ForWorkers EgressFlows::SetConfig(Groups groups, const ProxyConfig& config) {
  const auto has = [](const Groups& among, const std::shared_ptr<UpstreamGroup>& group) {
    return std::find(among.begin(), among.end(), group) != among.end();
  };
  for (const auto& group : groups_) {
    if (!has(groups, group)) Retire(group);
  }
  for (const auto& group : groups) {
    if (has(groups_, group)) continue;
    while (groups_by_number_.contains(++last_group_number_)) {
    }
    groups_by_number_[last_group_number_] = group;
    group->Start();
  }
  groups_ = std::move(groups);
  const bool is_other_dns = dns_config_ != config.dns;
  dns_config_ = config.dns;
  if (dns_ == nullptr || is_other_dns) OpenDns();
  NoteNewOutward();
  // A group is known to workers by a number that is never another one's.
  std::vector<EgressRule> rules = config.rules;
  for (EgressRule& rule : rules) {
    if (rule.action.to != EgressAction::To::kGroup) continue;
    rule.action.group = NumberOf(groups_[rule.action.group]);
  }
  const bool do_groups_ask = std::any_of(groups_.begin(), groups_.end(),
                                         [](const auto& one) { return one->config().names; });
  return names_.SetRules(std::move(rules), do_groups_ask);
}

uint16_t EgressFlows::NumberOf(const std::shared_ptr<UpstreamGroup>& group) const {
  return std::find_if(groups_by_number_.begin(), groups_by_number_.end(),
                      [&](const auto& one) { return one.second == group; })
      ->first;
}

UpstreamGroup* EgressFlows::GroupOf(const EgressAction& action) const {
  const auto found = groups_by_number_.find(action.group);
  return found == groups_by_number_.end() ? nullptr : found->second.get();
}

void EgressFlows::Retire(const std::shared_ptr<UpstreamGroup>& group) {
  retired_.push_back({group, MonotonicNowNs()});
  if (retired_.size() == 1) LetGoOfRetired();
}

void EgressFlows::LetGoOfRetired() {
  std::erase_if(retired_, [this](const Retired& retired) {
    const bool is_new = MonotonicNowNs() - retired.since_ns < kRetiredAtLeastNs;
    if (is_new || retired.group->under_way() != 0) return false;
    retired.group->Close();
    absl::erase_if(groups_by_number_, [&](const auto& one) { return one.second == retired.group; });
    return true;
  });
  if (retired_.empty()) return;
  look_at_retired_.expires_after(kLookAtRetiredEvery);
  look_at_retired_.async_wait([this](const boost::system::error_code& error) {
    if (!error && !closed_) LetGoOfRetired();
  });
}

size_t EgressFlows::under_way() const {
  size_t all = dialer_.under_way();
  for (const auto& group : groups_) all += group->under_way();
  for (const Retired& retired : retired_) all += retired.group->under_way();
  return all;
}

// --- TCP ---

void EgressFlows::Begin(const Event& event) {
  const TcpFlowId flow = event.tcp;
  const auto refuse = [&] {
    ++totals_.refused;
    Say({TcpVerdict::Type::kRefuse, flow, {}});
  };
  if (under_way() >= kMaxUnderWay) return refuse();
  Begun begun{flow, event.flow, event.action,
              names_.NameOf(event.flow.source, event.flow.destination), nullptr};
  // What it says first may name where it wants to, where nothing else has.
  const bool looks = begun.action.early_accept && names_.do_names_matter() && begun.name.empty();
  if (begun.action.early_accept) {
    TcpRelay& relay = RelayOf(flow);
    if (!(looks ? relay.ExpectFirst(flow) : relay.Expect(flow, UniqueFd()))) return refuse();
    Say({TcpVerdict::Type::kOpen, flow, {}});
  }
  // Of one that had this port before, nobody has told that it is gone, for want of room.
  if (const auto before = begun_.find(KeyOf(flow)); before != begun_.end()) {
    GiveUp(before->second.flow);
  }
  Begun& added = begun_[KeyOf(flow)] = std::move(begun);
  if (!looks) Dial(added);
}

EgressFlows::Begun* EgressFlows::Find(const TcpFlowId& flow) {
  const auto found = begun_.find(KeyOf(flow));
  return found != begun_.end() && found->second.flow == flow ? &found->second : nullptr;
}

void EgressFlows::GiveUp(const TcpFlowId& flow) {
  const Begun* const begun = Find(flow);
  if (begun == nullptr) return;
  if (begun->give_up) begun->give_up();
  begun_.erase(KeyOf(flow));
}

void EgressFlows::OnFirst(const TcpFlowId& flow, const std::string& name) {
  Begun* const begun = Find(flow);
  if (begun == nullptr) return;
  if (!name.empty()) {
    begun->name = name;
    const EgressRules& rules = names_.rules();
    const size_t rule = rules.Find(begun->key, rules.NamesSatisfy(name));
    // It is accepted already, so the tunnel is no way any more: it stays with what it had.
    const bool is_for_tunnel =
        rule == EgressRules::kNoRule || rules.rule(rule).action.to == EgressAction::To::kTunnel;
    if (!is_for_tunnel) begun->action = rules.rule(rule).action;
  }
  if (begun->action.to == EgressAction::To::kBlock) {
    ++totals_.refused;
    begun_.erase(KeyOf(flow));
    return Reset(flow);
  }
  begun->action.early_accept = true;
  Dial(*begun);
}

void EgressFlows::Dial(Begun& begun) {
  const Endpoint wanted{begun.key.destination, begun.key.destination_port, 0};
  const Endpoint to = wanted.port == kDnsPort ? dns_->first_server().value_or(wanted) : wanted;
  auto on_dialed = [this, flow = begun.flow](Dialed dialed) { OnDialed(flow, std::move(dialed)); };
  if (begun.action.to != EgressAction::To::kGroup) {
    begun.give_up = dialer_.Dial(to, std::move(on_dialed));
    return;
  }
  UpstreamGroup* const group = GroupOf(begun.action);
  if (group == nullptr) return on_dialed(Dialed::Not(TcpVerdict::Type::kRefuse));
  const bool by_name = group->config().names && !begun.name.empty() && to == wanted;
  Socks5Target target{to.address, "", to.port};
  if (by_name) target = {{}, begun.name, to.port};
  begun.give_up = group->Open(target, std::move(on_dialed));
}

void EgressFlows::OnDialed(const TcpFlowId& flow, Dialed dialed) {
  const Begun* const begun = Find(flow);
  if (begun == nullptr) return;
  const bool early = begun->action.early_accept;
  begun_.erase(KeyOf(flow));
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
  if (!opened) Reset(flow);
}

void EgressFlows::Reset(const TcpFlowId& flow) {
  TellRelay([this, flow] { return RelayOf(flow).Reset(flow); });
}

// From another address, or by other servers.
void EgressFlows::DialAnew() {
  std::vector<TcpFlowId> dialing;
  for (const auto& [key, begun] : begun_) {
    if (begun.give_up) dialing.push_back(begun.flow);
  }
  for (const TcpFlowId& flow : dialing) {
    Begun* const begun = Find(flow);
    if (begun == nullptr) continue;
    std::exchange(begun->give_up, nullptr)();
    Dial(*begun);
  }
}

// --- UDP ---

void EgressFlows::BeginUdp(const Event& event) {
  const UdpSessionId session = event.udp;
  UpstreamGroup* const group = GroupOf(event.action);
  if (group == nullptr || under_way() >= kMaxUnderWay) {
    return TellRelay(
        [relay = udp_relays_[session.relay].get(), session] { return relay->Refuse(session); });
  }
  group->Associate(
      [this, session](UpstreamGroup::Association made) { OnAssociated(session, std::move(made)); });
}

void EgressFlows::OnAssociated(const UdpSessionId& session, UpstreamGroup::Association made) {
  UdpRelay& relay = *udp_relays_[session.relay];
  UniqueFd socket = made.control ? OpenRelayedUdp(made) : UniqueFd();
  if (!socket || !relay.Open(session, std::move(socket), std::move(made.hold))) {
    if (made.control) made.control->Close();
    return TellRelay([&relay, session] { return relay.Refuse(session); });
  }
  associations_[session] = made.control;
  made.control->WatchForEnd([this, session] {
    if (!associations_.contains(session)) return;
    // Which tells that it is gone.
    TellRelay([relay = udp_relays_[session.relay].get(), session] { return relay->End(session); });
  });
}

// --- DNS ---

void EgressFlows::OpenDns() {
  DnsForwarder::Options options;
  options.servers = dns_config_.servers;
  if (!dns_config_.cache) options.cache.reset();
  options.timeout_ns = static_cast<DurationNs>(dns_config_.timeout_s) * kSecondNs;
  options.ways = WaysOfDns();
  options.on_answer = [this](const Endpoint& client, const Endpoint& server,
                             std::vector<uint8_t> answer) {
    // Any relay writes to the device; it need not be the one that has read the query.
    udp_relays_.front()->Answer(server, client, std::move(answer));
  };
  options.on_learned = [this](const IpAddress& client, const DnsAddress& one) {
    names_.Learn(client, one.name, one.address, one.ttl_s);
  };
  if (dns_) dns_->Close();
  dns_ = std::make_unique<DnsForwarder>(io_, std::move(options));
}

DnsWays EgressFlows::WaysOfDns() {
  DnsWays ways;
  ways.connect = [this](const EgressAction& by, const Endpoint& server, TcpDialer::OnDialed done) {
    if (by.to != EgressAction::To::kGroup) {
      dialer_.Dial(server, std::move(done));
    } else if (UpstreamGroup* const group = GroupOf(by)) {
      group->Open({server.address, "", server.port}, std::move(done));
    } else {
      boost::asio::post(io_,
                        [done = std::move(done)] { done(Dialed::Not(TcpVerdict::Type::kRefuse)); });
    }
  };
  ways.associate = [this](const EgressAction& by, UpstreamGroup::OnAssociated done) {
    if (UpstreamGroup* const group = GroupOf(by)) return group->Associate(std::move(done));
    boost::asio::post(io_, [done = std::move(done)] { done({}); });
  };
  return ways;
}

void EgressFlows::Ask(const Event& event) {
  const FlowKey& flow = event.flow;
  dns_->Ask({flow.source, flow.source_port, 0}, {flow.destination, flow.destination_port, 0},
            event.action, {event.bytes.data(), event.length});
}

DnsForwarder::Totals EgressFlows::dns_totals() const {
  return dns_ ? dns_->totals() : DnsForwarder::Totals();
}

// --- The network ---

// By which this machine is left: in general, and towards each upstream; as far as there is a way.
EgressFlows::Outward EgressFlows::AddressesOutward() const {
  Outward addresses;
  const auto add = [&](const IpAddress& towards) {
    const IpAddress from = LocalAddressTowards({towards, kAnyPort, 0}, {}, "");
    if (from.is_set()) addresses[towards] = from;
  };
  for (const char* somewhere : kSomewhere) add(*IpAddress::Parse(somewhere));
  for (const auto& group : groups_) {
    for (const IpAddress& upstream : group->addresses()) add(upstream);
  }
  return addresses;
}

// What has changed since the last look is still to be found by OnNetwork().
void EgressFlows::NoteNewOutward() {
  Outward now = AddressesOutward();
  for (auto& [towards, from] : now) {
    const auto known = outward_.find(towards);
    if (known != outward_.end()) from = known->second;
  }
  outward_ = std::move(now);
}

// True when one of them is another one than before. A way that is gone may come back as it was;
// only another one makes what there is useless.
bool EgressFlows::NoteOutward() {
  bool is_another = false;
  for (const auto& [towards, from] : AddressesOutward()) {
    IpAddress& before = outward_[towards];
    is_another |= before.is_set() && before != from;
    before = from;
  }
  return is_another;
}

void EgressFlows::OnNetwork() {
  if (closed_ || !NoteOutward()) return;
  options_.on_news("egress_reset", {});
  for (const auto& relay : relays_) {
    TellRelay([relay = relay.get()] { return relay->ResetAll(); });
  }
  for (const auto& relay : udp_relays_) {
    TellRelay([relay = relay.get()] { return relay->EndAll(); });
  }
  for (const auto& group : groups_) group->Reset();
  for (const Retired& retired : retired_) retired.group->Reset();
  DialAnew();
  dns_->Reset();
}

// --- Verdicts ---

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

// What a relay has no room for now.
void EgressFlows::TellRelay(std::function<bool()> tell) {
  if (untold_.empty() && tell()) return;
  untold_.push_back(std::move(tell));
  if (untold_.size() == 1) SayAgain();
}

void EgressFlows::SayAgain() {
  say_again_.expires_after(kSayAgainAfter);
  say_again_.async_wait([this](const boost::system::error_code& error) {
    if (error || closed_) return;
    while (!unsaid_.empty() && TrySay(unsaid_.front())) unsaid_.pop_front();
    while (!untold_.empty() && untold_.front()()) untold_.pop_front();
    if (!unsaid_.empty() || !untold_.empty()) SayAgain();
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
  for (const auto& relay : udp_relays_) {
    const UdpRelay::Totals& of = relay->totals();
    auto& udp = totals.udp;
    udp.sessions += of.sessions.load(std::memory_order_relaxed);
    udp.begun += of.begun.Get();
    udp.refused += of.refused.Get();
    udp.expired += of.expired.Get();
    udp.evicted += of.evicted.Get();
    udp.up_packets += of.up_packets.Get();
    udp.up_bytes += of.up_bytes.Get();
    udp.down_packets += of.down_packets.Get();
    udp.down_bytes += of.down_bytes.Get();
    udp.fragments += of.fragments.Get();
    udp.malformed += of.malformed.Get();
    udp.too_big += of.too_big.Get();
    udp.unsent += of.unsent.Get();
    udp.not_waiting += of.not_waiting.Get();
  }
  return totals;
}

}  // namespace braid
