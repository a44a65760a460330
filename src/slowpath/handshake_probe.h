// Asks a server for a handshake, as a client that is not running would, and looks whether it
// answers: that shows the way there and back, the server, its knowledge of this client's key, and
// the clock. Blocking. The server keeps the keys until it forgets them, unused; a session that the
// client has elsewhere goes on.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/clock.h"
#include "slowpath/handshake.h"

namespace braid {

struct HandshakeQuestion {
  Endpoint remote;
  IpAddress local;        // to send from; unset: the kernel's choice
  std::string interface;  // to leave by; empty: the kernel's choice
};

struct HandshakeAnswer {
  double rtt_ms = 0;
  bool busy = false;  // it answers with a cookie only, since it is flooded with handshakes
};

// `next_counter` gives the number of the next initiation (handshake_counter.h). Errors:
// Unavailable: nothing listens there, as the network says; DeadlineExceeded: nothing came back;
// others: it could not be sent.
absl::StatusOr<HandshakeAnswer> AskForHandshake(const HandshakeQuestion& question,
                                                const Identity& identity, const PeerKeys& peer,
                                                absl::FunctionRef<uint64_t()> next_counter);

}  // namespace braid
