// Every UDP socket of the tunnel: those that workers own, and those of the slow lane. They are
// bound once and live as long as the daemon, not as long as a worker.
//
// A group is one way to send: on a client a path in one address family, on a server a listening
// address. Groups number the same in Route, WorkerSocket and here.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "fastpath/worker_state.h"
#include "io/udp.h"
#include "slowpath/config.h"

namespace braid {

class TunnelSockets {
 public:
  struct SlowSocket {
    int fd = -1;  // -1: this machine lacks the address family
    bool answers_from_local = false;
  };

  // Errors name the path or the listening address.
  static absl::StatusOr<TunnelSockets> Open(const Config& config, int workers);

  static uint16_t ClientGroup(int path, const IpAddress& remote) {
    return static_cast<uint16_t>(path * 2 + (remote.is_v6() ? 1 : 0));
  }

  std::vector<WorkerSocket> OfWorker(int worker) const;
  const std::vector<SlowSocket>& slow() const { return slow_; }  // by group
  uint64_t ReceiveQueueDrops() const;                            // of all of them
  bool steered() const { return steered_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  struct Owned {
    WorkerSocket socket;
    int worker;
  };

  absl::Status OpenClientGroup(const PathConfig& path, const IpAddress& address, uint16_t group,
                               int lanes, int workers);
  absl::Status OpenServerGroup(const Endpoint& listen, uint16_t group, int workers);

  std::vector<UdpSocket> sockets_;  // keeps all descriptors
  std::vector<Owned> owned_;
  std::vector<SlowSocket> slow_;
  bool steered_ = true;
  std::vector<std::string> warnings_;
};

}  // namespace braid
