// Limits of rates in real workers: what is too much waits and comes at its rate, both ways, no
// other peer notices, and nobody but a peer itself can make it wait.
#include "fastpath/throttle.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "support/worker_rig.h"

namespace braid::throttle_test {
namespace {

using testing::Buffer;
using testing::BuildPacket;
using testing::KeypairOfBothEnds;
using testing::kRigLanes;
using testing::PacketSpec;
using testing::WorkerRig;

constexpr uint64_t kSlowBytesPerS = 100'000;
constexpr uint64_t kBurstBytes = 3000;
constexpr size_t kPayloadBytes = 972;
constexpr size_t kPacketBytes = 1000;

PacketSpec ToPeer(uint16_t port, int host = 2) {
  PacketSpec spec;
  spec.protocol = testing::kUdp;
  spec.source_port = port;
  spec.destination_host = static_cast<uint8_t>(host);
  spec.payload.assign(kPayloadBytes, static_cast<uint8_t>(port));
  return spec;
}

Buffer FromPeer(uint16_t port, int host = 2) {
  PacketSpec spec = ToPeer(port, host);
  std::swap(spec.source_host, spec.destination_host);
  return BuildPacket(spec);
}

// Three packets pass at once, one is owed, the others take their time.
DurationNs LeastTimeFor(size_t packets) {
  return (packets * kPacketBytes - kBurstBytes - kPacketBytes) * kSecondNs / kSlowBytesPerS;
}

class ThrottleTest : public ::testing::TestWithParam<int> {
 protected:
  ThrottleTest() : rig_({.workers = GetParam(), .offloads = {true, false, false}}) {
    rig_.SetUpPeer();
  }
  // The workers go before what they take from.
  ~ThrottleTest() override { rig_.Stop(); }

  std::unique_ptr<TokenBucket> Slow() const {
    return std::make_unique<TokenBucket>(RateLimit{kSlowBytesPerS, kBurstBytes});
  }
  void Apply() {
    rig_.Tell({.type = Command::Type::kSetThrottle, .throttle = &throttle_});
    ASSERT_TRUE(rig_.AwaitCommands());
  }

  void Send(const KeypairOfBothEnds& keys, uint8_t lane, const Buffer& inner) {
    rig_.ToSocket(lane % rig_.workers.size(), rig_.Seal(keys, lane, inner));
  }

  // Peer 1, which has keys of its own.
  KeypairOfBothEnds OtherPeer() {
    static const AeadSuite aeads = ChooseAeads("auto").value();
    KeypairOfBothEnds keys = testing::MakeKeypair(1000, aeads[Cipher::kChaCha20Poly1305]);
    for (Keypair* one : {&keys.client, &keys.server}) {
      one->lanes = kRigLanes;
      one->seal_until_ns = one->open_until_ns = MonotonicNowNs() + 300 * kSecondNs;
    }
    return keys;
  }

  // The next data packet that a bond has sent.
  std::optional<Buffer> NextOfBond() {
    while (testing::WaitReadable(rig_.peer_socket.fd.get(), testing::kPatienceMs)) {
      Buffer datagram(2048);
      Arrival arrival{};
      datagram.resize(ReceiveDatagram(rig_.peer_socket.fd.get(), datagram, arrival));
      Header header{};
      EXPECT_EQ(ReadHeader(datagram, header), HeaderVerdict::kOk);
      if (!IsBondLane(header.lane)) {
        ADD_FAILURE() << "sent past the bond";
        return std::nullopt;
      }
      LaneReceiver::Opened opened;
      const auto drop = bond_lanes_[header.lane].Open(rig_.keypairs.at(header.session)->client,
                                                      header, datagram, MonotonicNowNs(), opened);
      if (drop == Drop::replayed || header.kind != Kind::kData) continue;
      EXPECT_FALSE(drop);
      return Buffer(opened.plain.begin(), opened.plain.end());
    }
    return std::nullopt;
  }

  Throttle throttle_{GetParam()};
  WorkerRig rig_;
  std::map<uint8_t, LaneReceiver> bond_lanes_;
};
INSTANTIATE_TEST_SUITE_P(Workers, ThrottleTest, ::testing::Values(1, 2));

TEST_P(ThrottleTest, WhatComesBeyondALimitIsDeliveredAtItsRateAndInOrder) {
  constexpr size_t kPackets = 40;
  throttle_.rx.peers.push_back(Slow());
  Apply();
  const TimeNs began_ns = MonotonicNowNs();
  for (size_t i = 0; i < kPackets; ++i) {
    Send(rig_.first_keys(), 3, FromPeer(static_cast<uint16_t>(1000 + i)));
  }
  for (size_t i = 0; i < kPackets; ++i) {
    const auto out = rig_.NextFromTun();
    ASSERT_TRUE(out) << i;
    if (i < 3) {
      EXPECT_EQ(out->packet, FromPeer(static_cast<uint16_t>(1000 + i)));
    }
  }
  EXPECT_GE(MonotonicNowNs() - began_ns, LeastTimeFor(kPackets));
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(ThrottleTest, ALimitedPeerSlowsNoOther) {
  constexpr uint16_t kPackets = 60;  // as many as the rig's TUN holds
  throttle_.rx.peers.push_back(Slow());
  Apply();
  const KeypairOfBothEnds other = OtherPeer();
  rig_.Tell({.type = Command::Type::kAddKeypair, .peer = 1, .keypair = &other.server});
  ASSERT_TRUE(rig_.AwaitCommands());
  for (uint16_t i = 0; i < kPackets; ++i) Send(rig_.first_keys(), 3, FromPeer(1000));
  for (uint16_t i = 0; i < kPackets; ++i) Send(other, 4, FromPeer(2000, 3));
  size_t of_limited = 0;
  size_t of_other = 0;
  while (of_other < kPackets) {
    const auto out = rig_.NextFromTun();
    ASSERT_TRUE(out);
    ++(out->packet == FromPeer(2000, 3) ? of_other : of_limited);
  }
  // It would take half a second to get rid of the others first.
  EXPECT_LT(of_limited, kPackets / 2u);
  rig_.Tell({.type = Command::Type::kRemoveKeypair, .peer = 1, .keypair = &other.server});
  ASSERT_TRUE(rig_.AwaitCommands());
}

TEST_P(ThrottleTest, WhoForgesDatagramsTakesNothingFromThePeer) {
  constexpr uint64_t kForged = 2000;
  throttle_.rx.peers.push_back(Slow());
  throttle_.rx.total = Slow();
  Apply();
  Buffer forged = rig_.Seal(rig_.first_keys(), 3, FromPeer(1000));
  forged.back() ^= 1;
  const auto handled = [this] {
    return rig_.Drops(Drop::unauthentic) + rig_.Drops(Drop::throttled_flood);
  };
  for (uint64_t i = 0; i < kForged; ++i) {
    rig_.ToSocket(3 % rig_.workers.size(), forged);
    if (i % 50 == 49) {
      ASSERT_TRUE(WorkerRig::Await([&] { return handled() > i; }));
    }
  }
  EXPECT_EQ(rig_.Drops(Drop::unauthentic), kForged);
  // The whole burst is there for the peer, and nothing waits.
  for (uint16_t i = 0; i < 3; ++i) Send(rig_.first_keys(), 3, FromPeer(1000));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(rig_.NextFromTun());
  for (const auto& worker : rig_.workers) {
    EXPECT_EQ(worker->receiver().ShaperGaugesOf(0), nullptr);
  }
}

TEST_P(ThrottleTest, AFloodIsNotOpenedButWhatIsNoDataStillIs) {
  throttle_.rx.peers.push_back(Slow());
  Apply();
  const auto counted = [this] {
    return rig_.Drops(Drop::throttled_rx) + rig_.Drops(Drop::throttled_flood);
  };
  uint64_t sent = 0;
  ASSERT_TRUE(WorkerRig::Await([&] {
    if (sent < 5000) {
      for (int i = 0; i < 20; ++i, ++sent) Send(rig_.first_keys(), 3, FromPeer(1000));
    }
    while (rig_.NextFromTun(0)) {
    }
    return rig_.Drops(Drop::throttled_flood) >= 100;
  }));
  EXPECT_GT(rig_.Drops(Drop::throttled_rx), 50u);
  // Once the worker has come to rest.
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.AllDrops() == counted(); }));
  rig_.ToSocket(3 % rig_.workers.size(),
                rig_.SealControl(rig_.first_keys(), 3, {ControlMessage::Type::kPing, 42}));
  const auto out = rig_.NextAtPeer();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->header.kind, Kind::kControl);
  // It ends, and what comes then is opened again.
  ASSERT_TRUE(WorkerRig::Await([&] {
    while (rig_.NextFromTun(0)) {
    }
    const uint64_t before = rig_.Drops(Drop::throttled_flood);
    Send(rig_.first_keys(), 3, FromPeer(2000));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return rig_.Drops(Drop::throttled_flood) == before;
  }));
}

TEST_P(ThrottleTest, WhatIsSentBeyondALimitGoesThroughTheBondAtItsRate) {
  constexpr uint16_t kPackets = 40;
  for (auto& [index, keys] : rig_.keypairs) keys->server.bonds = keys->client.bonds = true;
  throttle_.tx.peers.push_back(Slow());
  Apply();
  rig_.Tell({.type = Command::Type::kSetPathUp, .peer = 0, .path = 0, .up = true});
  ASSERT_TRUE(rig_.AwaitCommands());
  const TimeNs began_ns = MonotonicNowNs();
  std::multiset<Buffer> sent;
  for (uint16_t i = 0; i < kPackets; ++i) {
    const Buffer packet = BuildPacket(ToPeer(static_cast<uint16_t>(1000 + i)));
    sent.insert(packet);
    rig_.IntoTun(i % rig_.workers.size(), packet);
  }
  std::multiset<Buffer> came;
  for (uint16_t i = 0; i < kPackets; ++i) {
    const auto packet = NextOfBond();
    ASSERT_TRUE(packet) << i;
    came.insert(*packet);
  }
  EXPECT_EQ(came, sent);
  EXPECT_GE(MonotonicNowNs() - began_ns, LeastTimeFor(kPackets));
  EXPECT_EQ(rig_.AllDrops(), 0u);
  uint64_t delayed = 0;
  for (const auto& worker : rig_.workers) {
    const ShaperGauges* gauges = worker->bonds().ShaperGaugesOf(0);
    delayed += gauges == nullptr ? 0 : gauges->delayed.Get();
  }
  EXPECT_GT(delayed, 30u);
}

TEST_P(ThrottleTest, WhatIsTooMuchForAPeerWithoutBondsIsDropped) {
  constexpr uint64_t kPackets = 50;
  throttle_.tx.peers.push_back(Slow());
  Apply();
  for (uint64_t i = 0; i < kPackets; ++i) {
    rig_.IntoTun(i % rig_.workers.size(), BuildPacket(ToPeer(static_cast<uint16_t>(1000 + i))));
  }
  uint64_t came = 0;
  while (came + rig_.Drops(Drop::throttled_tx) < kPackets) {
    ASSERT_TRUE(rig_.NextAtPeer(200) || came + rig_.Drops(Drop::throttled_tx) == kPackets);
    ++came;
  }
  EXPECT_GE(rig_.Drops(Drop::throttled_tx), 1u);
  EXPECT_EQ(rig_.AllDrops(), rig_.Drops(Drop::throttled_tx));
}

TEST_P(ThrottleTest, WhenALimitEndsWhatWaitedGoesOn) {
  constexpr size_t kPackets = 60;  // as many as the rig's TUN holds
  throttle_.rx.total = std::make_unique<TokenBucket>(RateLimit{6'250, kBurstBytes});
  Apply();
  for (size_t i = 0; i < kPackets; ++i) Send(rig_.first_keys(), 3, FromPeer(1000));
  const TimeNs began_ns = MonotonicNowNs();
  ASSERT_TRUE(rig_.NextFromTun());
  rig_.Tell({.type = Command::Type::kSetThrottle, .throttle = nullptr});
  for (size_t i = 1; i < kPackets; ++i) ASSERT_TRUE(rig_.NextFromTun()) << i;
  EXPECT_LT(MonotonicNowNs() - began_ns, 6 * kSecondNs);  // instead of nine
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

// Ten thousand idle clients cost nothing, and are sent to as before once the limit is gone.
TEST_P(ThrottleTest, ALimitOfAllMakesNoBondsByItself) {
  for (auto& [index, keys] : rig_.keypairs) keys->server.bonds = keys->client.bonds = true;
  throttle_.tx.total = Slow();
  Apply();
  rig_.Tell({.type = Command::Type::kSetPathUp, .peer = 0, .path = 0, .up = true});
  ASSERT_TRUE(rig_.AwaitCommands());
  for (const auto& worker : rig_.workers) EXPECT_EQ(worker->bonds().GaugesOf(0), nullptr);
  rig_.Tell({.type = Command::Type::kSetThrottle, .throttle = nullptr});
  ASSERT_TRUE(rig_.AwaitCommands());
  for (uint16_t i = 0; i < 6; ++i) {  // of more a bond would take notice
    rig_.IntoTun(i % rig_.workers.size(), BuildPacket(ToPeer(static_cast<uint16_t>(1000 + i))));
    const auto out = rig_.NextAtPeer();
    ASSERT_TRUE(out) << i;
    EXPECT_LT(out->header.lane, kRigLanes);
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(ThrottleTest, WhatStillWaitsWhenTheSessionEndsIsCounted) {
  constexpr size_t kPackets = 40;
  throttle_.rx.total = std::make_unique<TokenBucket>(RateLimit{1'000, kBurstBytes});
  Apply();
  for (size_t i = 0; i < kPackets; ++i) Send(rig_.first_keys(), 3, FromPeer(1000));
  size_t passed = 0;
  while (rig_.NextFromTun(200)) ++passed;
  const Keypair* keys = &rig_.first_keys().server;
  rig_.Tell({.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = keys});
  ASSERT_TRUE(rig_.AwaitCommands());
  EXPECT_LT(passed, kPackets);
  EXPECT_EQ(rig_.Drops(Drop::throttled_rx), kPackets - passed);
}

// What is handed over for a bond that ends, or comes back to one that has begun again, still goes.
TEST_P(ThrottleTest, LimitsThatComeAndGoLoseNothing) {
  constexpr size_t kPackets = 600;
  for (auto& [index, keys] : rig_.keypairs) keys->server.bonds = keys->client.bonds = true;
  throttle_.tx.total = std::make_unique<TokenBucket>(RateLimit{1'000'000'000, 1 << 20});
  rig_.Tell({.type = Command::Type::kSetPathUp, .peer = 0, .path = 0, .up = true});
  std::atomic<bool> done{false};
  std::thread changes([&] {
    while (!done) {
      rig_.Tell({.type = Command::Type::kSetThrottle, .throttle = &throttle_});
      rig_.Tell({.type = Command::Type::kSetThrottle, .throttle = nullptr});
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  });
  size_t came = 0;
  const auto take_all = [&](int timeout_ms) {
    while (testing::WaitReadable(rig_.peer_socket.fd.get(), timeout_ms)) {
      Buffer datagram(2048);
      Arrival arrival{};
      datagram.resize(ReceiveDatagram(rig_.peer_socket.fd.get(), datagram, arrival));
      Header header{};
      EXPECT_EQ(ReadHeader(datagram, header), HeaderVerdict::kOk);
      if (header.kind == Kind::kData && header.path >> kPathCopyShift == 0) ++came;
    }
  };
  for (size_t i = 0; i < kPackets; ++i) {
    rig_.IntoTun(i % rig_.workers.size(), BuildPacket(ToPeer(static_cast<uint16_t>(1000 + i))));
    take_all(0);
  }
  take_all(300);
  done = true;
  changes.join();
  EXPECT_EQ(came, kPackets);
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

}  // namespace
}  // namespace braid::throttle_test
