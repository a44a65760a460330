#include "slowpath/path_meter.h"

#include <algorithm>

namespace braid {
namespace {

constexpr double kLossWeight = 0.3;
constexpr uint64_t kEnoughDatagrams = 20;  // to speak of loss at all

}  // namespace

void PathMeters::Sample(const WorkerGroup& workers, TimeNs now_ns) {
  const double elapsed_s = static_cast<double>(now_ns - sampled_ns_) / kSecondNs;
  const bool first = sampled_ns_ == 0;
  sampled_ns_ = now_ns;
  for (size_t peer = 0; peer < meters_.size(); ++peer) {
    for (size_t path = 0; path < kMaxPaths; ++path) {
      Meter& meter = meters_[peer][path];
      const auto now = workers.TrafficOf(static_cast<PeerSlot>(peer), static_cast<int>(path));
      if (!first) {
        const double tx_bytes = static_cast<double>(now.tx_bytes - meter.last.tx_bytes);
        const double rx_bytes = static_cast<double>(now.rx_bytes - meter.last.rx_bytes);
        meter.reading.tx_bytes_per_s = tx_bytes / elapsed_s;
        meter.reading.rx_bytes_per_s = rx_bytes / elapsed_s;
        const uint64_t expected = now.rx_expected - meter.last.rx_expected;
        const uint64_t received = now.rx_datagrams - meter.last.rx_datagrams;
        if (expected >= kEnoughDatagrams) {
          // What comes late counts as received later, so a second may bring more than was sent.
          const double loss =
              1 - std::min(1.0, static_cast<double>(received) / static_cast<double>(expected));
          meter.reading.rx_loss += kLossWeight * (loss - meter.reading.rx_loss);
        }
      }
      meter.last = now;
    }
  }
}

}  // namespace braid
