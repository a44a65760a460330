#include "slowpath/slow_lane.h"

#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <utility>

#include "io/udp.h"

namespace braid {
namespace {

namespace asio = boost::asio;

constexpr int kDatagramsPerWake = 64;  // from one socket, before others have their turn

}  // namespace

// Kept alive by the wait that is under way.
struct SlowLane::Listener : std::enable_shared_from_this<Listener> {
  Listener(asio::io_context& io, const TunnelSockets::SlowSocket& socket, uint16_t socket_group,
           std::shared_ptr<const OnDatagram> on)
      : descriptor(io, dup(socket.fd)),
        group(socket_group),
        answers_from_local(socket.answers_from_local),
        on_datagram(std::move(on)) {}

  void Wait();
  void Read();

  asio::posix::stream_descriptor descriptor;
  const uint16_t group;
  const bool answers_from_local;
  const std::shared_ptr<const OnDatagram> on_datagram;
  bool closed = false;
};

void SlowLane::Listener::Wait() {
  descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                        [self = shared_from_this()](const boost::system::error_code& error) {
                          if (error || self->closed) return;
                          self->Read();
                          if (!self->closed) self->Wait();
                        });
}

void SlowLane::Listener::Read() {
  std::array<uint8_t, kPacketDataBytes> buffer;
  for (int i = 0; i < kDatagramsPerWake && !closed; ++i) {
    Arrival arrival{};
    const size_t bytes = ReceiveDatagram(descriptor.native_handle(), buffer, arrival);
    if (bytes == 0) return;
    (*on_datagram)({buffer.data(), bytes},
                   {arrival.source, answers_from_local ? arrival.local : IpAddress{}, group});
  }
}

SlowLane::SlowLane(asio::io_context& io, const TunnelSockets& sockets, OnDatagram on_datagram)
    : io_(io),
      sockets_(sockets),
      on_datagram_(std::make_shared<const OnDatagram>(std::move(on_datagram))) {}

SlowLane::~SlowLane() {
  for (uint16_t group = 0; group < kMaxSocketGroups; ++group) Close(group);
}

void SlowLane::Open(uint16_t group) {
  const TunnelSockets::SlowSocket& socket = sockets_.slow()[group];
  if (socket.fd < 0) return;
  listeners_[group] = std::make_shared<Listener>(io_, socket, group, on_datagram_);
  listeners_[group]->Wait();
}

void SlowLane::Close(uint16_t group) {
  const auto listener = std::exchange(listeners_[group], nullptr);
  if (listener == nullptr) return;
  listener->closed = true;
  boost::system::error_code ignored;
  listener->descriptor.close(ignored);
}

void SlowLane::Send(const Route& route, Bytes datagram) const {
  const auto& slow = sockets_.slow();
  if (route.socket_group >= slow.size() || slow[route.socket_group].fd < 0) return;
  SendDatagram(slow[route.socket_group].fd, route.remote, route.local, datagram);
}

}  // namespace braid
