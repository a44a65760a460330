// CUBIC (RFC 9438) with proportional rate reduction (RFC 6937) and a slow start that ends in time
// (HyStart, as Linux has it).
#include <algorithm>
#include <cmath>

#include "sim/congestion_control.h"

namespace braid::sim {
namespace {

constexpr double kC = 0.4;
constexpr double kBeta = 0.7;
constexpr double kAlpha = 3 * (1 - kBeta) / (1 + kBeta);

// HyStart.
constexpr uint32_t kHyStartLeastWindow = 16;
constexpr int kHyStartSamples = 8;
constexpr DurationNs kHyStartLeastNs = 4 * kMillisecondNs;
constexpr DurationNs kHyStartMostNs = 16 * kMillisecondNs;
constexpr DurationNs kAckTrainGapNs = 2 * kMillisecondNs;

class Cubic : public CongestionControl {
 public:
  uint32_t window() const override {
    if (in_recovery_) return reduced_window_;
    return std::max(static_cast<uint32_t>(window_), uint32_t{1});
  }

  void OnAck(const AckSample& sample) override {
    if (in_recovery_) return Reduce(sample);
    if (sample.acked == 0) return;
    if (SlowStart()) HyStart(sample);
    if (!sample.window_limited) return;
    double acked = sample.acked;
    if (SlowStart()) {
      const double room = std::max(threshold_ - window_, 0.0);
      const double taken = std::min(acked, room);
      window_ += taken;
      acked -= taken;
    }
    if (acked > 0) Grow(acked, sample);
  }

  void OnSent(uint32_t segments, bool) override {
    if (in_recovery_) sent_in_recovery_ += segments;
  }

  void OnRecovery(TimeNs, uint32_t in_flight) override {
    Remember();
    Decrease();
    in_recovery_ = true;
    delivered_in_recovery_ = sent_in_recovery_ = 0;
    in_flight_at_recovery_ = std::max(in_flight, uint32_t{1});
    reduced_window_ = std::max(in_flight, uint32_t{1});
  }

  void OnRecoveryEnd() override {
    if (!in_recovery_) return;
    in_recovery_ = false;
    window_ = threshold_;
  }

  void OnTimeout(TimeNs, uint32_t) override {
    Remember();
    Decrease();
    in_recovery_ = false;
    window_ = 1;
  }

  void OnUndo() override {
    in_recovery_ = false;
    window_ = std::max(window_, undo_window_);
    threshold_ = std::max(threshold_, undo_threshold_);
    most_ = undo_most_;
    epoch_ns_ = 0;
  }

  void OnMark(TimeNs) override {
    Decrease();
    window_ = threshold_;
  }

  std::string Phase() const override {
    return in_recovery_ ? "recovery" : SlowStart() ? "slow start" : "avoidance";
  }

 private:
  bool SlowStart() const { return window_ < threshold_; }

  void Remember() {
    undo_window_ = window_;
    undo_threshold_ = threshold_;
    undo_most_ = most_;
  }

  void Decrease() {
    epoch_ns_ = 0;
    // A flow that did not reach its former maximum leaves room for others.
    most_ = window_ < most_ ? window_ * (1 + kBeta) / 2 : window_;
    threshold_ = std::max(window_ * kBeta, 2.0);
  }

  // RFC 6937: so much less is sent while less arrives.
  void Reduce(const AckSample& sample) {
    delivered_in_recovery_ += sample.delivered;
    uint32_t send = 0;
    const auto threshold = static_cast<uint32_t>(threshold_);
    if (sample.in_flight > threshold) {
      const uint64_t may_have_sent =
          (uint64_t{delivered_in_recovery_} * threshold + in_flight_at_recovery_ - 1) /
          in_flight_at_recovery_;
      send = may_have_sent > sent_in_recovery_
                 ? static_cast<uint32_t>(may_have_sent) - sent_in_recovery_
                 : 0;
    } else {
      const uint32_t behind = delivered_in_recovery_ > sent_in_recovery_
                                  ? delivered_in_recovery_ - sent_in_recovery_
                                  : 0;
      const uint32_t slow_start = sample.acked > 0 && sample.lost == 0 ? 1 : 0;
      send =
          std::min(threshold - sample.in_flight, std::max(behind, sample.delivered) + slow_start);
    }
    if (sent_in_recovery_ == 0) send = std::max(send, uint32_t{1});
    reduced_window_ = std::max(sample.in_flight + send, uint32_t{1});
  }

  void HyStart(const AckSample& sample) {
    if (sample.delivered_before >= round_ends_at_) {
      round_ends_at_ = sample.delivered_ever;
      round_since_ns_ = last_ack_ns_ = sample.now_ns;
      round_min_rtt_ns_ = kNever;
      round_samples_ = 0;
    }
    if (threshold_ < kNoThreshold || window_ < kHyStartLeastWindow) return;
    if (sample.now_ns <= last_ack_ns_ + kAckTrainGapNs) {
      last_ack_ns_ = sample.now_ns;
      if (sample.now_ns - round_since_ns_ > sample.min_rtt_ns / 2) threshold_ = window_;
    }
    if (sample.rtt_ns == 0) return;
    round_min_rtt_ns_ = std::min(round_min_rtt_ns_, sample.rtt_ns);
    if (++round_samples_ < kHyStartSamples) return;
    const DurationNs margin_ns = std::clamp(sample.min_rtt_ns / 8, kHyStartLeastNs, kHyStartMostNs);
    if (round_min_rtt_ns_ > sample.min_rtt_ns + margin_ns) threshold_ = window_;
  }

  void Grow(double acked, const AckSample& sample) {
    if (epoch_ns_ == 0) {
      epoch_ns_ = sample.now_ns;
      most_ = std::max(most_, window_);
      k_s_ = std::cbrt((most_ - window_) / kC);
      reno_window_ = window_;
    }
    const double since_s =
        static_cast<double>(sample.now_ns - epoch_ns_ + sample.min_rtt_ns) / kSecondNs;
    const double t = since_s - k_s_;
    const double target = std::clamp(kC * t * t * t + most_, window_, 1.5 * window_);
    reno_window_ += (reno_window_ < most_ ? kAlpha : 1.0) * acked / window_;
    window_ = std::max(window_ + (target - window_) / window_ * acked,
                       std::min(reno_window_, window_ + acked));
  }

  static constexpr double kNoThreshold = 1e9;

  double window_ = kInitialWindow;
  double threshold_ = kNoThreshold;
  double most_ = 0;  // W_max
  TimeNs epoch_ns_ = 0;
  double k_s_ = 0;
  double reno_window_ = 0;

  double undo_window_ = 0;
  double undo_threshold_ = 0;
  double undo_most_ = 0;

  bool in_recovery_ = false;
  uint32_t reduced_window_ = 0;
  uint32_t in_flight_at_recovery_ = 0;
  uint32_t delivered_in_recovery_ = 0;
  uint32_t sent_in_recovery_ = 0;

  uint64_t round_ends_at_ = 0;
  TimeNs round_since_ns_ = 0;
  TimeNs last_ack_ns_ = 0;
  DurationNs round_min_rtt_ns_ = kNever;
  int round_samples_ = 0;
};

}  // namespace

std::unique_ptr<CongestionControl> MakeCubic() { return std::make_unique<Cubic>(); }

}  // namespace braid::sim
