// BBR, version 1, as Linux has it (Cardwell et al., BBR: congestion-based congestion control,
// 2016), without the part for policed links.
#include <algorithm>
#include <array>

#include "sim/congestion_control.h"

namespace braid::sim {
namespace {

constexpr double kHighGain = 2.885;
constexpr double kDrainGain = 1 / kHighGain;
constexpr double kWindowGain = 2;
constexpr std::array<double, 8> kCycle = {1.25, 0.75, 1, 1, 1, 1, 1, 1};
constexpr double kPacingMargin = 0.99;
constexpr double kFullGrowth = 1.25;
constexpr int kFullRounds = 3;
constexpr uint64_t kRateRounds = 10;
constexpr DurationNs kMinRttForNs = 10 * kSecondNs;
constexpr DurationNs kProbeRttNs = 200 * kMillisecondNs;
constexpr uint32_t kLeastWindow = 4;
constexpr double kLeastTrain = 2;
constexpr double kMostTrain = 44;
// What acknowledgements bring at once, beyond the rate, may be under way as well.
constexpr uint32_t kAggregationRounds = 5;
constexpr double kMostAggregationSeconds = 0.1;

class Bbr : public CongestionControl {
 public:
  uint32_t window() const override { return window_; }

  double segments_per_s() const override {
    const double rate = rate_.best();
    if (rate == 0) return kHighGain * kInitialWindow * 1000;  // no round trip was seen yet
    return rate * pacing_gain_ * kPacingMargin;
  }

  void OnAck(const AckSample& sample) override {
    UpdateRound(sample);
    UpdateRate(sample);
    UpdateAggregation(sample);
    UpdateFull(sample);
    UpdateDrain(sample);
    UpdateCycle(sample);
    UpdateMinRtt(sample);
    UpdateWindow(sample);
  }

  void OnSent(uint32_t, bool) override {}

  void OnRecovery(TimeNs, uint32_t in_flight) override {
    SaveWindow();
    recovering_ = true;
    conserving_ = true;
    conserving_until_round_ = round_ + 1;
    window_ = std::max(in_flight + 1, kLeastWindow);
  }

  void OnRecoveryEnd() override {
    if (!recovering_) return;
    recovering_ = conserving_ = false;
    window_ = std::max(window_, saved_window_);
  }

  void OnTimeout(TimeNs, uint32_t) override {
    SaveWindow();
    recovering_ = true;
    conserving_ = false;
    full_rate_ = 0;
    window_ = 1;
  }

  void OnUndo() override {
    full_rate_ = 0;
    full_rounds_ = 0;
    OnRecoveryEnd();
  }

  void OnMark(TimeNs) override {}

  std::string Phase() const override {
    switch (mode_) {
      case Mode::kStartup:
        return "startup";
      case Mode::kDrain:
        return "drain";
      case Mode::kProbeRate:
        return "probe bw";
      case Mode::kProbeRtt:
        return "probe rtt";
    }
    return "";
  }

 private:
  enum class Mode { kStartup, kDrain, kProbeRate, kProbeRtt };

  // The best of the last rounds.
  class RateFilter {
   public:
    void Update(uint64_t round, double rate) {
      if (round != round_) {
        for (uint64_t i = round_ + 1; i <= round && i <= round_ + rates_.size(); ++i) {
          rates_[i % rates_.size()] = 0;
        }
        round_ = round;
      }
      double& of_round = rates_[round % rates_.size()];
      of_round = std::max(of_round, rate);
    }
    double best() const { return *std::max_element(rates_.begin(), rates_.end()); }

   private:
    uint64_t round_ = 0;
    std::array<double, kRateRounds> rates_{};
  };

  uint32_t Product(double gain) const {
    if (min_rtt_ns_ == kNever) return kInitialWindow;
    return static_cast<uint32_t>(gain * rate_.best() * static_cast<double>(min_rtt_ns_) /
                                 kSecondNs) +
           1;
  }

  uint32_t Train() const {
    const double segments = rate_.best() * pacing_gain_ * kTrainSeconds;
    return static_cast<uint32_t>(std::clamp(segments, kLeastTrain, kMostTrain));
  }

  uint32_t Target(double gain) const { return Product(gain) + 3 * Train(); }

  uint32_t Aggregation() const {
    if (!full_) return 0;
    const auto most = static_cast<uint32_t>(rate_.best() * kMostAggregationSeconds);
    return std::min(std::max(aggregated_[0], aggregated_[1]), most);
  }

  void SaveWindow() {
    if (!recovering_ && mode_ != Mode::kProbeRtt) {
      saved_window_ = window_;
    } else {
      saved_window_ = std::max(saved_window_, window_);
    }
  }

  void UpdateRound(const AckSample& sample) {
    round_start_ = false;
    if (sample.delivered == 0 || sample.delivered_before < round_ends_at_) return;
    round_ends_at_ = sample.delivered_ever;
    ++round_;
    round_start_ = true;
    if (round_ >= conserving_until_round_) conserving_ = false;
  }

  void UpdateRate(const AckSample& sample) {
    if (sample.segments_per_s <= 0) return;
    // What left while it probed the round trip shows how little it sent.
    const bool limited = sample.source_limited || (sample.delivered_before >= limited_from_ &&
                                                   sample.delivered_before < limited_until_);
    if (!limited || sample.segments_per_s >= rate_.best()) {
      rate_.Update(round_, sample.segments_per_s);
    }
  }

  void UpdateAggregation(const AckSample& sample) {
    if (round_start_ && ++aggregation_rounds_ >= kAggregationRounds) {
      aggregation_rounds_ = 0;
      aggregated_ = {0, aggregated_[0]};
    }
    if (sample.delivered == 0) return;
    const auto elapsed_s = static_cast<double>(sample.now_ns - burst_since_ns_) / kSecondNs;
    double expected = rate_.best() * elapsed_s;
    if (burst_ <= expected) {
      burst_ = expected = 0;
      burst_since_ns_ = sample.now_ns;
    }
    burst_ += sample.delivered;
    aggregated_[0] =
        std::max(aggregated_[0], std::min(static_cast<uint32_t>(burst_ - expected), window_));
  }

  void UpdateFull(const AckSample& sample) {
    if (full_ || !round_start_ || sample.source_limited) return;
    if (rate_.best() >= full_rate_ * kFullGrowth) {
      full_rate_ = rate_.best();
      full_rounds_ = 0;
      return;
    }
    full_ = ++full_rounds_ >= kFullRounds;
  }

  void UpdateDrain(const AckSample& sample) {
    if (mode_ == Mode::kStartup && full_) {
      mode_ = Mode::kDrain;
      pacing_gain_ = kDrainGain;
    }
    if (mode_ == Mode::kDrain && sample.in_flight <= Target(1)) ProbeRate(sample.now_ns);
  }

  void ProbeRate(TimeNs now_ns) {
    mode_ = Mode::kProbeRate;
    window_gain_ = kWindowGain;
    cycle_ = 2 + now_ns / kMillisecondNs % 6;  // anywhere but where it drains
    cycle_since_ns_ = now_ns;
    pacing_gain_ = kCycle[cycle_];
  }

  void UpdateCycle(const AckSample& sample) {
    if (mode_ != Mode::kProbeRate) return;
    const bool long_enough = sample.now_ns > cycle_since_ns_ + min_rtt_ns_;
    bool next = long_enough;
    if (pacing_gain_ > 1) {
      next = long_enough && (sample.lost > 0 || sample.in_flight_before >= Target(pacing_gain_));
    } else if (pacing_gain_ < 1) {
      next = long_enough || sample.in_flight_before <= Target(1);
    }
    if (!next) return;
    cycle_ = (cycle_ + 1) % kCycle.size();
    cycle_since_ns_ = sample.now_ns;
    pacing_gain_ = kCycle[cycle_];
  }

  void UpdateMinRtt(const AckSample& sample) {
    const bool expired = min_rtt_ns_ != kNever && sample.now_ns > min_rtt_at_ns_ + kMinRttForNs;
    if (sample.rtt_ns != 0 && (sample.rtt_ns < min_rtt_ns_ || expired)) {
      min_rtt_ns_ = sample.rtt_ns;
      min_rtt_at_ns_ = sample.now_ns;
    }
    if (expired && mode_ != Mode::kProbeRtt) {
      SaveWindow();
      mode_ = Mode::kProbeRtt;
      limited_from_ = sample.delivered_ever;
      pacing_gain_ = 1;
      probe_rtt_until_ns_ = 0;
    }
    if (mode_ != Mode::kProbeRtt) return;
    limited_until_ = sample.delivered_ever + sample.in_flight + 1;
    if (probe_rtt_until_ns_ == 0) {
      if (sample.in_flight > kLeastWindow) return;
      probe_rtt_until_ns_ = sample.now_ns + kProbeRttNs;
      probe_rtt_round_done_ = false;
      round_ends_at_ = sample.delivered_ever;
      return;
    }
    probe_rtt_round_done_ |= round_start_;
    if (!probe_rtt_round_done_ || sample.now_ns < probe_rtt_until_ns_) return;
    min_rtt_at_ns_ = sample.now_ns;
    window_ = std::max(window_, saved_window_);
    if (full_) {
      ProbeRate(sample.now_ns);
    } else {
      mode_ = Mode::kStartup;
      pacing_gain_ = window_gain_ = kHighGain;
    }
  }

  void UpdateWindow(const AckSample& sample) {
    if (sample.delivered != 0) {
      if (sample.lost > 0) {
        window_ = window_ > sample.lost ? window_ - sample.lost : 1;
      }
      if (conserving_) {
        window_ = std::max(window_, sample.in_flight + sample.delivered);
      } else {
        const uint32_t target = Target(window_gain_) + Aggregation();
        if (full_) {
          window_ = std::min(window_ + sample.delivered, target);
        } else if (window_ < target || sample.delivered_ever < kInitialWindow) {
          window_ += sample.delivered;
        }
        window_ = std::max(window_, kLeastWindow);
      }
    }
    if (mode_ == Mode::kProbeRtt) window_ = std::min(window_, kLeastWindow);
  }

  Mode mode_ = Mode::kStartup;
  double pacing_gain_ = kHighGain;
  double window_gain_ = kHighGain;
  uint32_t window_ = kInitialWindow;
  uint32_t saved_window_ = 0;

  RateFilter rate_;
  uint64_t round_ = 0;
  uint64_t round_ends_at_ = 0;
  bool round_start_ = false;

  // The present and the last few rounds'.
  std::array<uint32_t, 2> aggregated_{};
  uint32_t aggregation_rounds_ = 0;
  double burst_ = 0;
  TimeNs burst_since_ns_ = 0;

  bool full_ = false;
  double full_rate_ = 0;
  int full_rounds_ = 0;

  size_t cycle_ = 0;
  TimeNs cycle_since_ns_ = 0;

  DurationNs min_rtt_ns_ = kNever;
  TimeNs min_rtt_at_ns_ = 0;
  TimeNs probe_rtt_until_ns_ = 0;
  bool probe_rtt_round_done_ = false;
  uint64_t limited_from_ = 0;
  uint64_t limited_until_ = 0;

  bool recovering_ = false;
  bool conserving_ = false;
  uint64_t conserving_until_round_ = 0;
};

}  // namespace

std::unique_ptr<CongestionControl> MakeBbr() { return std::make_unique<Bbr>(); }

}  // namespace braid::sim
