// The swarm's sockets, and the datagrams that wait to leave through them: many are handed to the
// kernel with one call where they share a socket.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "io/unique_fd.h"

namespace braid::swarm {

inline constexpr size_t kMaxDatagramBytes = 2048;

struct SocketOptions {
  size_t sockets = 1;
  Endpoint server;
  // Socket n sends from the n-th address of this net, going round; nothing: the kernel's choice.
  IpPrefix sources;
};

class Outbox {
 public:
  [[nodiscard]] absl::Status Open(const SocketOptions& options);

  size_t sockets() const { return sockets_.size(); }

  // Room for a datagram of up to kMaxDatagramBytes, which Commit() then puts into the queue.
  uint8_t* Reserve();
  void Commit(size_t socket, size_t bytes);
  void Send(size_t socket, Bytes datagram);
  void Flush();

  // Waits until `until_ns` at the latest for datagrams, and hands out what came.
  using OnDatagram = absl::FunctionRef<void(size_t socket, MutableBytes datagram)>;
  void Receive(TimeNs until_ns, OnDatagram on_datagram);

  uint64_t refused() const { return refused_; }  // datagrams that the kernel did not take

 private:
  static constexpr size_t kQueue = 64;
  struct Waiting {
    size_t socket;
    size_t bytes;
  };

  std::vector<UniqueFd> sockets_;
  UniqueFd epoll_;
  size_t used_ = 0;
  uint64_t refused_ = 0;
  std::array<Waiting, kQueue> waiting_;
  std::array<std::array<uint8_t, kMaxDatagramBytes>, kQueue> buffers_;
  std::array<std::array<uint8_t, kMaxDatagramBytes>, kQueue> received_;
};

}  // namespace braid::swarm
