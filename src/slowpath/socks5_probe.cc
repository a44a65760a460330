#include "slowpath/socks5_probe.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "egress/dns_message.h"
#include "fastpath/socks5_udp.h"
#include "io/udp.h"
#include "io/unique_fd.h"
#include "slowpath/name_resolver.h"
#include "slowpath/path_commands.h"
#include "slowpath/socks5_connection.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// Datagrams may be lost.
constexpr int kRelayedTries = 3;
// "Who serves the root?" (RFC 1035), as in dns_probe.cc; behind the id.
constexpr std::array<uint8_t, 15> kRelayedQuestion = {0x01, 0x00, 0, 1, 0, 0, 0, 0,
                                                      0,    0,    0, 0, 2, 0, 1};
constexpr size_t kDnsFlagsAt = 2;
constexpr uint8_t kDnsAnswerFlag = 0x80;

// Asks a name server through a relay of datagrams.
class RelayedQuestion {
 public:
  // Called once, in the loop, later or before Ask() returns. OK: it has answered, whatever it said.
  using Done = std::function<void(const absl::Status&)>;

  explicit RelayedQuestion(asio::io_context& io) : relay_(io), timer_(io) {}

  void Ask(const Endpoint& name_server, const Endpoint& relay, DurationNs within_ns, Done done);

 private:
  absl::Status Open(const Endpoint& relay);
  void Send();
  void AwaitAnswer();
  void Read();
  bool IsAnswer(Bytes datagram) const;
  void Finish(const absl::Status& status);

  asio::posix::stream_descriptor relay_;
  asio::steady_timer timer_;
  Done done_;
  std::array<uint8_t, kMaxSocks5UdpHeaderBytes + 2 + kRelayedQuestion.size()> query_;
  std::array<uint8_t, 2> id_;
  size_t query_bytes_ = 0;
  DurationNs try_ns_ = 0;
  int tries_ = 0;
};

void RelayedQuestion::Ask(const Endpoint& name_server, const Endpoint& relay, DurationNs within_ns,
                          Done done) {
  done_ = std::move(done);
  try_ns_ = within_ns / kRelayedTries;
  randombytes_buf(id_.data(), id_.size());
  const size_t header_bytes = WriteSocks5UdpHeader(name_server.address, name_server.port, query_);
  const auto question = std::copy(id_.begin(), id_.end(), query_.begin() + header_bytes);
  query_bytes_ = static_cast<size_t>(
      std::copy(kRelayedQuestion.begin(), kRelayedQuestion.end(), question) - query_.begin());
  if (const absl::Status status = Open(relay); !status.ok()) return Finish(status);
  AwaitAnswer();
  Send();
}

// Only what comes from the relay is received, and the network's refusals are told.
absl::Status RelayedQuestion::Open(const Endpoint& relay) {
  UniqueFd fd = ConnectUdp(relay);
  if (!fd) return absl::UnavailableError(absl::StrCat("no way to the relay: ", strerror(errno)));
  relay_.assign(fd.Release());
  return absl::OkStatus();
}

void RelayedQuestion::Send() {
  if (tries_++ == kRelayedTries) return Finish(absl::DeadlineExceededError("no answer in time"));
  if (send(relay_.native_handle(), query_.data(), query_bytes_, MSG_NOSIGNAL) < 0) {
    return Finish(absl::UnavailableError(absl::StrCat("nothing relays there: ", strerror(errno))));
  }
  timer_.expires_after(std::chrono::nanoseconds(try_ns_));
  timer_.async_wait([this](const error_code& error) {
    if (!error && done_) Send();
  });
}

void RelayedQuestion::AwaitAnswer() {
  relay_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const error_code& error) {
    if (!error && done_) Read();
  });
}

void RelayedQuestion::Read() {
  std::array<uint8_t, kMaxSocks5UdpHeaderBytes + 2 * kMinDnsUdpBytes> datagram;
  const ssize_t got = recv(relay_.native_handle(), datagram.data(), datagram.size(), MSG_DONTWAIT);
  if (got < 0 && errno != EAGAIN && errno != EINTR) {
    return Finish(absl::UnavailableError(absl::StrCat("nothing relays there: ", strerror(errno))));
  }
  if (got > 0 && IsAnswer({datagram.data(), static_cast<size_t>(got)})) {
    return Finish(absl::OkStatus());
  }
  AwaitAnswer();
}

bool RelayedQuestion::IsAnswer(Bytes datagram) const {
  const auto header = ReadSocks5UdpHeader(datagram);
  if (!header || header->fragment) return false;
  const Bytes message = datagram.subspan(header->length);
  return message.size() >= kDnsHeaderBytes && std::equal(id_.begin(), id_.end(), message.begin()) &&
         (message[kDnsFlagsAt] & kDnsAnswerFlag) != 0;
}

void RelayedQuestion::Finish(const absl::Status& status) {
  error_code ignored;
  timer_.cancel();
  relay_.close(ignored);
  std::exchange(done_, nullptr)(status);
}

class Socks5Probe {
 public:
  // The options outlive it.
  explicit Socks5Probe(const Socks5ProbeOptions& options);

  std::vector<Socks5ProbeStep> Run();

 private:
  using Connection = std::shared_ptr<Socks5Connection>;
  using Mode = Socks5Connection::Mode;
  using Step = Socks5ProbeStep;

  // In their order. Each begins the next, where that can be tried.
  void ResolveServer();
  void Reach(size_t index);
  void OnGreeted(const Connection& connection, size_t index, const Socks5Outcome& outcome);
  void TellGreeting(const Connection& connection, const Socks5Outcome& outcome);
  void Connect(const Connection& connection);
  void OnConnected(const Connection& connection, const Socks5Outcome& outcome);
  void Pipeline(const Socks5Outcome& in_turn);
  void OnPipelined(const Connection& connection, const Socks5Outcome& in_turn,
                   const Socks5Outcome& outcome);
  void Associate();
  void OnAssociated(const Connection& control, const Socks5Outcome& outcome);
  void ResolveNameServer(const Connection& control);
  void AskNameServer(const Connection& control, const Endpoint& name_server);

  void Resolve(const std::string& host, NameResolver::Done done);
  void OnResolved(absl::StatusOr<std::vector<IpAddress>> addresses);

  Step& At(Step::What what);
  void Tell(Step::What what, bool is_ok, std::string found, DurationNs took_ns);
  void TellReply(Step::What what, const Socks5Outcome& outcome, DurationNs took_ns);
  Socks5Target Target() const;
  std::string TargetName() const;
  const Socks5Credentials* login() const;

  const Socks5ProbeOptions& options_;
  asio::io_context io_;
  NameResolver resolver_{io_};
  asio::steady_timer resolver_timer_{io_};
  NameResolver::Done on_resolved_;
  RelayedQuestion question_{io_};
  std::vector<Step> steps_;
  std::vector<Endpoint> servers_;         // to be tried
  std::vector<std::string> unreachable_;  // of them, and why
  Endpoint server_;                       // that was reached
};

Socks5Probe::Socks5Probe(const Socks5ProbeOptions& options) : options_(options) {
  if (!options.server.address.is_set()) steps_.push_back({Step::What::kResolve});
  for (const auto what : {Step::What::kReach, Step::What::kGreet, Step::What::kLogIn,
                          Step::What::kConnect, Step::What::kPipeline, Step::What::kAssociate}) {
    steps_.push_back({what});
  }
  if (options.name_server) steps_.push_back({Step::What::kDatagram});
}

std::vector<Socks5ProbeStep> Socks5Probe::Run() {
  if (options_.server.address.is_set()) {
    servers_.push_back({options_.server.address, options_.server.port, 0});
    Reach(0);
  } else {
    ResolveServer();
  }
  io_.run();
  return std::move(steps_);
}

void Socks5Probe::ResolveServer() {
  const TimeNs began_ns = MonotonicNowNs();
  Resolve(options_.server.host, [this, began_ns](absl::StatusOr<std::vector<IpAddress>> found) {
    const DurationNs took_ns = MonotonicNowNs() - began_ns;
    if (!found.ok()) {
      return Tell(Step::What::kResolve, false, std::string(found.status().message()), took_ns);
    }
    for (const IpAddress& address : *found) servers_.push_back({address, options_.server.port, 0});
    Tell(Step::What::kResolve, true,
         absl::StrJoin(*found, ", ",
                       [](std::string* to, const IpAddress& one) { *to += one.ToString(); }),
         took_ns);
    Reach(0);
  });
}

// --- Reaching and greeting ---

void Socks5Probe::Reach(size_t index) {
  const auto connection = Socks5Connection::Make(io_, login(), Mode::kInTurn);
  connection->Greet(servers_[index], options_.timeout_ns,
                    [this, connection, index](const Socks5Outcome& outcome) {
                      OnGreeted(connection, index, outcome);
                    });
}

void Socks5Probe::OnGreeted(const Connection& connection, size_t index,
                            const Socks5Outcome& outcome) {
  const Socks5Connection::Greeting& greeting = connection->greeting();
  const std::string server = servers_[index].ToString();
  DurationNs took_ns = At(Step::What::kReach).took_ns;
  if (greeting.connected_ns == 0) {
    unreachable_.push_back(absl::StrCat(server, ": ", outcome.Describe()));
    took_ns += connection->step_took_ns();
    Tell(Step::What::kReach, false, absl::StrJoin(unreachable_, "; "), took_ns);
    if (index + 1 < servers_.size()) Reach(index + 1);
    return;
  }
  server_ = servers_[index];
  took_ns += greeting.connected_ns - greeting.began_ns;
  Tell(Step::What::kReach, true,
       unreachable_.empty() ? server
                            : absl::StrCat(server, "; not ", absl::StrJoin(unreachable_, "; ")),
       took_ns);
  TellGreeting(connection, outcome);
  if (outcome.ok()) Connect(connection);
}

void Socks5Probe::TellGreeting(const Connection& connection, const Socks5Outcome& outcome) {
  const Socks5Connection::Greeting& greeting = connection->greeting();
  const TimeNs ended_ns = greeting.began_ns + connection->step_took_ns();
  if (!outcome.ok() && !greeting.wants_login) {
    Tell(Step::What::kGreet, false, outcome.Describe(), ended_ns - greeting.connected_ns);
    if (outcome.failure == Socks5Failure::kNoMethod && login() == nullptr) {
      At(Step::What::kGreet).advice = "give a user name and a password";
    }
    return;
  }
  Tell(Step::What::kGreet, true,
       greeting.wants_login ? "user name and password are wanted" : "no authentication is wanted",
       greeting.answered_ns - greeting.connected_ns);
  if (greeting.wants_login) {
    Tell(Step::What::kLogIn, outcome.ok(), outcome.ok() ? "accepted" : outcome.Describe(),
         ended_ns - greeting.answered_ns);
  } else {
    Tell(Step::What::kLogIn, true,
         login() == nullptr ? "none" : "none: user name and password were not sent", 0);
  }
}

// --- Connecting ---

void Socks5Probe::Connect(const Connection& connection) {
  connection->Request(
      Socks5Command::kConnect, Target(), options_.timeout_ns,
      [this, connection](const Socks5Outcome& outcome) { OnConnected(connection, outcome); });
}

void Socks5Probe::OnConnected(const Connection& connection, const Socks5Outcome& outcome) {
  connection->Close();
  TellReply(Step::What::kConnect, outcome, connection->step_took_ns());
  Step& step = At(Step::What::kConnect);
  const std::string to = "to " + TargetName();
  step.found = outcome.ok() ? to : absl::StrCat(to, ": ", step.found);
  if (!outcome.ok() && !options_.connect) {
    step.advice = "that is the server itself, which it may refuse: try --connect HOST:PORT";
  }
  if (step.reply) return Pipeline(outcome);
  Associate();
}

void Socks5Probe::Pipeline(const Socks5Outcome& in_turn) {
  const auto connection = Socks5Connection::Make(io_, login(), Mode::kPipelined);
  connection->Prepare(Socks5Command::kConnect, Target());
  connection->Greet(
      server_, options_.timeout_ns,
      [this, connection, in_turn](const Socks5Outcome& outcome) {
        OnPipelined(connection, in_turn, outcome);
      },
      options_.timeout_ns);
}

// It can, if it says the same as in turn.
void Socks5Probe::OnPipelined(const Connection& connection, const Socks5Outcome& in_turn,
                              const Socks5Outcome& outcome) {
  connection->Close();
  TellReply(Step::What::kPipeline, outcome, connection->step_took_ns());
  Step& step = At(Step::What::kPipeline);
  if (outcome == in_turn) {
    step.verdict = Step::Verdict::kOk;
    step.found = "the request may go out with the greeting";
  } else {
    step.advice = "leave \"pipelined\" off for it";
  }
  Associate();
}

// --- Relaying datagrams ---

void Socks5Probe::Associate() {
  const auto control = Socks5Connection::Make(io_, login(), Mode::kInTurn);
  control->Greet(server_, options_.timeout_ns, [this, control](const Socks5Outcome& greeted) {
    if (!greeted.ok()) {
      return Tell(Step::What::kAssociate, false, greeted.Describe(), control->step_took_ns());
    }
    control->Request(Socks5Command::kUdpAssociate, {IpAddress::Any(server_.address.family), "", 0},
                     options_.timeout_ns, [this, control](const Socks5Outcome& outcome) {
                       OnAssociated(control, outcome);
                     });
  });
}

void Socks5Probe::OnAssociated(const Connection& control, const Socks5Outcome& outcome) {
  TellReply(Step::What::kAssociate, outcome, control->step_took_ns());
  if (!outcome.ok()) return;
  const Endpoint relay = control->relay();
  const Socks5Target said = control->handshake().bound();
  Step& step = At(Step::What::kAssociate);
  if (relay.port == 0) {
    step.verdict = Step::Verdict::kFailed;
    step.found = "it names no port for datagrams";
    return control->Close();
  }
  step.found = "relays at " + relay.ToString();
  if (said.address != relay.address) {
    absl::StrAppend(&step.found, "; it says ",
                    said.address.is_set() ? said.address.ToString() : "\"" + said.domain + "\"");
  }
  if (options_.name_server) return ResolveNameServer(control);
  control->Close();
}

void Socks5Probe::ResolveNameServer(const Connection& control) {
  const HostPort& asked = *options_.name_server;
  if (asked.address.is_set()) return AskNameServer(control, {asked.address, asked.port, 0});
  const TimeNs began_ns = MonotonicNowNs();
  Resolve(asked.host, [this, control, began_ns](absl::StatusOr<std::vector<IpAddress>> found) {
    const HostPort& of = *options_.name_server;
    if (!found.ok()) {
      control->Close();
      return Tell(Step::What::kDatagram, false,
                  absl::StrCat(of.host, ": ", found.status().message()),
                  MonotonicNowNs() - began_ns);
    }
    // More servers have IPv4 alone than IPv6 alone.
    const auto v4 = std::find_if(found->begin(), found->end(),
                                 [](const IpAddress& one) { return one.is_v4(); });
    AskNameServer(control, {v4 != found->end() ? *v4 : found->front(), of.port, 0});
  });
}

void Socks5Probe::AskNameServer(const Connection& control, const Endpoint& name_server) {
  const TimeNs began_ns = MonotonicNowNs();
  question_.Ask(name_server, control->relay(), options_.timeout_ns,
                [this, control, name_server, began_ns](const absl::Status& status) {
                  // A relay lasts as long as its connection.
                  const bool has_ended = control->IsStale();
                  control->Close();
                  std::string found = name_server.ToString() + " answers";
                  if (!status.ok()) {
                    found = absl::StrCat(name_server.ToString(), ": ", status.message());
                    if (has_ended) found += "; the server has ended the association";
                  }
                  Tell(Step::What::kDatagram, status.ok(), std::move(found),
                       MonotonicNowNs() - began_ns);
                });
}

// --- Names ---

// Those who answer have at least one address.
void Socks5Probe::Resolve(const std::string& host, NameResolver::Done done) {
  on_resolved_ = std::move(done);
  resolver_timer_.expires_after(std::chrono::nanoseconds(options_.timeout_ns));
  resolver_timer_.async_wait([this](const error_code& error) {
    if (error) return;
    resolver_.Close();
    OnResolved(absl::DeadlineExceededError("no answer from the name servers in time"));
  });
  resolver_.Resolve(host, {}, [this](absl::StatusOr<std::vector<IpAddress>> addresses) {
    resolver_timer_.cancel();
    if (addresses.ok() && addresses->empty()) addresses = absl::NotFoundError("has no address");
    OnResolved(std::move(addresses));
  });
}

void Socks5Probe::OnResolved(absl::StatusOr<std::vector<IpAddress>> addresses) {
  if (const auto done = std::exchange(on_resolved_, nullptr)) done(std::move(addresses));
}

// --- What is told ---

Socks5ProbeStep& Socks5Probe::At(Step::What what) {
  return *std::find_if(steps_.begin(), steps_.end(),
                       [what](const Step& step) { return step.what == what; });
}

void Socks5Probe::Tell(Step::What what, bool is_ok, std::string found, DurationNs took_ns) {
  Step& step = At(what);
  step.verdict = is_ok ? Step::Verdict::kOk : Step::Verdict::kFailed;
  step.found = std::move(found);
  step.took_ns = took_ns;
}

void Socks5Probe::TellReply(Step::What what, const Socks5Outcome& outcome, DurationNs took_ns) {
  Tell(what, outcome.ok(), outcome.Describe(), took_ns);
  const bool is_answered = outcome.ok() || outcome.failure == Socks5Failure::kReply;
  if (is_answered) At(what).reply = outcome.reply;
}

Socks5Target Socks5Probe::Target() const {
  if (!options_.connect) return {server_.address, "", server_.port};
  const HostPort& to = *options_.connect;
  return {to.address, to.address.is_set() ? "" : to.host, to.port};
}

std::string Socks5Probe::TargetName() const {
  return options_.connect ? DescribeEndpoint(*options_.connect) : server_.ToString();
}

const Socks5Credentials* Socks5Probe::login() const {
  return options_.credentials ? &*options_.credentials : nullptr;
}

}  // namespace

std::vector<Socks5ProbeStep> ProbeSocks5(const Socks5ProbeOptions& options) {
  return Socks5Probe(options).Run();
}

bool CanConnect(const std::vector<Socks5ProbeStep>& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const Socks5ProbeStep& step) {
    return step.what == Socks5ProbeStep::What::kConnect &&
           step.verdict == Socks5ProbeStep::Verdict::kOk;
  });
}

}  // namespace braid
