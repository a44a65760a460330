// Endpoints as Asio has them.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <cstring>

#include "base/address.h"

namespace braid {

inline boost::asio::ip::tcp::endpoint ToTcpEndpoint(const Endpoint& endpoint) {
  boost::asio::ip::tcp::endpoint to;
  sockaddr_storage address;
  const socklen_t length = endpoint.To(address);
  std::memcpy(to.data(), &address, length);
  to.resize(length);
  return to;
}

}  // namespace braid
