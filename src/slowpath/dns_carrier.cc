#include "slowpath/dns_carrier.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "egress/dns_message.h"
#include "fastpath/socks5_udp.h"
#include "io/udp.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr int kDnsReadsAtOnce = 64;
constexpr size_t kDnsStreamReadBytes = 16 * 1024;
constexpr size_t kDnsLengthBytes = 2;

// A socket, waited for as long as it is open.
class DnsSocket : public DnsCarrier, public std::enable_shared_from_this<DnsSocket> {
 public:
  DnsSocket(asio::io_context& io, UniqueFd fd, Calls calls)
      : io_(io), fd_(std::move(fd)), descriptor_(io), calls_(std::move(calls)) {}
  ~DnsSocket() override { DnsSocket::Release(); }

  // False: it cannot be waited for.
  bool Start() {
    error_code error;
    descriptor_.assign(fd_.get(), error);
    if (!error) Await(asio::posix::stream_descriptor::wait_read);
    return !error;
  }

  void Close() override {
    is_closed_ = true;
    Release();
  }

 protected:
  virtual void OnReadable() = 0;
  virtual void OnWritable() {}
  // Also of what is held beside the socket.
  virtual void Release() {
    if (descriptor_.is_open()) descriptor_.release();
    fd_ = UniqueFd();
  }

  int fd() const { return fd_.get(); }
  bool is_open() const { return static_cast<bool>(fd_); }
  void Tell(Bytes message) { calls_.on_message(message); }

  void AwaitWritable() { Await(asio::posix::stream_descriptor::wait_write); }

  void End() {
    if (!is_open()) return;
    Release();
    asio::post(io_, [self = shared_from_this()] {
      if (!self->is_closed_) self->calls_.on_end();
    });
  }

 private:
  void Await(asio::posix::stream_descriptor::wait_type what) {
    descriptor_.async_wait(what, [self = shared_from_this(), what](const error_code& error) {
      if (error || !self->is_open()) return;
      if (what == asio::posix::stream_descriptor::wait_write) return self->OnWritable();
      self->OnReadable();
      if (self->is_open()) self->Await(what);
    });
  }

  asio::io_context& io_;
  UniqueFd fd_;
  asio::posix::stream_descriptor descriptor_;  // of `fd_`, which it does not own
  const Calls calls_;
  bool is_closed_ = false;
};

class DnsDatagrams : public DnsSocket {
 public:
  DnsDatagrams(asio::io_context& io, UniqueFd connected, Calls calls)
      : DnsSocket(io, std::move(connected), std::move(calls)) {}

  // What `by` relays to the server.
  bool StartBehind(UpstreamGroup::Association by, const Endpoint& server) {
    by_ = std::move(by);
    server_ = server;
    header_bytes_ = WriteSocks5UdpHeader(server.address, server.port, header_);
    if (!Start()) return false;
    by_.control->WatchForEnd([self = shared_from_this(), this] { End(); });
    return true;
  }

  void Send(Bytes message) override {
    if (!is_open()) return;
    std::array<iovec, 2> parts = {
        {{header_.data(), header_bytes_}, {const_cast<uint8_t*>(message.data()), message.size()}}};
    msghdr datagram{};
    datagram.msg_iov = parts.data();
    datagram.msg_iovlen = parts.size();
    const bool is_sent = sendmsg(fd(), &datagram, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
    if (!is_sent && errno != EAGAIN && errno != ENOBUFS && errno != EINTR) End();
  }

 protected:
  void OnReadable() override {
    std::array<uint8_t, kMaxSocks5UdpHeaderBytes + kMaxDnsMessageBytes> datagram;
    for (int i = 0; i < kDnsReadsAtOnce && is_open(); ++i) {
      const ssize_t got = recv(fd(), datagram.data(), datagram.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return;
      if (got < 0) return End();
      Tell(MessageIn({datagram.data(), static_cast<size_t>(got)}));
    }
  }

  void Release() override {
    DnsSocket::Release();
    if (by_.control) by_.control->Close();
    by_ = {};
  }

 private:
  Bytes MessageIn(Bytes datagram) const {
    if (header_bytes_ == 0) return datagram;
    const auto header = ReadSocks5UdpHeader(datagram);
    const bool is_from_server = header && !header->fragment && header->address == server_.address &&
                                header->port == server_.port;
    return is_from_server ? datagram.subspan(header->length) : Bytes();
  }

  UpstreamGroup::Association by_;
  Endpoint server_;
  std::array<uint8_t, kMaxSocks5UdpHeaderBytes> header_;
  size_t header_bytes_ = 0;  // 0: straight to the server
};

class DnsStream : public DnsSocket {
 public:
  DnsStream(asio::io_context& io, Dialed connected, Calls calls)
      : DnsSocket(io, std::move(connected.far), std::move(calls)),
        hold_(std::move(connected.hold)) {
    const int on = 1;
    setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }

  void Send(Bytes message) override {
    if (!is_open()) return;
    std::array<uint8_t, kDnsLengthBytes> length;
    StoreBe16(length.data(), static_cast<uint16_t>(message.size()));
    output_.insert(output_.end(), length.begin(), length.end());
    output_.insert(output_.end(), message.begin(), message.end());
    if (!is_blocked_) OnWritable();
  }

 protected:
  void OnReadable() override {
    std::array<uint8_t, kDnsStreamReadBytes> bytes;
    const ssize_t got = recv(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return End();
    input_.insert(input_.end(), bytes.begin(), bytes.begin() + got);
    Bytes rest = input_;
    while (is_open() && rest.size() >= kDnsLengthBytes) {
      const size_t length = LoadBe16(rest.data());
      if (rest.size() < kDnsLengthBytes + length) break;
      Tell(rest.subspan(kDnsLengthBytes, length));
      rest = rest.subspan(kDnsLengthBytes + length);
    }
    input_.erase(input_.begin(), input_.end() - static_cast<ptrdiff_t>(rest.size()));
  }

  void OnWritable() override {
    const ssize_t sent = send(fd(), output_.data(), output_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return End();
    if (sent > 0) output_.erase(output_.begin(), output_.begin() + sent);
    is_blocked_ = !output_.empty();
    if (is_blocked_) AwaitWritable();
  }

  void Release() override {
    DnsSocket::Release();
    hold_.reset();
  }

 private:
  std::shared_ptr<void> hold_;
  std::vector<uint8_t> input_;   // of which messages were not whole
  std::vector<uint8_t> output_;  // that the kernel has not taken
  bool is_blocked_ = false;      // until it is writable
};

}  // namespace

std::shared_ptr<DnsCarrier> CarryDnsDirectly(asio::io_context& io, const Endpoint& server,
                                             DnsCarrier::Calls calls) {
  UniqueFd socket = ConnectUdp(server);
  if (!socket) return nullptr;
  auto carrier = std::make_shared<DnsDatagrams>(io, std::move(socket), std::move(calls));
  return carrier->Start() ? carrier : nullptr;
}

std::shared_ptr<DnsCarrier> CarryDnsByRelay(asio::io_context& io, const Endpoint& server,
                                            UpstreamGroup::Association by,
                                            DnsCarrier::Calls calls) {
  UniqueFd socket = ConnectUdp(by.relay);
  if (!socket) return nullptr;
  auto carrier = std::make_shared<DnsDatagrams>(io, std::move(socket), std::move(calls));
  return carrier->StartBehind(std::move(by), server) ? carrier : nullptr;
}

std::shared_ptr<DnsCarrier> CarryDnsByStream(asio::io_context& io, Dialed connected,
                                             DnsCarrier::Calls calls) {
  if (!connected.far) return nullptr;
  auto carrier = std::make_shared<DnsStream>(io, std::move(connected), std::move(calls));
  return carrier->Start() ? carrier : nullptr;
}

}  // namespace braid
