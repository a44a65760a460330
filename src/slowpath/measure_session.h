// The answering end of one measurement: a thread that lives from the request to the result, and is
// bounded in time whatever the client does.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "base/address.h"
#include "base/clock.h"
#include "io/unique_fd.h"
#include "slowpath/measure_channel.h"
#include "slowpath/measure_protocol.h"

namespace braid {

struct MeasureSessionLimits {
  DurationNs streams_within_ns = 5 * kSecondNs;  // from the request to the last stream
  // What was sent last has arrived by then, or never will.
  DurationNs settle_ns = 300 * kMillisecondNs;
};

struct MeasureSessionOptions {
  MeasureRequest request;
  MeasureSessionLimits limits;
  Endpoint local;  // of the connection that the request came over; datagrams go to the same port
  Endpoint remote;
  std::string device;      // that the sockets are bound to; empty: none
  std::string public_key;  // of this end, as the client knows it
  int tcp_threads = 1;
  // Called by the session's own thread, as the last that it does.
  std::function<void()> on_end;
};

class MeasureSession {
 public:
  // Longer than this no session lasts.
  static DurationNs LongestNs(const MeasureSessionOptions& options);

  MeasureSession(MeasureSessionOptions options, UniqueFd control);
  // Ends it now, and waits for its thread.
  ~MeasureSession();
  MeasureSession(const MeasureSession&) = delete;
  MeasureSession& operator=(const MeasureSession&) = delete;

  // Starts the thread. ResourceExhausted when there can be none.
  [[nodiscard]] absl::Status Start();

  const Endpoint& remote() const { return options_.remote; }
  int seconds_left() const;

  // A stream of this session has connected. False when it has no such stream, or has it already.
  bool AddStream(const MeasureStream& stream, const IpAddress& from, UniqueFd fd);

 private:
  void Run();
  absl::Status Measure();
  absl::StatusOr<UniqueFd> OpenDatagrams();
  absl::StatusOr<std::vector<UniqueFd>> CollectStreams();
  absl::Status ReadLines(std::optional<uint64_t>& sent);
  void WaitForGoodbye();
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

  const MeasureSessionOptions options_;
  const std::string token_;
  const TimeNs deadline_ns_;
  MeasureChannel channel_;
  UniqueFd wake_;  // an eventfd: written when a stream is there, and to stop
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<int, UniqueFd> streams_;  // by number; guarded by mutex_
  std::thread thread_;
};

}  // namespace braid
