// What a path carries is found from its receiver's reports: over a simulated link, whose reports
// take a round trip.
#include "bonding/rate_control.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>

#include "linkem/link.h"

namespace braid::rate_control_test {
namespace {

constexpr uint32_t kDatagramBytes = 1460;
constexpr DurationNs kStepNs = 250 * kMicrosecondNs;
constexpr DurationNs kReportEveryNs = 20 * kMillisecondNs;
constexpr uint32_t kProbeBytes = 80;

// A sender that sends as fast as it is told, a link, a receiver that reports.
class RateControlTest : public ::testing::Test {
 protected:
  struct Frame {
    uint32_t path_seq = 0;
    uint32_t bytes = 0;
    bool probe = false;
    uint32_t sent_us = 0;
  };
  struct Told {
    TimeNs at_ns;
    uint32_t made_us;
    PathReport report;
  };

  void Make(double mbps, DurationNs delay_ns, double loss = 0, uint64_t queue_bytes = 256'000) {
    settings_ = {.rate_bits_per_s = static_cast<uint64_t>(mbps * 1e6),
                 .delay_ns = delay_ns,
                 .loss = loss,
                 .queue_bytes = queue_bytes};
    link_ = std::make_unique<linkem::Link<Frame>>(settings_, random_);
  }

  void Change(double mbps) {
    settings_.rate_bits_per_s = static_cast<uint64_t>(mbps * 1e6);
    link_->Change(now_ns_, settings_);
  }

  void SetDelay(DurationNs delay_ns) {
    settings_.delay_ns = delay_ns;
    link_->Change(now_ns_, settings_);
  }

  // `demand_mbps` limits what there is to send.
  void Run(DurationNs for_ns, double demand_mbps = 1e6) {
    const TimeNs end_ns = now_ns_ + for_ns;
    for (; now_ns_ < end_ns; now_ns_ += kStepNs) {
      SendUpTo(demand_mbps);
      link_->Deliver(now_ns_,
                     [this](TimeNs due_ns, uint32_t, Frame&& frame) { Receive(due_ns, frame); });
      if (now_ns_ >= next_report_ns_) {
        next_report_ns_ = now_ns_ + kReportEveryNs;
        told_.push_back(
            {now_ns_ + settings_.delay_ns, ToWireUs(now_ns_ + kReceiverAheadNs), report_});
      }
      for (; !told_.empty() && told_.front().at_ns <= now_ns_; told_.pop_front()) {
        control_.OnReport(told_.front().report, told_.front().made_us, now_ns_);
      }
      longest_queue_ns_ = std::max(longest_queue_ns_, LinkQueue());
    }
  }

  void SendUpTo(double demand_mbps) {
    const double step_s = static_cast<double>(kStepNs) / kSecondNs;
    const auto pace = static_cast<double>(control_.pacing_bytes_per_s());
    const double demand = demand_mbps * 1e6 / 8;
    control_.SetBacklogged(demand > pace, now_ns_);
    credit_ = std::min(credit_ + std::min(pace, demand) * step_s, 20'000.0);
    if (now_ns_ >= next_probe_ns_) {
      next_probe_ns_ = now_ns_ + kReportEveryNs;
      Send({path_seq_++, kProbeBytes, true, ToWireUs(now_ns_)});
    }
    while (credit_ > 0) {
      Send({path_seq_++, kDatagramBytes, false, 0});
      credit_ -= static_cast<double>(kDatagramBytes + RateControl::kLinkOverheadBytes);
    }
  }

  void Send(const Frame& frame) {
    link_->Enter(now_ns_, frame.bytes + static_cast<uint32_t>(RateControl::kLinkOverheadBytes),
                 frame);
  }

  void Receive(TimeNs due_ns, const Frame& frame) {
    ++report_.datagrams;
    report_.bytes += frame.bytes;
    report_.expected += frame.path_seq + 1 - next_path_seq_;
    next_path_seq_ = frame.path_seq + 1;
    if (!frame.probe) return;
    report_.has_probe = true;
    report_.probe_sent_us = frame.sent_us;
    report_.probe_arrived_us = ToWireUs(due_ns + kReceiverAheadNs);
  }

  DurationNs LinkQueue() const {
    return link_->counters().queue_bytes * 8 * kSecondNs / settings_.rate_bits_per_s;
  }
  double rate_mbps() const { return static_cast<double>(control_.bytes_per_s()) * 8 / 1e6; }
  // Over a time, of what the link delivered.
  double Delivered(DurationNs for_ns, double demand_mbps = 1e6) {
    const uint64_t before = link_->counters().bytes_delivered;
    Run(for_ns, demand_mbps);
    return static_cast<double>(link_->counters().bytes_delivered - before) * 8 * 1e3 /
           static_cast<double>(for_ns);
  }

  static constexpr DurationNs kReceiverAheadNs = 4'294'900 * kMillisecondNs;  // wraps soon

  RateControl control_;
  linkem::Random random_{1};
  linkem::LinkSettings settings_;
  std::unique_ptr<linkem::Link<Frame>> link_;
  TimeNs now_ns_ = 1000 * kSecondNs;
  double credit_ = 0;
  uint32_t path_seq_ = UINT32_MAX - 5000;
  uint32_t next_path_seq_ = UINT32_MAX - 5000;
  PathReport report_{.bytes = UINT32_MAX - 100'000};
  std::deque<Told> told_;
  TimeNs next_report_ns_ = 0;
  TimeNs next_probe_ns_ = 0;
  DurationNs longest_queue_ns_ = 0;
};

struct Line {
  double mbps;
  DurationNs delay_ns;
  uint64_t queue_bytes;
};

class LineTest : public RateControlTest, public ::testing::WithParamInterface<Line> {};

TEST_P(LineTest, IsFilledWithoutALongQueue) {
  Make(GetParam().mbps, GetParam().delay_ns, 0, GetParam().queue_bytes);
  Run(3 * kSecondNs);
  longest_queue_ns_ = 0;
  EXPECT_GE(Delivered(5 * kSecondNs), 0.9 * GetParam().mbps);
  EXPECT_NEAR(rate_mbps(), GetParam().mbps, 0.12 * GetParam().mbps);
  EXPECT_LE(longest_queue_ns_, 40 * kMillisecondNs);
  EXPECT_EQ(control_.phase() == RateControl::Phase::kStartup, false);
}

INSTANTIATE_TEST_SUITE_P(Lines, LineTest,
                         ::testing::Values(Line{2, 20 * kMillisecondNs, 64'000},
                                           Line{20, 30 * kMillisecondNs, 256'000},
                                           Line{50, 10 * kMillisecondNs, 256'000},
                                           Line{100, 5 * kMillisecondNs, 1'000'000},
                                           Line{300, 5 * kMillisecondNs, 1'024'000},
                                           Line{20, 100 * kMillisecondNs, 256'000}),
                         [](const auto& one) {
                           return std::to_string(static_cast<int>(one.param.mbps)) + "mbps_" +
                                  std::to_string(one.param.delay_ns / kMillisecondNs) + "ms";
                         });

TEST_F(RateControlTest, IsNotSlowedByLossThatIsNotCongestion) {
  Make(50, 10 * kMillisecondNs, 0.02);
  Run(3 * kSecondNs);
  EXPECT_GE(Delivered(5 * kSecondNs), 0.85 * 50);
  EXPECT_NEAR(control_.loss(), 0.02, 0.015);
}

TEST_F(RateControlTest, FollowsALinkThatBecomesFaster) {
  Make(20, 10 * kMillisecondNs);
  Run(3 * kSecondNs);
  Change(60);
  Run(15 * kSecondNs);
  EXPECT_GE(rate_mbps(), 0.85 * 60);
}

TEST_F(RateControlTest, FollowsALinkThatBecomesSlower) {
  Make(60, 10 * kMillisecondNs);
  Run(3 * kSecondNs);
  Change(20);
  Run(3 * kSecondNs);
  EXPECT_NEAR(rate_mbps(), 20, 4);
  longest_queue_ns_ = 0;
  Run(3 * kSecondNs);
  EXPECT_LE(longest_queue_ns_, 40 * kMillisecondNs);
}

TEST_F(RateControlTest, IsNotSlowedForLongByALongerWay) {
  Make(50, 10 * kMillisecondNs);
  Run(5 * kSecondNs);
  SetDelay(40 * kMillisecondNs);
  Run(8 * kSecondNs);
  EXPECT_GE(Delivered(3 * kSecondNs), 0.7 * 50);
}

TEST_F(RateControlTest, KeepsWhatItKnowsWhileLittleIsSent) {
  Make(50, 10 * kMillisecondNs);
  Run(3 * kSecondNs);
  Run(20 * kSecondNs, 1);
  EXPECT_GE(rate_mbps(), 0.85 * 50);
}

TEST_F(RateControlTest, DoesNotTakeWhatIsSentForWhatIsCarried) {
  Make(50, 10 * kMillisecondNs);
  Run(5 * kSecondNs, 5);
  Run(5 * kSecondNs);
  EXPECT_GE(rate_mbps(), 0.85 * 50);
}

// Something that was no queue has ended the beginning much too soon.
TEST_F(RateControlTest, MakesUpSoonForABeginningThatEndedTooSoon) {
  Make(400, 2 * kMillisecondNs, 0, 1'000'000);
  Run(300 * kMillisecondNs, 10);
  SetDelay(40 * kMillisecondNs);
  Run(200 * kMillisecondNs, 10);
  SetDelay(2 * kMillisecondNs);
  ASSERT_FALSE(control_.learning());
  ASSERT_LE(rate_mbps(), 20);
  Run(1300 * kMillisecondNs);
  EXPECT_GE(rate_mbps(), 0.85 * 400);
}

TEST_F(RateControlTest, IsFreeOnceMuchWentThroughWithoutLossesAndQueue) {
  Make(1000, 10 * kMillisecondNs, 0, 4'000'000);
  Run(kSecondNs, 20);
  EXPECT_FALSE(control_.free()) << "some 1,700 datagrams";
  Run(kSecondNs, 20);
  EXPECT_TRUE(control_.free());
  control_.OnOutage(now_ns_);
  EXPECT_FALSE(control_.free()) << "another way may be another path";
}

TEST_F(RateControlTest, IsNotFreeWhereSomethingIsLost) {
  Make(1000, 10 * kMillisecondNs, 0.001);
  Run(10 * kSecondNs, 20);
  EXPECT_FALSE(control_.free());
}

TEST_F(RateControlTest, IsNotFreeWhereALinkLimits) {
  Make(50, 10 * kMillisecondNs);
  Run(10 * kSecondNs);
  EXPECT_FALSE(control_.free());
}

TEST_F(RateControlTest, KeepsToAFixedRate) {
  control_.SetFixed(1'000'000);
  Make(50, 10 * kMillisecondNs);
  Run(5 * kSecondNs);
  EXPECT_EQ(control_.pacing_bytes_per_s(), 1'000'000u);
  EXPECT_EQ(control_.bytes_per_s(), 1'000'000u);
  EXPECT_FALSE(control_.learning());
  control_.SetFixed(0);
  Run(10 * kSecondNs);
  EXPECT_GE(rate_mbps(), 0.85 * 50);
}

TEST_F(RateControlTest, MeasuresTheRoundTripAndTheQueue) {
  Make(20, 30 * kMillisecondNs);
  Run(kSecondNs, 1);
  EXPECT_NEAR(static_cast<double>(control_.rtt_ns()), 60e6, 2e6);
  EXPECT_NEAR(static_cast<double>(control_.min_rtt_ns()), 60e6, 2e6);
  EXPECT_LE(control_.queue_ns(), 2 * kMillisecondNs);
  EXPECT_EQ(control_.loss(), 0);
  // Somebody else's traffic fills the queue, and keeps it so: 9.6 ms every 10 ms.
  for (int i = 0; i < 60; ++i) Send({path_seq_, kDatagramBytes, false, 0});
  for (int i = 0; i < 30; ++i) {
    for (int n = 0; n < 16; ++n) Send({path_seq_, kDatagramBytes, false, 0});
    Run(10 * kMillisecondNs, 0.1);
  }
  EXPECT_GE(control_.queue_ns(), 15 * kMillisecondNs);
  EXPECT_GE(control_.rtt_ns(), 70 * kMillisecondNs);
  EXPECT_NEAR(static_cast<double>(control_.min_rtt_ns()), 60e6, 2e6);
}

TEST_F(RateControlTest, KnowsWhichOfTwoPathsIsQuicker) {
  Make(20, 30 * kMillisecondNs);
  Run(kSecondNs, 1);
  const int64_t slow_ns = control_.base_one_way_ns();
  control_.OnRestart();
  Make(20, 10 * kMillisecondNs);
  told_.clear();
  Run(kSecondNs, 1);
  EXPECT_NEAR(static_cast<double>(slow_ns - control_.base_one_way_ns()), 20e6, 2e6);
}

TEST_F(RateControlTest, CountsAReportThatWasOvertakenOnce) {
  Make(20, 10 * kMillisecondNs);
  Run(2 * kSecondNs);
  const Told old{now_ns_, ToWireUs(now_ns_ + kReceiverAheadNs), report_};
  Run(2 * kSecondNs);
  const uint64_t before = control_.bytes_per_s();
  const double loss_before = control_.loss();
  const DurationNs rtt_before_ns = control_.rtt_ns();
  for (int i = 0; i < 100; ++i) control_.OnReport(old.report, old.made_us, now_ns_);
  EXPECT_EQ(control_.bytes_per_s(), before);
  EXPECT_EQ(control_.loss(), loss_before);
  EXPECT_EQ(control_.rtt_ns(), rtt_before_ns);
}

TEST_F(RateControlTest, WorksAgainAfterTheOtherEndHasBegunAnew) {
  Make(20, 10 * kMillisecondNs);
  Run(3 * kSecondNs);
  control_.OnRestart();
  told_.clear();
  report_ = {};
  Run(3 * kSecondNs);
  EXPECT_NEAR(rate_mbps(), 20, 3);
  EXPECT_LE(control_.loss(), 0.05);
}

TEST_F(RateControlTest, FindsOutAgainWhenToldTo) {
  Make(20, 10 * kMillisecondNs);
  Run(3 * kSecondNs);
  control_.Relearn(now_ns_);
  EXPECT_TRUE(control_.learning());
  Run(3 * kSecondNs);
  EXPECT_FALSE(control_.learning());
  EXPECT_NEAR(rate_mbps(), 20, 3);
}

}  // namespace
}  // namespace braid::rate_control_test
