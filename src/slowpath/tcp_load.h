// TCP streams that carry as much as they can, one way each, on threads of their own.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "io/unique_fd.h"

namespace braid {

class TcpLoad {
 public:
  struct Stream {
    UniqueFd fd;
    bool sends = false;
  };

  // The streams are shared out among at most `threads`.
  TcpLoad(std::vector<Stream> streams, int threads);
  // Ends the threads and the streams, whatever is still under way in them.
  ~TcpLoad();
  TcpLoad(const TcpLoad&) = delete;
  TcpLoad& operator=(const TcpLoad&) = delete;

  // Senders send until `end_ns`, but once at least, and then say so; receivers read until they are
  // told.
  void Start(TimeNs end_ns);

  bool finished() const { return open_streams_.load(std::memory_order_acquire) == 0; }
  uint64_t rx_bytes() const { return rx_bytes_.load(std::memory_order_relaxed); }
  // When the last byte came; 0 when none has.
  TimeNs last_rx_ns() const { return last_rx_ns_.load(std::memory_order_relaxed); }

 private:
  void Pump(std::vector<Stream*> streams, TimeNs end_ns);
  bool Send(Stream& stream) const;
  bool Receive(Stream& stream);

  std::vector<Stream> streams_;
  const size_t max_threads_;
  UniqueFd stop_;  // an eventfd
  std::vector<std::thread> threads_;
  std::atomic<size_t> open_streams_;
  std::atomic<uint64_t> rx_bytes_{0};
  std::atomic<TimeNs> last_rx_ns_{0};
};

}  // namespace braid
