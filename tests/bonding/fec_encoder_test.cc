// How long blocks are, and how much parity they have.
#include "bonding/fec_encoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "bonding/fec_block.h"

namespace braid::fec_encoder_test {
namespace {

constexpr uint8_t kLane = kFirstBondLane + 3;
constexpr double kLoss = 0.03;

class FecEncoderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    encoder_.SetUnderstood(true);
    Set(FecMode::kAuto);
  }
  void TearDown() override {
    encoder_.Clear();
    EXPECT_EQ(memory_.slab.used(), 0u) << "slots are left behind";
  }

  void Set(FecMode mode, double ratio = 0, DurationNs reorder_max_ns = 200 * kMillisecondNs) {
    encoder_.SetOptions({.fec = mode, .fec_ratio = ratio, .reorder_max_ns = reorder_max_ns});
  }

  struct Given {
    double loss = kLoss;
    bool needed = true;
    uint8_t lane = kLane;
    uint8_t path = 0;
    uint16_t bytes = 1000;
  };
  void Add(const Given& given) {
    const SlotId id = memory_.slab.Take();
    Slot& slot = memory_.slab[id];
    slot.lane = given.lane;
    slot.sequence = sequence_++;
    slot.bytes = given.bytes;
    encoder_.Add(id, given.path, given.loss, given.needed, now_ns_);
    memory_.slab.Return(id);
  }
  // One packet after another, so many a second.
  void AddMany(int packets, double per_s) { AddMany(packets, per_s, Given{}); }
  void AddMany(int packets, double per_s, const Given& given) {
    for (int i = 0; i < packets; ++i) {
      Add(given);
      now_ns_ += static_cast<DurationNs>(1e9 / per_s);
      encoder_.Look(now_ns_);
      Collect();
    }
  }
  void Wait(DurationNs for_ns) {
    now_ns_ += for_ns;
    encoder_.Look(now_ns_);
    Collect();
  }
  void Collect() {
    while (encoder_.next() != kNoSlot) {
      Bytes plain;
      const SlotId id = encoder_.Take(plain);
      ParityHeader header;
      ASSERT_TRUE(ReadParityHeader(plain, memory_.slab.packet_bytes(), header));
      parity_.push_back(header);
      plain_bytes_.push_back(plain.size());
      memory_.slab.Return(id);
    }
  }

  BondMemory memory_{2048, 1420};
  FecEncoder encoder_{memory_};
  TimeNs now_ns_ = kSecondNs;
  uint64_t sequence_ = 100;
  std::vector<ParityHeader> parity_;
  std::vector<size_t> plain_bytes_;
};

TEST_F(FecEncoderTest, ParityKeepsAllButOneInTenThousand) {
  std::mt19937 random(1);
  for (const double loss : {0.005, 0.01, 0.03, 0.1}) {
    for (const size_t packets : {16, 40, 64}) {
      const size_t parity = FecEncoder::ParityAgainst(loss, packets);
      std::bernoulli_distribution lose(loss);
      uint64_t stay_lost = 0;
      constexpr int kBlocks = 20'000;
      for (int i = 0; i < kBlocks; ++i) {
        size_t lost = 0;
        size_t lost_data = 0;
        for (size_t n = 0; n < packets + parity; ++n) {
          if (!lose(random)) continue;
          ++lost;
          if (n < packets) ++lost_data;
        }
        if (lost > parity) stay_lost += lost_data;
      }
      const double share =
          static_cast<double>(stay_lost) / (kBlocks * static_cast<double>(packets));
      EXPECT_LE(share, 2e-4) << loss << ", " << packets << " packets, " << parity << " of parity";
    }
  }
  EXPECT_EQ(FecEncoder::ParityAgainst(0, 64), 0u);
  EXPECT_EQ(FecEncoder::ParityAgainst(1, 10), 5u) << "half of the packets at most";
}

TEST_F(FecEncoderTest, WithoutLossesThereIsNone) {
  AddMany(200, 500, {.loss = 0});
  EXPECT_TRUE(parity_.empty());
  EXPECT_EQ(encoder_.due_ns(), kNever);
}

TEST_F(FecEncoderTest, WhatIsRepairedInTimeHasNone) {
  AddMany(200, 500, {.needed = false});
  EXPECT_TRUE(parity_.empty());
}

TEST_F(FecEncoderTest, ThreePercentOfLossCostLessThanAFifth) {
  AddMany(1000, 520);
  EXPECT_GE(parity_.size(), 100u);
  EXPECT_LE(parity_.size(), 175u);
}

TEST_F(FecEncoderTest, AFastFlowFillsItsBlocks) {
  AddMany(2 * FecCode::kMaxData, 20'000);
  ASSERT_FALSE(parity_.empty());
  for (const ParityHeader& header : parity_) EXPECT_EQ(header.count, FecCode::kMaxData);
  EXPECT_EQ(parity_.size(), 2 * FecEncoder::ParityAgainst(kLoss, FecCode::kMaxData));
  EXPECT_EQ(parity_.front().first, 100u);
  EXPECT_EQ(parity_.back().first, 100u + FecCode::kMaxData);
}

TEST_F(FecEncoderTest, ASlowFlowDoesNotWaitForMore) {
  AddMany(3, 100);
  EXPECT_TRUE(parity_.empty());
  Wait(encoder_.due_ns() - now_ns_);
  EXPECT_EQ(parity_.size(), FecEncoder::ParityAgainst(kLoss, 3));
  EXPECT_EQ(parity_.front().count, 3);
  EXPECT_LE(now_ns_, kSecondNs + 100 * kMillisecondNs);
}

TEST_F(FecEncoderTest, NoBlockIsLongerThanHalfOfTheWaitForIt) {
  Set(FecMode::kAuto, 0, 50 * kMillisecondNs);
  AddMany(1, 100);
  EXPECT_LE(encoder_.due_ns(), kSecondNs + 25 * kMillisecondNs);
  Wait(30 * kMillisecondNs);
  EXPECT_EQ(parity_.size(), 1u);
}

TEST_F(FecEncoderTest, ARatioIsKeptWhateverIsLost) {
  Set(FecMode::kRatio, 0.25);
  AddMany(640, 20'000, {.loss = 0, .needed = true});
  EXPECT_EQ(parity_.size(), 160u);
}

TEST_F(FecEncoderTest, AsMuchParityAsPacketsMakesShortBlocks) {
  Set(FecMode::kRatio, 1);
  AddMany(320, 20'000, {.loss = 0});
  EXPECT_EQ(parity_.size(), 320u);
  for (const ParityHeader& header : parity_) EXPECT_LE(header.count, FecCode::kMaxParity);
}

TEST_F(FecEncoderTest, SequencesThatAreLeftOutAreInTheBlock) {
  AddMany(1, 10'000);
  sequence_ += 5;
  AddMany(1, 10'000);
  Wait(100 * kMillisecondNs);
  ASSERT_FALSE(parity_.empty());
  EXPECT_EQ(parity_[0].count, 7);
}

TEST_F(FecEncoderTest, ABlockEndsWhereTooManyAreLeftOut) {
  AddMany(1, 10'000);
  sequence_ += FecCode::kMaxData;
  AddMany(1, 10'000);
  Wait(100 * kMillisecondNs);
  ASSERT_EQ(parity_.size(), 2u);
  EXPECT_EQ(parity_[0].count, 1);
  EXPECT_EQ(parity_[1].first, 101u + FecCode::kMaxData);
}

TEST_F(FecEncoderTest, ParityIsAsLongAsTheLongestPacket) {
  AddMany(1, 10'000, {.bytes = 100});
  AddMany(1, 10'000, {.bytes = 1420});
  AddMany(1, 10'000, {.bytes = 20});
  Wait(100 * kMillisecondNs);
  ASSERT_FALSE(plain_bytes_.empty());
  for (const size_t bytes : plain_bytes_) EXPECT_EQ(bytes, 1420 + kParityOverheadBytes);
}

TEST_F(FecEncoderTest, TellsHowLongParityTakes) {
  EXPECT_EQ(encoder_.span_ns(now_ns_), 0u);
  AddMany(300, 520);
  EXPECT_GE(encoder_.span_ns(now_ns_), 40 * kMillisecondNs);
  EXPECT_LE(encoder_.span_ns(now_ns_), 80 * kMillisecondNs);
  Wait(100 * kMillisecondNs);
  Wait(2 * kSecondNs);
  EXPECT_EQ(encoder_.span_ns(now_ns_), 0u) << "there has been none for long";
}

TEST_F(FecEncoderTest, WhatNoPathTakesGoesStale) {
  for (int i = 0; i < 64; ++i) Add({});
  ASSERT_NE(encoder_.next(), kNoSlot);
  encoder_.Look(now_ns_ + 200 * kMillisecondNs);
  EXPECT_EQ(encoder_.next(), kNoSlot);
  EXPECT_EQ(encoder_.counters().stale, encoder_.counters().made);
}

TEST_F(FecEncoderTest, NothingIsMadeForWhoDoesNotUnderstandIt) {
  AddMany(3, 10'000);
  encoder_.SetUnderstood(false);
  EXPECT_EQ(memory_.slab.used(), 0u);
  AddMany(200, 500);
  EXPECT_TRUE(parity_.empty());
}

TEST_F(FecEncoderTest, WhereMemoryIsShortThereIsNone) {
  std::vector<SlotId> taken;
  while (memory_.slab.used() < memory_.slab.capacity() / 2) taken.push_back(memory_.slab.Take());
  AddMany(100, 500);
  EXPECT_TRUE(parity_.empty());
  for (const SlotId id : taken) memory_.slab.Return(id);
}

}  // namespace
}  // namespace braid::fec_encoder_test
