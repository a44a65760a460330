// Packets of a lane come out in order, what is lost is told, and what came is reported.
#include "bonding/bond_receiver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace braid::bond_receiver_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint16_t kBond = 3;
constexpr uint8_t kLane = kExpressLane + 1;
constexpr uint32_t kBytes = 1460;

class BondReceiverTest : public ::testing::Test {
 protected:
  struct Probe {
    uint16_t hold_ms = 20;
    uint16_t repair_ms = 50;
    uint16_t report_every_ms = 25;
    DurationNs waited_ns = 0;  // for this process, after it had come
  };

  // The sender says how it wants its lanes.
  void OnProbe(uint8_t path, const Probe& wanted, std::optional<uint64_t> next_sequence = {}) {
    BondProbe probe;
    probe.sent_us = ToWireUs(now_ns_ - wanted.waited_ns) - 10'000;
    probe.report_every_ms = wanted.report_every_ms;
    probe.hold_ms = wanted.hold_ms;
    probe.repair_ms = wanted.repair_ms;
    if (next_sequence) {
      probe.lanes_used = 1;
      probe.lanes[0] = {kLane, *next_sequence};
    }
    receiver_.OnProbe(path, probe, now_ns_ - wanted.waited_ns, now_ns_);
  }

  // As the packet path does. Numbers on the path go on by one unless others are given.
  void Receive(uint8_t path, uint64_t sequence, std::optional<uint32_t> path_seq = {},
               uint8_t lane = kLane) {
    uint32_t& next = next_path_seq_[{lane, path}];
    const uint32_t number = path_seq.value_or(next);
    const uint32_t after = number + 1;
    const uint32_t advance = static_cast<int32_t>(after - next) > 0 ? after - next : 0;
    if (advance != 0) next = after;
    const bool duplicate = !seen_.insert({lane, sequence}).second;
    BondReceiver::Datagram datagram{.lane = lane,
                                    .path = path,
                                    .path_seq = number,
                                    .advance = advance,
                                    .sequence = sequence,
                                    .bytes = kBytes,
                                    .duplicate = duplicate};
    switch (receiver_.OnDatagram(datagram, now_ns_)) {
      case BondReceiver::Verdict::kDuplicate:
        EXPECT_TRUE(duplicate);
        return;
      case BondReceiver::Verdict::kDeliver:
        delivered_.push_back(sequence);
        return TakeReady();
      case BondReceiver::Verdict::kHold: {
        const SlotId id = receiver_.TakeSlot();
        ASSERT_NE(id, kNoSlot);
        return receiver_.Hold(id, datagram, now_ns_);
      }
    }
  }

  void TakeReady() {
    for (SlotId id = receiver_.TakeReady(now_ns_); id != kNoSlot;
         id = receiver_.TakeReady(now_ns_)) {
      delivered_.push_back(memory_.slab[id].sequence);
      memory_.slab.Return(id);
    }
  }

  // Wakes up when something is due, as often as that is.
  void Pass(DurationNs for_ns) {
    const TimeNs end_ns = now_ns_ + for_ns;
    while (receiver_.NextDue() <= end_ns) {
      now_ns_ = std::max(now_ns_, receiver_.NextDue());
      TakeReady();
      MissingReport missing;
      while (receiver_.TakeMissing(now_ns_, missing)) {
        for (uint8_t i = 0; i < missing.ranges_used; ++i) missing_.push_back(missing.ranges[i]);
      }
      BondReport report;
      if (receiver_.TakeReport(now_ns_, report)) reports_.push_back(report);
      ASSERT_GT(receiver_.NextDue(), now_ns_) << "it is due again at once";
    }
    now_ns_ = end_ns;
  }

  std::vector<uint64_t> Delivered() { return std::exchange(delivered_, {}); }

  TimeNs now_ns_ = 5'000 * kSecondNs;
  BondMemory memory_{16384, 1420};
  BondReceiver receiver_{memory_, kBond};
  std::map<std::pair<uint8_t, uint8_t>, uint32_t> next_path_seq_;
  std::set<std::pair<uint8_t, uint64_t>> seen_;
  std::vector<uint64_t> delivered_;
  std::vector<MissingRange> missing_;
  std::vector<BondReport> reports_;
};

// --- Order ---

TEST_F(BondReceiverTest, DeliversAtOnceUntilAnOrderIsAskedFor) {
  Receive(0, 5);
  Receive(1, 2);
  Receive(0, 9);
  EXPECT_THAT(Delivered(), ElementsAre(5, 2, 9));
}

TEST_F(BondReceiverTest, DeliversTheExpressLaneAtOnce) {
  OnProbe(0, {});
  Receive(0, 5, {}, kExpressLane);
  Receive(1, 2, {}, kExpressLane);
  EXPECT_THAT(Delivered(), ElementsAre(5, 2));
  EXPECT_EQ(receiver_.held_now(), 0u);
}

TEST_F(BondReceiverTest, PutsTwoPathsInOrder) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 2);
  Receive(0, 3);
  EXPECT_THAT(Delivered(), ElementsAre(0));
  EXPECT_EQ(receiver_.held_now(), 2u);
  Receive(1, 1);
  EXPECT_THAT(Delivered(), ElementsAre(1, 2, 3));
  EXPECT_EQ(receiver_.held_now(), 0u);
  EXPECT_EQ(memory_.slab.used(), 0u);
  EXPECT_EQ(memory_.held.used(), 0u);
  EXPECT_EQ(receiver_.counters().held, 2u);
  EXPECT_EQ(receiver_.counters().given_up, 0u);
}

TEST_F(BondReceiverTest, KeepsLanesApart) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 0, {}, kLane + 1);
  Receive(0, 2);
  Receive(0, 1, {}, kLane + 1);
  EXPECT_THAT(Delivered(), ElementsAre(0, 0, 1));
  Receive(1, 1);
  EXPECT_THAT(Delivered(), ElementsAre(1, 2));
}

TEST_F(BondReceiverTest, WhatWasRecoveredFillsItsGap) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 3, 3);
  EXPECT_THAT(Delivered(), ElementsAre(0));
  const BondReceiver::Datagram second{.lane = kLane, .sequence = 2};
  ASSERT_EQ(receiver_.OnRecovered(kLane, 2), BondReceiver::Verdict::kHold);
  receiver_.Hold(receiver_.TakeSlot(), second, now_ns_);
  TakeReady();
  EXPECT_THAT(Delivered(), IsEmpty());
  EXPECT_EQ(receiver_.OnRecovered(kLane, 1), BondReceiver::Verdict::kDeliver);
  TakeReady();
  EXPECT_THAT(Delivered(), ElementsAre(2, 3));
  EXPECT_EQ(receiver_.counters().recovered, 2u);
  EXPECT_EQ(receiver_.OnRecovered(kExpressLane, 9), BondReceiver::Verdict::kDeliver);
}

TEST_F(BondReceiverTest, WaitsAsLongAsTheSenderSaysAndNoLonger) {
  OnProbe(0, {.hold_ms = 20, .repair_ms = 50});
  Receive(0, 0);
  Receive(0, 2);
  Pass(69 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(0));
  Pass(2 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(2));
  EXPECT_EQ(receiver_.counters().given_up, 1u);
}

TEST_F(BondReceiverTest, WaitsAsLongAsItMayOnceABusyPathHasFallenSilent) {
  OnProbe(0, {.hold_ms = 20, .repair_ms = 30});
  uint64_t sequence = 0;
  for (int i = 0; i < 200; ++i) {
    Receive(0, sequence++);
    Receive(1, sequence++);
    Pass(kMillisecondNs);
  }
  Delivered();
  // Path 1 is gone; path 0 goes on.
  for (int i = 0; i < 190; ++i) {
    ++sequence;
    Receive(0, ++sequence);
    Pass(kMillisecondNs);
  }
  EXPECT_THAT(Delivered(), IsEmpty());
  EXPECT_EQ(receiver_.counters().given_up, 0u);
  Pass(20 * kMillisecondNs);
  EXPECT_GT(receiver_.counters().given_up, 0u);
  EXPECT_GT(Delivered().size(), 5u);
}

TEST_F(BondReceiverTest, WaitsNoLongerThanItMay) {
  receiver_.SetReorderMax(30 * kMillisecondNs);
  OnProbe(0, {.hold_ms = 20, .repair_ms = 50});
  Receive(0, 0);
  Receive(0, 2);
  Pass(29 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(0));
  Pass(2 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(2));
}

TEST_F(BondReceiverTest, HoldsNoPacketLongerWhateverElseIsMissing) {
  OnProbe(0, {.hold_ms = 20, .repair_ms = 50});
  Receive(0, 0);
  Receive(0, 9);
  Pass(40 * kMillisecondNs);
  Receive(0, 7);
  Receive(0, 5);
  Pass(29 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(0));
  Pass(2 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(5, 7, 9));
}

TEST_F(BondReceiverTest, DeliversLateWhatItNoLongerWaitedFor) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 2);
  Pass(100 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(0, 2));
  Receive(1, 1);
  EXPECT_THAT(Delivered(), ElementsAre(1));
  EXPECT_EQ(receiver_.counters().late, 1u);
  Receive(0, 3);
  EXPECT_THAT(Delivered(), ElementsAre(3));
}

TEST_F(BondReceiverTest, DoesNotWaitForWhatEveryPathHasPassedWhereNothingIsRepaired) {
  OnProbe(0, {.hold_ms = 100, .repair_ms = 0});
  OnProbe(1, {.hold_ms = 100, .repair_ms = 0});
  Receive(0, 0);
  Receive(1, 1);
  Receive(0, 3);
  Pass(20 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(0, 1)) << "path 1 may still bring it";
  Receive(1, 4);
  Pass(20 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(3, 4));
}

TEST_F(BondReceiverTest, DoesNotWaitForASilentPathWhereAProbeShowsThatNothingIsUnderWay) {
  OnProbe(0, {.hold_ms = 100, .repair_ms = 0});
  OnProbe(1, {.hold_ms = 100, .repair_ms = 0});
  Receive(0, 0);
  Receive(1, 1);
  Receive(0, 3);
  OnProbe(1, {.hold_ms = 100, .repair_ms = 0}, 4);
  Pass(20 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(0, 1, 3));
}

TEST_F(BondReceiverTest, WaitsForARepairThoughEveryPathHasPassed) {
  OnProbe(0, {.hold_ms = 20, .repair_ms = 50});
  Receive(0, 0);
  Receive(0, 2, 2);
  Pass(60 * kMillisecondNs);
  EXPECT_THAT(Delivered(), ElementsAre(0));
  Receive(1, 1);
  EXPECT_THAT(Delivered(), ElementsAre(1, 2));
}

TEST_F(BondReceiverTest, GoesOnWhenMoreWaitThanItHolds) {
  OnProbe(0, {.hold_ms = 200, .repair_ms = 200});
  Receive(0, 0);
  for (uint64_t i = 0; i <= BondReceiver::kWindow + 10; ++i) Receive(0, 2 + i);
  TakeReady();
  EXPECT_GT(delivered_.size(), BondReceiver::kWindow);
}

TEST_F(BondReceiverTest, GoesOnWhenTheMemoryIsNearlyUsedUp) {
  OnProbe(0, {.hold_ms = 200, .repair_ms = 200});
  while (memory_.slab.used() < memory_.slab.capacity() * 15 / 16) memory_.slab.Take();
  Receive(0, 0);
  Receive(0, 2);
  TakeReady();
  EXPECT_THAT(Delivered(), ElementsAre(0, 2));
}

TEST_F(BondReceiverTest, KnowsDuplicates) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(1, 0);
  Receive(0, 2);
  Receive(1, 2);
  Receive(1, 1);
  EXPECT_THAT(Delivered(), ElementsAre(0, 1, 2));
  EXPECT_EQ(receiver_.counters().duplicates, 2u);
}

TEST_F(BondReceiverTest, LeavesNothingWhenItIsCleared) {
  OnProbe(0, {});
  Receive(0, 0);
  for (uint64_t i = 0; i < 100; ++i) Receive(0, 2 + 2 * i);
  EXPECT_EQ(memory_.slab.used(), 100u);
  receiver_.Clear();
  EXPECT_EQ(memory_.slab.used(), 0u);
  EXPECT_EQ(memory_.held.used(), 0u);
  EXPECT_EQ(receiver_.held_now(), 0u);
  EXPECT_EQ(receiver_.NextDue(), UINT64_MAX);
  // What comes now belongs to an end that has begun anew.
  seen_.clear();
  next_path_seq_.clear();
  Delivered();
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 1);
  EXPECT_THAT(Delivered(), ElementsAre(0, 1));
}

// --- Losses ---

TEST_F(BondReceiverTest, TellsWhatIsMissingOnAPath) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 4, 4);
  Pass(5 * kMillisecondNs);
  ASSERT_EQ(missing_.size(), 1u);
  EXPECT_EQ(missing_[0].lane, kLane);
  EXPECT_EQ(missing_[0].path, 0);
  EXPECT_EQ(missing_[0].first_path_seq, 1u);
  EXPECT_EQ(missing_[0].count, 3);
  EXPECT_EQ(receiver_.counters().lost, 3u);
}

TEST_F(BondReceiverTest, TellsItAgainButNotForEver) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 2, 2);
  Pass(kSecondNs);
  EXPECT_GE(missing_.size(), 2u);
  EXPECT_LE(missing_.size(), 4u);
  EXPECT_EQ(receiver_.counters().lost, 1u);
}

TEST_F(BondReceiverTest, GivesWhatWasOvertakenTimeToCome) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 2, 2);
  now_ns_ += 200 * kMicrosecondNs;
  Receive(0, 1, 1);
  Pass(kSecondNs);
  EXPECT_THAT(missing_, IsEmpty());
  EXPECT_EQ(receiver_.counters().lost, 0u);
  EXPECT_THAT(Delivered(), ElementsAre(0, 1, 2));
}

TEST_F(BondReceiverTest, LearnsHowMuchAPathReorders) {
  OnProbe(0, {});
  uint32_t number = 0;
  Receive(0, 0, number);
  // Each second datagram comes 5 ms after the one that overtook it.
  for (uint64_t i = 0; i < 40; ++i) {
    Receive(0, 2 * i + 2, number + 2);
    Pass(5 * kMillisecondNs);
    Receive(0, 2 * i + 1, number + 1);
    number += 2;
  }
  const size_t told_at_first = missing_.size();
  EXPECT_GE(told_at_first, 1u);
  EXPECT_LE(told_at_first, 5u);
  EXPECT_EQ(receiver_.counters().lost, 0u);
}

TEST_F(BondReceiverTest, TellsTheRestOfAHole) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 9, 9);
  now_ns_ += 300 * kMicrosecondNs;
  Receive(0, 4, 4);
  Pass(3 * kMillisecondNs);
  std::set<uint32_t> told;
  for (const MissingRange& range : missing_) {
    for (uint32_t i = 0; i < range.count; ++i) told.insert(range.first_path_seq + i);
  }
  EXPECT_THAT(told, ElementsAre(1, 2, 3, 5, 6, 7, 8));
}

TEST_F(BondReceiverTest, CountsAnOutageAsNoLoss) {
  OnProbe(0, {});
  Receive(0, 0);
  Pass(kSecondNs);
  Receive(0, 100, 100);
  Pass(kSecondNs);
  EXPECT_THAT(missing_, IsEmpty());
  EXPECT_EQ(receiver_.counters().lost, 0u);
  OnProbe(0, {});
  Pass(50 * kMillisecondNs);
  EXPECT_EQ(reports_.back().paths[0].expected, 2u);
}

TEST_F(BondReceiverTest, ForgetsAPath) {
  OnProbe(0, {});
  Receive(0, 0);
  Receive(0, 5, 5);
  receiver_.ForgetPath(0);
  Pass(kSecondNs);
  EXPECT_THAT(missing_, IsEmpty());
}

TEST_F(BondReceiverTest, SurvivesMoreHolesThanItRemembers) {
  OnProbe(0, {});
  uint32_t number = 0;
  for (uint64_t i = 0; i < 1000; ++i) Receive(0, i, number += 2);
  Pass(2 * kSecondNs);
  EXPECT_GE(missing_.size(), 200u);
  missing_.clear();
  Receive(0, 1000, number + 1);
  Receive(0, 1001, number + 3);
  Pass(20 * kMillisecondNs);
  EXPECT_FALSE(missing_.empty()) << "old ones make room";
}

// --- Reports ---

TEST_F(BondReceiverTest, ReportsNothingUnasked) {
  Receive(0, 0);
  Pass(kSecondNs);
  EXPECT_THAT(reports_, IsEmpty());
}

TEST_F(BondReceiverTest, ReportsWhatCameOverEachPath) {
  const uint32_t sent_us = ToWireUs(now_ns_) - 10'000;
  const uint32_t arrived_us = ToWireUs(now_ns_);
  OnProbe(1, {});
  Receive(0, 0);
  Receive(0, 1);
  Receive(1, 2);
  Receive(1, 5, 3);
  Pass(30 * kMillisecondNs);
  ASSERT_FALSE(reports_.empty());
  const BondReport& report = reports_.back();
  ASSERT_EQ(report.paths_used, 2);
  EXPECT_EQ(report.paths[0].path, 0);
  EXPECT_FALSE(report.paths[0].has_probe);
  EXPECT_EQ(report.paths[0].datagrams, 2u);
  EXPECT_EQ(report.paths[0].expected, 2u);
  EXPECT_EQ(report.paths[0].bytes, 2 * kBytes);
  EXPECT_EQ(report.paths[1].path, 1);
  EXPECT_TRUE(report.paths[1].has_probe);
  EXPECT_EQ(report.paths[1].probe_sent_us, sent_us);
  EXPECT_EQ(report.paths[1].probe_arrived_us, arrived_us);
  EXPECT_EQ(report.paths[1].datagrams, 2u);
  EXPECT_EQ(report.paths[1].expected, 4u);
}

TEST_F(BondReceiverTest, TellsWhenAProbeCameNotWhenItWasRead) {
  constexpr DurationNs kWaitedNs = 40 * kMillisecondNs;
  OnProbe(0, {.waited_ns = kWaitedNs});
  const uint32_t arrived_us = ToWireUs(now_ns_ - kWaitedNs);
  Receive(0, 0, {}, kExpressLane);
  Pass(50 * kMillisecondNs);
  ASSERT_FALSE(reports_.empty());
  EXPECT_EQ(reports_.back().paths[0].probe_arrived_us, arrived_us);
  EXPECT_EQ(reports_.back().paths[0].probe_sent_us, arrived_us - 10'000);
}

TEST_F(BondReceiverTest, ReportsAsOftenAsItIsAskedTo) {
  for (int i = 0; i < 10; ++i) {
    OnProbe(0, {.report_every_ms = 25});
    Receive(0, static_cast<uint64_t>(i), {}, kExpressLane);
    Pass(100 * kMillisecondNs);
  }
  EXPECT_GE(reports_.size(), 38u);
  EXPECT_LE(reports_.size(), 42u);
}

TEST_F(BondReceiverTest, StopsWhenNobodyAsksAnyMore) {
  OnProbe(0, {});
  Receive(0, 0);
  Pass(10 * kSecondNs);
  const size_t reports = reports_.size();
  EXPECT_LE(reports, 40u);
  EXPECT_EQ(receiver_.NextDue(), UINT64_MAX);
  OnProbe(0, {});
  Pass(50 * kMillisecondNs);
  EXPECT_GT(reports_.size(), reports);
}

TEST_F(BondReceiverTest, SleepsAtLastThoughItWokeUpLate) {
  OnProbe(0, {});
  Receive(0, 0);
  BondReport report;
  for (int wake = 0; wake < 200 && receiver_.NextDue() != UINT64_MAX; ++wake) {
    now_ns_ = std::max(now_ns_, receiver_.NextDue()) + 7 * kMillisecondNs;
    receiver_.TakeReport(now_ns_, report);
  }
  EXPECT_EQ(receiver_.NextDue(), UINT64_MAX);
}

}  // namespace
}  // namespace braid::bond_receiver_test
