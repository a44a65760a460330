#include "slowpath/upstream_group.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "slowpath/config_proxy.h"
#include "slowpath/path_commands.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Json = nlohmann::ordered_json;

constexpr auto kTickEvery = std::chrono::milliseconds(500);
// A flow is tried for so long in all; as long as a program would itself.
constexpr DurationNs kFlowWithinNs = 60 * kSecondNs;
// An upstream is given so long to be reached and to greet; less where another one could have the
// flow, and it has been faster.
constexpr DurationNs kGreetWithinNs = 5 * kSecondNs;
constexpr DurationNs kLeastGreetWithinNs = 700 * kMillisecondNs;
constexpr uint64_t kGreetLatencies = 4;
constexpr size_t kPoolOpensAtOnce = 32;
constexpr DurationNs kPoolRetryNs = kSecondNs;
constexpr DurationNs kMaxPoolRetryNs = 30 * kSecondNs;
constexpr DurationNs kLookForStaleEveryNs = 2 * kSecondNs;
// One whose breaker is open may work again at any time.
constexpr DurationNs kCheckOpenEveryNs = kSecondNs;
// Names are looked up anew while nothing of them works.
constexpr DurationNs kResolveAgainNs = 5 * kSecondNs;

// Of the target, not of the upstream: another one would hardly say something else.
enum Reply : uint8_t {
  kGeneralFailure = 1,
  kNotAllowed = 2,
  kNetworkUnreachable = 3,
  kHostUnreachable = 4,
  kConnectionRefused = 5,
  kTtlExpired = 6,
  kCommandNotSupported = 7,
  kAddressTypeNotSupported = 8,
};

Dialed NotDialedByReply(uint8_t reply) {
  const auto unreachable = [](IcmpError::What error) {
    return Dialed::Not(TcpVerdict::Type::kUnreachable, error);
  };
  switch (reply) {
    case kNotAllowed:
      return unreachable(IcmpError::What::kProhibited);
    case kNetworkUnreachable:
    case kAddressTypeNotSupported:
      return unreachable(IcmpError::What::kNoNetwork);
    case kHostUnreachable:
      return unreachable(IcmpError::What::kNoHost);
    case kTtlExpired:
      return Dialed::Not(TcpVerdict::Type::kForget);
    default:
      return Dialed::Not(TcpVerdict::Type::kRefuse);
  }
}

// "General failure" says nothing of whose it is, and what one server cannot address another may.
bool MayAnotherDoBetter(uint8_t reply) {
  return reply == kGeneralFailure || reply == kAddressTypeNotSupported;
}

// This machine had no descriptor, port or memory for it.
bool IsOwnTrouble(const Socks5Outcome& outcome) {
  if (outcome.what != Socks5Outcome::What::kNotConnected) return false;
  constexpr int kErrors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL, EADDRINUSE};
  return std::find(std::begin(kErrors), std::end(kErrors), outcome.error_number) !=
         std::end(kErrors);
}

bool SaysSomethingOfUpstream(const Socks5Outcome& outcome) {
  return outcome.what != Socks5Outcome::What::kFailed || outcome.failure != Socks5Failure::kReply;
}

std::vector<int> WeightsOf(const UpstreamGroupConfig& config) {
  std::vector<int> weights;
  for (const UpstreamConfig& upstream : config.upstreams) weights.push_back(upstream.weight);
  return weights;
}

}  // namespace

struct UpstreamGroup::Upstream {
  size_t index = 0;
  UpstreamConfig config;
  std::unique_ptr<Socks5Credentials> credentials;  // null: none
  std::vector<Endpoint> endpoints;                 // that its name has; empty: not known yet
  size_t endpoint = 0;                             // which is used
  bool is_resolving = false;
  TimeNs resolve_at_ns = 0;
  bool can_pipeline = true;  // as far as known
  std::optional<WarmPool<Connection>> pool;
  DurationNs pool_retry_ns = kPoolRetryNs;
  TimeNs pool_again_ns = 0;
  TimeNs look_for_stale_ns = 0;
  bool is_checking = false;
  TimeNs checked_ns = 0;  // 0: not yet
  bool is_up = true;
  RelaysDatagrams relays_datagrams = RelaysDatagrams::kNotKnown;
  std::string trouble;
  CircuitBreaker::State breaker = CircuitBreaker::State::kClosed;  // as was told
  // Connections that have ended, told by whoever had them last.
  std::shared_ptr<std::atomic<uint64_t>> ended = std::make_shared<std::atomic<uint64_t>>(0);

  Endpoint address() const { return endpoints[endpoint % endpoints.size()]; }
  const Socks5Credentials* login() const { return credentials.get(); }
};

struct UpstreamGroup::Flow {
  Socks5Command command = Socks5Command::kConnect;
  Socks5Target to;
  std::function<void(Connection, std::shared_ptr<void> hold, Dialed)> done;
  UpstreamChoice::Set tried;
  UpstreamChoice::Attempt attempt;
  size_t index = 0;
  Connection connection;
  bool is_warm = false;  // the connection had waited in the pool
  bool is_pipelined = false;
  TimeNs begun_ns = 0;
  TimeNs attempt_ns = 0;
  Dialed failure = Dialed::Not(TcpVerdict::Type::kRefuse);  // so far

  DurationNs left_ns() const {
    const DurationNs spent = MonotonicNowNs() - begun_ns;
    return spent < kFlowWithinNs ? kFlowWithinNs - spent : kMillisecondNs;
  }
};

UpstreamGroup::UpstreamGroup(asio::io_context& io, const UpstreamGroupConfig& config,
                             std::function<std::vector<IpAddress>()> name_servers, OnNews on_news)
    : io_(io),
      config_(config),
      name_servers_(std::move(name_servers)),
      on_news_(std::move(on_news)),
      resolver_(io),
      tick_(io),
      choice_(config.choice, WeightsOf(config)) {}

absl::StatusOr<std::unique_ptr<UpstreamGroup>> UpstreamGroup::Open(
    asio::io_context& io, const UpstreamGroupConfig& config,
    std::function<std::vector<IpAddress>()> name_servers, OnNews on_news) {
  std::unique_ptr<UpstreamGroup> group(
      new UpstreamGroup(io, config, std::move(name_servers), std::move(on_news)));
  for (const UpstreamConfig& of : config.upstreams) {
    auto upstream = std::make_unique<Upstream>();
    upstream->index = group->upstreams_.size();
    upstream->config = of;
    if (!of.username.empty()) {
      auto password = ReadPasswordFile(of.password_file);
      if (!password.ok()) return password.status();
      upstream->credentials =
          std::make_unique<Socks5Credentials>(Socks5Credentials{of.username, *std::move(password)});
    }
    if (of.address.address.is_set()) {
      upstream->endpoints.push_back({of.address.address, of.address.port, 0});
    }
    if (config.pool) upstream->pool.emplace(*config.pool, MonotonicNowNs());
    group->upstreams_.push_back(std::move(upstream));
  }
  return group;
}

UpstreamGroup::~UpstreamGroup() { Close(); }

void UpstreamGroup::Start() { Tick(); }

bool UpstreamGroup::IsSameAs(const UpstreamGroup& other) const {
  const auto password = [](const Upstream& of) {
    return of.credentials ? of.credentials->password : std::string();
  };
  return config_ == other.config_ &&
         std::equal(upstreams_.begin(), upstreams_.end(), other.upstreams_.begin(),
                    [&](const auto& one, const auto& another) {
                      return password(*one) == password(*another);
                    });
}

void UpstreamGroup::Close() {
  *closed_ = true;
  tick_.cancel();
  resolver_.Close();
  for (const FlowPtr& flow : std::exchange(flows_, {})) {
    if (flow->connection) flow->connection->Close();
  }
  for (const Connection& connection : std::exchange(connections_, {})) connection->Close();
  for (const auto& upstream : upstreams_) EmptyPool(*upstream);
}

// --- Flows ---

UpstreamGroup::GiveUp UpstreamGroup::Open(const Socks5Target& to, OnDialed on_dialed) {
  auto flow = std::make_shared<Flow>();
  flow->to = to;
  flow->done = [on_dialed = std::move(on_dialed)](const Connection& connection,
                                                  std::shared_ptr<void> hold, Dialed failure) {
    if (connection == nullptr) return on_dialed(std::move(failure));
    on_dialed({connection->Release(), std::move(hold), TcpVerdict::Type::kOpen, {}});
  };
  Begin(flow);
  return [this, closed = closed_, given_up = std::weak_ptr<Flow>(flow)] {
    const FlowPtr still = given_up.lock();
    if (still && !*closed) Abandon(still);
  };
}

void UpstreamGroup::Associate(OnAssociated on_associated) {
  auto flow = std::make_shared<Flow>();
  flow->command = Socks5Command::kUdpAssociate;
  for (const auto& upstream : upstreams_) {
    if (upstream->relays_datagrams == RelaysDatagrams::kNo) flow->tried.set(upstream->index);
  }
  flow->done = [on_associated = std::move(on_associated)](
                   const Connection& connection, std::shared_ptr<void> hold, const Dialed&) {
    Association made;
    if (connection != nullptr) {
      made.relay = connection->relay();
      made.control = connection;
      made.hold = std::move(hold);
    }
    on_associated(std::move(made));
  };
  Begin(flow);
}

void UpstreamGroup::Begin(const FlowPtr& flow) {
  flow->begun_ns = MonotonicNowNs();
  flows_.insert(flow);
  asio::post(io_, [this, closed = closed_, flow] {
    if (!*closed && flows_.contains(flow)) Try(flow);
  });
}

void UpstreamGroup::Try(const FlowPtr& flow) {
  const TimeNs now_ns = MonotonicNowNs();
  CountEnded();
  for (const auto& upstream : upstreams_) {
    if (upstream->endpoints.empty()) flow->tried.set(upstream->index);
  }
  const bool is_late = now_ns - flow->begun_ns >= kFlowWithinNs;
  const auto index = is_late ? std::nullopt : choice_.Choose(now_ns, flow->tried);
  if (!index) return End(flow, std::move(flow->failure));
  flow->tried.set(*index);
  flow->index = *index;
  flow->attempt = choice_.OnBegin(*index, now_ns);
  flow->attempt_ns = now_ns;
  Upstream& upstream = *upstreams_[*index];
  while (upstream.pool) {
    auto warm = upstream.pool->Take(now_ns);
    if (!warm) break;
    if ((*warm)->IsStale()) {
      (*warm)->Close();
      continue;
    }
    flow->connection = *std::move(warm);
    flow->is_warm = true;
    flow->is_pipelined = false;
    RequestOf(flow);
    return FillPool(*index);
  }
  // A trial is to make room for the next one once it has been greeted.
  const bool is_trial = flow->attempt.is_trial;
  TryFresh(flow, config_.pipelined && upstream.can_pipeline && !is_trial);
}

void UpstreamGroup::TryFresh(const FlowPtr& flow, bool pipelined) {
  const Upstream& upstream = *upstreams_[flow->index];
  using Mode = Socks5Connection::Mode;
  flow->is_warm = false;
  flow->is_pipelined = pipelined;
  flow->connection =
      Socks5Connection::Make(io_, upstream.login(), pipelined ? Mode::kPipelined : Mode::kInTurn);
  if (pipelined) flow->connection->Prepare(flow->command, flow->to);
  flow->connection->Greet(
      upstream.address(), GreetWithin(upstream),
      [this, closed = closed_, flow](const Socks5Outcome& outcome) {
        if (!*closed) OnGreeted(flow, outcome);
      },
      flow->left_ns());
}

DurationNs UpstreamGroup::GreetWithin(const Upstream& upstream) const {
  const DurationNs latency_ns = choice_.Figures(upstream.index, MonotonicNowNs()).latency_ns;
  if (upstreams_.size() == 1 || latency_ns == 0) return kGreetWithinNs;
  return std::clamp(kGreetLatencies * latency_ns, kLeastGreetWithinNs, kGreetWithinNs);
}

void UpstreamGroup::OnGreeted(const FlowPtr& flow, const Socks5Outcome& outcome) {
  if (flow->is_pipelined) return OnAnswered(flow, outcome);
  if (!outcome.ok()) return OnUpstreamFailed(flow, outcome);
  RequestOf(flow);
}

void UpstreamGroup::RequestOf(const FlowPtr& flow) {
  choice_.OnReached(flow->index, flow->attempt);
  flow->connection->Request(flow->command, flow->to, flow->left_ns(),
                            [this, closed = closed_, flow](const Socks5Outcome& outcome) {
                              if (!*closed) OnAnswered(flow, outcome);
                            });
}

void UpstreamGroup::OnAnswered(const FlowPtr& flow, const Socks5Outcome& outcome) {
  if (outcome.ok()) return Succeed(flow);
  Upstream& upstream = *upstreams_[flow->index];
  const bool was_connected = outcome.what != Socks5Outcome::What::kNotConnected;
  if (flow->is_pipelined && was_connected &&
      flow->connection->handshake().pipelining_may_be_why()) {
    upstream.can_pipeline = false;
    return TryFresh(flow, false);
  }
  // It had gone stale while it waited, which says nothing.
  const bool was_stale = flow->is_warm && outcome.failure == Socks5Failure::kClosed;
  if (was_stale) return TryFresh(flow, false);
  // What the target makes of it is waited for as long as a program would, and then it is over.
  const bool waited_for_target = outcome.what == Socks5Outcome::What::kLate;
  if (waited_for_target) {
    choice_.OnAbandoned(flow->index, flow->attempt);
    return End(flow, Dialed::Not(TcpVerdict::Type::kForget));
  }
  if (SaysSomethingOfUpstream(outcome) || outcome.reply == kCommandNotSupported) {
    if (flow->command == Socks5Command::kUdpAssociate && outcome.reply == kCommandNotSupported) {
      upstream.relays_datagrams = RelaysDatagrams::kNo;
    }
    return OnUpstreamFailed(flow, outcome);
  }
  flow->failure = NotDialedByReply(outcome.reply);
  if (MayAnotherDoBetter(outcome.reply)) {
    choice_.OnAbandoned(flow->index, flow->attempt);
    return Try(flow);
  }
  // The upstream works.
  const TimeNs now_ns = MonotonicNowNs();
  choice_.OnConnected(flow->index, flow->attempt, now_ns - flow->attempt_ns, now_ns);
  choice_.OnEnded(flow->index);
  End(flow, std::move(flow->failure));
}

void UpstreamGroup::OnUpstreamFailed(const FlowPtr& flow, const Socks5Outcome& outcome) {
  if (IsOwnTrouble(outcome)) {
    choice_.OnAbandoned(flow->index, flow->attempt);
    return End(flow, Dialed::Not(TcpVerdict::Type::kRefuse));
  }
  Upstream& upstream = *upstreams_[flow->index];
  // Something of this server is wrong, unless it is only that it does not do this.
  const bool only_does_not = outcome.failure == Socks5Failure::kReply;
  if (only_does_not) {
    choice_.OnAbandoned(flow->index, flow->attempt);
  } else {
    choice_.OnFailed(flow->index, flow->attempt, MonotonicNowNs());
    upstream.trouble = outcome.Describe();
    ++upstream.endpoint;  // its name may have another
  }
  TellOfBreakers();
  flow->failure = outcome.what == Socks5Outcome::What::kNotConnected
                      ? NotDialed(outcome.error_number)
                      : Dialed::Not(TcpVerdict::Type::kRefuse);
  Try(flow);
}

void UpstreamGroup::Succeed(const FlowPtr& flow) {
  const TimeNs now_ns = MonotonicNowNs();
  Upstream& upstream = *upstreams_[flow->index];
  choice_.OnConnected(flow->index, flow->attempt, now_ns - flow->attempt_ns, now_ns);
  if (flow->command == Socks5Command::kUdpAssociate) {
    upstream.relays_datagrams = RelaysDatagrams::kYes;
  }
  flows_.erase(flow);
  flow->done(std::exchange(flow->connection, nullptr), HoldOf(upstream), {});
}

void UpstreamGroup::End(const FlowPtr& flow, Dialed dialed) {
  flows_.erase(flow);
  flow->done(nullptr, nullptr, std::move(dialed));
}

void UpstreamGroup::Abandon(const FlowPtr& flow) {
  if (flows_.erase(flow) == 0 || !flow->connection) return;
  choice_.OnAbandoned(flow->index, flow->attempt);
  flow->connection->Reset();
}

// Whoever has the connection lets go of this with it, on whatever thread.
std::shared_ptr<void> UpstreamGroup::HoldOf(Upstream& upstream) {
  return {nullptr, [ended = upstream.ended](void*) { ended->fetch_add(1); }};
}

void UpstreamGroup::CountEnded() {
  for (const auto& upstream : upstreams_) {
    for (uint64_t left = upstream->ended->exchange(0); left != 0; --left) {
      choice_.OnEnded(upstream->index);
    }
  }
}

// --- Looking after the servers ---

void UpstreamGroup::Tick() {
  const TimeNs now_ns = MonotonicNowNs();
  CountEnded();
  TellOfBreakers();
  for (const auto& upstream : upstreams_) {
    const bool wants_name = !upstream->config.address.address.is_set() &&
                            (upstream->endpoints.empty() || !upstream->is_up);
    if (wants_name && now_ns >= upstream->resolve_at_ns) Resolve(upstream->index);
    if (upstream->endpoints.empty()) continue;
    const bool is_open = upstream->breaker == CircuitBreaker::State::kOpen;
    const DurationNs check_every_ns =
        is_open ? kCheckOpenEveryNs : static_cast<DurationNs>(config_.health.every_s) * kSecondNs;
    if (now_ns - upstream->checked_ns >= check_every_ns) CheckHealth(upstream->index);
    if (!upstream->pool) continue;
    if (now_ns >= upstream->look_for_stale_ns) {
      upstream->look_for_stale_ns = now_ns + kLookForStaleEveryNs;
      for (const Connection& stale :
           upstream->pool->Remove([](const Connection& one) { return one->IsStale(); })) {
        stale->Close();
      }
    }
    if (now_ns >= upstream->pool->NextCleanup()) {
      for (const Connection& expired : upstream->pool->Cleanup(now_ns)) expired->Close();
    }
    FillPool(upstream->index);
  }
  tick_.expires_after(kTickEvery);
  tick_.async_wait([this, closed = closed_](const error_code& error) {
    if (!error && !*closed) Tick();
  });
}

void UpstreamGroup::EmptyPool(Upstream& upstream) {
  if (!upstream.pool) return;
  for (const Connection& connection :
       upstream.pool->Remove([](const Connection&) { return true; })) {
    connection->Close();
  }
}

void UpstreamGroup::Resolve(size_t index) {
  Upstream& upstream = *upstreams_[index];
  if (std::exchange(upstream.is_resolving, true)) return;
  resolver_.Resolve(upstream.config.address.host, name_servers_(),
                    [this, index](absl::StatusOr<std::vector<IpAddress>> addresses) {
                      Upstream& of = *upstreams_[index];
                      of.is_resolving = false;
                      of.resolve_at_ns = MonotonicNowNs() + kResolveAgainNs;
                      if (!addresses.ok()) {
                        of.trouble =
                            absl::StrCat("its name is not known: ", addresses.status().message());
                        return;
                      }
                      of.endpoints.clear();
                      for (const IpAddress& address : *addresses) {
                        of.endpoints.push_back({address, of.config.address.port, 0});
                      }
                      if (!of.endpoints.empty()) CheckHealth(index);
                    });
}

void UpstreamGroup::FillPool(size_t index) {
  Upstream& upstream = *upstreams_[index];
  const TimeNs now_ns = MonotonicNowNs();
  const bool is_closed = upstream.breaker == CircuitBreaker::State::kClosed;
  if (!upstream.is_up || !is_closed || now_ns < upstream.pool_again_ns) return;
  while (upstream.pool->opening() < kPoolOpensAtOnce && upstream.pool->Wanted() > 0) {
    upstream.pool->OnOpening(1);
    auto connection =
        Socks5Connection::Make(io_, upstream.login(), Socks5Connection::Mode::kInTurn);
    connections_.insert(connection);
    connection->Greet(upstream.address(), kGreetWithinNs,
                      [this, closed = closed_, index, connection](const Socks5Outcome& outcome) {
                        if (*closed) return;
                        connections_.erase(connection);
                        Upstream& of = *upstreams_[index];
                        const TimeNs when_ns = MonotonicNowNs();
                        if (!outcome.ok()) {
                          of.pool->OnOpenFailed();
                          of.pool_again_ns = when_ns + of.pool_retry_ns;
                          of.pool_retry_ns = std::min(2 * of.pool_retry_ns, kMaxPoolRetryNs);
                          return;
                        }
                        of.pool->OnOpened();
                        of.pool_retry_ns = kPoolRetryNs;
                        if (auto oldest = of.pool->Put(connection, when_ns)) (*oldest)->Close();
                        FillPool(index);
                      });
  }
}

// Reaches it and greets it; then connects somewhere, where that is asked for.
void UpstreamGroup::CheckHealth(size_t index) {
  Upstream& upstream = *upstreams_[index];
  if (std::exchange(upstream.is_checking, true)) return;
  upstream.checked_ns = MonotonicNowNs();
  const DurationNs within_ns = static_cast<DurationNs>(config_.health.timeout_s) * kSecondNs;
  auto connection = Socks5Connection::Make(io_, upstream.login(), Socks5Connection::Mode::kInTurn);
  connections_.insert(connection);
  connection->Greet(
      upstream.address(), within_ns,
      [this, closed = closed_, index, connection, within_ns](const Socks5Outcome& greeted) {
        if (*closed) return;
        const DurationNs took_ns = connection->step_took_ns();
        if (!greeted.ok() || !config_.health.connect) {
          return OnChecked(index, connection, greeted, took_ns);
        }
        const HostPort& to = *config_.health.connect;
        connection->Request(Socks5Command::kConnect,
                            {to.address, to.address.is_set() ? "" : to.host, to.port}, within_ns,
                            [this, closed, index, connection, took_ns](const Socks5Outcome& done) {
                              if (!*closed) OnChecked(index, connection, done, took_ns);
                            });
      });
}

void UpstreamGroup::OnChecked(size_t index, const Connection& connection,
                              const Socks5Outcome& outcome, DurationNs greeted_ns) {
  Upstream& upstream = *upstreams_[index];
  upstream.is_checking = false;
  connections_.erase(connection);
  connection->Close();
  if (IsOwnTrouble(outcome)) return;
  const bool is_up = outcome.ok();
  upstream.trouble = is_up ? "" : outcome.Describe();
  choice_.SetHealth(index, is_up, is_up ? std::optional(greeted_ns) : std::nullopt,
                    MonotonicNowNs());
  if (std::exchange(upstream.is_up, is_up) != is_up) {
    on_news_(is_up ? "upstream_up" : "upstream_down", NewsOf(upstream));
  }
  if (is_up) return CheckDatagrams(index);
  ++upstream.endpoint;
  EmptyPool(upstream);  // they may be dead without having been told
}

void UpstreamGroup::CheckDatagrams(size_t index) {
  Upstream& upstream = *upstreams_[index];
  auto connection = Socks5Connection::Make(io_, upstream.login(), Socks5Connection::Mode::kInTurn);
  connections_.insert(connection);
  const auto settle = [this, closed = closed_, index, connection](const Socks5Outcome& outcome) {
    if (*closed) return;
    connections_.erase(connection);
    connection->Close();
    RelaysDatagrams& relays = upstreams_[index]->relays_datagrams;
    if (outcome.ok()) relays = RelaysDatagrams::kYes;
    if (outcome.failure == Socks5Failure::kReply) relays = RelaysDatagrams::kNo;
  };
  connection->Greet(upstream.address(), kGreetWithinNs,
                    [connection, settle](const Socks5Outcome& greeted) {
                      if (!greeted.ok()) return settle(greeted);
                      const IpAddress::Family family = connection->server().address.family;
                      connection->Request(Socks5Command::kUdpAssociate,
                                          {IpAddress::Any(family), "", 0}, kGreetWithinNs, settle);
                    });
}

void UpstreamGroup::Reset() {
  for (const Connection& connection : std::exchange(connections_, {})) connection->Close();
  for (const auto& upstream : upstreams_) {
    EmptyPool(*upstream);
    if (upstream->pool) upstream->pool->ForgetOpening();
    upstream->is_checking = false;
    if (!upstream->config.address.address.is_set()) Resolve(upstream->index);
    upstream->pool_again_ns = upstream->checked_ns = 0;
    upstream->relays_datagrams = RelaysDatagrams::kNotKnown;
    upstream->can_pipeline = true;
  }
}

// --- What is told ---

void UpstreamGroup::TellOfBreakers() {
  const TimeNs now_ns = MonotonicNowNs();
  for (const auto& upstream : upstreams_) {
    const CircuitBreaker::State state = choice_.Figures(upstream->index, now_ns).breaker;
    const CircuitBreaker::State before = std::exchange(upstream->breaker, state);
    if (state == before) continue;
    if (state == CircuitBreaker::State::kOpen) on_news_("breaker_open", NewsOf(*upstream));
    if (state == CircuitBreaker::State::kClosed) on_news_("breaker_closed", NewsOf(*upstream));
  }
}

Json UpstreamGroup::NewsOf(const Upstream& upstream) const {
  Json json = {{"group", config_.name}, {"upstream", DescribeEndpoint(upstream.config.address)}};
  if (!upstream.trouble.empty()) json["why"] = upstream.trouble;
  return json;
}

std::vector<IpAddress> UpstreamGroup::addresses() const {
  std::vector<IpAddress> all;
  for (const auto& upstream : upstreams_) {
    for (const Endpoint& endpoint : upstream->endpoints) all.push_back(endpoint.address);
  }
  return all;
}

std::vector<UpstreamGroup::Figures> UpstreamGroup::figures() const {
  const TimeNs now_ns = MonotonicNowNs();
  std::vector<Figures> all;
  for (const auto& upstream : upstreams_) {
    Figures& one = all.emplace_back();
    one.address = DescribeEndpoint(upstream->config.address);
    one.choice = choice_.Figures(upstream->index, now_ns);
    one.relays_datagrams = upstream->relays_datagrams;
    one.trouble = upstream->trouble;
    if (!upstream->pool) continue;
    one.has_pool = true;
    one.pool_idle = upstream->pool->idle();
    one.pool_target = upstream->pool->target();
    one.pool = upstream->pool->totals();
  }
  return all;
}

}  // namespace braid
