// Answers `braid bench peer` of the other end: listens at this end's inner addresses, on the
// tunnel's device only, and lets one measurement at a time run in a thread of its own.
//
// All that happens on the thread of the io_context is taking connections, a bounded number a
// second, and reading one short line of each.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/address.h"
#include "base/clock.h"
#include "slowpath/measure_session.h"

namespace braid {

inline constexpr size_t kMaxMeasureOpenings = 40;  // connections that have not said what they are
inline constexpr int kMaxMeasureConnectionsPerSecond = 200;

struct MeasureResponderOptions {
  std::vector<IpAddress> addresses;
  uint16_t port = 0;
  std::string device;      // to be bound to; empty: any, for a network that has nothing else in it
  std::string public_key;  // of this end, in base 64
  int tcp_threads = 1;
  // Whether somebody at this address may measure at all.
  std::function<bool(const IpAddress&)> allows;
  // For a connection to say what it is.
  DurationNs opening_within_ns = 3 * kSecondNs;
  MeasureSessionLimits session_limits;
};

// Lives on the thread of its io_context, which must outlive it.
class MeasureResponder {
 public:
  MeasureResponder(boost::asio::io_context& io, MeasureResponderOptions options);
  ~MeasureResponder();
  MeasureResponder(const MeasureResponder&) = delete;
  MeasureResponder& operator=(const MeasureResponder&) = delete;

  // At every address. An error names the first that did not work; the others are served.
  [[nodiscard]] absl::Status Listen();

  // Ends the listeners, and the measurement that runs, if there is one.
  void Close();

 private:
  class Core;
  const std::shared_ptr<Core> core_;
};

}  // namespace braid
