// A TCP connection to a SOCKS5 server, from connecting until it carries what it was made for. It is
// two steps: Greet(), after which it may be kept for long, and Request(). Lives on the thread of
// its io_context, which must outlive it; always held by a shared pointer.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/address.h"
#include "base/clock.h"
#include "egress/socks5_handshake.h"
#include "io/unique_fd.h"

namespace braid {

// How a step ended.
struct Socks5Outcome {
  enum class What : uint8_t {
    kOk,
    kNotConnected,  // error_number says why
    kLate,          // the server, or on its behalf the network, has said nothing in time
    kFailed,        // failure and, where it is one, reply
  };
  What what = What::kOk;
  int error_number = 0;
  Socks5Failure failure = Socks5Failure::kNone;
  uint8_t reply = 0;

  bool operator==(const Socks5Outcome&) const = default;
  bool ok() const { return what == What::kOk; }
  // In one line, for logs and people.
  std::string Describe() const;
};

class Socks5Connection : public std::enable_shared_from_this<Socks5Connection> {
 public:
  using Done = std::function<void(const Socks5Outcome&)>;
  using Mode = Socks5Handshake::Mode;

  // `credentials`: null, or they outlive this.
  static std::shared_ptr<Socks5Connection> Make(boost::asio::io_context& io,
                                                const Socks5Credentials* credentials, Mode mode);

  // `done` is called once a step, in the loop, later; never after Close(). `within_ns` bounds the
  // step. Pipelined, a request that was prepared goes out with the greeting, and the step ends with
  // its reply, for which there is so much more time once the greeting was answered.
  void Prepare(Socks5Command command, const Socks5Target& target);
  void Greet(const Endpoint& server, DurationNs within_ns, Done done,
             DurationNs reply_within_ns = 0);
  void Request(Socks5Command command, const Socks5Target& target, DurationNs within_ns, Done done);

  // The server has closed it, or has said something unasked: it is of no use any more.
  bool IsStale() const;
  // Calls `on_end` once it is closed by the other end, or anything comes of it. After the steps.
  void WatchForEnd(std::function<void()> on_end);
  // The connection, of which nothing was read but the handshake; this is of no use from then on.
  UniqueFd Release();
  void Close();
  // Close() of what the server is still about: it sees a reset, and gives up what it has begun. A
  // mere end it may take for half of one, and go on.
  void Reset();

  const Socks5Handshake& handshake() const { return handshake_; }
  const Endpoint& server() const { return server_; }
  Endpoint local() const;
  // Of a relay of datagrams that was granted: where they are to be sent. That is at the server
  // itself, where it names no address, or one that it cannot mean.
  Endpoint relay() const;
  // How far Greet() has come, and when.
  struct Greeting {
    TimeNs began_ns = 0;
    TimeNs connected_ns = 0;   // 0: not yet
    TimeNs answered_ns = 0;    // by the choice of a method, or by nonsense; 0: not yet
    bool wants_login = false;  // user name and password are what the server has chosen
  };
  const Greeting& greeting() const { return greeting_; }
  // Between connecting and the last answer of the step.
  DurationNs step_took_ns() const { return step_took_ns_; }

 private:
  Socks5Connection(boost::asio::io_context& io, const Socks5Credentials* credentials, Mode mode);
  void BeginStep(DurationNs within_ns, Done done);
  void Await(DurationNs within_ns);
  void Go();
  bool SendOutput();
  bool ReadInput();
  void NoteAnswer();
  void Finish(Socks5Outcome outcome);

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  Socks5Handshake handshake_;
  Endpoint server_;
  Done done_;
  Greeting greeting_;
  DurationNs reply_within_ns_ = 0;
  TimeNs step_began_ns_ = 0;
  DurationNs step_took_ns_ = 0;
};

}  // namespace braid
