// One end of a measurement that runs: its TCP streams, its datagrams and its probes, moved by the
// thread that calls Step(), and counted. Client and server are the same here but for who probes.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "io/unique_fd.h"
#include "slowpath/datagram_load.h"
#include "slowpath/measure_protocol.h"
#include "slowpath/tcp_load.h"

namespace braid {

class LoadEnd {
 public:
  enum class Side : uint8_t { kClient, kServer };

  // `udp` is connected to the other end. `streams` stand in the order of their numbers.
  LoadEnd(const MeasurePlan& plan, Side side, UniqueFd udp, std::vector<UniqueFd> streams,
          int tcp_threads);

  void Begin();

  // Moves datagrams, then waits, until `until_ns` at most, for more to do or for one of `also` to
  // become readable.
  void Step(TimeNs until_ns, std::initializer_list<int> also);

  TimeNs start_ns() const { return start_ns_; }
  bool sends_no_more() const { return MonotonicNowNs() >= end_ns_; }
  // When something came from the other end, of whatever kind; the start when nothing has.
  TimeNs last_rx_ns() const;
  // The TCP streams of both directions have come to their ends.
  bool streams_ended() const { return tcp_ == nullptr || tcp_->finished(); }

  // `sent` is what the other end says that it has sent, once it is known.
  EndReport Report(std::optional<uint64_t> sent = std::nullopt) const;
  DatagramLoad& datagrams() { return datagrams_; }

 private:
  const MeasurePlan plan_;
  const UniqueFd udp_;
  DatagramLoad datagrams_;
  std::unique_ptr<TcpLoad> tcp_;  // nothing when there are no streams
  TimeNs start_ns_ = 0;
  TimeNs end_ns_ = 0;
};

}  // namespace braid
