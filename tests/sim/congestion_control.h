// How much a simulated TCP may have on its way, and how fast it sends. In whole segments.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "sim/event_loop.h"

namespace braid::sim {

inline constexpr uint32_t kInitialWindow = 10;  // RFC 6928
// A sender that paces sends so much at once, as segmentation offload makes it.
inline constexpr double kTrainSeconds = 0.001;

// What an acknowledgement told. The rate is a sample as in draft-cheng-iccrg-delivery-rate.
struct AckSample {
  TimeNs now_ns = 0;
  DurationNs rtt_ns = 0;      // 0: none
  DurationNs min_rtt_ns = 0;  // of all
  uint32_t acked = 0;         // newly: all up to there has come
  uint32_t delivered = 0;     // newly: acknowledged in any way
  uint64_t delivered_ever = 0;
  uint64_t delivered_before = 0;  // when the segment that was acknowledged left
  double segments_per_s = 0;      // 0: no sample
  bool source_limited = false;    // the sample shows what the program sent
  uint32_t lost = 0;              // newly
  uint32_t in_flight = 0;         // after it
  uint32_t in_flight_before = 0;
  bool window_limited = false;  // more would have been sent if it had been allowed
};

class CongestionControl {
 public:
  virtual ~CongestionControl() = default;

  virtual uint32_t window() const = 0;
  virtual double segments_per_s() const { return 0; }  // 0: not paced

  virtual void OnAck(const AckSample& sample) = 0;
  virtual void OnSent(uint32_t segments, bool again) = 0;
  // Losses were found; until everything that was under way then is acknowledged.
  virtual void OnRecovery(TimeNs now_ns, uint32_t in_flight) = 0;
  virtual void OnRecoveryEnd() = 0;
  virtual void OnTimeout(TimeNs now_ns, uint32_t in_flight) = 0;
  // What was taken for lost was not.
  virtual void OnUndo() = 0;
  // A mark of congestion came back; once in a round trip.
  virtual void OnMark(TimeNs now_ns) = 0;
  virtual std::string Phase() const = 0;
};

std::unique_ptr<CongestionControl> MakeCubic();
std::unique_ptr<CongestionControl> MakeBbr();

}  // namespace braid::sim
