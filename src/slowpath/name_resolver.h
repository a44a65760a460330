// Looks up the names of servers, in the daemon's loop, through c-ares. Its sockets carry braid's
// mark (io/own_mark.h), and it asks the servers that this machine had before the tunnel's: it works
// while the tunnel is down and everything is to go through it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/address.h"

namespace braid {

// The "nameserver" lines of a resolv.conf.
std::vector<IpAddress> NameServersIn(std::string_view resolv_conf);

class NameResolver {
 public:
  // The addresses, in the order in which they are to be tried; or why there are none.
  using Done = std::function<void(absl::StatusOr<std::vector<IpAddress>> addresses)>;

  explicit NameResolver(boost::asio::io_context& io);
  ~NameResolver();

  // `servers`: whom to ask; none: as /etc/resolv.conf says.
  void Resolve(const std::string& host, const std::vector<IpAddress>& servers, Done done);
  // Nothing is called after this.
  void Close();

 private:
  class Channel;

  boost::asio::io_context& io_;
  std::vector<std::shared_ptr<Channel>> channels_;
};

}  // namespace braid
