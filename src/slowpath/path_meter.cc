#include "slowpath/path_meter.h"

#include <algorithm>

namespace braid {
namespace {

constexpr double kLossWeight = 0.3;
constexpr uint64_t kEnoughDatagrams = 20;  // to speak of loss at all

// A counter that stepped back has begun anew; how far it had come before is not known.
uint64_t Since(uint64_t last, uint64_t now) { return now < last ? 0 : now - last; }

}  // namespace

void PathMeters::Sample(PathsOf paths_of, TotalsOf totals_of, TimeNs now_ns) {
  // No time has passed that could be measured over.
  if (sampled_ns_ != 0 && now_ns <= sampled_ns_) return;
  const double elapsed_s = static_cast<double>(now_ns - sampled_ns_) / kSecondNs;
  sampled_ns_ = now_ns;
  for (size_t slot = 0; slot < meters_.size(); ++slot) {
    const auto peer = static_cast<PeerSlot>(slot);
    OfPeer& meters = meters_[slot];
    const size_t paths = paths_of(peer);
    for (size_t path = 0; path < paths; ++path) {
      Meter& meter = meters.paths[path];
      const auto now = totals_of(peer, static_cast<int>(path));
      // Another path of the same id.
      if (now.rx_datagrams < meter.last.rx_datagrams ||
          now.tx_datagrams < meter.last.tx_datagrams) {
        meter = {};
      } else if (path < meters.sampled) {  // the first sample is only where the next begins
        meter.Measure(now, elapsed_s);
      }
      meter.last = now;
    }
    for (size_t path = paths; path < meters.sampled; ++path) {
      Reading& reading = meters.paths[path].reading;
      reading.tx_bytes_per_s = reading.rx_bytes_per_s = 0;
    }
    meters.sampled = paths;
  }
}

void PathMeters::Meter::Measure(const WorkerGroup::PathTotals& now, double elapsed_s) {
  const auto per_s = [&](uint64_t from, uint64_t to) {
    return static_cast<double>(Since(from, to)) / elapsed_s;
  };
  reading.tx_bytes_per_s = per_s(last.tx_bytes, now.tx_bytes);
  reading.rx_bytes_per_s = per_s(last.rx_bytes, now.rx_bytes);
  const uint64_t expected = Since(last.rx_expected, now.rx_expected);
  const uint64_t received = Since(last.rx_datagrams, now.rx_datagrams);
  if (expected < kEnoughDatagrams) return;
  // What comes late counts as received later, so a second may bring more than was sent.
  const double loss =
      1 - std::min(1.0, static_cast<double>(received) / static_cast<double>(expected));
  reading.rx_loss += kLossWeight * (loss - reading.rx_loss);
}

}  // namespace braid
