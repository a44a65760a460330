#include "slowpath/http_server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "slowpath/asio_endpoint.h"
#include "slowpath/http_connection.h"
#include "slowpath/http_stream.h"
#include "slowpath/tls_pace.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::steady_clock;

constexpr int kHttpBacklog = 128;
constexpr std::chrono::milliseconds kRetryAcceptAfter{100};
// Who is given a whole network of this length has as many addresses as he likes.
constexpr int kClientPrefixBits = 64;

absl::Status CheckOptions(const HttpServerOptions& options) {
  const IpAddress& address = options.access.address.address;
  if (address.is_loopback()) return absl::OkStatus();
  if (options.tls && !options.access.token_file.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("HTTP at ", options.access.address.ToString(),
                   ", which is not of the loopback, needs both a certificate and a token"));
}

absl::Status ListenError(const Endpoint& endpoint, const error_code& error) {
  const std::string where = endpoint.ToString();
  if (error == asio::error::address_in_use) {
    return absl::AlreadyExistsError(absl::StrCat("somebody else listens at ", where,
                                                 " already; give control.http another port"));
  }
  return absl::InternalError(
      absl::StrCat("control.http cannot listen at ", where, ": ", error.message()));
}

// Addresses come later than the API: that of the tunnel's device with it, others by DHCP or when a
// link is up. Until then nobody reaches it there.
void BindBeforeItIsThere(tcp::acceptor& acceptor, const tcp::endpoint& at, const Endpoint& wanted,
                         error_code& error) {
  const int on = 1;
  const int level = wanted.address.is_v6() ? IPPROTO_IPV6 : IPPROTO_IP;
  const int option = wanted.address.is_v6() ? IPV6_FREEBIND : IP_FREEBIND;
  if (setsockopt(acceptor.native_handle(), level, option, &on, sizeof(on)) != 0) return;
  acceptor.bind(at, error);
  if (error) return;
  spdlog::warn("http: listens at {}, an address that this machine does not have yet",
               wanted.ToString());
}

IpAddress LimitedBy(const IpAddress& client) {
  return client.is_v4() ? client : IpPrefix{client, kClientPrefixBits}.Network().address;
}

}  // namespace

HttpServerOptions HttpOptionsOf(const HttpConfig& config) {
  return {.access = {.address = config.address,
                     .token_file = config.token_file,
                     .hosts = config.hosts,
                     .origins = config.origins},
          .tls = config.tls};
}

// The listening socket. Kept alive by the pending accept, so that the server itself may go at any
// time.
class HttpServer::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(asio::io_context& io, HttpServerOptions options, HttpHandlers handlers, Access access,
       std::optional<TlsIdentity> identity)
      : shared_(std::make_shared<HttpShared>(io, std::move(options), std::move(handlers),
                                             std::move(access))),
        identity_(std::move(identity)),
        acceptor_(io),
        retry_(io) {}

  absl::Status Open();
  void Accept();
  void Close();
  const Endpoint& endpoint() const { return endpoint_; }

 private:
  void OnAccept(const error_code& error, tcp::socket socket);
  void AcceptLater(steady_clock::duration delay);
  void AcceptAtItsPace();
  void Welcome(tcp::socket socket);
  void MakeRoomFor(const IpAddress& client);

  const std::shared_ptr<HttpShared> shared_;
  std::optional<TlsIdentity> identity_;  // nothing: plain HTTP
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  Endpoint endpoint_;
  TlsPace pace_;
};

absl::Status HttpServer::Core::Open() {
  const Endpoint& wanted = shared_->options.access.address;
  const tcp::endpoint at = ToTcpEndpoint(wanted);
  error_code error;
  acceptor_.open(at.protocol(), error);
  if (!error) fcntl(acceptor_.native_handle(), F_SETFD, FD_CLOEXEC);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  // "::" is every address of this machine, those of IPv4 too.
  if (!error && wanted.address.is_v6()) {
    acceptor_.set_option(asio::ip::v6_only(!wanted.address.is_unspecified()), error);
  }
  if (!error) acceptor_.bind(at, error);
  if (error == boost::system::errc::address_not_available) {
    BindBeforeItIsThere(acceptor_, at, wanted, error);
  }
  if (!error) acceptor_.listen(kHttpBacklog, error);
  if (error) return ListenError(wanted, error);
  endpoint_ = wanted;
  endpoint_.port = acceptor_.local_endpoint(error).port();
  return absl::OkStatus();
}

void HttpServer::Core::Accept() {
  acceptor_.async_accept([core = shared_from_this()](const error_code& error, tcp::socket socket) {
    core->OnAccept(error, std::move(socket));
  });
}

void HttpServer::Core::OnAccept(const error_code& error, tcp::socket socket) {
  if (shared_->closed) return;
  if (!error) {
    Welcome(std::move(socket));
  } else if (error != asio::error::connection_aborted) {
    // Out of descriptors or memory: an immediate retry would only spin.
    spdlog::warn("http: cannot accept a client: {}", error.message());
    return AcceptLater(kRetryAcceptAfter);
  }
  AcceptAtItsPace();
}

void HttpServer::Core::AcceptLater(steady_clock::duration delay) {
  retry_.expires_after(delay);
  retry_.async_wait([core = shared_from_this()](const error_code&) {
    if (!core->shared_->closed) core->Accept();
  });
}

void HttpServer::Core::AcceptAtItsPace() {
  if (!identity_) return Accept();
  const auto delay = pace_.OnAccept(steady_clock::now());
  if (delay == steady_clock::duration::zero()) return Accept();
  AcceptLater(delay);
}

void HttpServer::Core::Welcome(tcp::socket socket) {
  error_code error;
  const tcp::endpoint remote = socket.remote_endpoint(error);
  if (error) return;  // gone already
  fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
  socket.set_option(tcp::no_delay(true), error);
  const IpAddress client = LimitedBy(AddressOf(remote.address()));
  MakeRoomFor(client);
  if (shared_->connections.size() >= shared_->options.max_connections) return;
  auto stream = identity_
                    ? MakeTlsStream(std::move(socket), identity_->Current(steady_clock::now()),
                                    [core = weak_from_this()](auto before, auto cost) {
                                      const auto here = core.lock();
                                      if (here == nullptr) return;
                                      here->pace_.OnCost(before, cost, steady_clock::now());
                                    })
                    : MakePlainStream(std::move(socket));
  std::make_shared<HttpConnection>(shared_, std::move(stream), client)->Start();
}

// Who has waited longest makes room: of the same address where that has its part, else of all.
void HttpServer::Core::MakeRoomFor(const IpAddress& client) {
  size_t of_client = 0;
  HttpConnection* first_of_client = nullptr;
  HttpConnection* first_of_all = nullptr;
  for (HttpConnection* connection : shared_->connections) {
    const bool is_of_client = connection->client() == client;
    if (is_of_client) ++of_client;
    if (connection->is_streaming()) continue;
    const auto take_earlier = [connection](HttpConnection*& first) {
      if (first == nullptr || connection->YieldsBefore(*first)) first = connection;
    };
    if (is_of_client) take_earlier(first_of_client);
    take_earlier(first_of_all);
  }
  const HttpServerOptions& options = shared_->options;
  if (of_client >= options.max_connections_per_address && first_of_client != nullptr) {
    first_of_client->End();
  } else if (shared_->connections.size() >= options.max_connections && first_of_all != nullptr) {
    first_of_all->End();
  }
}

void HttpServer::Core::Close() {
  if (std::exchange(shared_->closed, true)) return;
  error_code ignored;
  acceptor_.close(ignored);
  retry_.cancel();
  const std::vector<HttpConnection*> connections(shared_->connections.begin(),
                                                 shared_->connections.end());
  for (HttpConnection* connection : connections) connection->Finish();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(asio::io_context& io,
                                                               HttpServerOptions options,
                                                               HttpHandlers handlers) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  std::optional<TlsIdentity> identity;
  if (options.tls) {
    auto loaded = TlsIdentity::Load(*options.tls);
    if (!loaded.ok()) return loaded.status();
    identity = *std::move(loaded);
  }
  options.access.tls = options.tls.has_value();
  auto access = Access::Create(options.access);
  if (!access.ok()) return access.status();
  auto core = std::make_shared<Core>(io, std::move(options), std::move(handlers),
                                     *std::move(access), std::move(identity));
  if (absl::Status status = core->Open(); !status.ok()) return status;
  core->Accept();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(core)));
}

HttpServer::HttpServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}

HttpServer::~HttpServer() { Close(); }

void HttpServer::Close() { core_->Close(); }

const Endpoint& HttpServer::endpoint() const { return core_->endpoint(); }

}  // namespace braid
