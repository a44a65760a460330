#include "slowpath/socks5_connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "io/own_mark.h"
#include "io/socket_options.h"
#include "slowpath/asio_endpoint.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kMostReadBytes = 512;
// What the server's kernel does not acknowledge in that time it will not any more: also one that
// has gone without a word is noticed, whoever waits for its answer.
constexpr unsigned kHandshakePatienceMs = 3000;
constexpr unsigned kKernelsPatience = 0;

void SetPatience(int fd, unsigned milliseconds) {
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof(milliseconds));
}

}  // namespace

std::string Socks5Outcome::Describe() const {
  switch (what) {
    case What::kOk:
      return "ok";
    case What::kNotConnected:
      return std::strerror(error_number);
    case What::kLate:
      return "no answer in time";
    case What::kFailed:
      break;
  }
  return braid::Describe(failure, reply);
}

Socks5Connection::Socks5Connection(asio::io_context& io, const Socks5Credentials* credentials,
                                   Mode mode)
    : socket_(io), timer_(io), handshake_(credentials, mode) {}

std::shared_ptr<Socks5Connection> Socks5Connection::Make(asio::io_context& io,
                                                         const Socks5Credentials* credentials,
                                                         Mode mode) {
  return std::shared_ptr<Socks5Connection>(new Socks5Connection(io, credentials, mode));
}

void Socks5Connection::Prepare(Socks5Command command, const Socks5Target& target) {
  handshake_.Request(command, target);
}

void Socks5Connection::Greet(const Endpoint& server, DurationNs within_ns, Done done,
                             DurationNs reply_within_ns) {
  server_ = server;
  reply_within_ns_ = reply_within_ns;
  BeginStep(within_ns, std::move(done));
  greeting_.began_ns = step_began_ns_;
  const int fd =
      socket(server.address.socket_family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    const int why = errno;
    return asio::post(socket_.get_executor(), [self = shared_from_this(), why] {
      self->Finish({Socks5Outcome::What::kNotConnected, why, {}, 0});
    });
  }
  SetOwnMark(fd);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const auto remote = ToTcpEndpoint(server);
  socket_.assign(remote.protocol(), fd);
  socket_.async_connect(remote, [self = shared_from_this()](const error_code& error) {
    if (error == asio::error::operation_aborted) return;
    if (error) return self->Finish({Socks5Outcome::What::kNotConnected, error.value(), {}, 0});
    self->greeting_.connected_ns = MonotonicNowNs();
    SetPatience(self->socket_.native_handle(), kHandshakePatienceMs);
    self->Go();
  });
}

void Socks5Connection::Request(Socks5Command command, const Socks5Target& target,
                               DurationNs within_ns, Done done) {
  handshake_.Request(command, target);
  BeginStep(within_ns, std::move(done));
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->Go(); });
}

void Socks5Connection::BeginStep(DurationNs within_ns, Done done) {
  done_ = std::move(done);
  step_began_ns_ = MonotonicNowNs();
  Await(within_ns);
}

void Socks5Connection::Await(DurationNs within_ns) {
  timer_.expires_after(std::chrono::nanoseconds(within_ns));
  timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (error) return;
    if (self->greeting_.connected_ns == 0) {
      return self->Finish({Socks5Outcome::What::kNotConnected, ETIMEDOUT, {}, 0});
    }
    const bool is_answered = self->handshake_.state() == Socks5Handshake::State::kRequesting;
    const DurationNs more_ns = std::exchange(self->reply_within_ns_, 0);
    if (is_answered && more_ns != 0) return self->Await(more_ns);
    self->Finish({Socks5Outcome::What::kLate, 0, {}, 0});
  });
}

// Writes and reads as long as the socket takes and has something, then waits for it.
void Socks5Connection::Go() {
  if (!done_) return;
  while (true) {
    const bool writes = !handshake_.output().empty();
    if (!writes && handshake_.wanted_bytes() == 0) break;
    if (writes ? SendOutput() : ReadInput()) continue;
    if (handshake_.state() == Socks5Handshake::State::kFailed) break;
    socket_.async_wait(
        writes ? asio::ip::tcp::socket::wait_write : asio::ip::tcp::socket::wait_read,
        [self = shared_from_this()](const error_code& error) {
          if (!error) self->Go();
        });
    return;
  }
  if (handshake_.state() == Socks5Handshake::State::kFailed) {
    return Finish({Socks5Outcome::What::kFailed, 0, handshake_.failure(), handshake_.reply()});
  }
  Finish({});
}

// False when the socket takes nothing now, or is broken.
bool Socks5Connection::SendOutput() {
  const Bytes bytes = handshake_.output();
  const ssize_t sent =
      send(socket_.native_handle(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) {
    handshake_.OnSent(static_cast<size_t>(sent));
    return true;
  }
  if (errno != EAGAIN && errno != EINTR) handshake_.OnClosed();
  return false;
}

bool Socks5Connection::ReadInput() {
  std::array<uint8_t, kMostReadBytes> bytes;
  const size_t wanted = std::min(handshake_.wanted_bytes(), bytes.size());
  const ssize_t got = recv(socket_.native_handle(), bytes.data(), wanted, MSG_DONTWAIT);
  if (got > 0) {
    handshake_.OnInput({bytes.data(), static_cast<size_t>(got)});
    NoteAnswer();
    return true;
  }
  if (got == 0 || (errno != EAGAIN && errno != EINTR)) handshake_.OnClosed();
  return false;
}

void Socks5Connection::NoteAnswer() {
  const Socks5Handshake::State state = handshake_.state();
  if (greeting_.answered_ns != 0 || state == Socks5Handshake::State::kGreeting) return;
  greeting_.answered_ns = MonotonicNowNs();
  greeting_.wants_login = state == Socks5Handshake::State::kAuthenticating;
}

void Socks5Connection::Finish(Socks5Outcome outcome) {
  timer_.cancel();
  if (!done_) return;
  step_took_ns_ = MonotonicNowNs() - step_began_ns_;
  const Done done = std::exchange(done_, nullptr);
  if (outcome.what == Socks5Outcome::What::kLate) {
    Reset();
  } else if (!outcome.ok()) {
    Close();
  }
  done(outcome);
}

bool Socks5Connection::IsStale() const {
  uint8_t byte;
  const auto fd = const_cast<asio::ip::tcp::socket&>(socket_).native_handle();
  const ssize_t got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got >= 0 || (errno != EAGAIN && errno != EINTR);
}

void Socks5Connection::WatchForEnd(std::function<void()> on_end) {
  socket_.async_wait(
      asio::ip::tcp::socket::wait_read,
      [self = shared_from_this(), on_end = std::move(on_end)](const error_code& error) {
        if (error) return;
        // Whatever a server says here, it is not for anybody.
        std::array<uint8_t, kMostReadBytes> bytes;
        const ssize_t got =
            recv(self->socket_.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (got > 0 || (got < 0 && errno == EAGAIN)) return self->WatchForEnd(on_end);
        on_end();
      });
}

UniqueFd Socks5Connection::Release() {
  error_code ignored;
  timer_.cancel();
  SetPatience(socket_.native_handle(), kKernelsPatience);
  return UniqueFd(socket_.release(ignored));
}

void Socks5Connection::Close() {
  error_code ignored;
  done_ = nullptr;
  timer_.cancel();
  socket_.close(ignored);
}

void Socks5Connection::Reset() {
  if (socket_.is_open()) SetResetOnClose(socket_.native_handle());
  Close();
}

Endpoint Socks5Connection::local() const {
  sockaddr_storage at{};
  socklen_t length = sizeof(at);
  getsockname(const_cast<asio::ip::tcp::socket&>(socket_).native_handle(),
              reinterpret_cast<sockaddr*>(&at), &length);
  return Endpoint::From(at);
}

Endpoint Socks5Connection::relay() const {
  const Socks5Target bound = handshake_.bound();
  const IpAddress& at = bound.address;
  const bool is_of_one_machine = at.is_set() && !at.is_unspecified() && !at.is_multicast();
  const bool is_ours = at.is_loopback() && !server_.address.is_loopback();
  return {is_of_one_machine && !is_ours ? at : server_.address, bound.port, 0};
}

}  // namespace braid
