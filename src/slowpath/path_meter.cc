#include "slowpath/path_meter.h"

#include <algorithm>

namespace braid {
namespace {

constexpr double kLossWeight = 0.3;
constexpr uint64_t kEnoughDatagrams = 20;  // to speak of loss at all

// A counter that stepped back has begun anew; how far it had come before is not known.
uint64_t Since(uint64_t last, uint64_t now) { return now < last ? 0 : now - last; }

}  // namespace

void PathMeters::Sample(TotalsOf totals_of, TimeNs now_ns) {
  const bool first = sampled_ns_ == 0;
  if (!first && now_ns <= sampled_ns_) return;  // no time has passed that could be measured over
  const double elapsed_s = static_cast<double>(now_ns - sampled_ns_) / kSecondNs;
  sampled_ns_ = now_ns;
  for (size_t peer = 0; peer < meters_.size(); ++peer) {
    for (size_t path = 0; path < kMaxPaths; ++path) {
      Meter& meter = meters_[peer][path];
      const auto now = totals_of(static_cast<PeerSlot>(peer), static_cast<int>(path));
      if (!first) {
        const WorkerGroup::PathTotals& last = meter.last;
        const auto per_s = [&](uint64_t from, uint64_t to) {
          return static_cast<double>(Since(from, to)) / elapsed_s;
        };
        meter.reading.tx_bytes_per_s = per_s(last.tx_bytes, now.tx_bytes);
        meter.reading.rx_bytes_per_s = per_s(last.rx_bytes, now.rx_bytes);
        const uint64_t expected = Since(last.rx_expected, now.rx_expected);
        const uint64_t received = Since(last.rx_datagrams, now.rx_datagrams);
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
