// What carries DNS messages to one server and back: datagrams, straight to it or through a SOCKS5
// server that relays them, or a TCP connection. Lives on the thread of its io_context, which must
// outlive it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>

#include "base/address.h"
#include "base/bytes.h"
#include "slowpath/tcp_dialer.h"
#include "slowpath/upstream_group.h"

namespace braid {

class DnsCarrier {
 public:
  // Called in the loop, never within a call of these functions; not after Close().
  struct Calls {
    // What has come, as it is. Empty: something came that is not from the server.
    std::function<void(Bytes message)> on_message;
    // It carries nothing any more, and is closed.
    std::function<void()> on_end;
  };

  virtual ~DnsCarrier() = default;

  // Of kMaxDnsMessageBytes at most. It may get lost.
  virtual void Send(Bytes message) = 0;
  virtual void Close() = 0;
};

// All of these are null when the socket is not to be had.
std::shared_ptr<DnsCarrier> CarryDnsDirectly(boost::asio::io_context& io, const Endpoint& server,
                                             DnsCarrier::Calls calls);
// Ends when the server does that relays. `by.control` is not null.
std::shared_ptr<DnsCarrier> CarryDnsByRelay(boost::asio::io_context& io, const Endpoint& server,
                                            UpstreamGroup::Association by, DnsCarrier::Calls calls);
// A message has its length in front, of two bytes (RFC 7766).
std::shared_ptr<DnsCarrier> CarryDnsByStream(boost::asio::io_context& io, Dialed connected,
                                             DnsCarrier::Calls calls);

}  // namespace braid
