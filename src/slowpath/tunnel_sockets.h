// Every UDP socket of the tunnel: those that workers own, and those of the slow lane. A server's
// live as long as the daemon. A client's live as long as their path has a link to leave by; they
// outlive the workers' use of them.
//
// A group is one way to send: on a client a path in one address family, on a server a listening
// address. Groups number the same in Route, WorkerSocket and here.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "fastpath/worker_state.h"
#include "io/udp.h"
#include "slowpath/config.h"
#include "slowpath/path_binding.h"

namespace braid {

class TunnelSockets {
 public:
  struct SlowSocket {
    int fd = -1;  // -1: no sockets of this group
    bool answers_from_local = false;
  };
  // What keeps a group's sockets open, for as long as a worker may use them.
  using Keeper = std::shared_ptr<const void>;

  // A server's sockets; those of a client's paths come with AddPath(). Errors name the listening
  // address.
  static absl::StatusOr<TunnelSockets> Open(const Config& config, int workers);

  static uint16_t ClientGroup(int path, const IpAddress& remote) {
    return static_cast<uint16_t>(path * 2 + (remote.is_v6() ? 1 : 0));
  }
  static int PathOfGroup(uint16_t group) { return group / 2; }

  // Opens the sockets of a path that has none: of the family of its address, or of both. The groups
  // that have some now are told.
  absl::StatusOr<std::vector<uint16_t>> AddPath(int path, const PathBinding& binding);
  // What a group's sockets are closed with, once the last keeper is gone.
  Keeper Remove(uint16_t group);

  // For the workers: all sockets of a group.
  std::shared_ptr<const SocketGroup> OfGroup(uint16_t group) const;
  std::vector<WorkerSocket> OfWorker(int worker) const;
  const std::array<SlowSocket, kMaxSocketGroups>& slow() const { return slow_; }  // by group
  // Of all of them, also of those that were closed.
  uint64_t ReceiveQueueDrops() const;
  bool steered() const { return steered_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  struct Group {
    std::vector<UdpSocket> sockets;  // keeps all descriptors
    SocketGroup of_workers;

    uint64_t ReceiveQueueDrops() const;
  };

  absl::StatusOr<std::shared_ptr<Group>> OpenClientGroup(const PathBinding& binding,
                                                         const IpAddress& address, uint16_t group,
                                                         SlowSocket& slow_socket);
  absl::Status OpenServerGroup(const Endpoint& listen, uint16_t group);

  int lanes_ = 0;
  int workers_ = 0;
  uint32_t generations_ = 0;  // of groups that were opened
  std::array<std::shared_ptr<Group>, kMaxSocketGroups> groups_;
  std::array<SlowSocket, kMaxSocketGroups> slow_;
  uint64_t drops_of_closed_ = 0;
  bool steered_ = true;
  std::vector<std::string> warnings_;
};

}  // namespace braid
