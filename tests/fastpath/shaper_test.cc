// Limits are kept over any second, for each peer and for all; one that has to wait keeps no other
// waiting; and of a flood little is opened.
#include "fastpath/shaper.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "support/ip_header.h"

namespace braid::shaper_test {
namespace {

constexpr size_t kPacketBytes = 1400;
constexpr size_t kPeers = 8;
constexpr size_t kSlots = 8192;
constexpr DurationNs kStepNs = 100 * kMicrosecondNs;

uint64_t BytesPerS(double mbps) { return static_cast<uint64_t>(mbps * 1e6 / 8); }

struct Went {
  TimeNs at_ns;
  size_t bytes;
};

// Shapers as workers have them, with one throttle between them and a clock.
class ShaperTest : public ::testing::Test {
 protected:
  struct WorkerOf {
    explicit WorkerOf(int index) : shaper(slab, kPeers, index) {}

    PacketSlab slab{kSlots, kPacketBytes};
    Shaper shaper;
  };

  void SetUp() override { Begin(1); }

  void Begin(int workers) {
    workers_.clear();
    for (int i = 0; i < workers; ++i) workers_.push_back(std::make_unique<WorkerOf>(i));
    throttle_ = std::make_unique<Throttle>(workers);
    way().peers.resize(kPeers);
  }
  ThrottleWay& way() { return throttle_->tx; }

  void Limit(PeerSlot peer, double mbps) {
    way().peers[peer] = std::make_unique<TokenBucket>(RateLimit::WithDefaultBurst(BytesPerS(mbps)));
  }
  void LimitAll(double mbps) {
    way().total = std::make_unique<TokenBucket>(RateLimit::WithDefaultBurst(BytesPerS(mbps)));
  }
  void Apply() {
    for (auto& worker : workers_) worker->shaper.SetLimits(&way(), now_ns_);
  }

  // As the packet path does it: it goes on, or waits. False when it was dropped, or another
  // instead.
  bool Offer(PeerSlot peer, uint32_t flow = 1, size_t bytes = kPacketBytes, size_t at = 0) {
    WorkerOf& worker = *workers_[at];
    if (!worker.shaper.Limits(peer) || worker.shaper.Pass(peer, bytes, now_ns_)) {
      Note(peer, flow, bytes);
      return true;
    }
    const SlotId id = worker.slab.Take();
    if (id == kNoSlot) return false;
    worker.slab[id].bytes = static_cast<uint16_t>(bytes);
    worker.slab[id].flow_hash = flow;
    testing::WriteIpv4Header(worker.slab.packet(id), testing::kNotEcn, 0);
    const size_t dropped = worker.shaper.Enqueue(peer, id, {}, now_ns_);
    dropped_ += dropped;
    return dropped == 0;
  }

  void Run() {
    for (auto& worker : workers_) {
      if (worker->shaper.NextDue() > now_ns_) continue;
      dropped_ += worker->shaper.Run(now_ns_, [&](PeerSlot peer, SlotId id) {
        const Slot& slot = worker->slab[id];
        Note(peer, slot.flow_hash, slot.bytes);
        waited_ns_[peer] = std::max(waited_ns_[peer], now_ns_ - slot.time_ns);
        worker->slab.Return(id);
      });
    }
  }

  // For so long, with `offer()` at every step.
  template <typename Offers>
  void RunFor(DurationNs for_ns, Offers&& offer) {
    for (const TimeNs end_ns = now_ns_ + for_ns; now_ns_ < end_ns; now_ns_ += kStepNs) {
      offer();
      Run();
    }
  }

  void Note(PeerSlot peer, uint32_t flow, size_t bytes) {
    went_[peer].push_back({now_ns_, bytes});
    flows_[flow] += bytes;
  }

  double Mbps(PeerSlot peer, TimeNs since_ns) {
    uint64_t bytes = 0;
    for (const Went& one : went_[peer]) bytes += one.at_ns >= since_ns ? one.bytes : 0;
    return static_cast<double>(bytes) * 8e3 / static_cast<double>(now_ns_ - since_ns);
  }

  // Of these peers together, within any second.
  double MostMbps(std::vector<PeerSlot> peers) {
    std::vector<Went> all;
    for (const PeerSlot peer : peers) {
      all.insert(all.end(), went_[peer].begin(), went_[peer].end());
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Went& a, const Went& b) { return a.at_ns < b.at_ns; });
    uint64_t bytes = 0;
    uint64_t most = 0;
    size_t first = 0;
    for (const Went& one : all) {
      bytes += one.bytes;
      while (all[first].at_ns + kSecondNs <= one.at_ns) bytes -= all[first++].bytes;
      most = std::max(most, bytes);
    }
    return static_cast<double>(most) * 8 / 1e6;
  }

  // A packet in so many steps: without a limit the peer sends that much.
  void OfferMbps(PeerSlot peer, double mbps, uint32_t flow = 1, size_t at = 0) {
    owed_[flow] += mbps * static_cast<double>(kStepNs) / 8e3;
    for (; owed_[flow] >= kPacketBytes; owed_[flow] -= kPacketBytes) {
      Offer(peer, flow, kPacketBytes, at);
    }
  }

  // The same of a peer that knows no bonds.
  void OfferPolicedMbps(PeerSlot peer, double mbps, size_t at) {
    const uint32_t flow = 1000 + peer;
    owed_[flow] += mbps * static_cast<double>(kStepNs) / 8e3;
    for (; owed_[flow] >= kPacketBytes; owed_[flow] -= kPacketBytes) {
      if (workers_[at]->shaper.Police(peer, kPacketBytes, now_ns_)) Note(peer, flow, kPacketBytes);
    }
  }

  TimeNs now_ns_ = 1000 * kSecondNs;
  std::unique_ptr<Throttle> throttle_;
  std::vector<std::unique_ptr<WorkerOf>> workers_;
  std::map<PeerSlot, std::vector<Went>> went_;
  std::map<uint32_t, uint64_t> flows_;
  std::map<PeerSlot, DurationNs> waited_ns_;
  std::map<uint32_t, double> owed_;
  size_t dropped_ = 0;
};

TEST_F(ShaperTest, TwoPeersKeepDifferentLimitsOverAnySecond) {
  Limit(0, 50);
  Limit(1, 20);
  Apply();
  const TimeNs begin_ns = now_ns_;
  RunFor(5 * kSecondNs, [&] {
    OfferMbps(0, 80, 10);
    OfferMbps(1, 80, 11);
    OfferMbps(2, 80, 12);
  });
  EXPECT_LE(MostMbps({0}), 50 * 1.03);
  EXPECT_LE(MostMbps({1}), 20 * 1.03);
  EXPECT_NEAR(Mbps(0, begin_ns + kSecondNs), 50, 0.5);
  EXPECT_NEAR(Mbps(1, begin_ns + kSecondNs), 20, 0.2);
  EXPECT_NEAR(Mbps(2, begin_ns), 80, 0.5);  // that has no limit
  EXPECT_EQ(waited_ns_.count(2), 0u);
}

TEST_F(ShaperTest, WhatStaysBelowTheLimitHardlyWaits) {
  Limit(0, 50);
  Apply();
  RunFor(2 * kSecondNs, [&] { OfferMbps(0, 48); });
  EXPECT_EQ(dropped_, 0u);
  EXPECT_LE(waited_ns_[0], 2 * kMillisecondNs);
}

TEST_F(ShaperTest, ASmallFlowDoesNotWaitBehindAFloodOfItsPeer) {
  Limit(0, 20);
  Apply();
  int lost = 0;
  RunFor(2 * kSecondNs, [&] {
    OfferMbps(0, 200, 10);
    if (now_ns_ % (20 * kMillisecondNs) < kStepNs && !Offer(0, 11, 100)) ++lost;
  });
  EXPECT_GE(flows_[11], 99u * 100);
  EXPECT_GT(dropped_, 1000u);
}

TEST_F(ShaperTest, FlowsOfAPeerShareItsLimit) {
  Limit(0, 40);
  Apply();
  RunFor(3 * kSecondNs, [&] {
    OfferMbps(0, 30, 10);
    OfferMbps(0, 60, 11);
  });
  EXPECT_NEAR(static_cast<double>(flows_[10]), static_cast<double>(flows_[11]),
              0.05 * static_cast<double>(flows_[10]));
}

TEST_F(ShaperTest, TheLimitOfAllIsSharedAmongThoseThatWantToSend) {
  LimitAll(90);
  Limit(3, 10);
  Apply();
  const TimeNs begin_ns = now_ns_;
  RunFor(4 * kSecondNs, [&] {
    OfferMbps(0, 100, 10);
    OfferMbps(1, 100, 11);
    OfferMbps(2, 20, 12);   // wants less than its share
    OfferMbps(3, 100, 13);  // may have less than its share
  });
  EXPECT_LE(MostMbps({0, 1, 2, 3}), 90 * 1.03);
  EXPECT_NEAR(Mbps(0, begin_ns + kSecondNs), 30, 1);
  EXPECT_NEAR(Mbps(1, begin_ns + kSecondNs), 30, 1);
  EXPECT_NEAR(Mbps(2, begin_ns + kSecondNs), 20, 0.5);
  EXPECT_NEAR(Mbps(3, begin_ns + kSecondNs), 10, 0.3);
  // One alone has everything.
  const TimeNs alone_ns = now_ns_;
  RunFor(2 * kSecondNs, [&] { OfferMbps(1, 200, 11); });
  EXPECT_NEAR(Mbps(1, alone_ns + kSecondNs), 90, 2);
}

TEST_F(ShaperTest, APeerWhosePacketsCannotWaitTakesItsTurnWithThoseThatDo) {
  for (const size_t at : {0u, 1u}) {
    Begin(2);
    LimitAll(60);
    Apply();
    const TimeNs begin_ns = now_ns_;
    RunFor(4 * kSecondNs, [&] {
      OfferMbps(0, 100, 10, 0);
      OfferPolicedMbps(1, 100, at);
    });
    EXPECT_LE(MostMbps({0, 1}), 60 * 1.03) << at;
    EXPECT_NEAR(Mbps(0, begin_ns + kSecondNs), 30, 3) << at;
    EXPECT_NEAR(Mbps(1, begin_ns + kSecondNs), 30, 3) << at;
    // Alone it has everything, and then owes nothing.
    RunFor(2 * kSecondNs, [&] { OfferPolicedMbps(1, 100, at); });
    EXPECT_NEAR(Mbps(1, now_ns_ - kSecondNs), 60, 2) << at;
    const TimeNs again_ns = now_ns_;
    RunFor(2 * kSecondNs, [&] {
      OfferMbps(0, 100, 10, 0);
      OfferPolicedMbps(1, 100, at);
    });
    EXPECT_NEAR(Mbps(1, again_ns), 30, 4) << at;
  }
}

TEST_F(ShaperTest, WorkersShareTheLimitOfAllByTheirPeers) {
  Begin(2);
  LimitAll(80);
  Apply();
  const TimeNs begin_ns = now_ns_;
  RunFor(4 * kSecondNs, [&] {
    OfferMbps(0, 100, 10, 0);
    for (PeerSlot peer = 1; peer < 4; ++peer) OfferMbps(peer, 100, 10 + peer, 1);
  });
  EXPECT_LE(MostMbps({0, 1, 2, 3}), 80 * 1.03);
  for (PeerSlot peer = 0; peer < 4; ++peer) {
    EXPECT_NEAR(Mbps(peer, begin_ns + kSecondNs), 20, 1.5) << peer;
  }
}

TEST_F(ShaperTest, WorkersThatBothHaveAPeersFlowsShareItsLimit) {
  Begin(2);
  Limit(0, 40);
  Apply();
  RunFor(3 * kSecondNs, [&] {
    OfferMbps(0, 60, 10, 0);
    OfferMbps(0, 60, 11, 1);
  });
  EXPECT_LE(MostMbps({0}), 40 * 1.03);
  for (const uint32_t flow : {10, 11}) {
    EXPECT_NEAR(static_cast<double>(flows_[flow]) * 8e-6 / 3, 20, 5) << flow;
  }
}

TEST_F(ShaperTest, AWorkerThatStandsStillKeepsNoOtherWaiting) {
  Begin(2);
  LimitAll(80);
  Apply();
  RunFor(kSecondNs, [&] {
    OfferMbps(0, 100, 10, 0);
    OfferMbps(1, 100, 11, 1);
  });
  const TimeNs stands_ns = now_ns_;
  auto stands = std::move(workers_.back());
  workers_.pop_back();
  RunFor(2 * kSecondNs, [&] { OfferMbps(0, 100, 10, 0); });
  EXPECT_GE(Mbps(0, stands_ns + kSecondNs), 70);
  workers_.push_back(std::move(stands));
}

TEST_F(ShaperTest, AChangedLimitHoldsAtOnceAndAnEndedOneLetsEverythingGo) {
  Limit(0, 20);
  Apply();
  RunFor(2 * kSecondNs, [&] { OfferMbps(0, 60); });
  auto before = std::move(throttle_);
  throttle_ = std::make_unique<Throttle>(1);
  way().peers.resize(kPeers);
  Limit(0, 40);
  Apply();
  before.reset();
  TimeNs since_ns = now_ns_;
  RunFor(2 * kSecondNs, [&] { OfferMbps(0, 60); });
  EXPECT_NEAR(Mbps(0, since_ns), 40, 1.5);
  workers_[0]->shaper.SetLimits(nullptr, now_ns_);
  Run();
  EXPECT_EQ(workers_[0]->slab.used(), 0u);
  since_ns = now_ns_ += kStepNs;
  RunFor(kSecondNs, [&] { OfferMbps(0, 60); });
  EXPECT_NEAR(Mbps(0, since_ns), 60, 1);
  EXPECT_EQ(workers_[0]->shaper.NextDue(), kNever);
}

TEST_F(ShaperTest, OnePeersSmallPacketsLeaveMemoryToOthers) {
  Limit(0, 1);
  Limit(1, 1);
  Apply();
  for (size_t i = 0; i < 3 * kSlots; ++i) Offer(0, static_cast<uint32_t>(i), 40);
  EXPECT_LE(workers_[0]->slab.used(), kSlots / 4);
  for (size_t i = 0; i < 3 * kSlots; ++i) Offer(1, static_cast<uint32_t>(i), 40);
  EXPECT_LE(workers_[0]->slab.used(), kSlots / 2);
}

TEST_F(ShaperTest, ClearedPeersKeepNothing) {
  Limit(0, 1);
  LimitAll(10);
  Apply();
  for (int i = 0; i < 50; ++i) Offer(0);
  EXPECT_GT(workers_[0]->slab.used(), 0u);
  workers_[0]->shaper.Clear(0);
  EXPECT_EQ(workers_[0]->slab.used(), 0u);
  RunFor(10 * kMillisecondNs, [] {});
  EXPECT_EQ(workers_[0]->shaper.NextDue(), kNever);
  EXPECT_EQ(way().turns.LeastOfOthers(1), SharedTurns::kNobody);
}

// As rx does it: what floods is refused, and only what was opened is offered.
TEST_F(ShaperTest, OfAFloodAFewTimesTheLimitIsOpened) {
  Limit(0, 20);
  Apply();
  Shaper& shaper = workers_[0]->shaper;
  uint64_t opened = 0;
  uint64_t came = 0;
  const auto come = [&](double mbps, bool express = false) {
    owed_[1] += mbps * static_cast<double>(kStepNs) / 8e3;
    for (; owed_[1] >= kPacketBytes; owed_[1] -= kPacketBytes) {
      ++came;
      if (shaper.Floods(0, express)) {
        shaper.NoteRefused(0);
        continue;
      }
      ++opened;
      Offer(0);
    }
  };
  RunFor(3 * kSecondNs, [&] { come(40); });
  EXPECT_EQ(opened, came) << "twice the limit is no flood";
  const uint64_t before = opened;
  const TimeNs since_ns = now_ns_;
  RunFor(3 * kSecondNs, [&] { come(1000); });
  const double mbps = static_cast<double>(opened - before) * kPacketBytes * 8 / 3e6;
  EXPECT_LE(mbps, 20 * 4.5);
  EXPECT_GE(mbps, 20 * 3);
  EXPECT_NEAR(Mbps(0, since_ns), 20, 0.5);
  EXPECT_EQ(shaper.GaugesOf(0)->refused.Get(), came - opened);
  // Small flows still come through, unless they flood as well.
  int refused = 0;
  RunFor(kSecondNs, [&] {
    come(1000);
    if (shaper.Floods(0, true)) ++refused;
  });
  EXPECT_EQ(refused, 0);
  RunFor(kSecondNs, [&] {
    come(1000, true);
    if (shaper.Floods(0, true)) ++refused;
  });
  EXPECT_GT(refused, 1000);
  // It ends with the flood.
  RunFor(kSecondNs, [] {});
  EXPECT_FALSE(shaper.Floods(0, false));
}

// Peers come and go, with and without limits, over three workers, as a seed has it.
TEST_F(ShaperTest, LimitsHoldWhateverHappens) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto pick = [&random](int least, int most) {
      return std::uniform_int_distribution<int>(least, most)(random);
    };
    Begin(3);
    went_.clear();
    std::map<PeerSlot, double> limits;
    const double all = pick(0, 2) == 0 ? 0 : pick(20, 100);
    if (all != 0) LimitAll(all);
    for (PeerSlot peer = 0; peer < kPeers; ++peer) {
      if (pick(0, 1) == 0) continue;
      limits[peer] = pick(2, 60);
      Limit(peer, limits[peer]);
    }
    Apply();
    std::array<double, kPeers> wants{};
    for (int phase = 0; phase < 8; ++phase) {
      for (double& mbps : wants) mbps = pick(0, 2) == 0 ? 0 : pick(1, 120);
      RunFor(static_cast<DurationNs>(pick(200, 600)) * kMillisecondNs, [&] {
        for (PeerSlot peer = 0; peer < kPeers; ++peer) {
          OfferMbps(peer, wants[peer], 100 + peer, peer % 3);
        }
        if (pick(0, 999) == 0) now_ns_ += static_cast<DurationNs>(pick(1, 50)) * kMillisecondNs;
      });
    }
    std::vector<PeerSlot> peers;
    for (PeerSlot peer = 0; peer < kPeers; ++peer) peers.push_back(peer);
    if (all != 0) {
      EXPECT_LE(MostMbps(peers), all * 1.02 + 3 * 8e-6 * kPacketBytes + 0.1);
    }
    for (const auto& [peer, mbps] : limits) {
      EXPECT_LE(MostMbps({peer}), mbps * 1.02 + 8e-6 * kPacketBytes + 0.1) << peer;
    }
    // What waits goes on in the end.
    RunFor(5 * kSecondNs, [] {});
    for (auto& worker : workers_) {
      EXPECT_EQ(worker->slab.used(), 0u);
      EXPECT_EQ(worker->shaper.NextDue(), kNever);
    }
  }
}

}  // namespace
}  // namespace braid::shaper_test
