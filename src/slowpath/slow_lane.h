// The slow lane's sockets in the daemon's loop: handshakes, and what ends tell each other, come and
// go by them.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/limits.h"
#include "fastpath/path_set.h"
#include "slowpath/tunnel_sockets.h"

namespace braid {

class SlowLane {
 public:
  // `datagram` may be changed, and is gone after the call. `back` leads to whom it came from.
  using OnDatagram = std::function<void(MutableBytes datagram, const Route& back)>;

  // The sockets outlive it.
  SlowLane(boost::asio::io_context& io, const TunnelSockets& sockets, OnDatagram on_datagram);
  ~SlowLane();

  // Listens to a group, if that has sockets; and no more.
  void Open(uint16_t group);
  void Close(uint16_t group);

  // Nothing happens where the group has no sockets now.
  void Send(const Route& route, Bytes datagram) const;

 private:
  struct Listener;

  boost::asio::io_context& io_;
  const TunnelSockets& sockets_;
  const std::shared_ptr<const OnDatagram> on_datagram_;
  std::array<std::shared_ptr<Listener>, kMaxSocketGroups> listeners_;
};

}  // namespace braid
