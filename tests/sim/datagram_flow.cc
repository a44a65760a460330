#include "sim/datagram_flow.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace braid::sim {
namespace {

// Exponentially distributed.
DurationNs Around(Random& random, double mean_ns) {
  return static_cast<DurationNs>(-mean_ns * std::log(1 - Share(random))) + 1;
}

}  // namespace

UdpFlow::UdpFlow(Hosts& hosts, uint32_t number, const UdpSettings& settings)
    : Flow(hosts, number, absl::StrFormat("udp %d", number)),
      settings_(settings),
      next_ns_(hosts.loop.now_ns()),
      timer_(loop(), [this] { SendOne(); }) {
  timer_.Set(next_ns_);
}

void UdpFlow::SendOne() {
  InnerPacket packet;
  packet.bytes = static_cast<uint16_t>(settings_.payload_bytes + kUdpOverheadBytes);
  packet.traffic_class = settings_.traffic_class;
  Send(settings_.from_end, packet);
  const double every_ns = static_cast<double>(settings_.payload_bytes) * 8 * kSecondNs /
                          static_cast<double>(settings_.bits_per_s);
  next_ns_ +=
      settings_.poisson ? Around(random(), every_ns) : static_cast<DurationNs>(every_ns) + 1;
  if (settings_.on_ns != 0 && next_ns_ >= on_until_ns_) {
    if (on_until_ns_ != 0) next_ns_ += Around(random(), static_cast<double>(settings_.off_ns));
    on_until_ns_ = next_ns_ + Around(random(), static_cast<double>(settings_.on_ns));
  }
  timer_.Set(next_ns_);
}

void UdpFlow::OnPacket(int, const InnerPacket& packet) {
  CountGoodput(settings_.from_end, packet.bytes - kUdpOverheadBytes);
}

PingFlow::PingFlow(Hosts& hosts, uint32_t number, const PingSettings& settings)
    : Flow(hosts, number, absl::StrFormat("ping %d", number)),
      settings_(settings),
      timer_(loop(), [this] { Ask(); }) {
  timer_.Set(now_ns() + Around(random(), kSecondNs / settings_.per_s));
}

void PingFlow::Ask() {
  InnerPacket packet;
  packet.bytes = static_cast<uint16_t>(settings_.bytes);
  packet.traffic_class = settings_.traffic_class;
  packet.set_own(now_ns());
  ++asked_;
  Send(settings_.from_end, packet);
  timer_.Set(now_ns() + Around(random(), kSecondNs / settings_.per_s));
}

void PingFlow::OnPacket(int at_end, const InnerPacket& packet) {
  if (at_end == settings_.from_end) {
    round_trips_us_.push_back(
        static_cast<uint32_t>((now_ns() - packet.own<TimeNs>()) / kMicrosecondNs));
    return CountGoodput(1 - at_end, packet.bytes);
  }
  CountGoodput(1 - at_end, packet.bytes);
  InnerPacket answer;
  answer.bytes = static_cast<uint16_t>(settings_.answer_bytes);
  answer.traffic_class = settings_.traffic_class;
  answer.set_own(packet.own<TimeNs>());
  Send(at_end, answer);
}

double PingFlow::round_trip_ms(double quantile) const {
  if (round_trips_us_.empty()) return 0;
  std::vector<uint32_t> sorted = round_trips_us_;
  std::sort(sorted.begin(), sorted.end());
  const auto at = static_cast<size_t>(quantile * static_cast<double>(sorted.size()));
  return sorted[std::min(at, sorted.size() - 1)] / 1e3;
}

std::string PingFlow::Details() const {
  return absl::StrFormat("round trip %.1f ms, 99 %% %.1f ms, most %.1f ms", round_trip_ms(0.5),
                         round_trip_ms(0.99), round_trip_ms(1));
}

}  // namespace braid::sim
