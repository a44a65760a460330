// One end of the UDP side of a measurement: numbered datagrams at a rate, and probes that the other
// end echoes, which give the latency without the clocks having to agree. One thread; never waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "slowpath/latency_histogram.h"
#include "slowpath/measure_protocol.h"
#include "slowpath/sequence_meter.h"

namespace braid {

struct DatagramLoadOptions {
  bool sends = false;
  size_t datagram_bytes = kMeasureDatagramBytes;
  double rate_mbps = 0;              // 0: as fast as possible
  DurationNs probe_interval_ns = 0;  // 0: sends no probes
};

class DatagramLoad {
 public:
  // `fd` is connected to the other end, and outlives this.
  DatagramLoad(int fd, const DatagramLoadOptions& options);
  ~DatagramLoad();

  void Start(TimeNs start_ns, TimeNs end_ns);

  // Takes what has come and sends what is due. Returns when there is something to send again.
  TimeNs Step();
  // The last step found no room: more can be sent once the socket can be written to.
  bool wants_room() const { return wants_room_; }

  uint64_t sent() const { return sent_; }
  const SequenceMeter& meter() const { return meter_; }
  TimeNs last_rx_ns() const { return last_rx_ns_; }  // of the load; 0 when nothing has come

  uint64_t probes_sent() const { return probes_sent_; }
  uint64_t probes_answered() const { return echoes_.received(); }
  uint64_t probes_overtaken() const { return echoes_.Lost(); }  // a later one was answered
  TimeNs last_echo_ns() const { return last_echo_ns_; }         // 0 when none has come
  const LatencyHistogram& latency() const { return latency_; }
  // Since the last call.
  LatencyHistogram TakeRecentLatency();

 private:
  struct Batch;

  void Receive();
  bool ReceiveBatch();
  void OnDatagram(const MeasureDatagram& datagram, size_t bytes, TimeNs now_ns);
  TimeNs SendLoad(TimeNs now_ns);
  size_t SendBatch(size_t count, TimeNs now_ns);
  TimeNs SendProbe(TimeNs now_ns);
  void SendOne(const MeasureDatagram& datagram, size_t bytes);

  const int fd_;
  const DatagramLoadOptions options_;
  const double datagrams_per_ns_;  // 0: as fast as possible
  const std::unique_ptr<Batch> batch_;
  TimeNs start_ns_ = 0;
  TimeNs end_ns_ = 0;
  bool wants_room_ = false;

  uint64_t sent_ = 0;
  double skipped_ = 0;  // that were due while this thread did not run
  SequenceMeter meter_;
  TimeNs last_rx_ns_ = 0;

  uint64_t probes_sent_ = 0;
  TimeNs next_probe_ns_ = 0;
  SequenceMeter echoes_;
  TimeNs last_echo_ns_ = 0;
  LatencyHistogram latency_;
  LatencyHistogram recent_latency_;
};

}  // namespace braid
