#include "slowpath/tcp_dialer.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <utility>

#include "io/own_mark.h"
#include "io/socket_options.h"
#include "slowpath/asio_endpoint.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

}  // namespace

Dialed NotDialed(int error_number) {
  const auto unreachable = [](IcmpError::What error) {
    return Dialed::Not(TcpVerdict::Type::kUnreachable, error);
  };
  switch (error_number) {
    case ENETUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL:
      return unreachable(IcmpError::What::kNoNetwork);
    case EHOSTUNREACH:
    case EHOSTDOWN:
      return unreachable(IcmpError::What::kNoHost);
    case EACCES:
    case EPERM:
      return unreachable(IcmpError::What::kProhibited);
    case ETIMEDOUT:
    case ECANCELED:
      return Dialed::Not(TcpVerdict::Type::kForget);
    default:
      return Dialed::Not(TcpVerdict::Type::kRefuse);
  }
}

struct TcpDialer::Attempt {
  explicit Attempt(asio::io_context& io) : socket(io), timer(io) {}

  tcp::socket socket;
  asio::steady_timer timer;
  OnDialed on_dialed;

  void Close() {
    error_code ignored;
    timer.cancel();
    socket.close(ignored);
  }
};

TcpDialer::TcpDialer(asio::io_context& io, std::chrono::milliseconds timeout)
    : io_(io), timeout_(timeout), attempts_(std::make_shared<Attempts>()) {}

TcpDialer::~TcpDialer() { Close(); }

TcpDialer::GiveUp TcpDialer::Dial(const Endpoint& to, OnDialed on_dialed) {
  auto attempt = std::make_shared<Attempt>(io_);
  attempt->on_dialed = std::move(on_dialed);
  attempts_->insert(attempt);
  Begin(attempt, to);
  return [attempts = attempts_, given_up = std::weak_ptr<Attempt>(attempt)] {
    const auto still = given_up.lock();
    if (still && attempts->erase(still) != 0) still->Close();
  };
}

void TcpDialer::Begin(const std::shared_ptr<Attempt>& attempt, const Endpoint& to) {
  const auto finish = [attempt, attempts = attempts_](Dialed dialed) {
    attempt->timer.cancel();
    if (attempts->erase(attempt) != 0) attempt->on_dialed(std::move(dialed));
  };
  const int fd = socket(to.address.socket_family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    const int why = errno;
    return asio::post(io_, [finish, why] { finish(NotDialed(why)); });
  }
  SetOwnMark(fd);
  if (to.address.is_v6()) SetV6Only(fd);
  const tcp::endpoint remote = ToTcpEndpoint(to);
  attempt->socket.assign(remote.protocol(), fd);
  attempt->timer.expires_after(timeout_);
  attempt->timer.async_wait([attempt](const error_code& error) {
    error_code ignored;
    if (!error) attempt->socket.cancel(ignored);
  });
  attempt->socket.async_connect(remote, [attempt, finish](const error_code& error) {
    if (error) return finish(NotDialed(error.value()));
    error_code released;
    finish({UniqueFd(attempt->socket.release(released)), nullptr, TcpVerdict::Type::kOpen, {}});
  });
}

void TcpDialer::Close() {
  for (const std::shared_ptr<Attempt>& attempt : std::exchange(*attempts_, {})) attempt->Close();
}

size_t TcpDialer::under_way() const { return attempts_->size(); }

}  // namespace braid
