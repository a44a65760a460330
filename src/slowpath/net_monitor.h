// Follows the network of this namespace in the daemon's loop: tells when links, addresses or
// default routes have changed, and when other routes or rules, what is forwarded, or how strictly a
// device filters may have. What comes within a moment is told at once; what the kernel had no room
// for to tell is found by looking.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "slowpath/net_snapshot.h"
#include "slowpath/netlink.h"

namespace braid {

class NetMonitor {
 public:
  static constexpr std::chrono::milliseconds kCoalesce{100};

  // Called in the loop, with the network as it is then.
  using OnChange = std::function<void(const NetSnapshot& network)>;

  NetMonitor(boost::asio::io_context& io, OnChange on_change);

  // Reads the network as it is, and follows it from then on.
  [[nodiscard]] absl::Status Start();
  void Close();

  const NetSnapshot& network() const { return network_; }
  // The socket that events come from, so that a test can make it small.
  int fd() const { return nl_socket_get_fd(socket_.get()); }

 private:
  // What is new since it was told.
  struct News {
    bool routes = false;   // or rules, or settings of devices
    bool network = false;  // something that is read again
  };

  void Wait();
  void TakeEvents();
  void Note(const char* bytes, size_t length);
  void Schedule();
  void Tell();

  NetlinkSocket socket_;
  boost::asio::posix::stream_descriptor events_;
  boost::asio::steady_timer timer_;
  const OnChange on_change_;
  NetSnapshot network_;
  News news_;
  bool scheduled_ = false;
  std::chrono::steady_clock::duration pause_ = kCoalesce;
};

}  // namespace braid
