// Tries what a SOCKS5 server can do, one step after another, as braid would use it: the sockets
// carry braid's mark (io/own_mark.h). Blocking, on any one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "egress/socks5_handshake.h"
#include "slowpath/config.h"

namespace braid {

struct Socks5ProbeOptions {
  HostPort server;
  std::optional<Socks5Credentials> credentials;
  std::optional<HostPort> connect;      // what it is to connect to; nothing: its own address, port
  std::optional<HostPort> name_server;  // who is asked through its relay; nothing: nobody
  // Of each step. Reaching it, the greeting and the login are one.
  DurationNs timeout_ns = 5 * kSecondNs;
};

struct Socks5ProbeStep {
  enum class What : uint8_t {
    kResolve,    // looks the server's name up; not among the steps where it has none
    kReach,      // connects to it
    kGreet,      // which method of authentication it chooses
    kLogIn,      // user name and password, where it chose them
    kConnect,    // has it connect
    kPipeline,   // the same on another connection, where nothing waits for an answer
    kAssociate,  // has it relay datagrams
    kDatagram,   // asks a name server through the relay; not among the steps without one
  };
  enum class Verdict : uint8_t { kOk, kFailed, kNotTried };

  What what = What::kReach;
  Verdict verdict = Verdict::kNotTried;
  std::string found;   // what was learnt, or why it failed; empty when it was not tried
  std::string advice;  // may be empty
  DurationNs took_ns = 0;
  std::optional<uint8_t> reply;  // to a request, as far as there was one (RFC 1928, section 6)
};

// In the order of What.
std::vector<Socks5ProbeStep> ProbeSocks5(const Socks5ProbeOptions& options);

// The server lets one in, and connects.
bool CanConnect(const std::vector<Socks5ProbeStep>& steps);

}  // namespace braid
