// The client's half of SOCKS5 (RFC 1928), with user name and password where the server wants them
// (RFC 1929), up to where a connection carries what it was made for. Sans I/O, on any one thread.
//
//   kGreeting ─► kAuthenticating ─► kGreeted ─Request()─► kRequesting ─► kDone
//       └─────────────────────────────▲
//
// Who has the socket writes what output() has, as much as the socket takes, and reads no more than
// wanted_bytes() at once: then nothing is read of what comes behind the last answer. One that is
// greeted may be kept for long before its request.
//
// Pipelined, nothing waits for an answer: the greeting, the authentication and a request that is
// made at once go out together, and a round trip is all it takes. Only one method can be offered
// then. Servers that cannot take that are known by pipelining_may_be_why().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/container/inlined_vector.h"
#include "base/address.h"
#include "base/bytes.h"

namespace braid {

struct Socks5Credentials {
  std::string username;  // 1 to 255 bytes, as the password
  std::string password;

  bool operator==(const Socks5Credentials&) const = default;
};

struct Socks5Target {
  IpAddress address;
  std::string domain;  // 1 to 255 bytes, when the address is not set
  uint16_t port = 0;

  bool operator==(const Socks5Target&) const = default;
};

enum class Socks5Command : uint8_t { kConnect = 1, kUdpAssociate = 3 };

enum class Socks5Failure : uint8_t {
  kNone,
  kNotSocks5,           // it answers in another version
  kNoMethod,            // it wants a method that was not offered
  kRefusedCredentials,  // user name and password
  kReply,               // it answers the request by a code that is not 0
  kMalformed,           // an answer that cannot be understood, or to what was not sent yet
  kClosed,              // it closed the connection before it had answered
};

class Socks5Handshake {
 public:
  enum class Mode : uint8_t { kInTurn, kPipelined };

  enum class State : uint8_t {
    kGreeting,        // the server's choice of a method is awaited
    kAuthenticating,  // what it says of the credentials is awaited
    kGreeted,         // it is this side's turn: Request()
    kRequesting,      // the reply is awaited
    kDone,
    kFailed,  // failure() says why; nothing more is to be sent or read
  };

  // Begins to greet. `credentials` may be null; else they outlive this.
  Socks5Handshake(const Socks5Credentials* credentials, Mode mode);

  // Once: in kGreeted, or pipelined at any time before. A datagram relay is asked for on behalf of
  // the address and port that datagrams will come from, which may be 0.
  void Request(Socks5Command command, const Socks5Target& target);

  // What is to be written next, in one go where that is possible; until anything else is called.
  Bytes output() const;
  // That many bytes of it have been written.
  void OnSent(size_t bytes);

  // How many bytes are to be read next, at most: not 0 exactly while an answer is awaited.
  size_t wanted_bytes() const;
  // That have been read: 1 to wanted_bytes() of them. Answers to what was not sent yet, as by
  // OnSent(), are malformed.
  void OnInput(Bytes bytes);
  // The server has closed the connection, or it is broken.
  void OnClosed();

  State state() const { return state_; }
  Socks5Failure failure() const { return failure_; }
  uint8_t reply() const { return reply_; }  // of the reply, as far as there is one
  // In kDone: where the server's end is; of a datagram relay, where datagrams are to be sent. Many
  // servers say 0.0.0.0, and a domain may be empty.
  Socks5Target bound() const;

  // Something was sent before its turn, and the server has not shown yet that it can take that.
  // Where it has failed so, or has not answered in time, it is worth another connection in turn.
  bool pipelining_may_be_why() const { return is_ahead_; }

 private:
  // A request with the longest domain; only together with long credentials it is not enough, and
  // memory is allocated.
  static constexpr size_t kInlineOutputBytes = 264;
  // A reply with an address; one with a domain is allocated.
  static constexpr size_t kInlineInputBytes = 24;

  bool OffersNoAuthentication() const;
  void AppendGreeting();
  void AppendAuthentication();
  void AppendText(const std::string& text);
  void TakeMethod();
  void TakeAuthentication();
  void TakeReply();
  void EndGreeting();
  void Reach(State state);
  void Fail(Socks5Failure failure);

  const Socks5Credentials* credentials_;
  absl::InlinedVector<uint8_t, kInlineOutputBytes> output_;
  absl::InlinedVector<uint8_t, kInlineInputBytes> input_;  // of the answer that is awaited
  uint16_t sent_bytes_ = 0;                                // of output_
  Mode mode_;
  State state_ = State::kGreeting;
  Socks5Failure failure_ = Socks5Failure::kNone;
  uint8_t reply_ = 0;
  bool is_requested_ = false;
  bool is_ahead_ = false;
};

// In bytes: there may be ten thousand at once.
static_assert(sizeof(Socks5Handshake) <= 320);

// "host unreachable (4)", for logs; `reply` counts for kReply only.
std::string Describe(Socks5Failure failure, uint8_t reply);

}  // namespace braid
