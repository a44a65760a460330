// Tells, in the daemon's loop, when somebody has changed nftables' rules in this network namespace:
// anybody, this process as well, since whoever hears of it compares what is there. What comes
// within a moment is told at once, and less often the longer it takes to hear of it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>

#include "absl/status/status.h"

namespace braid {

class NftMonitor {
 public:
  static constexpr std::chrono::milliseconds kCoalesce{100};

  using OnChange = std::function<void()>;  // called in the loop

  NftMonitor(boost::asio::io_context& io, OnChange on_change);

  // What changes from now on is told. Unavailable where this kernel has no nftables, or does not
  // let this process listen.
  [[nodiscard]] absl::Status Start();
  void Close();

 private:
  void Wait();
  void TakeEvents();
  void Schedule();
  void Tell();

  boost::asio::posix::stream_descriptor events_;
  boost::asio::steady_timer timer_;
  const OnChange on_change_;
  bool scheduled_ = false;
  std::chrono::steady_clock::duration pause_ = kCoalesce;
};

}  // namespace braid
