// How fast a path may be sent over: an estimate of what it carries, from its receiver's reports,
// and the rate that keeps the queue on the way short. One direction of one path, at its sender.
//
// In the manner of BBR (draft-ietf-ccwg-bbr), with two differences. The receiver's clock times what
// arrived, so a sample does not depend on how reports were delayed. And the queue is seen, in the
// one-way delay of probes, so what arrives while there is one is the path's capacity, exactly; and
// what is lost while there is none was not lost to congestion, and slows nothing down.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "bonding/bond_messages.h"

namespace braid {

class RateControl {
 public:
  // From here on a path is not what limits: what one core seals is near.
  static constexpr uint64_t kUnconstrainedBytesPerS = 2'500'000'000 / 8;
  static constexpr uint64_t kUnconstrainedDatagramsPerS = 150'000;
  // Ethernet, IP and UDP in front of each datagram.
  static constexpr uint64_t kLinkOverheadBytes = 42;

  enum class Phase : uint8_t {
    kStartup,  // doubling, until more does not arrive or a queue grows
    kDrain,    // below the estimate until the queue has gone
    kCruise,   // at the estimate
    kProbe,    // somewhat above it, to see whether there is more
    kTest,     // at what arrives: are the losses due to congestion?
  };
  // In the order of the enumerators.
  static constexpr std::array<std::string_view, 5> kPhaseNames = {"startup", "drain", "cruise",
                                                                  "probe", "test"};

  // 0: measured. The path is then sent over at this rate, whatever reports say.
  void SetFixed(uint64_t bytes_per_s) { fixed_bytes_per_s_ = bytes_per_s; }

  // While it is not known what the path carries: whether to send at once whatever comes, until a
  // queue or losses tell, or to begin slowly.
  void SetEager(bool eager) { eager_ = eager; }

  // Whether packets wait that this path could carry if it were faster.
  void SetBacklogged(bool backlogged, TimeNs now_ns);
  void OnReport(const PathReport& report, uint32_t made_us, TimeNs now_ns);
  // What is on the way now is lost, and what was learned may no longer hold.
  void OnOutage(TimeNs now_ns);
  // The other end counts anew, by another clock.
  void OnRestart();
  // Finds out from the beginning what the path carries.
  void Relearn(TimeNs now_ns);

  uint64_t pacing_bytes_per_s() const;
  uint64_t bytes_per_s() const {
    return fixed_bytes_per_s_ != 0 ? fixed_bytes_per_s_ : bytes_per_s_;
  }
  bool unconstrained() const {
    return fixed_bytes_per_s_ == 0 && (bytes_per_s_ >= kUnconstrainedBytesPerS ||
                                       datagrams_per_s_ >= kUnconstrainedDatagramsPerS);
  }
  // A queue grows, or more is lost than by rare chance, though the path is not paced. Losses
  // alone tell little where so much goes through that a busy machine may have caused them.
  bool constrained() const {
    const bool lossy = loss_ > kConstrainedLoss &&
                       goodput_bytes_per_s_ < kUnconstrainedBytesPerS / 8 &&
                       datagrams_per_s_ < kUnconstrainedDatagramsPerS / 4;
    return fixed_bytes_per_s_ != 0 || (!unconstrained() && (phase_ != Phase::kStartup || lossy));
  }
  // So much has gone through, without a queue and without more than a rare loss, that nothing is
  // likely to limit what is sent.
  bool free() const { return learning() && !lossy_ && learned_from_datagrams_ >= kFreeDatagrams; }
  Phase phase() const { return phase_; }
  bool learning() const { return phase_ == Phase::kStartup && fixed_bytes_per_s_ == 0; }

  bool has_rtt() const { return rtt_ns_ != 0; }
  DurationNs rtt_ns() const { return rtt_ns_; }          // smoothed, with the queue
  DurationNs min_rtt_ns() const { return min_rtt_ns_; }  // 0: not known yet
  DurationNs jitter_ns() const { return jitter_ns_; }    // mean deviation of the one-way delay
  DurationNs queue_ns() const { return queue_ns_; }
  // On no clock in particular: only differences between the paths of one session mean anything.
  int64_t base_one_way_ns() const { return min_one_way_ns_; }  // without a queue
  int64_t one_way_ns() const { return min_one_way_ns_ + static_cast<int64_t>(queue_ns_); }
  int64_t one_way_trend_ns_per_s() const { return trend_ns_per_s_; }
  double loss() const { return loss_; }                                  // share, smoothed
  uint64_t goodput_bytes_per_s() const { return goodput_bytes_per_s_; }  // over the last interval

 private:
  void OnProbe(const PathReport& report, uint32_t made_us, TimeNs now_ns);
  void OnInterval(const PathReport& report, uint32_t made_us, TimeNs now_ns);
  void Startup(double through, double delivered, bool overflows, bool busy, TimeNs now_ns);
  void Track(double through, bool busy);
  void WatchQueue(TimeNs now_ns);
  void EndPhase(double lost, bool busy, TimeNs now_ns);
  void Begin(Phase phase, TimeNs now_ns);
  void BeNew();
  DurationNs Round() const;

  uint64_t fixed_bytes_per_s_ = 0;
  bool eager_ = false;
  Phase phase_ = Phase::kStartup;
  TimeNs phase_since_ns_ = 0;
  TimeNs next_probe_ns_ = 0;
  uint64_t bytes_per_s_ = kInitialBytesPerS;
  static constexpr uint64_t kInitialBytesPerS = 2'000'000 / 8;

  // Startup.
  double full_bytes_per_s_ = 0;
  TimeNs grew_ns_ = 0;
  double probe_gain_ = kProbeGain;
  static constexpr double kProbeGain = 1.12;
  double probed_from_ = 0;  // bytes a second, before the probe
  bool drains_after_probe_ = false;  // not after the beginning, which may have ended too soon

  // The interval that is being measured.
  bool has_base_ = false;
  PathReport base_{};
  uint32_t base_made_us_ = 0;
  TimeNs base_ns_ = 0;
  bool backlogged_ = false;
  TimeNs backlog_changed_ns_ = 0;
  DurationNs backlogged_for_ns_ = 0;
  DurationNs queue_before_ns_ = 0;

  // Loss.
  double loss_ = 0;
  double base_loss_ = 0;  // that is not due to congestion
  double test_loss_ = 0;  // that made the test begin

  // Delay. The least one-way delay of the present and of the last period, so that it follows the
  // two clocks' drift and a changed route.
  uint32_t last_probe_us_ = 0;
  bool has_one_way_ = false;
  int64_t min_one_way_ns_ = 0;
  std::array<int64_t, 2> period_min_ns_{};
  TimeNs period_since_ns_ = 0;
  std::array<int64_t, 4> recent_one_way_ns_{};
  // A queue that is being let go.
  TimeNs draining_since_ns_ = 0;  // since it last got shorter; 0: there is none
  DurationNs draining_from_ns_ = 0;
  uint64_t rate_before_drain_ = 0;
  size_t recent_count_ = 0;
  DurationNs queue_ns_ = 0;
  DurationNs rtt_ns_ = 0;
  DurationNs min_rtt_ns_ = 0;
  DurationNs jitter_ns_ = 0;
  int64_t trend_ns_per_s_ = 0;
  TimeNs last_one_way_at_ns_ = 0;
  uint64_t goodput_bytes_per_s_ = 0;
  uint64_t datagrams_per_s_ = 0;
  static constexpr double kConstrainedLoss = 0.001;
  static constexpr double kRareLoss = kConstrainedLoss / 4;
  bool lossy_ = false;  // once since the path was new, as below
  uint64_t learned_from_datagrams_ = 0;
  static constexpr uint64_t kFreeDatagrams = 3000;
};

}  // namespace braid
