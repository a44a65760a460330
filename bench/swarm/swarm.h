// All clients together: their sockets, their timers, who is established. One thread.
#pragma once

#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "client.h"
#include "outbox.h"

namespace braid::swarm {

struct SwarmOptions {
  uint32_t clients = 0;
  std::string seed;
  SocketOptions sockets;
  ClientSettings settings;
};

class Swarm {
 public:
  explicit Swarm(SwarmOptions options) : options_(std::move(options)) {}
  Swarm(const Swarm&) = delete;
  Swarm& operator=(const Swarm&) = delete;

  // Makes the clients' keys and opens the sockets; nothing is sent.
  [[nodiscard]] absl::Status Open();

  void Begin(uint32_t number);  // a handshake
  bool SendInner(uint32_t number, Bytes packet, TimeNs now_ns);
  // Sends what waits, then does what datagrams and time bring until `until_ns`. At least one look
  // at the sockets.
  void Run(TimeNs until_ns);
  // Every session is closed; a server forgets them.
  void LeaveAll();

  // Told of each client whose handshake has ended, well or not.
  std::function<void(uint32_t number)> on_handshake_end;

  uint32_t size() const { return static_cast<uint32_t>(clients_.size()); }
  const Client& client(uint32_t number) const { return *clients_[number]; }
  uint32_t handshaking() const { return handshaking_; }
  uint32_t established() const { return established_; }
  const Tally& tally() const { return tally_; }
  uint64_t refused_by_kernel() const { return outbox_.refused(); }

 private:
  template <typename Action>
  void Touch(uint32_t number, Action&& action);
  void Dispatch(size_t socket, MutableBytes datagram);
  void RunTimers(TimeNs now_ns);

  const SwarmOptions options_;
  Tally tally_;
  Outbox outbox_;
  std::vector<std::unique_ptr<Client>> clients_;
  uint32_t handshaking_ = 0;
  uint32_t established_ = 0;

  using Timer = std::pair<TimeNs, uint32_t>;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::vector<TimeNs> scheduled_;  // the one timer of each client that counts
};

}  // namespace braid::swarm
