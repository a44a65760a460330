// What is made of parity, and what is not.
#include "bonding/fec_decoder.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "bonding/fec_encoder.h"

namespace braid::fec_decoder_test {
namespace {

constexpr uint8_t kLane = kFirstBondLane + 2;
constexpr uint16_t kBond = 5;
constexpr uint8_t kFlags = 1;

std::vector<uint8_t> PacketOf(uint64_t sequence) {
  std::vector<uint8_t> packet(20 + sequence * 37 % 1400);
  for (size_t i = 0; i < packet.size(); ++i) packet[i] = static_cast<uint8_t>(sequence * 7 + i);
  return packet;
}

class FecDecoderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    encoder_.SetUnderstood(true);
    encoder_.SetOptions({.fec = FecMode::kRatio, .fec_ratio = 0.25});
    // Only of a lane that has had parity anything is kept.
    MakeBlock(1);
    decoder_.OnParity(parity_[0], now_ns_);
    Bring(sequence_++);
    first_ = sequence_;
  }
  void TearDown() override {
    Recovered();
    decoder_.Clear();
    EXPECT_EQ(memory_.slab.used(), 0u) << "slots are left behind";
    EXPECT_EQ(memory_.kept.used(), 0u);
  }

  // The parity of so many sequences, the next of the lane; some of them are control messages.
  void MakeBlock(size_t sequences, const std::set<uint64_t>& messages = {}) {
    for (const uint64_t end = sequence_ + sequences; sequence_ != end;) {
      if (messages.contains(sequence_)) {
        ++sequence_;
        continue;
      }
      const std::vector<uint8_t> packet = PacketOf(sequence_);
      const SlotId id = sent_.slab.Take();
      Slot& slot = sent_.slab[id];
      slot.lane = kLane;
      slot.flags = kFlags;
      slot.sequence = sequence_++;
      slot.bytes = static_cast<uint16_t>(packet.size());
      std::copy(packet.begin(), packet.end(), sent_.slab.data(id));
      encoder_.Add(id, 0, 0, true, now_ns_);
      sent_.slab.Return(id);
    }
    encoder_.Look(now_ns_ + 90 * kMillisecondNs);
    parity_.clear();
    while (encoder_.next() != kNoSlot) {
      Bytes plain;
      const SlotId id = encoder_.Take(plain);
      parity_.emplace_back(plain.begin(), plain.end());
      sent_.slab.Return(id);
    }
  }

  void Bring(uint64_t sequence) {
    decoder_.OnPacket(kLane, sequence, kFlags, PacketOf(sequence), now_ns_);
  }
  void BringAllBut(const std::set<uint64_t>& lost) {
    for (uint64_t sequence = first_; sequence < sequence_; ++sequence) {
      if (!lost.contains(sequence)) Bring(sequence);
    }
  }

  // Their sequences. They are what was sent.
  std::set<uint64_t> Recovered() {
    std::set<uint64_t> sequences;
    for (SlotId id = decoder_.TakeRecovered(); id != kNoSlot; id = decoder_.TakeRecovered()) {
      const Slot& slot = memory_.slab[id];
      const MutableBytes packet = memory_.slab.packet(id);
      EXPECT_EQ(std::vector<uint8_t>(packet.begin(), packet.end()), PacketOf(slot.sequence));
      EXPECT_EQ(slot.flags, kFlags);
      EXPECT_EQ(slot.lane, kLane);
      EXPECT_TRUE(sequences.insert(slot.sequence).second) << "twice";
      memory_.slab.Return(id);
    }
    return sequences;
  }

  TimeNs now_ns_ = kSecondNs;
  BondMemory sent_{2048, 1420};
  BondMemory memory_{4096, 1420};
  FecEncoder encoder_{sent_};
  FecDecoder decoder_{memory_, kBond};
  uint64_t sequence_ = 1000;  // of the next packet
  uint64_t first_ = 0;        // of the block
  std::vector<std::vector<uint8_t>> parity_;
};

TEST_F(FecDecoderTest, MakesAsManyPacketsAsThereIsParity) {
  MakeBlock(40);
  ASSERT_EQ(parity_.size(), 10u);
  const std::set<uint64_t> lost = {first_, first_ + 7, first_ + 8, first_ + 39};
  BringAllBut(lost);
  for (size_t i = 6; i < 9; ++i) {
    EXPECT_TRUE(decoder_.OnParity(parity_[i], now_ns_));
    EXPECT_TRUE(Recovered().empty()) << "too little parity yet";
  }
  EXPECT_TRUE(decoder_.OnParity(parity_[0], now_ns_));
  EXPECT_EQ(Recovered(), lost);
  EXPECT_TRUE(decoder_.OnParity(parity_[1], now_ns_));
  EXPECT_TRUE(Recovered().empty()) << "it is done";
}

TEST_F(FecDecoderTest, ParityThatComesFirstWaitsForPackets) {
  MakeBlock(8);
  ASSERT_EQ(parity_.size(), 2u);
  for (const auto& parity : parity_) EXPECT_TRUE(decoder_.OnParity(parity, now_ns_));
  for (uint64_t sequence = first_; sequence < first_ + 5; ++sequence) Bring(sequence);
  EXPECT_TRUE(Recovered().empty());
  Bring(first_ + 6);
  EXPECT_EQ(Recovered(), (std::set<uint64_t>{first_ + 5, first_ + 7}));
}

TEST_F(FecDecoderTest, WhatIsWholeNeedsNothing) {
  MakeBlock(8);
  BringAllBut({});
  for (const auto& parity : parity_) EXPECT_TRUE(decoder_.OnParity(parity, now_ns_));
  EXPECT_TRUE(Recovered().empty());
}

TEST_F(FecDecoderTest, AControlMessageIsASymbolOfZeros) {
  MakeBlock(8, {first_ + 2});
  BringAllBut({first_ + 1, first_ + 2, first_ + 4});
  decoder_.OnPacket(kLane, first_ + 2, 0, {}, now_ns_);
  for (const auto& parity : parity_) EXPECT_TRUE(decoder_.OnParity(parity, now_ns_));
  EXPECT_EQ(Recovered(), (std::set<uint64_t>{first_ + 1, first_ + 4}));
}

TEST_F(FecDecoderTest, AControlMessageThatIsLostIsNotMade) {
  MakeBlock(8, {first_ + 2});
  BringAllBut({first_ + 2, first_ + 4});
  for (const auto& parity : parity_) EXPECT_TRUE(decoder_.OnParity(parity, now_ns_));
  EXPECT_EQ(Recovered(), (std::set<uint64_t>{first_ + 4}));
}

TEST_F(FecDecoderTest, WhatCameBeforeItWasKeptIsNotTakenForLost) {
  decoder_.Clear();
  MakeBlock(40);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(decoder_.OnParity(parity_[i], now_ns_));
  Bring(first_ + 38);
  for (int i = 3; i < 6; ++i) EXPECT_TRUE(decoder_.OnParity(parity_[i], now_ns_));
  EXPECT_TRUE(Recovered().empty());
  now_ns_ = decoder_.due_ns();
  decoder_.Look(now_ns_);
  EXPECT_EQ(decoder_.counters().unrecoverable, 0u);
}

TEST_F(FecDecoderTest, ALaneWithoutParityIsNotKept) {
  const size_t before = memory_.slab.used();
  decoder_.OnPacket(kLane + 1, 1, kFlags, PacketOf(1), now_ns_);
  EXPECT_EQ(memory_.slab.used(), before);
  now_ns_ += 3 * kSecondNs;
  Bring(first_);
  EXPECT_EQ(memory_.slab.used(), before) << "it has had none for long";
}

TEST_F(FecDecoderTest, LetsGoOfWhatIsOld) {
  MakeBlock(8);
  BringAllBut({first_, first_ + 1, first_ + 2});
  for (const auto& parity : parity_) EXPECT_TRUE(decoder_.OnParity(parity, now_ns_));
  EXPECT_NE(decoder_.due_ns(), kNever);
  now_ns_ = decoder_.due_ns();
  decoder_.Look(now_ns_);
  EXPECT_EQ(memory_.slab.used(), 0u);
  EXPECT_EQ(decoder_.due_ns(), kNever);
  EXPECT_EQ(decoder_.counters().unrecoverable, 3u);
}

TEST_F(FecDecoderTest, KeepsNoMoreThanIsAllowed) {
  for (int i = 0; i < 10'000; ++i) Bring(sequence_++);
  EXPECT_LE(memory_.slab.used(), memory_.slab.capacity() / 2);
}

TEST_F(FecDecoderTest, RefusesWhatNobodyMakes) {
  MakeBlock(8);
  std::vector<uint8_t> good = parity_[0];
  for (size_t bytes = 0; bytes <= kParityOverheadBytes; ++bytes) {
    EXPECT_FALSE(decoder_.OnParity(Bytes(good).first(bytes), now_ns_)) << bytes;
  }
  good.resize(kParityOverheadBytes + 1421);
  EXPECT_FALSE(decoder_.OnParity(good, now_ns_)) << "longer than any packet";
  const auto refused = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> bad = parity_[0];
    bad[at] = value;
    return !decoder_.OnParity(bad, now_ns_);
  };
  EXPECT_TRUE(refused(0, 7)) << "no lane of a bond";
  EXPECT_TRUE(refused(1, FecCode::kMaxParity));
  EXPECT_TRUE(refused(2, 0));
  EXPECT_TRUE(refused(2, FecCode::kMaxData + 1));
  EXPECT_TRUE(decoder_.OnParity(parity_[0], now_ns_));
  EXPECT_TRUE(refused(2, 7)) << "the same block of another length";
  EXPECT_FALSE(decoder_.OnParity(Bytes(parity_[1]).first(100), now_ns_)) << "of shorter symbols";
}

TEST_F(FecDecoderTest, APacketThatIsLongerThanItsBlockEndsIt) {
  MakeBlock(4);
  std::vector<uint8_t> parity = parity_[0];
  parity.resize(kParityOverheadBytes + 10);
  BringAllBut({first_});
  EXPECT_TRUE(decoder_.OnParity(parity, now_ns_));
  EXPECT_TRUE(Recovered().empty());
}

}  // namespace
}  // namespace braid::fec_decoder_test
