// A lane's two halves against each other: epochs, key pairs, generations, replays and forgeries.
#include "fastpath/lane.h"

#include <gtest/gtest.h>

#include <memory>

#include "support/packets.h"
#include "support/test_keys.h"

namespace braid::lane_test {
namespace {

using testing::Below;
using testing::Buffer;
using testing::KeypairOfBothEnds;
using testing::MakeKeypair;
using testing::Random;
using testing::RandomBytes;

constexpr uint8_t kLane = 5;

class LaneTest : public ::testing::Test {
 protected:
  LaneTest() {
    PrepareAeadThread();
    aead_ = AvailableAeads(Cipher::kChaCha20Poly1305).front();
  }

  KeypairOfBothEnds Make(uint64_t id, uint64_t epoch_packets = uint64_t{1} << 23) const {
    return MakeKeypair(id, aead_, epoch_packets);
  }

  // Seals one packet. The sender must be able to.
  Buffer Seal(const Keypair& keypair, const Buffer& plain = {1, 2, 3}, uint8_t path = 0) {
    EXPECT_EQ(sender_.Prepare(keypair, kLane, now_ns_), std::nullopt);
    Buffer datagram(plain.size() + kSealOverheadBytes);
    sender_.Seal(Kind::kData, path, 0, plain, datagram.data());
    return datagram;
  }

  std::optional<Drop> Open(const Keypair& keypair, Buffer datagram) {
    datagram_ = std::move(datagram);
    Header header;
    if (ReadHeader(datagram_, header) != HeaderVerdict::kOk) return Drop::bad_magic;
    return receiver_.Open(keypair, header, datagram_, now_ns_, opened_);
  }

  Buffer opened_plain() const { return {opened_.plain.begin(), opened_.plain.end()}; }

  const Aead* aead_;
  TimeNs now_ns_ = kSecondNs;
  LaneSender sender_;
  LaneReceiver receiver_;
  LaneReceiver::Opened opened_{};
  Buffer datagram_;
};

TEST_F(LaneTest, OpensWhatWasSealed) {
  const auto keys = Make(1);
  Random random(1);
  for (uint64_t sequence = 0; sequence < 300; ++sequence) {
    const Buffer plain = RandomBytes(random, Below(random, 2000));
    const Buffer datagram = Seal(keys.client, plain, static_cast<uint8_t>(sequence % 3));
    Header header;
    ASSERT_EQ(ReadHeader(datagram, header), HeaderVerdict::kOk);
    EXPECT_EQ(header.kind, Kind::kData);
    EXPECT_EQ(header.session, keys.client.remote_index);
    EXPECT_EQ(header.lane, kLane);
    EXPECT_EQ(header.path, sequence % 3);
    EXPECT_EQ(header.path_seq, sequence / 3);
    EXPECT_EQ(header.sequence, sequence);
    ASSERT_EQ(Open(keys.server, datagram), std::nullopt);
    EXPECT_EQ(opened_plain(), plain);
  }
  EXPECT_EQ(sender_.sequence(), 300u);
}

TEST_F(LaneTest, AnotherPathOfTheSameIdIsNotChargedWithTheLossesOfTheFirst) {
  const auto keys = Make(1);
  ASSERT_EQ(Open(keys.server, Seal(keys.client, {1}, 2)), std::nullopt);
  for (int lost = 0; lost < 100; ++lost) Seal(keys.client, {1}, 2);
  receiver_.ForgetPath(2);
  ASSERT_EQ(Open(keys.server, Seal(keys.client, {1}, 2)), std::nullopt);
  EXPECT_EQ(opened_.path_advance, 1u);
  Seal(keys.client, {1}, 2);
  ASSERT_EQ(Open(keys.server, Seal(keys.client, {1}, 2)), std::nullopt);
  EXPECT_EQ(opened_.path_advance, 2u);
}

TEST_F(LaneTest, RefusesReplays) {
  const auto keys = Make(1);
  std::vector<Buffer> sent;
  for (int i = 0; i < 100; ++i) sent.push_back(Seal(keys.client));
  for (const Buffer& datagram : sent) EXPECT_EQ(Open(keys.server, datagram), std::nullopt);
  for (const Buffer& datagram : sent) EXPECT_EQ(Open(keys.server, datagram), Drop::replayed);
}

TEST_F(LaneTest, OpensInAnyOrderWithinTheWindow) {
  const auto keys = Make(1);
  std::vector<Buffer> sent;
  for (uint64_t i = 0; i < ReplayWindow::kBits + 100; ++i) sent.push_back(Seal(keys.client));
  EXPECT_EQ(Open(keys.server, sent.back()), std::nullopt);
  EXPECT_TRUE(opened_.newest);
  const size_t oldest = sent.size() - (ReplayWindow::kBits - 64);
  for (const size_t i : {oldest, sent.size() - 2, oldest + 1}) {
    EXPECT_EQ(Open(keys.server, sent[i]), std::nullopt) << i;
    EXPECT_FALSE(opened_.newest);
  }
  EXPECT_EQ(Open(keys.server, sent[oldest - 1]), Drop::replayed);
}

TEST_F(LaneTest, WhatWasRecoveredIsOpenedNoMore) {
  const auto keys = Make(1);
  const Buffer late = Seal(keys.client);
  EXPECT_EQ(Open(keys.server, Seal(keys.client)), std::nullopt);
  EXPECT_TRUE(receiver_.Recover(keys.server.generation, 0));
  EXPECT_FALSE(receiver_.Recover(keys.server.generation, 0)) << "twice";
  EXPECT_FALSE(receiver_.Recover(keys.server.generation, 1)) << "it was opened";
  EXPECT_EQ(Open(keys.server, late), Drop::replayed);
}

TEST_F(LaneTest, WhatWasRecoveredFirstOfANewGenerationBeginsIt) {
  const auto before = Make(1);
  auto after = Make(2);
  after.client.generation = after.server.generation = 2;
  EXPECT_EQ(Open(before.server, Seal(before.client)), std::nullopt);
  sender_ = {};  // the peer was started again
  const Buffer late = Seal(after.client);
  EXPECT_TRUE(receiver_.Recover(2, 0)) << "not the one of before";
  EXPECT_EQ(Open(after.server, late), Drop::replayed);
}

TEST_F(LaneTest, RefusesEveryChangedBitAndChangesNothing) {
  const auto keys = Make(1);
  const Buffer first = Seal(keys.client);
  const Buffer second = Seal(keys.client, Buffer(40, 7));
  EXPECT_EQ(Open(keys.server, first), std::nullopt);
  for (size_t bit = 0; bit < second.size() * 8; ++bit) {
    Buffer changed = second;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    ASSERT_NE(Open(keys.server, changed), std::nullopt) << bit;
  }
  EXPECT_EQ(Open(keys.server, second), std::nullopt);
  EXPECT_EQ(opened_.path_advance, 1u);
  EXPECT_TRUE(opened_.newest);
  EXPECT_FALSE(opened_.first_of_key);
}

TEST_F(LaneTest, RefusesAPacketOfAnotherLaneDirectionOrKeypair) {
  const auto keys = Make(1);
  const auto others = Make(2);
  const Buffer datagram = Seal(keys.client);
  EXPECT_EQ(Open(keys.client, datagram), Drop::unauthentic);  // sent back to where it came from
  EXPECT_EQ(Open(others.server, datagram), Drop::unauthentic);
  Buffer other_lane = datagram;
  other_lane[8] = kLane + 1;
  EXPECT_EQ(Open(keys.server, other_lane), Drop::unauthentic);
  EXPECT_EQ(Open(keys.server, datagram), std::nullopt);
}

TEST_F(LaneTest, RefusesAPathThatASessionCannotHave) {
  const auto keys = Make(1);
  const Buffer datagram = Seal(keys.client);
  for (int path = kMaxPaths; path <= kPathIdMask; ++path) {
    Buffer changed = datagram;
    changed[9] = static_cast<uint8_t>(path);
    EXPECT_EQ(Open(keys.server, changed), Drop::bad_path) << path;
  }
}

// What the advances of a path add up to is what was sent on it, so that what did not come is lost.
TEST_F(LaneTest, CountsWhatWasSentOnEachPathByItself) {
  const auto keys = Make(1);
  std::vector<Buffer> sent;
  for (int i = 0; i < 20; ++i) sent.push_back(Seal(keys.client, {1}, i % 2 == 0 ? 3 : 4));
  const auto advance = [&](size_t i) {
    EXPECT_EQ(Open(keys.server, sent[i]), std::nullopt);
    return opened_.path_advance;
  };
  EXPECT_EQ(advance(0), 1u);
  EXPECT_EQ(advance(2), 1u);
  EXPECT_EQ(advance(1), 1u);  // the other path
  EXPECT_EQ(advance(8), 3u);  // two are missing
  EXPECT_EQ(advance(6), 0u);  // one of them was late
  EXPECT_EQ(advance(18), 5u);
  EXPECT_EQ(advance(19), 9u);
  EXPECT_EQ(advance(3), 0u);
}

TEST_F(LaneTest, CountsCopiesOnTheirPath) {
  const auto keys = Make(1);
  constexpr uint8_t kSecondCopyOnPath2 = 2 << kPathCopyShift | 2;
  EXPECT_EQ(Open(keys.server, Seal(keys.client, {1}, 2)), std::nullopt);
  EXPECT_EQ(Open(keys.server, Seal(keys.client, {1}, 2)), std::nullopt);
  EXPECT_EQ(Open(keys.server, Seal(keys.client, {1}, kSecondCopyOnPath2)), std::nullopt);
  EXPECT_EQ(opened_.path_advance, 1u);
}

TEST_F(LaneTest, MovesToTheNextEpochByItself) {
  const auto keys = Make(1, 10);
  for (uint32_t i = 0; i < 100; ++i) {
    const Buffer datagram = Seal(keys.client);
    EXPECT_EQ(datagram[10], i / 10) << i;
    EXPECT_EQ(sender_.left(), 9 - i % 10);
    ASSERT_EQ(Open(keys.server, datagram), std::nullopt) << i;
    EXPECT_EQ(opened_.epoch, i / 10);
    EXPECT_EQ(opened_.first_of_key, i % 10 == 0) << i;
    if (opened_.confirm_epoch) sender_.ConfirmEpoch(keys.client.remote_index, opened_.epoch);
  }
}

TEST_F(LaneTest, IsAtMostOneEpochAheadOfWhatWasConfirmed) {
  const auto keys = Make(1, 10);
  for (int i = 0; i < 20; ++i) Seal(keys.client);
  EXPECT_EQ(sender_.Prepare(keys.client, kLane, now_ns_), Drop::keys_exhausted);
  EXPECT_EQ(sender_.left(), 0u);
  sender_.ConfirmEpoch(keys.client.remote_index + 1, 1);  // of another keypair
  sender_.ConfirmEpoch(keys.client.remote_index, 0);
  sender_.ConfirmEpoch(keys.client.remote_index, 2);  // was never sealed under
  EXPECT_EQ(sender_.Prepare(keys.client, kLane, now_ns_), Drop::keys_exhausted);
  sender_.ConfirmEpoch(keys.client.remote_index, 1);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Seal(keys.client)[10], 2);
  sender_.ConfirmEpoch(keys.client.remote_index, 1);  // an old one, again
  EXPECT_EQ(sender_.Prepare(keys.client, kLane, now_ns_), Drop::keys_exhausted);
}

TEST_F(LaneTest, StartsAtTheFirstEpochUnderANewKeypair) {
  const auto first = Make(1, 10);
  const auto second = Make(2, 10);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Open(first.server, Seal(first.client)), std::nullopt);
  EXPECT_EQ(sender_.Prepare(first.client, kLane, now_ns_), Drop::keys_exhausted);
  const Buffer datagram = Seal(second.client);
  EXPECT_EQ(datagram[10], 0);
  EXPECT_EQ(LoadBe64(&datagram[16]), 20u);  // the sequence goes on
  EXPECT_EQ(Open(second.server, datagram), std::nullopt);
  EXPECT_TRUE(opened_.first_of_key);
  EXPECT_TRUE(opened_.newest);
  // A confirmation of the old keypair says nothing of the new one.
  for (int i = 0; i < 19; ++i) Seal(second.client);
  sender_.ConfirmEpoch(first.client.remote_index, 1);
  EXPECT_EQ(sender_.Prepare(second.client, kLane, now_ns_), Drop::keys_exhausted);
}

TEST_F(LaneTest, DropsEpochsOtherThanThePreviousCurrentAndNext) {
  const auto keys = Make(1, 10);
  std::vector<Buffer> sent;
  for (uint32_t i = 0; i < 60; ++i) {
    sent.push_back(Seal(keys.client));
    sender_.ConfirmEpoch(keys.client.remote_index, i / 10);
  }
  EXPECT_EQ(Open(keys.server, sent[20]), Drop::bad_epoch);  // epoch 2 while 0 is the newest
  EXPECT_EQ(Open(keys.server, sent[10]), std::nullopt);
  EXPECT_EQ(Open(keys.server, sent[0]), std::nullopt);
  EXPECT_EQ(Open(keys.server, sent[20]), std::nullopt);
  EXPECT_EQ(Open(keys.server, sent[1]), Drop::bad_epoch);
  EXPECT_EQ(Open(keys.server, sent[11]), std::nullopt);
  EXPECT_EQ(Open(keys.server, sent[40]), Drop::bad_epoch);
  EXPECT_EQ(Open(keys.server, sent[30]), std::nullopt);
  EXPECT_EQ(Open(keys.server, sent[40]), std::nullopt);
  EXPECT_EQ(Open(keys.server, sent[50]), std::nullopt);
}

TEST_F(LaneTest, DropsEpochsByTheirByteBeforeItDerivesAnything) {
  auto keys = Make(1);
  const Buffer datagram = Seal(keys.client);
  EXPECT_EQ(Open(keys.server, datagram), std::nullopt);
  static int derived;
  derived = 0;
  Aead counting = *aead_;
  counting.expand = [](const Key&, AeadKey&) { ++derived; };
  counting.open = [](const AeadKey&, const Nonce&, Bytes, MutableBytes) { return false; };
  keys.server.aead = &counting;
  Buffer changed = Seal(keys.client);
  for (int epoch = 2; epoch < 256; ++epoch) {
    changed[10] = static_cast<uint8_t>(epoch);
    EXPECT_EQ(Open(keys.server, changed), Drop::bad_epoch) << epoch;
  }
  EXPECT_EQ(derived, 0);
  // A path, a sequence, or a time that is refused costs nothing either.
  changed[10] = 1;
  changed[9] = kMaxPaths;
  EXPECT_EQ(Open(keys.server, changed), Drop::bad_path);
  changed[9] = 0;
  StoreBe64(&changed[16], 0);
  EXPECT_EQ(Open(keys.server, changed), Drop::replayed);
  EXPECT_EQ(derived, 0);
}

TEST_F(LaneTest, GoesOnPastTheEpochBytesEnd) {
  const auto keys = Make(1, 2);
  for (uint32_t i = 0; i < 1200; ++i) {
    ASSERT_EQ(Open(keys.server, Seal(keys.client)), std::nullopt) << i;
    ASSERT_EQ(opened_.epoch, i / 2);
    if (opened_.confirm_epoch) sender_.ConfirmEpoch(keys.client.remote_index, opened_.epoch);
  }
}

TEST_F(LaneTest, ConfirmsAnEpochAtOnceAndAgainAndAgain) {
  constexpr uint64_t kEpochPackets = 640;
  const auto keys = Make(1, kEpochPackets);
  uint64_t confirmations = 0;
  for (uint64_t i = 0; i < kEpochPackets * 2; ++i) {
    ASSERT_EQ(Open(keys.server, Seal(keys.client)), std::nullopt);
    if (i < kEpochPackets) {
      EXPECT_FALSE(opened_.confirm_epoch);  // the first needs none
    } else {
      EXPECT_EQ(opened_.confirm_epoch,
                (i - kEpochPackets) % (kEpochPackets / kConfirmEveryFraction) == 0);
      confirmations += opened_.confirm_epoch ? 1 : 0;
    }
  }
  EXPECT_EQ(confirmations, kConfirmEveryFraction);
}

TEST_F(LaneTest, ConfirmsNoEpochForALateOrForgedPacket) {
  const auto keys = Make(1, 4);
  std::vector<Buffer> sent;
  for (int i = 0; i < 8; ++i) sent.push_back(Seal(keys.client));
  Buffer forged = sent[4];
  forged.back() ^= 1;
  EXPECT_EQ(Open(keys.server, forged), Drop::unauthentic);
  EXPECT_EQ(Open(keys.server, sent[0]), std::nullopt);
  EXPECT_EQ(opened_.epoch, 0u);
  EXPECT_EQ(Open(keys.server, sent[4]), std::nullopt);
  EXPECT_TRUE(opened_.confirm_epoch);
  EXPECT_EQ(Open(keys.server, sent[1]), std::nullopt);
  EXPECT_FALSE(opened_.confirm_epoch);
  EXPECT_EQ(opened_.epoch, 1u);
}

TEST_F(LaneTest, StopsSealingAndOpeningByTime) {
  auto keys = Make(1);
  const Buffer datagram = Seal(keys.client);
  now_ns_ = keys.client.seal_until_ns - 1;
  Seal(keys.client);
  now_ns_ = keys.client.seal_until_ns;
  EXPECT_EQ(sender_.Prepare(keys.client, kLane, now_ns_), Drop::expired_key);
  EXPECT_EQ(sender_.left(), 0u);
  now_ns_ = keys.server.open_until_ns;
  EXPECT_EQ(Open(keys.server, datagram), Drop::expired_key);
  now_ns_ = keys.server.open_until_ns - 1;
  EXPECT_EQ(Open(keys.server, datagram), std::nullopt);
}

TEST_F(LaneTest, BeginsAnewWithAPeerThatHas) {
  const auto before = Make(1);
  auto after = Make(2);
  after.client.generation = after.server.generation = 2;
  std::vector<Buffer> sent;
  for (int i = 0; i < 10; ++i) sent.push_back(Seal(before.client));
  for (int i = 0; i < 9; ++i) EXPECT_EQ(Open(before.server, sent[i]), std::nullopt);

  sender_ = {};  // the peer was started again
  const Buffer first = Seal(after.client);
  EXPECT_EQ(LoadBe64(&first[16]), 0u);
  Buffer forged = first;
  forged.back() ^= 1;
  EXPECT_EQ(Open(after.server, forged), Drop::unauthentic);
  EXPECT_EQ(Open(before.server, sent[8]), Drop::replayed);  // the forgery emptied nothing

  EXPECT_EQ(Open(after.server, first), std::nullopt);
  EXPECT_TRUE(opened_.newest);
  EXPECT_EQ(opened_.path_advance, 1u);  // the counts of the paths began anew, too
  EXPECT_EQ(Open(after.server, first), Drop::replayed);
  // Nothing of the earlier life opens any more, or it could be replayed.
  for (const Buffer& datagram : sent) EXPECT_EQ(Open(before.server, datagram), Drop::expired_key);
  EXPECT_EQ(Open(after.server, Seal(after.client)), std::nullopt);
}

TEST_F(LaneTest, KeepsItsWindowAcrossKeypairsOfOneGeneration) {
  const auto first = Make(1);
  const auto second = Make(2);
  std::vector<Buffer> of_first;
  std::vector<Buffer> of_second;
  for (int i = 0; i < 10; ++i) of_first.push_back(Seal(first.client));
  for (int i = 0; i < 10; ++i) of_second.push_back(Seal(second.client));
  // The paths bring them mixed.
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(Open(second.server, of_second[i]), std::nullopt);
    EXPECT_EQ(Open(first.server, of_first[i]), std::nullopt);
    EXPECT_EQ(opened_.newest, false);
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(Open(second.server, of_second[i]), Drop::replayed);
    EXPECT_EQ(Open(first.server, of_first[i]), Drop::replayed);
  }
}

// A key that has opened something stays ready, however many forgeries name other epochs and
// keypairs.
TEST_F(LaneTest, LosesNoKeyToForgeries) {
  auto keys = Make(1, 1000);
  std::vector<KeypairOfBothEnds> others;
  for (uint64_t id = 2; id < 12; ++id) others.push_back(Make(id));
  EXPECT_EQ(Open(keys.server, Seal(keys.client)), std::nullopt);
  for (int i = 0; i < 100; ++i) {
    Buffer forged = Seal(keys.client);
    forged[10] = i % 2;
    forged.back() ^= 1;
    EXPECT_EQ(Open(keys.server, forged), Drop::unauthentic);
    EXPECT_EQ(Open(others[static_cast<size_t>(i % 10)].server, forged), Drop::unauthentic);
  }
  static int derived;
  static const Aead* real;
  derived = 0;
  real = aead_;
  Aead counting = *aead_;
  counting.expand = [](const Key& key, AeadKey& expanded) {
    ++derived;
    real->expand(key, expanded);
  };
  keys.server.aead = &counting;
  EXPECT_EQ(Open(keys.server, Seal(keys.client)), std::nullopt);
  EXPECT_EQ(derived, 0);
  EXPECT_FALSE(opened_.first_of_key);
}

TEST_F(LaneTest, HoldsThreeKeypairsAndAnOlderEpochAtOnce) {
  std::vector<KeypairOfBothEnds> keypairs;
  for (uint64_t id = 1; id <= 3; ++id) keypairs.push_back(Make(id, 10));
  std::vector<std::vector<Buffer>> sent(3);
  for (size_t k = 0; k < 3; ++k) {
    for (int i = 0; i < 20; ++i) sent[k].push_back(Seal(keypairs[k].client));
  }
  int first_of_key = 0;
  for (const int i : {0, 10, 1, 11, 2, 12}) {
    for (size_t k = 0; k < 3; ++k) {
      ASSERT_EQ(Open(keypairs[k].server, sent[k][static_cast<size_t>(i)]), std::nullopt);
      if (i == 0) first_of_key += opened_.first_of_key ? 1 : 0;
    }
  }
  EXPECT_EQ(first_of_key, 3);
}

using LaneDeathTest = LaneTest;

TEST_F(LaneDeathTest, AbortsRatherThanSealBeyondItsLimits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto keys = Make(1, 3);
  std::array<uint8_t, 100> out;
  EXPECT_DEATH(sender_.Seal(Kind::kData, 0, 0, {}, out.data()), "");  // never prepared
  for (int i = 0; i < 3; ++i) Seal(keys.client);
  EXPECT_EQ(sender_.left(), 0u);
  EXPECT_DEATH(sender_.Seal(Kind::kData, 0, 0, {}, out.data()), "");
  for (int i = 0; i < 3; ++i) Seal(keys.client);
  EXPECT_EQ(sender_.Prepare(keys.client, kLane, now_ns_), Drop::keys_exhausted);
  EXPECT_DEATH(sender_.Seal(Kind::kData, 0, 0, {}, out.data()), "");
}

TEST_F(LaneDeathTest, AbortsRatherThanSealUnderAnExpiredKey) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto keys = Make(1);
  Seal(keys.client);
  EXPECT_GT(sender_.left(), 0u);
  EXPECT_EQ(sender_.Prepare(keys.client, kLane, keys.client.seal_until_ns), Drop::expired_key);
  std::array<uint8_t, 100> out;
  EXPECT_DEATH(sender_.Seal(Kind::kData, 0, 0, {}, out.data()), "");
}

}  // namespace
}  // namespace braid::lane_test
