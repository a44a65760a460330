// Traffic without congestion control: datagrams at a rate, with or without pauses, and questions
// with their answers.
#pragma once

#include "sim/flow.h"

namespace braid::sim {

inline constexpr uint32_t kUdpOverheadBytes = 20 + 8;

struct UdpSettings {
  int from_end = 0;
  uint64_t bits_per_s = 1'000'000;  // of payload
  uint32_t payload_bytes = 1200;
  TrafficClass traffic_class = TrafficClass::kBulk;
  bool poisson = false;   // else one datagram after another, evenly
  DurationNs on_ns = 0;   // mean; 0: without pauses
  DurationNs off_ns = 0;  // mean
};

class UdpFlow : public Flow {
 public:
  UdpFlow(Hosts& hosts, uint32_t number, const UdpSettings& settings);

  void Stop() override { timer_.Cancel(); }
  const DirectionMeter& meter() const { return Flow::meter(settings_.from_end); }

 private:
  void OnPacket(int at_end, const InnerPacket& packet) override;
  void SendOne();

  const UdpSettings settings_;
  TimeNs next_ns_;
  TimeNs on_until_ns_ = 0;
  Timer timer_;
};

// Small questions at random times; each is answered at once.
struct PingSettings {
  int from_end = 0;
  double per_s = 10;
  uint32_t bytes = 84;
  uint32_t answer_bytes = 84;
  TrafficClass traffic_class = TrafficClass::kBulk;
};

class PingFlow : public Flow {
 public:
  PingFlow(Hosts& hosts, uint32_t number, const PingSettings& settings);

  void Stop() override { timer_.Cancel(); }
  uint64_t asked() const { return asked_; }
  uint64_t answered() const { return round_trips_us_.size(); }
  double round_trip_ms(double quantile) const;
  std::string Details() const override;

 private:
  void OnPacket(int at_end, const InnerPacket& packet) override;
  void Ask();

  const PingSettings settings_;
  uint64_t asked_ = 0;
  std::vector<uint32_t> round_trips_us_;
  Timer timer_;
};

}  // namespace braid::sim
