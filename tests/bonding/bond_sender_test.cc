// What leaves over which path, what is sent again, and what happens when a path falls silent.
#include "bonding/bond_sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "support/ip_header.h"

namespace braid::bond_sender_test {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint16_t kBond = 3;
constexpr size_t kPacketBytes = 1420;
constexpr size_t kSealBytes = 40;
constexpr DurationNs kReportEveryNs = 10 * kMillisecondNs;

class BondSenderTest : public ::testing::Test, public LaneNumbers {
 protected:
  struct Left {
    TimeNs at_ns;
    Departure::What what;
    uint8_t lane;
    uint8_t path;
    uint8_t copy;
    bool sealed_before;
    uint64_t sequence;
    uint32_t path_seq;
    uint32_t flow;  // of packets
    size_t bytes;
    BondProbe probe;
    uint8_t of_lane;  // of parity: its block's
  };
  // The other end, as far as this one hears of it: a path that is alive brings everything.
  struct Path {
    bool alive = true;
    DurationNs one_way_ns = 10 * kMillisecondNs;
    PathReport report;
    std::deque<std::pair<TimeNs, uint32_t>> probes;  // on their way: when they arrive, as sent
  };

  void Make(size_t slots = 4096) {
    memory_ = std::make_unique<BondMemory>(slots, kPacketBytes);
    sender_ = std::make_unique<BondSender>(*memory_, *this, kBond);
    sender_->SetOptions(options_);
  }

  void AddPaths(int count, const BondPathOptions& options = {}) {
    if (sender_ == nullptr) Make();
    for (int i = 0; i < count; ++i) {
      const auto id = static_cast<uint8_t>(paths_.size());
      paths_.push_back({});
      paths_.back().report.path = id;
      sender_->SetPath(id, true, options, now_ns_);
    }
  }

  uint64_t Take(uint8_t lane) override { return next_sequence_[lane]++; }

  // False: there was no slot.
  bool Put(uint32_t flow, size_t bytes = kPacketBytes,
           TrafficClass traffic_class = TrafficClass::kBulk) {
    const SlotId id = sender_->TakeSlot(bytes);
    if (id == kNoSlot) return false;
    Slot& slot = memory_->slab[id];
    slot.bytes = static_cast<uint16_t>(bytes);
    slot.flow_hash = flow;
    slot.traffic_class = traffic_class;
    testing::WriteIpv4Header(memory_->slab.packet(id), testing::kNotEcn, 0);
    sender_->Enqueue(id, now_ns_);
    return true;
  }

  // Takes what leaves now.
  void Drain() {
    Departure departure;
    while (sender_->Next(now_ns_, departure)) {
      if (!can_seal_) {
        sender_->NotSealed(departure);
        continue;
      }
      const uint64_t sequence = departure.numbered ? departure.sequence : Take(departure.lane);
      const bool fresh =
          sealed_.insert({departure.lane, sequence, departure.path, departure.copy}).second;
      ASSERT_TRUE(fresh) << "sealed twice";
      Left left{.at_ns = now_ns_,
                .what = departure.what,
                .lane = departure.lane,
                .path = departure.path,
                .copy = departure.copy,
                .sealed_before = departure.sealed_before,
                .sequence = sequence,
                .path_seq = next_path_seq_[{departure.lane, departure.path}]++};
      left.bytes = 60;
      if (departure.what == Departure::What::kPacket) {
        left.flow = memory_->slab[departure.slot].flow_hash;
        left.bytes = memory_->slab[departure.slot].bytes;
      }
      if (departure.what == Departure::What::kParity) left.of_lane = departure.plain[0];
      if (departure.what == Departure::What::kProbe) left.probe = *departure.probe;
      left_.push_back(left);
      Path& path = paths_[departure.path];
      if (path.alive) {
        ++path.report.datagrams;
        ++path.report.expected;
        path.report.bytes += static_cast<uint32_t>(left.bytes + kSealBytes);
      }
      if (path.alive && departure.what == Departure::What::kProbe) {
        path.probes.push_back({now_ns_ + path.one_way_ns, departure.probe->sent_us});
      }
      sender_->Sealed(departure, sequence, left.path_seq, left.bytes + kSealBytes, now_ns_);
    }
    ASSERT_GT(sender_->NextDue(), now_ns_) << "it is due again at once";
  }

  // Reports come all the time; they themselves take none.
  void Pass(DurationNs for_ns) {
    const TimeNs end_ns = now_ns_ + for_ns;
    for (;;) {
      const TimeNs next_ns = std::min(sender_->NextDue(), next_report_ns_);
      if (next_ns > end_ns) break;
      now_ns_ = std::max(now_ns_, next_ns);
      if (now_ns_ >= next_report_ns_) Report();
      ASSERT_NO_FATAL_FAILURE(Drain());
    }
    now_ns_ = end_ns;
  }

  void Report() {
    next_report_ns_ = now_ns_ + kReportEveryNs;
    BondReport report;
    report.made_us = ToWireUs(now_ns_);
    for (Path& path : paths_) {
      for (; !path.probes.empty() && path.probes.front().first <= now_ns_;
           path.probes.pop_front()) {
        path.report.has_probe = true;
        path.report.probe_arrived_us = ToWireUs(path.probes.front().first);
        path.report.probe_sent_us = path.probes.front().second;
      }
      if (path.report.datagrams != 0) report.paths[report.paths_used++] = path.report;
    }
    sender_->OnReport(report, now_ns_);
  }

  // Bulk, so much that there always is something to send.
  void Saturate(DurationNs for_ns, uint32_t flow = 1) {
    const TimeNs end_ns = now_ns_ + for_ns;
    while (now_ns_ < end_ns) {
      for (int i = 0; i < 40 && sender_->queue().packets() < 40; ++i) Put(flow);
      ASSERT_NO_FATAL_FAILURE(Pass(kMillisecondNs));
    }
  }

  // When the first of two busy paths fell silent, 300 ms ago.
  TimeNs CutOneOfTwo() {
    AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
    Saturate(kSecondNs);
    const TimeNs cut_ns = now_ns_;
    paths_[0].alive = false;
    Saturate(300 * kMillisecondNs);
    return cut_ns;
  }

  void TellMissing(const Left& lost) {
    MissingReport missing;
    missing.ranges_used = 1;
    missing.ranges[0] = {lost.lane, lost.path, 1, lost.path_seq};
    sender_->OnMissing(missing, now_ns_);
  }

  std::vector<Left> Packets() const {
    std::vector<Left> packets;
    for (const Left& left : left_) {
      if (left.what == Departure::What::kPacket) packets.push_back(left);
    }
    return packets;
  }
  std::vector<Left> Probes() const {
    std::vector<Left> probes;
    for (const Left& left : left_) {
      if (left.what == Departure::What::kProbe) probes.push_back(left);
    }
    return probes;
  }
  std::set<uint8_t> PathsOf(const std::vector<Left>& packets) const {
    std::set<uint8_t> paths;
    for (const Left& left : packets) paths.insert(left.path);
    return paths;
  }

  TimeNs now_ns_ = 1'000 * kSecondNs;
  BondOptions options_;
  std::unique_ptr<BondMemory> memory_;
  std::unique_ptr<BondSender> sender_;
  std::vector<Path> paths_;
  bool can_seal_ = true;
  std::map<uint8_t, uint64_t> next_sequence_;
  std::map<std::pair<uint8_t, uint8_t>, uint32_t> next_path_seq_;
  std::set<std::tuple<uint8_t, uint64_t, uint8_t, uint8_t>> sealed_;
  std::vector<Left> left_;
  TimeNs next_report_ns_ = 0;
};

// --- Classes ---

TEST_F(BondSenderTest, SendsASparseFlowAtOnceOverTwoPaths) {
  AddPaths(3);
  Put(1, 100);
  Drain();
  const auto packets = Packets();
  ASSERT_THAT(packets, SizeIs(2));
  EXPECT_EQ(packets[0].lane, kExpressLane);
  EXPECT_EQ(packets[1].lane, kExpressLane);
  EXPECT_EQ(packets[0].sequence, packets[1].sequence);
  EXPECT_TRUE(packets[1].sealed_before);
  EXPECT_NE(packets[0].path, packets[1].path);
  EXPECT_EQ(sender_->counters().express, 1u);
  EXPECT_EQ(sender_->counters().copies, 1u);
}

TEST_F(BondSenderTest, SendsASparseFlowOnceOverASinglePath) {
  AddPaths(1);
  Put(1, 100);
  Drain();
  EXPECT_THAT(Packets(), SizeIs(1));
}

TEST_F(BondSenderTest, KeepsABulkFlowOnOneOrderedLane) {
  AddPaths(2);
  Saturate(500 * kMillisecondNs, 5);
  left_.clear();
  Saturate(100 * kMillisecondNs, 5);
  const auto packets = Packets();
  ASSERT_FALSE(packets.empty());
  for (const Left& packet : packets) {
    EXPECT_NE(packet.lane, kExpressLane);
    EXPECT_EQ(packet.lane, packets[0].lane);
  }
}

TEST_F(BondSenderTest, SendsInteractivePacketsBeforeBulkThatWaits) {
  AddPaths(1, {.fixed_bytes_per_s = 125'000});
  Saturate(500 * kMillisecondNs);
  left_.clear();
  for (int i = 0; i < 30; ++i) Put(1);
  Put(2, 100, TrafficClass::kInteractive);
  Drain();
  const auto packets = Packets();
  ASSERT_FALSE(packets.empty());
  EXPECT_EQ(packets[0].flow, 2u);
}

TEST_F(BondSenderTest, DoesNotKeepRealtimePacketsInOrderNorSendsThemAgain) {
  AddPaths(2);
  for (int i = 0; i < 50; ++i) Put(1, 1000, TrafficClass::kRealtime);
  Pass(200 * kMillisecondNs);
  const auto packets = Packets();
  ASSERT_GE(packets.size(), 50u);
  for (const Left& packet : packets) EXPECT_EQ(packet.lane, kExpressLane);
  left_.clear();
  TellMissing(packets[10]);
  Pass(20 * kMillisecondNs);
  EXPECT_THAT(Packets(), IsEmpty());
}

// --- Pace ---

TEST_F(BondSenderTest, SendsAtTheRateThatIsSet) {
  AddPaths(1, {.fixed_bytes_per_s = 1'000'000});
  Saturate(kSecondNs);
  const uint64_t before = sender_->sent_bytes(0);
  Saturate(4 * kSecondNs);
  const auto bytes_per_s = static_cast<double>(sender_->sent_bytes(0) - before) / 4;
  EXPECT_LE(bytes_per_s, 1'010'000);
  EXPECT_GE(bytes_per_s, 970'000);
}

TEST_F(BondSenderTest, UsesBothPathsWhenOneIsNotEnough) {
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  Saturate(2 * kSecondNs);
  const uint64_t first = sender_->sent_bytes(0), second = sender_->sent_bytes(1);
  Saturate(2 * kSecondNs);
  EXPECT_GE(sender_->sent_bytes(0) - first, 1'900'000u);
  EXPECT_GE(sender_->sent_bytes(1) - second, 1'900'000u);
}

// A path of 10 ms and one of 30 ms; so much waits all the time.
class PlanTest : public BondSenderTest {
 protected:
  static constexpr uint64_t kRate = 2'000'000;

  void KeepWaiting(size_t packets, DurationNs for_ns) {
    for (const TimeNs end_ns = now_ns_ + for_ns; now_ns_ < end_ns;) {
      while (sender_->waiting_packets() < packets) Put(1);
      ASSERT_NO_FATAL_FAILURE(Pass(kMillisecondNs));
    }
  }

  void SetUp() override {
    AddPaths(2, {.fixed_bytes_per_s = kRate});
    paths_[1].one_way_ns = 30 * kMillisecondNs;
    // So that the delays are known.
    KeepWaiting(4, 500 * kMillisecondNs);
    left_.clear();
  }
};

TEST_F(PlanTest, LeavesASlowerPathAloneWhileTheQuickerDeliversSooner) {
  KeepWaiting(10, 500 * kMillisecondNs);  // 10 packets are 7.5 ms
  size_t slow = 0;
  for (const Left& packet : Packets()) slow += packet.path == 1 ? 1 : 0;
  EXPECT_LE(slow, Packets().size() / 50);
}

TEST_F(PlanTest, SendsOverTheSlowerPathWhatTheQuickerWouldDeliverAsLate) {
  KeepWaiting(60, 500 * kMillisecondNs);
  left_.clear();
  KeepWaiting(60, 500 * kMillisecondNs);
  size_t slow = 0;
  // When each arrives, in the order of the sequences.
  std::map<uint64_t, TimeNs> arrivals;
  for (const Left& packet : Packets()) {
    slow += packet.path == 1 ? 1 : 0;
    arrivals[packet.sequence] = packet.at_ns + paths_[packet.path].one_way_ns;
  }
  EXPECT_GE(slow, Packets().size() * 2 / 5);
  TimeNs latest_ns = 0;
  DurationNs most_waited_ns = 0;
  for (const auto& [sequence, at_ns] : arrivals) {
    latest_ns = std::max(latest_ns, at_ns);
    most_waited_ns = std::max(most_waited_ns, latest_ns - at_ns);
  }
  EXPECT_LE(most_waited_ns, 6 * kMillisecondNs) << "packets hardly wait for each other";
}

TEST_F(PlanTest, SendsOverTheOthersWhatWasPlannedForAPathThatIsGone) {
  KeepWaiting(60, 500 * kMillisecondNs);
  const size_t left_before = left_.size();
  sender_->SetPath(0, false, {}, now_ns_);
  Pass(200 * kMillisecondNs);
  EXPECT_EQ(sender_->waiting_packets(), 0u);
  std::set<uint64_t> sequences;
  for (size_t i = 0; i < left_.size(); ++i) {
    if (left_[i].what != Departure::What::kPacket) continue;
    sequences.insert(left_[i].sequence);
    EXPECT_TRUE(i < left_before || left_[i].path == 1);
  }
  EXPECT_EQ(*sequences.rbegin() - *sequences.begin() + 1, sequences.size()) << "none is missing";
}

TEST_F(PlanTest, NamesInAProbeTheFirstSequenceThatIsPlannedForItsPath) {
  KeepWaiting(60, 500 * kMillisecondNs);
  for (const Left& probe : Probes()) {
    for (uint8_t i = 0; i < probe.probe.lanes_used; ++i) {
      const BondProbe::LaneMark& mark = probe.probe.lanes[i];
      for (const Left& packet : Packets()) {
        const bool later = packet.lane == mark.lane && packet.path == probe.path &&
                           packet.at_ns > probe.at_ns && !packet.sealed_before;
        EXPECT_TRUE(!later || packet.sequence >= mark.next_sequence);
      }
    }
  }
}

TEST_F(BondSenderTest, LetsBulkGoOnBesideMoreRepairsAndSmallFlowsThanAPathCarries) {
  AddPaths(1, {.fixed_bytes_per_s = 10'000});
  for (int i = 0; i < 100; ++i) {
    for (int flow = 0; flow < 20; ++flow)
      Put(1000 + static_cast<uint32_t>(flow), 200, TrafficClass::kInteractive);
    while (sender_->waiting_packets() < 5) Put(1);
    Pass(20 * kMillisecondNs);
  }
  size_t bulk = 0;
  for (const Left& packet : Packets()) bulk += packet.flow == 1 ? 1 : 0;
  EXPECT_GE(bulk, 3u);
}

TEST_F(BondSenderTest, LeavesAStandbyPathAloneWhileTheOtherSuffices) {
  AddPaths(1, {.fixed_bytes_per_s = 10'000'000});
  AddPaths(1, {.fixed_bytes_per_s = 10'000'000, .standby = true});
  for (int i = 0; i < 1000; ++i) {
    Put(1);
    Pass(kMillisecondNs);
  }
  for (const Left& packet : Packets()) EXPECT_EQ(packet.path, 0);
  EXPECT_EQ(sender_->state(1), BondSender::PathState::kStandby);
  paths_[0].alive = false;
  for (int i = 0; i < 500; ++i) {
    Put(1);
    Pass(kMillisecondNs);
  }
  EXPECT_THAT(PathsOf(Packets()), Contains(1));
}

TEST_F(BondSenderTest, PinsAFlowToAPath) {
  options_.pin_flows = true;
  AddPaths(2, {.fixed_bytes_per_s = 500'000});
  for (int i = 0; i < 3000; ++i) {
    for (uint32_t flow = 1; flow <= 8; ++flow) {
      if (sender_->queue().packets() < 100) Put(flow);
    }
    Pass(kMillisecondNs);
    if (i == 2000) left_.clear();
  }
  std::map<uint32_t, std::set<uint8_t>> paths;
  for (const Left& packet : Packets()) {
    if (!packet.sealed_before) paths[packet.flow].insert(packet.path);
  }
  std::set<uint8_t> all;
  for (const auto& [flow, used] : paths) {
    EXPECT_THAT(used, SizeIs(1)) << "flow " << flow;
    all.insert(used.begin(), used.end());
  }
  EXPECT_THAT(all, SizeIs(2));
}

TEST_F(BondSenderTest, SendsEachPacketOverAllPathsWhenTheyAreRedundant) {
  options_.mode = BondingMode::kRedundant;
  AddPaths(3, {.fixed_bytes_per_s = 1'000'000});
  for (int i = 0; i < 1000; ++i) {
    Put(1, 500);
    Pass(kMillisecondNs);
  }
  left_.clear();
  for (int i = 0; i < 500; ++i) {
    Put(1, 500);
    Pass(kMillisecondNs);
  }
  std::map<uint64_t, std::set<uint8_t>> paths;
  for (const Left& packet : Packets()) paths[packet.sequence].insert(packet.path);
  ASSERT_GE(paths.size(), 490u);
  size_t everywhere = 0;
  for (const auto& [sequence, used] : paths) everywhere += used.size() == 3 ? 1 : 0;
  EXPECT_GE(everywhere, paths.size() * 95 / 100);
}

TEST_F(BondSenderTest, SendsOverTheQuickestPathAloneWhenOneIsPreferred) {
  options_.mode = BondingMode::kPreferred;
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  paths_[0].one_way_ns = 40 * kMillisecondNs;
  Saturate(4 * kSecondNs);
  left_.clear();
  Saturate(kSecondNs);
  EXPECT_EQ(PathsOf(Packets()), std::set<uint8_t>{1});
}

// --- Probes ---

TEST_F(BondSenderTest, ProbesEachPathWhileAnythingIsSentAndThenSleeps) {
  AddPaths(3);
  Put(1);
  Pass(200 * kMillisecondNs);
  EXPECT_THAT(PathsOf(Probes()), SizeIs(3));
  Pass(3 * kSecondNs);
  left_.clear();
  Pass(10 * kSecondNs);
  EXPECT_THAT(left_, IsEmpty());
  EXPECT_EQ(sender_->NextDue(), UINT64_MAX);
  EXPECT_EQ(memory_->slab.used(), 0u) << "what was sent is forgotten";
  EXPECT_EQ(memory_->sent.used(), 0u);
}

TEST_F(BondSenderTest, TellsTheOtherEndHowFarItsLanesAre) {
  AddPaths(2);
  Saturate(500 * kMillisecondNs);
  const auto packets = Packets();
  const Left probe = Probes().back();
  uint64_t highest = 0;
  for (const Left& packet : packets) {
    if (packet.lane == packets.back().lane && packet.at_ns <= probe.at_ns) {
      highest = std::max(highest, packet.sequence);
    }
  }
  bool found = false;
  for (uint8_t i = 0; i < probe.probe.lanes_used; ++i) {
    if (probe.probe.lanes[i].lane != packets.back().lane) continue;
    found = true;
    EXPECT_LE(probe.probe.lanes[i].next_sequence, highest + 1);
    EXPECT_GE(probe.probe.lanes[i].next_sequence + 200, highest);
  }
  EXPECT_TRUE(found);
  EXPECT_GT(probe.probe.report_every_ms, 0);
  EXPECT_GT(probe.probe.repair_ms, 0);
}

TEST_F(BondSenderTest, AsksForNoRepairTimeWhereItDoesNotRepair) {
  options_.repair = false;
  AddPaths(2);
  Saturate(100 * kMillisecondNs);
  EXPECT_EQ(Probes().back().probe.repair_ms, 0);
}

// --- Repair ---

TEST_F(BondSenderTest, SendsAgainWhatIsMissing) {
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  Saturate(500 * kMillisecondNs);
  const Left lost = Packets().back();
  left_.clear();
  TellMissing(lost);
  Drain();
  const auto packets = Packets();
  const auto again = std::find_if(packets.begin(), packets.end(),
                                  [&](const Left& left) { return left.sealed_before; });
  ASSERT_NE(again, packets.end());
  EXPECT_EQ(again->lane, lost.lane);
  EXPECT_EQ(again->sequence, lost.sequence);
  EXPECT_EQ(again->flow, lost.flow);
  EXPECT_EQ(sender_->counters().repairs, 1u);
}

TEST_F(BondSenderTest, SendsItOnceThoughItIsToldTwice) {
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  Saturate(500 * kMillisecondNs);
  const Left lost = Packets().back();
  TellMissing(lost);
  TellMissing(lost);
  Drain();
  TellMissing(lost);
  Drain();
  EXPECT_EQ(sender_->counters().repairs, 1u);
}

TEST_F(BondSenderTest, SendsARepairAgainWhenThatIsLostToo) {
  AddPaths(1, {.fixed_bytes_per_s = 1'000'000});
  Saturate(500 * kMillisecondNs);
  Left lost = Packets().back();
  std::set<uint8_t> copies = {lost.copy};
  for (int i = 0; i < 3; ++i) {
    left_.clear();
    TellMissing(lost);
    Drain();
    const auto packets = Packets();
    const auto again = std::find_if(packets.begin(), packets.end(),
                                    [&](const Left& left) { return left.sealed_before; });
    ASSERT_NE(again, packets.end());
    EXPECT_EQ(again->sequence, lost.sequence);
    copies.insert(again->copy);
    lost = *again;
  }
  EXPECT_THAT(copies, SizeIs(4));
  left_.clear();
  TellMissing(lost);  // the header has room for three
  Drain();
  for (const Left& packet : Packets()) EXPECT_FALSE(packet.sealed_before);
}

TEST_F(BondSenderTest, DoesNotRepairWhereThatIsSwitchedOff) {
  options_.repair = false;
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  Saturate(500 * kMillisecondNs);
  TellMissing(Packets().back());
  Drain();
  EXPECT_EQ(sender_->counters().repairs, 0u);
}

TEST_F(BondSenderTest, IgnoresWhatWasNeverSent) {
  AddPaths(2);
  Saturate(100 * kMillisecondNs);
  MissingReport missing;
  missing.ranges_used = 2;
  missing.ranges[0] = {kExpressLane + 3, 5, UINT16_MAX, 77};
  missing.ranges[1] = {kExpressLane + 1, 0, 100, UINT32_MAX - 50};
  sender_->OnMissing(missing, now_ns_);
  Drain();
  EXPECT_EQ(sender_->counters().repairs, 0u);
}

// --- What fails ---

TEST_F(BondSenderTest, LeavesAPathThatFallsSilentAndComesBack) {
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  Saturate(kSecondNs);
  paths_[0].alive = false;
  Saturate(300 * kMillisecondNs);
  EXPECT_EQ(sender_->state(0), BondSender::PathState::kSilent);
  EXPECT_EQ(sender_->state(1), BondSender::PathState::kUp);
  left_.clear();
  Saturate(kSecondNs);
  EXPECT_EQ(PathsOf(Packets()), std::set<uint8_t>{1});
  EXPECT_THAT(PathsOf(Probes()), Contains(0)) << "it is asked again";
  paths_[0].alive = true;
  Saturate(3 * kSecondNs);
  EXPECT_NE(sender_->state(0), BondSender::PathState::kSilent);
  left_.clear();
  Saturate(kSecondNs);
  EXPECT_THAT(PathsOf(Packets()), SizeIs(2));
}

TEST_F(BondSenderTest, TakesAPathThatPingsHaveFoundAgainForOneOutage) {
  CutOneOfTwo();
  sender_->SetPath(0, false, {}, now_ns_);
  Saturate(3 * kSecondNs);
  paths_[0].alive = true;
  sender_->SetPath(0, true, {.fixed_bytes_per_s = 1'000'000}, now_ns_);
  left_.clear();
  Saturate(200 * kMillisecondNs);
  EXPECT_EQ(PathsOf(Packets()), std::set<uint8_t>{1}) << "it has to show that it stays";
  Saturate(100 * kMillisecondNs);
  EXPECT_THAT(PathsOf(Packets()), SizeIs(2));
  for (int i = 0; i < 200; ++i) {
    Saturate(5 * kMillisecondNs);
    ASSERT_EQ(sender_->state(0), BondSender::PathState::kUp) << i;
  }
}

TEST_F(BondSenderTest, SendsAgainWhatASilentPathMayHaveLost) {
  const TimeNs cut_ns = CutOneOfTwo();
  ASSERT_EQ(sender_->state(0), BondSender::PathState::kSilent);
  Pass(50 * kMillisecondNs);
  std::set<std::pair<uint8_t, uint64_t>> lost;
  std::set<std::pair<uint8_t, uint64_t>> came;
  for (const Left& packet : Packets()) {
    if (packet.at_ns < cut_ns) continue;
    (packet.path == 0 ? lost : came).insert({packet.lane, packet.sequence});
  }
  ASSERT_FALSE(lost.empty());
  for (const auto& packet : lost) EXPECT_TRUE(came.contains(packet)) << packet.second;
}

TEST_F(BondSenderTest, RescuesTheOldestFirstAtThePaceOfThePathThatIsLeft) {
  const TimeNs cut_ns = CutOneOfTwo();
  std::vector<Left> rescued;
  std::set<uint64_t> received;
  for (const Left& packet : Packets()) {
    if (packet.sealed_before && packet.path == 1) rescued.push_back(packet);
    if (packet.at_ns < cut_ns - paths_[0].one_way_ns) received.insert(packet.sequence);
  }
  ASSERT_GT(rescued.size(), 10u);
  for (size_t i = 1; i < rescued.size(); ++i) {
    EXPECT_LT(rescued[i - 1].sequence, rescued[i].sequence);
  }
  const DurationNs took_ns = rescued.back().at_ns - rescued.front().at_ns;
  const double least_s = static_cast<double>(rescued.size() - 3) * kPacketBytes / 1'000'000;
  EXPECT_GE(static_cast<double>(took_ns) / 1e9, least_s);
  size_t needless = 0;
  for (const Left& packet : rescued) needless += received.contains(packet.sequence) ? 1 : 0;
  EXPECT_LE(needless, 20u) << "what is known to have come is not sent again, but for one report's";
}

TEST_F(BondSenderTest, TriesAllPathsWhenAllAreSilent) {
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  Saturate(kSecondNs);
  for (Path& path : paths_) path.alive = false;
  Saturate(kSecondNs);
  left_.clear();
  Saturate(kSecondNs);
  EXPECT_FALSE(Packets().empty());
  paths_[1].alive = true;
  Saturate(3 * kSecondNs);
  left_.clear();
  Saturate(kSecondNs);
  EXPECT_EQ(PathsOf(Packets()), std::set<uint8_t>{1});
}

TEST_F(BondSenderTest, SendsNothingOverAPathThatIsTakenAway) {
  AddPaths(3, {.fixed_bytes_per_s = 1'000'000});
  Saturate(kSecondNs);
  sender_->SetPath(1, false, {}, now_ns_);
  EXPECT_EQ(sender_->state(1), BondSender::PathState::kDown);
  left_.clear();
  Saturate(kSecondNs);
  for (const Left& left : left_) EXPECT_NE(left.path, 1);
  sender_->SetPath(1, true, {.fixed_bytes_per_s = 1'000'000}, now_ns_);
  Saturate(2 * kSecondNs);
  EXPECT_THAT(PathsOf(Packets()), Contains(1));
}

TEST_F(BondSenderTest, SendsNothingWhileThereIsNoPath) {
  AddPaths(1);
  sender_->SetPath(0, false, {}, now_ns_);
  for (int i = 0; i < 20; ++i) Put(1);
  Pass(500 * kMillisecondNs);
  EXPECT_THAT(left_, IsEmpty());
  Pass(10 * kSecondNs);
  EXPECT_EQ(memory_->slab.used(), 0u) << "what waited has gone stale";
  EXPECT_EQ(sender_->NextDue(), UINT64_MAX);
}

TEST_F(BondSenderTest, GivesBackWhatCouldNotBeSealed) {
  AddPaths(2);
  can_seal_ = false;
  for (uint32_t flow = 0; flow < 20; ++flow) Put(flow, 200);
  Drain();
  EXPECT_EQ(memory_->slab.used(), 0u);
  can_seal_ = true;
  Put(1, 200);
  Drain();
  EXPECT_FALSE(Packets().empty());
}

// --- Parity ---

TEST_F(BondSenderTest, ParityLeavesOverAnotherPathThanItsBlock) {
  options_.fec = FecMode::kRatio;
  options_.fec_ratio = 0.1;
  options_.pin_flows = true;
  AddPaths(2, {.fixed_bytes_per_s = 2'000'000});
  sender_->SetParityUnderstood(true);
  for (int i = 0; i < 400; ++i) {
    for (const uint32_t flow : {1, 2}) Put(flow);
    ASSERT_NO_FATAL_FAILURE(Pass(kMillisecondNs));
  }
  ASSERT_THAT(PathsOf(Packets()), SizeIs(2));
  // Each flow has its lane and its path.
  std::map<uint8_t, uint8_t> path_of;
  for (const Left& packet : Packets()) path_of[packet.lane] = packet.path;
  int other = 0;
  int same = 0;
  for (const Left& left : left_) {
    if (left.what != Departure::What::kParity || left.of_lane == kExpressLane) continue;
    EXPECT_EQ(left.lane, kExpressLane);
    ++(left.path == path_of[left.of_lane] ? same : other);
  }
  EXPECT_GT(other, 20);
  EXPECT_LT(same, other / 4);
  EXPECT_EQ(sender_->counters().parity, static_cast<uint64_t>(other + same));
}

TEST_F(BondSenderTest, ParityIsMadeOnlyForWhoUnderstandsIt) {
  options_.fec = FecMode::kRatio;
  options_.fec_ratio = 0.5;
  AddPaths(1, {.fixed_bytes_per_s = 2'000'000});
  Saturate(200 * kMillisecondNs);
  EXPECT_FALSE(sender_->all_bonded());
  EXPECT_EQ(sender_->counters().parity, 0u);
  sender_->SetParityUnderstood(true);
  EXPECT_TRUE(sender_->all_bonded());
  Saturate(200 * kMillisecondNs);
  EXPECT_GT(sender_->counters().parity, 20u);
}

TEST_F(BondSenderTest, TheOtherEndWaitsForParity) {
  options_.fec = FecMode::kRatio;
  options_.fec_ratio = 0.1;
  options_.repair = false;
  AddPaths(1, {.fixed_bytes_per_s = 2'000'000});
  sender_->SetParityUnderstood(true);
  Pass(20 * kMillisecondNs);
  for (int i = 0; i < 300; ++i) {
    Put(1);
    ASSERT_NO_FATAL_FAILURE(Pass(2 * kMillisecondNs));
  }
  EXPECT_EQ(Probes().front().probe.repair_ms, 0);
  EXPECT_GE(Probes().back().probe.repair_ms, 20);
  EXPECT_LE(Probes().back().probe.repair_ms, 100);
}

TEST_F(BondSenderTest, ParityThatCannotBeSealedIsGone) {
  options_.fec = FecMode::kRatio;
  options_.fec_ratio = 1;
  AddPaths(1, {.fixed_bytes_per_s = 2'000'000});
  sender_->SetParityUnderstood(true);
  can_seal_ = false;
  Saturate(100 * kMillisecondNs);
  sender_->Clear();
  EXPECT_EQ(memory_->slab.used(), 0u);
}

// --- Memory ---

TEST_F(BondSenderTest, ForgetsWhatWasSentWhenTheMemoryIsUsedUp) {
  Make(64);
  AddPaths(1, {.fixed_bytes_per_s = 100'000'000});
  Saturate(500 * kMillisecondNs);
  EXPECT_LE(memory_->slab.used(), 64u);
  EXPECT_EQ(sender_->counters().slab_full, 0u);
}

TEST_F(BondSenderTest, RefusesPacketsWhenAllThatIsKeptWaits) {
  Make(64);
  AddPaths(1, {.fixed_bytes_per_s = 10'000});
  int refused = 0;
  for (int i = 0; i < 100; ++i) refused += Put(1, 200) ? 0 : 1;
  EXPECT_GT(refused, 0);
  EXPECT_EQ(sender_->counters().slab_full, static_cast<uint64_t>(refused));
  EXPECT_EQ(sender_->TakeSlot(kPacketBytes + 1), kNoSlot);
}

TEST_F(BondSenderTest, LeavesNothingWhenItIsCleared) {
  AddPaths(2, {.fixed_bytes_per_s = 1'000'000});
  Saturate(500 * kMillisecondNs);
  ASSERT_FALSE(Packets().empty());
  Put(9, 100);
  TellMissing(Packets().back());
  sender_->Clear();
  EXPECT_EQ(memory_->slab.used(), 0u);
  EXPECT_EQ(memory_->sent.used(), 0u);
  left_.clear();
  Drain();
  EXPECT_THAT(Packets(), IsEmpty());
}

TEST_F(BondSenderTest, SendsReportsOverTwoPaths) {
  AddPaths(2);
  Put(1);
  Pass(50 * kMillisecondNs);
  left_.clear();
  BondReport report;
  report.made_us = 5;
  sender_->SendReport(report);
  Drain();
  std::set<uint8_t> paths;
  for (const Left& left : left_) {
    if (left.what == Departure::What::kReport) paths.insert(left.path);
  }
  EXPECT_THAT(paths, SizeIs(2));
}

}  // namespace
}  // namespace braid::bond_sender_test
