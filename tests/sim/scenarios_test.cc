// What a bond makes of known links. Time is virtual and chance seeded, so rates may be asserted; a
// bound leaves room for a bond that is tuned otherwise, not for one that fails.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "sim/datagram_flow.h"
#include "sim/link_text.h"
#include "sim/simulated_bond.h"
#include "sim/tcp_flow.h"

namespace braid::sim::scenarios_test {
namespace {

// Mbit/s / ms one way / % lost / kB of queue.
constexpr char kA[] = "50/10/0/256,20/30/0/256";
constexpr char kB[] = "100/5/0/256,100/5/0/256";
constexpr char kC[] = "50/10/0/256,20/30/1/256";
constexpr char kD[] = "200/10/0/512,20/100/0/256";
constexpr char kE[] = "40/15/0.5/256,40/40/0.5/256";
constexpr char kF[] = "300/5/0/1024,100/25/0/512";
constexpr char kSingle[] = "50/20/1/256";
constexpr char kThree[] = "50/10,20/30,10/60";
constexpr char kGuard[] = "100/10/0/256,1/150/2/256";

// Of what a link carries, a segment of 1,420 bytes in a datagram of 1,502.
constexpr double kPayloadShare = 1368.0 / 1502;

constexpr DurationNs kWarmUpNs = 6 * kSecondNs;
constexpr DurationNs kMeasuredNs = 10 * kSecondNs;

class ScenarioTest : public ::testing::Test {
 protected:
  void Make(const std::string& links, BondingMode mode = BondingMode::kStripe, bool bare = false) {
    SimulatedBond::Settings settings;
    settings.seed = 1;
    settings.options.mode = mode;
    settings.bare = bare;
    Make(links, settings);
  }

  void Make(const std::string& links, const SimulatedBond::Settings& settings) {
    bond_ = std::make_unique<SimulatedBond>(settings);
    const auto parsed = ParseLinks(links);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    for (const linkem::LinkSettings& link : *parsed) bond_->AddPath(link);
  }

  void TearDown() override {
    if (bond_ == nullptr) return;
    bond_->StopFlows();
    bond_->Run(3 * kSecondNs);
    bond_->CheckNothingIsLeft();
    EXPECT_TRUE(bond_->violations().empty()) << bond_->violations().text();
  }

  TcpFlow& AddTcp(const std::string& congestion_control) {
    return bond_->AddFlow<TcpFlow>(TcpSettings{.congestion_control = congestion_control});
  }

  // Mbit/s, after it has settled.
  double Goodput(const Flow& flow) {
    bond_->Run(kWarmUpNs);
    return Measure(flow, kMeasuredNs);
  }

  double TcpOver(const std::string& links, const std::string& congestion_control,
                 BondingMode mode = BondingMode::kStripe) {
    Make(links, mode);
    return Goodput(AddTcp(congestion_control));
  }

  // What happens to datagrams for so long: the share that is lost, and the longest pause.
  struct Passage {
    double lost;
    double longest_gap_ms;
  };
  Passage Watch(UdpFlow& flow, DurationNs for_ns) {
    DirectionMeter& meter = flow.Flow::meter(0);
    const uint64_t sent_before = meter.sent();
    const uint64_t delivered_before = meter.delivered();
    meter.TakeLongestGap(bond_->now_ns());
    bond_->Run(for_ns);
    const auto sent = static_cast<double>(meter.sent() - sent_before);
    const auto delivered = static_cast<double>(meter.delivered() - delivered_before);
    return {1 - delivered / sent, static_cast<double>(meter.TakeLongestGap(bond_->now_ns())) / 1e6};
  }

  // What a flow gets, in Mbit/s.
  double Measure(const Flow& flow, DurationNs for_ns) {
    const TimeNs from_ns = bond_->now_ns();
    bond_->Run(for_ns);
    return flow.meter(0).goodput_bits_per_s(from_ns, bond_->now_ns()) / 1e6;
  }

  UdpFlow& AddUdp(double mbps) {
    return bond_->AddFlow<UdpFlow>(UdpSettings{.bits_per_s = static_cast<uint64_t>(mbps * 1e6)});
  }

  // So many small datagrams a second.
  UdpFlow& AddSmallUdp(uint64_t per_s) {
    constexpr uint32_t kBytes = 200;
    return bond_->AddFlow<UdpFlow>(
        UdpSettings{.bits_per_s = per_s * kBytes * 8, .payload_bytes = kBytes});
  }

  std::unique_ptr<SimulatedBond> bond_;
};

struct Alone {
  const char* links;
  const char* congestion_control;
  double least_mbps;
  double most_mbps;
};

class AloneTest : public ScenarioTest, public ::testing::WithParamInterface<Alone> {};

std::string NameOf(const std::string& links, const std::string& what) {
  std::string name = what + "_";
  for (const char c : links) name += std::isalnum(c) ? c : '_';
  return name;
}

// The simulated TCP is only worth something if it does what the real one does: without a bond, as
// measured over emulated links (Linux 6.18).
TEST_P(AloneTest, SimulatedTcpDoesWhatTheRealOneDoes) {
  const Alone& alone = GetParam();
  Make(alone.links, BondingMode::kStripe, true);
  const double mbps = Goodput(AddTcp(alone.congestion_control));
  EXPECT_GE(mbps, alone.least_mbps);
  EXPECT_LE(mbps, alone.most_mbps);
}

INSTANTIATE_TEST_SUITE_P(Links, AloneTest,
                         ::testing::Values(Alone{"50/10/0/256", "cubic", 45, 48.5},
                                           Alone{"50/10/0/256", "bbr", 43, 48.5},
                                           Alone{"20/30/1/256", "cubic", 1, 4},
                                           Alone{"20/30/1/256", "bbr", 17, 19.5},
                                           Alone{"20/100/0/256", "cubic", 16, 19.5},
                                           Alone{"40/15/0.5/256", "cubic", 5, 11},
                                           Alone{"40/15/0.5/256", "bbr", 34, 38.5},
                                           Alone{"300/5/0/1024", "cubic", 265, 290},
                                           Alone{"300/5/0/1024", "bbr", 255, 290}),
                         [](const auto& one) {
                           return NameOf(one.param.links, one.param.congestion_control);
                         });

// --- TCP over several links at once ---

struct Striped {
  const char* name;
  const char* links;
  const char* congestion_control;
  double least_mbps;
};

class StripedTest : public ScenarioTest, public ::testing::WithParamInterface<Striped> {};

TEST_P(StripedTest, OneTcpFlowGetsWhatTheLinksCarry) {
  const Striped& striped = GetParam();
  EXPECT_GE(TcpOver(striped.links, striped.congestion_control), striped.least_mbps);
}

INSTANTIATE_TEST_SUITE_P(
    Links, StripedTest,
    ::testing::Values(
        Striped{"A", kA, "cubic", 58}, Striped{"A", kA, "bbr", 59}, Striped{"B", kB, "cubic", 166},
        Striped{"B", kB, "bbr", 165}, Striped{"C", kC, "cubic", 54}, Striped{"C", kC, "bbr", 59},
        Striped{"D", kD, "cubic", 168}, Striped{"D", kD, "bbr", 178}, Striped{"E", kE, "cubic", 61},
        Striped{"E", kE, "bbr", 67}, Striped{"F", kF, "cubic", 305}, Striped{"F", kF, "bbr", 336},
        Striped{"Single", kSingle, "cubic", 40}, Striped{"Single", kSingle, "bbr", 39},
        Striped{"Three", kThree, "cubic", 67}, Striped{"Three", kThree, "bbr", 62},
        Striped{"Guard", kGuard, "cubic", 88}, Striped{"Guard", kGuard, "bbr", 86}),
    [](const auto& one) { return NameOf(one.param.name, one.param.congestion_control); });

// --- The other modes ---

struct Moded {
  const char* name;
  const char* links;
  const char* congestion_control;
  double quickest_link_mbps;
};

class ModeTest : public ScenarioTest, public ::testing::WithParamInterface<Moded> {
 protected:
  static constexpr double kLeastShare = 0.85;
};

TEST_P(ModeTest, PreferredUsesTheBestLinkAlone) {
  const Moded& moded = GetParam();
  const double mbps = TcpOver(moded.links, moded.congestion_control, BondingMode::kPreferred);
  EXPECT_GE(mbps, kLeastShare * kPayloadShare * moded.quickest_link_mbps);
  for (uint8_t path = 1; path < bond_->paths(); ++path) {
    EXPECT_LE(bond_->link_counters(path, 0).bytes_in, bond_->link_counters(0, 0).bytes_in / 20);
  }
}

TEST_P(ModeTest, RedundantIsAsGoodAsTheBestLink) {
  const Moded& moded = GetParam();
  const double mbps = TcpOver(moded.links, moded.congestion_control, BondingMode::kRedundant);
  EXPECT_GE(mbps, kLeastShare * kPayloadShare * moded.quickest_link_mbps);
  EXPECT_GE(bond_->link_counters(1, 0).bytes_in, bond_->link_counters(0, 0).bytes_in / 200);
}

INSTANTIATE_TEST_SUITE_P(Links, ModeTest,
                         ::testing::Values(Moded{"A", kA, "cubic", 50}, Moded{"A", kA, "bbr", 50},
                                           Moded{"B", kB, "cubic", 100}, Moded{"B", kB, "bbr", 100},
                                           Moded{"F", kF, "cubic", 300},
                                           Moded{"F", kF, "bbr", 300}),
                         [](const auto& one) {
                           return NameOf(one.param.name, one.param.congestion_control);
                         });

// --- Links that fail ---

TEST_F(ScenarioTest, ASilentLinkCostsAFewOfManySmallDatagrams) {
  Make(kA);
  UdpFlow& flow = AddSmallUdp(100);
  bond_->Run(3 * kSecondNs);
  bond_->SetDown(0, true);
  const Passage passage = Watch(flow, 5 * kSecondNs);
  EXPECT_LE(passage.lost, 0.01);
  EXPECT_LE(passage.longest_gap_ms, 150);
  bond_->SetDown(0, false);
  EXPECT_LE(Watch(flow, 3 * kSecondNs).lost, 0.005);
}

class TcpTest : public ScenarioTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(TcpTest, GoesOnWhileALinkIsSilent) {
  Make(kA);
  TcpFlow& flow = AddTcp(GetParam());
  bond_->Run(8 * kSecondNs);
  bond_->SetDown(0, true);
  bond_->Run(kSecondNs);
  EXPECT_GE(Measure(flow, 4 * kSecondNs), 0.6 * kPayloadShare * 20);
  bond_->SetDown(0, false);
  bond_->Run(4 * kSecondNs);
  EXPECT_GE(Measure(flow, 6 * kSecondNs), 0.7 * kPayloadShare * 50);
}

TEST_P(TcpTest, IsNotHarmedByALinkThatFlaps) {
  Make(kA);
  TcpFlow& flow = AddTcp(GetParam());
  bond_->Run(4 * kSecondNs);
  double mbps = 0;
  constexpr int kFlaps = 8;
  for (int i = 0; i < kFlaps; ++i) {
    bond_->SetDown(1, i % 2 == 0);
    mbps += Measure(flow, kSecondNs) / kFlaps;
  }
  EXPECT_GE(mbps, 0.6 * kPayloadShare * 50);
}

TEST_P(TcpTest, IsNotHarmedByALinkThatLosesHalf) {
  EXPECT_GE(TcpOver("50/10/0/256,50/10/50/256", GetParam()), 0.8 * kPayloadShare * 50);
}

TEST_P(TcpTest, LeavesSmallFlowsTheirDelay) {
  Make(kA);
  AddTcp(GetParam());
  PingFlow& pings = bond_->AddFlow<PingFlow>(PingSettings{.per_s = 20});
  bond_->Run(15 * kSecondNs);
  EXPECT_GE(pings.answered() + 5, pings.asked());
  EXPECT_LE(pings.round_trip_ms(0.5), 40);
  EXPECT_LE(pings.round_trip_ms(0.98), 90);
}

TEST_P(TcpTest, BothWaysGetTheirShare) {
  Make(kA);
  TcpFlow& there = AddTcp(GetParam());
  TcpFlow& back =
      bond_->AddFlow<TcpFlow>(TcpSettings{.congestion_control = GetParam(), .from_end = 1});
  bond_->Run(kWarmUpNs);
  const TimeNs from_ns = bond_->now_ns();
  bond_->Run(kMeasuredNs);
  EXPECT_GE(there.goodput_bits_per_s(from_ns, bond_->now_ns()) / 1e6, 30);
  EXPECT_GE(back.goodput_bits_per_s(from_ns, bond_->now_ns()) / 1e6, 30);
}

TEST_P(TcpTest, FlowsShareFairly) {
  Make(kA);
  std::vector<TcpFlow*> flows;
  for (int i = 0; i < 4; ++i) flows.push_back(&AddTcp(GetParam()));
  bond_->Run(kWarmUpNs);
  const TimeNs from_ns = bond_->now_ns();
  bond_->Run(kMeasuredNs);
  double sum = 0;
  double least = 1e9;
  for (const TcpFlow* flow : flows) {
    const double mbps = flow->goodput_bits_per_s(from_ns, bond_->now_ns()) / 1e6;
    sum += mbps;
    least = std::min(least, mbps);
  }
  EXPECT_GE(sum, 0.8 * kPayloadShare * 70);
  EXPECT_GE(least, sum / 4 * 0.6);
}

INSTANTIATE_TEST_SUITE_P(ByCongestionControl, TcpTest, ::testing::Values("cubic", "bbr"),
                         [](const auto& one) { return std::string(one.param); });

TEST_F(ScenarioTest, ALinkThatFlapsCostsFewSmallDatagrams) {
  Make(kA);
  UdpFlow& flow = AddSmallUdp(100);
  bond_->Run(2 * kSecondNs);
  for (int i = 0; i < 10; ++i) {
    bond_->SetDown(0, i % 2 == 0);
    EXPECT_LE(Watch(flow, kSecondNs).lost, 0.03);
  }
}

TEST_F(ScenarioTest, TwoLinksOfWhichOneLosesHalfDeliverAllSmallDatagrams) {
  Make("50/10/0/256,50/10/50/256");
  EXPECT_LE(Watch(AddSmallUdp(100), 5 * kSecondNs).lost, 0.003);
}

// --- Forward error correction ---

struct Corrected {
  const char* name;
  const char* links;
  bool repair;
  TrafficClass traffic_class;
};

class CorrectedTest : public ScenarioTest, public ::testing::WithParamInterface<Corrected> {
 protected:
  static constexpr DurationNs kForNs = 60 * kSecondNs;
  static constexpr uint32_t kPayloadBytes = 1200;

  void SetUp() override {
    SimulatedBond::Settings settings;
    settings.options.repair = GetParam().repair;
    settings.options.fec = FecMode::kAuto;
    Make(GetParam().links, settings);
  }
};

TEST_P(CorrectedTest, LittleStaysLostAndItCostsAFifthAtMost) {
  UdpFlow& flow = bond_->AddFlow<UdpFlow>(UdpSettings{.bits_per_s = 5'000'000,
                                                      .payload_bytes = kPayloadBytes,
                                                      .traffic_class = GetParam().traffic_class});
  bond_->Run(5 * kSecondNs);
  const auto bytes = [&] {
    uint64_t sum = 0;
    for (uint8_t path = 0; path < bond_->paths(); ++path) {
      sum += bond_->link_counters(path, 0).bytes_in;
    }
    return sum;
  };
  const uint64_t bytes_before = bytes();
  const uint64_t sent_before = flow.meter().sent();
  const Passage passage = Watch(flow, kForNs);
  EXPECT_LE(passage.lost, 0.001);
  const uint64_t alone =
      (flow.meter().sent() - sent_before) *
      (kPayloadBytes + kUdpOverheadBytes + kSealOverheadBytes + BondEnd::kLinkOverheadBytes);
  const double overhead =
      static_cast<double>(bytes() - bytes_before) / static_cast<double>(alone) - 1;
  EXPECT_LE(overhead, 0.2) << "also with what measures the paths";
}

INSTANTIATE_TEST_SUITE_P(
    Links, CorrectedTest,
    ::testing::Values(Corrected{"Repaired", "50/20/3", true, TrafficClass::kBulk},
                      Corrected{"NotRepaired", "50/20/3", false, TrafficClass::kBulk},
                      Corrected{"Realtime", "50/20/3", true, TrafficClass::kRealtime},
                      Corrected{"TooFarForRepairs", "50/300/3", true, TrafficClass::kBulk},
                      Corrected{"LittleLoss", "50/20/0.5", false, TrafficClass::kBulk}),
    [](const auto& one) { return std::string(one.param.name); });

TEST_F(ScenarioTest, WhereNothingIsLostThereIsNoParity) {
  SimulatedBond::Settings settings;
  settings.options.repair = false;
  settings.options.fec = FecMode::kAuto;
  Make("50/20", settings);
  AddUdp(5);
  bond_->Run(10 * kSecondNs);
  EXPECT_EQ(bond_->end(0).sender().counters().parity, 0u);
}

TEST_F(ScenarioTest, ARatioOfParityIsSentOverEveryLink) {
  SimulatedBond::Settings settings;
  settings.options.repair = false;
  settings.options.fec = FecMode::kRatio;
  settings.options.fec_ratio = 0.2;
  Make("50/10/1,50/10/1", settings);
  UdpFlow& flow = AddUdp(20);
  bond_->Run(2 * kSecondNs);
  EXPECT_LE(Watch(flow, 20 * kSecondNs).lost, 0.0005);
  const BondEnd::Counters& sent = bond_->end(0).counters();
  const double ratio =
      static_cast<double>(sent.parity_sendings) / static_cast<double>(sent.bulk_sendings);
  EXPECT_NEAR(ratio, 0.2, 0.02);
}

// --- Datagrams at nine tenths of what the links carry ---

struct NineTenths {
  const char* name;
  const char* links;
  double links_mbps;
};

class NineTenthsTest : public ScenarioTest, public ::testing::WithParamInterface<NineTenths> {};

TEST_P(NineTenthsTest, ArriveNearlyAll) {
  Make(GetParam().links);
  // 1,200 bytes of payload in 1,310 on the link.
  UdpFlow& flow = AddUdp(0.9 * GetParam().links_mbps * 1200 / 1310);
  bond_->Run(10 * kSecondNs);
  const Passage passage = Watch(flow, 10 * kSecondNs);
  EXPECT_LE(passage.lost, 0.02);
  EXPECT_LE(passage.longest_gap_ms, 100);
}

INSTANTIATE_TEST_SUITE_P(Links, NineTenthsTest,
                         ::testing::Values(NineTenths{"A", kA, 70}, NineTenths{"F", kF, 400}),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace braid::sim::scenarios_test
