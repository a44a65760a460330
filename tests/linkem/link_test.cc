// A link against a virtual clock.
#include "linkem/link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace braid::linkem::link_test {
namespace {

using ::testing::ElementsAre;

constexpr TimeNs kStart = 1'000 * kSecondNs;
constexpr uint32_t kFrameBytes = 1500;

LinkSettings Settings(const char* text) {
  LinkSettings settings;
  EXPECT_TRUE(SetLink(settings, text).ok()) << text;
  return settings;
}

struct Delivery {
  int frame;
  TimeNs at_ns;  // since kStart
};

class LinkTest : public ::testing::Test {
 protected:
  void Make(const char* text) { link_ = std::make_unique<Link<int>>(Settings(text), random_); }

  void Change(TimeNs at_ns, const char* text) {
    LinkSettings settings = link_->settings();
    ASSERT_TRUE(SetLink(settings, text).ok()) << text;
    link_->Change(kStart + at_ns, settings);
  }

  void SetDown(TimeNs at_ns, bool down) {
    LinkSettings settings = link_->settings();
    settings.down = down;
    link_->Change(kStart + at_ns, settings);
  }

  Link<int>::Verdict Enter(TimeNs at_ns, uint32_t bytes = kFrameBytes) {
    return link_->Enter(kStart + at_ns, bytes, next_frame_++);
  }

  void Deliver(TimeNs at_ns) {
    link_->Deliver(kStart + at_ns, [this](TimeNs due_ns, uint32_t, int&& frame) {
      delivered_.push_back({frame, due_ns - kStart});
    });
  }

  // As a driver does: asks when, and is there at that time.
  void RunDry() {
    for (TimeNs due_ns; (due_ns = link_->NextDueNs()) != kNever;) {
      ASSERT_GE(due_ns, kStart);
      const size_t before = delivered_.size();
      Deliver(due_ns - kStart);
      for (size_t i = before; i < delivered_.size(); ++i) {
        EXPECT_EQ(delivered_[i].at_ns, due_ns - kStart) << "told too late";
      }
    }
  }

  std::vector<int> frames() const {
    std::vector<int> frames;
    for (const Delivery& one : delivered_) frames.push_back(one.frame);
    return frames;
  }

  const LinkCounters& counters() const { return link_->counters(); }

  Random random_{1};
  std::unique_ptr<Link<int>> link_;
  int next_frame_ = 0;
  std::vector<Delivery> delivered_;
};

TEST_F(LinkTest, AnUnlimitedLinkDelaysOnly) {
  Make("delay 10ms");
  Enter(0);
  Enter(0);
  Enter(5);
  EXPECT_EQ(link_->NextDueNs(), kStart + 10 * kMillisecondNs);
  Deliver(10 * kMillisecondNs - 1);
  EXPECT_TRUE(delivered_.empty());
  Deliver(10 * kMillisecondNs);
  EXPECT_THAT(frames(), ElementsAre(0, 1));
  RunDry();
  EXPECT_THAT(frames(), ElementsAre(0, 1, 2));
  EXPECT_EQ(delivered_[2].at_ns, 10 * kMillisecondNs + 5);
  EXPECT_EQ(counters().max_queue_bytes, 0u);
}

TEST_F(LinkTest, SerialisesAtTheRateAndThenDelays) {
  Make("rate 12mbit delay 3ms");  // 1 ms a frame
  Enter(0);
  Enter(0);
  RunDry();
  ASSERT_EQ(delivered_.size(), 2u);
  EXPECT_EQ(delivered_[0].at_ns, 4 * kMillisecondNs);
  EXPECT_EQ(delivered_[1].at_ns, 5 * kMillisecondNs);
  Enter(100 * kMillisecondNs);  // the link has been idle since
  RunDry();
  EXPECT_EQ(delivered_[2].at_ns, 104 * kMillisecondNs);
}

TEST_F(LinkTest, KeepsTheRateExactlyWhereNanosecondsDoNotDivide) {
  Make("rate 7mbit queue 1GB");
  for (int i = 0; i < 7'000; ++i) Enter(0, 1001);
  RunDry();
  ASSERT_EQ(delivered_.size(), 7'000u);
  EXPECT_EQ(delivered_.back().at_ns, 8'008 * kMillisecondNs);
  EXPECT_EQ(delivered_[3'499].at_ns, 4'004 * kMillisecondNs);
}

TEST_F(LinkTest, TheRateHoldsForWhatStillWaitsAlsoOfOneFrame) {
  Make("rate 12mbit");
  for (int i = 0; i < 3; ++i) Enter(0);
  // Half of the first is on the wire: the other half takes as long as a quarter did.
  Change(kMillisecondNs / 2, "rate 24mbit");
  RunDry();
  ASSERT_EQ(delivered_.size(), 3u);
  EXPECT_EQ(delivered_[0].at_ns, kMillisecondNs * 3 / 4);
  EXPECT_EQ(delivered_[1].at_ns, kMillisecondNs * 5 / 4);
  EXPECT_EQ(delivered_[2].at_ns, kMillisecondNs * 7 / 4);
}

TEST_F(LinkTest, WithoutARateWhatWaitsLeavesAtOnce) {
  Make("rate 1kbit");
  for (int i = 0; i < 3; ++i) Enter(0);
  Change(50, "rate unlimited delay 1us");
  RunDry();
  ASSERT_EQ(delivered_.size(), 3u);
  EXPECT_EQ(delivered_.front().at_ns, 1'050u);
  EXPECT_EQ(delivered_.back().at_ns, 1'050u);
  EXPECT_EQ(counters().queue_bytes, 0u);
}

TEST_F(LinkTest, TheQueueHoldsNoMoreThanItsBytes) {
  Make("rate 12mbit queue 3000B");
  using Verdict = Link<int>::Verdict;
  EXPECT_EQ(Enter(0), Verdict::kEntered);  // is being serialised: takes no room
  EXPECT_EQ(Enter(0), Verdict::kEntered);
  EXPECT_EQ(Enter(0, 1501), Verdict::kQueueFull);
  EXPECT_EQ(Enter(0), Verdict::kEntered);
  EXPECT_EQ(Enter(0, 1), Verdict::kQueueFull);
  EXPECT_EQ(counters().queue_bytes, 3'000u);
  EXPECT_EQ(counters().queue_frames, 2u);
  EXPECT_EQ(Enter(kMillisecondNs - 1), Verdict::kQueueFull);
  EXPECT_EQ(Enter(kMillisecondNs), Verdict::kEntered);  // one has begun
  RunDry();
  EXPECT_THAT(frames(), ElementsAre(0, 1, 3, 6));
  EXPECT_EQ(counters().frames_queue_full, 3u);
  EXPECT_EQ(counters().bytes_queue_full, 1501u + 1 + 1500);
  EXPECT_EQ(counters().max_queue_bytes, 3'000u);
  EXPECT_EQ(counters().queue_bytes, 0u);
  EXPECT_EQ(counters().frames_in, 7u);
  EXPECT_EQ(counters().frames_delivered, 4u);
  EXPECT_EQ(counters().bytes_delivered, 6'000u);
}

TEST_F(LinkTest, ALinkWithoutAQueueTakesAFrameWhenIdle) {
  Make("rate 12mbit queue 0");
  Enter(0);
  Enter(kMillisecondNs - 1);
  Enter(kMillisecondNs);
  RunDry();
  EXPECT_THAT(frames(), ElementsAre(0, 2));
}

TEST_F(LinkTest, LosesItsShareAndSpendsTheTimeOnIt) {
  Make("rate 12mbit loss 10% queue 1GB");
  constexpr int kFrames = 100'000;
  for (int i = 0; i < kFrames; ++i) Enter(0);
  RunDry();
  EXPECT_NEAR(static_cast<double>(counters().frames_lost), kFrames * 0.1, kFrames * 0.005);
  EXPECT_EQ(counters().frames_lost + counters().frames_delivered, uint64_t{kFrames});
  for (const Delivery& one : delivered_) {
    ASSERT_EQ(one.at_ns, (static_cast<TimeNs>(one.frame) + 1) * kMillisecondNs);
  }
}

TEST_F(LinkTest, LosesAllOrNothing) {
  Make("loss 100%");
  Enter(0);
  EXPECT_EQ(link_->NextDueNs(), kNever);
  Change(1, "loss 0");
  Enter(2);
  RunDry();
  EXPECT_THAT(frames(), ElementsAre(1));
}

TEST_F(LinkTest, BurstsHaveTheirShareAndLength) {
  Make("burst-loss 2%,8");
  constexpr int kFrames = 1'000'000;
  for (int i = 0; i < kFrames; ++i) {
    Enter(static_cast<TimeNs>(i));
    Deliver(static_cast<TimeNs>(i));
  }
  int bursts = 0;
  int lost = 0;
  std::map<int, int> lengths;
  int next = 0;
  for (const Delivery& one : delivered_) {
    if (one.frame != next) {
      ++bursts;
      lost += one.frame - next;
      ++lengths[one.frame - next];
    }
    next = one.frame + 1;
  }
  EXPECT_NEAR(lost, kFrames * 0.02, kFrames * 0.002);
  EXPECT_NEAR(static_cast<double>(lost) / bursts, 8, 0.5);
  EXPECT_NEAR(static_cast<double>(lengths[1]) / bursts, 1 / 8.0, 0.03);  // geometric
}

TEST_F(LinkTest, JitterSpreadsEvenlyAndKeepsTheOrder) {
  Make("delay 10ms jitter 2ms");
  constexpr int kFrames = 20'000;
  double sum_ns = 0;
  for (int i = 0; i < kFrames; ++i) Enter(static_cast<TimeNs>(i) * 10 * kMillisecondNs);
  RunDry();
  ASSERT_EQ(delivered_.size(), size_t{kFrames});
  DurationNs least_ns = kNever, most_ns = 0;
  for (int i = 0; i < kFrames; ++i) {
    ASSERT_EQ(delivered_[static_cast<size_t>(i)].frame, i);
    const DurationNs took_ns =
        delivered_[static_cast<size_t>(i)].at_ns - static_cast<TimeNs>(i) * 10 * kMillisecondNs;
    least_ns = std::min(least_ns, took_ns);
    most_ns = std::max(most_ns, took_ns);
    sum_ns += static_cast<double>(took_ns);
  }
  EXPECT_GE(least_ns, 8 * kMillisecondNs);
  EXPECT_LE(least_ns, 8 * kMillisecondNs + kMillisecondNs / 100);
  EXPECT_LE(most_ns, 12 * kMillisecondNs);
  EXPECT_GE(most_ns, 12 * kMillisecondNs - kMillisecondNs / 100);
  EXPECT_NEAR(sum_ns / kFrames, 10e6, 0.05e6);
}

TEST_F(LinkTest, JitterBeyondTheDelayNeverTurnsTimeBack) {
  Make("rate 120mbit delay 1ms jitter 5ms");
  for (int i = 0; i < 1'000; ++i) Enter(static_cast<TimeNs>(i) * kMillisecondNs / 10);
  RunDry();
  ASSERT_EQ(delivered_.size(), 1'000u);
  TimeNs last_ns = 0;
  for (size_t i = 0; i < delivered_.size(); ++i) {
    ASSERT_EQ(delivered_[i].frame, static_cast<int>(i));
    ASSERT_GE(delivered_[i].at_ns, (i + 1) * kMillisecondNs / 10);
    ASSERT_GE(delivered_[i].at_ns, last_ns);
    last_ns = delivered_[i].at_ns;
  }
}

TEST_F(LinkTest, AShorterDelayDoesNotOvertake) {
  Make("delay 10ms");
  Enter(0);
  Change(1, "delay 1ms");
  Enter(2);
  Enter(20 * kMillisecondNs);
  RunDry();
  EXPECT_THAT(frames(), ElementsAre(0, 1, 2));
  EXPECT_EQ(delivered_[1].at_ns, 10 * kMillisecondNs);
  EXPECT_EQ(delivered_[2].at_ns, 21 * kMillisecondNs);
}

TEST_F(LinkTest, FramesHeldBackAreOvertaken) {
  Make("delay 10ms reorder 100%,5ms");
  Enter(0);
  Change(0, "reorder 0");
  Enter(kMillisecondNs);
  Enter(8 * kMillisecondNs);
  RunDry();
  EXPECT_THAT(frames(), ElementsAre(1, 0, 2));
  EXPECT_EQ(delivered_[0].at_ns, 11 * kMillisecondNs);
  EXPECT_EQ(delivered_[1].at_ns, 15 * kMillisecondNs);
  EXPECT_EQ(delivered_[2].at_ns, 18 * kMillisecondNs);
  EXPECT_EQ(counters().frames_held_back, 1u);
}

TEST_F(LinkTest, HoldsBackItsShare) {
  Make("rate 12mbit reorder 5%,1500us queue 1GB");
  constexpr int kFrames = 100'000;
  for (int i = 0; i < kFrames; ++i) Enter(0);
  RunDry();
  ASSERT_EQ(delivered_.size(), size_t{kFrames});
  int highest = -1, late = 0;
  for (const Delivery& one : delivered_) {
    late += one.frame < highest;
    highest = std::max(highest, one.frame);
  }
  EXPECT_NEAR(late, kFrames * 0.05, kFrames * 0.005);
  EXPECT_GE(counters().frames_held_back, static_cast<uint64_t>(late));
}

TEST_F(LinkTest, DownLosesWhatIsUnderWayAndWhatComes) {
  Make("rate 12mbit delay 10ms reorder 50%,1ms");
  for (int i = 0; i < 20; ++i) Enter(0);  // on the wire, in the serialiser, in the queue
  SetDown(5 * kMillisecondNs, true);
  EXPECT_EQ(link_->NextDueNs(), kNever);
  EXPECT_EQ(Enter(6 * kMillisecondNs), Link<int>::Verdict::kDown);
  EXPECT_EQ(counters().queue_bytes, 0u);
  SetDown(7 * kMillisecondNs, false);
  Change(7 * kMillisecondNs, "reorder 0");
  Enter(8 * kMillisecondNs);
  RunDry();
  EXPECT_THAT(frames(), ElementsAre(21));
  EXPECT_EQ(delivered_[0].at_ns, 19 * kMillisecondNs);
  EXPECT_EQ(counters().frames_lost, 21u);
  EXPECT_EQ(counters().bytes_lost, 21u * kFrameBytes);
}

TEST_F(LinkTest, AFrameThatIsReadLateStillEntersAtItsTime) {
  Make("rate 12mbit");
  Enter(0);
  Deliver(3 * kMillisecondNs);
  Enter(2 * kMillisecondNs);  // the driver woke late
  Enter(1 * kMillisecondNs);
  RunDry();
  ASSERT_EQ(delivered_.size(), 3u);
  EXPECT_EQ(delivered_[1].at_ns, 3 * kMillisecondNs);
  EXPECT_EQ(delivered_[2].at_ns, 4 * kMillisecondNs);
}

TEST_F(LinkTest, TellsWhenALaterFrameCannotBeDueYet) {
  const auto earliest_ns = [this](TimeNs at_ns) {
    return link_->EarliestDueNs(kStart + at_ns) - kStart;
  };
  Make("rate 12mbit delay 10ms jitter 4ms");
  EXPECT_EQ(earliest_ns(0), 6 * kMillisecondNs);
  Enter(0);
  EXPECT_EQ(earliest_ns(0), 7 * kMillisecondNs);  // behind the frame in the serialiser
  EXPECT_EQ(earliest_ns(5 * kMillisecondNs), 11 * kMillisecondNs);
  Change(0, "jitter 0");
  Change(2 * kMillisecondNs, "delay 1ms");
  EXPECT_EQ(earliest_ns(2 * kMillisecondNs), 11 * kMillisecondNs);  // behind the one on the wire
  RunDry();
  Enter(3 * kMillisecondNs);
  RunDry();
  EXPECT_EQ(delivered_.back().at_ns, 11 * kMillisecondNs);
}

TEST_F(LinkTest, TheSameSeedGivesTheSameDeliveries) {
  std::vector<Delivery> first;
  for (int run = 0; run < 2; ++run) {
    random_.seed(7);
    next_frame_ = 0;
    delivered_.clear();
    Make("rate 50mbit delay 5ms jitter 3ms loss 2% burst-loss 1%,4 reorder 3%,2ms queue 30KB");
    for (int i = 0; i < 5'000; ++i) Enter(static_cast<TimeNs>(i) * 200 * kMicrosecondNs);
    RunDry();
    if (run == 0) {
      first = delivered_;
      continue;
    }
    ASSERT_EQ(first.size(), delivered_.size());
    for (size_t i = 0; i < first.size(); ++i) {
      ASSERT_EQ(first[i].frame, delivered_[i].frame);
      ASSERT_EQ(first[i].at_ns, delivered_[i].at_ns);
    }
  }
  EXPECT_LT(first.size(), 5'000u);
}

TEST(Link, OwnsItsFramesUntilTheyAreDeliveredOrLost) {
  Random random(1);
  const auto alive = std::make_shared<int>();
  {
    Link<std::unique_ptr<std::shared_ptr<int>>> link(Settings("rate 12mbit queue 1500B"), random);
    const auto frame = [&] { return std::make_unique<std::shared_ptr<int>>(alive); };
    for (int i = 0; i < 3; ++i) link.Enter(kStart, kFrameBytes, frame());
    EXPECT_EQ(alive.use_count(), 3);  // one did not fit
    link.Deliver(kStart + kMillisecondNs, [](TimeNs, uint32_t, auto&& given) { given.reset(); });
    EXPECT_EQ(alive.use_count(), 2);
  }
  EXPECT_EQ(alive.use_count(), 1);
}

}  // namespace
}  // namespace braid::linkem::link_test
