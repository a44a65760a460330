// The session state machine: two ends, or one server and several clients, on a simulated network
// whose time is its own. What a host must never be told is checked by SimulatedEnd all the time.
#include "slowpath/peers.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "support/simulated_end.h"
#include "support/simulated_network.h"

namespace braid::peers_test {
namespace {

using testing::Datagram;
using testing::SimulatedEnd;
using testing::SimulatedNetwork;
using Buffer = std::vector<uint8_t>;

Endpoint At(const char* text) { return Endpoint::Parse(text).value(); }

const Endpoint kServerAt = At("198.51.100.1:7700");
const Endpoint kClientAt = At("192.0.2.10:40000");
const Endpoint kElsewhere = At("203.0.113.5:51000");
const Endpoint kAttackerAt = At("203.0.113.66:6666");

Kind KindOf(const Datagram& datagram) { return static_cast<Kind>(datagram.bytes[3]); }
uint32_t SessionOf(const Datagram& datagram) { return LoadBe32(&datagram.bytes[4]); }
bool IsSlowLane(const Datagram& datagram) { return datagram.bytes[8] == kSlowLane; }

// Nobody needs a key for such an initiation, only the server's public one.
Buffer InitiationOfNobody(MacStamper& stamper, std::mt19937_64& random, TimeNs now_ns) {
  Buffer datagram(kInitiationBytes);
  for (uint8_t& byte : datagram) byte = static_cast<uint8_t>(random());
  WriteHeader(datagram.data(), HandshakeHeader(Kind::kInitiation, 0, 0));
  stamper.AddMacs(datagram, 1, now_ns);
  return datagram;
}

Endpoint RandomSource(std::mt19937_64& random) {
  uint8_t address[4];
  StoreBe32(address, 0x0a000000u | static_cast<uint32_t>(random() & 0xffffff));
  return {IpAddress::V4(address), static_cast<uint16_t>(1024 + random() % 60000)};
}

class PeersTest : public ::testing::Test {
 protected:
  explicit PeersTest(uint64_t seed = 1) : network_(seed) {
    server_.Know(client_);
    client_.Know(server_, {kServerAt});
  }

  void Start() {
    server_.Start();
    client_.Start();
  }

  void Run(DurationNs duration_ns) {
    network_.Run(duration_ns, Peers::kTickNs, [this] {
      server_.Tick();
      client_.Tick();
      if (every_tick_) every_tick_();
    });
  }

  // How long it took; nothing when it did not come to pass.
  std::optional<DurationNs> RunUntil(DurationNs limit_ns, const std::function<bool()>& condition) {
    constexpr DurationNs kStepNs = 5 * kMillisecondNs;
    const TimeNs begin_ns = network_.now_ns();
    while (!condition()) {
      if (network_.now_ns() >= begin_ns + limit_ns) return std::nullopt;
      Run(kStepNs);
    }
    return network_.now_ns() - begin_ns;
  }

  bool BothHaveASession() const { return client_.confirmed() && server_.established(); }
  bool SameKeys() const {
    return BothHaveASession() &&
           client_.peer().current->local_index == server_.peer().current->remote_index;
  }

  void Establish() {
    Start();
    ASSERT_TRUE(RunUntil(2 * kSecondNs, [this] { return SameKeys(); }));
    Run(500 * kMillisecondNs);
    network_.TakeLog();
  }

  // Inner packets go through in both directions.
  bool Exchange() {
    const uint64_t at_server = server_.lanes[0].opened;
    const uint64_t at_client = client_.lanes[0].opened;
    const bool sent = int{client_.SendData()} + int{server_.SendData()} == 2;
    Run(2 * network_.conditions.delay_ns + 2 * network_.conditions.jitter_ns);
    return sent && server_.lanes[0].opened > at_server && client_.lanes[0].opened > at_client;
  }

  // From now on until both hold a session of keys that are newer than those of now.
  std::optional<DurationNs> TimeUntilExchange(DurationNs limit_ns) {
    return RunUntil(limit_ns, [this] {
      return client_.running() && server_.running() && BothHaveASession() && Exchange();
    });
  }

  // Holds back the first datagram for which `wanted` is true, and gives it.
  Datagram Capture(DurationNs limit_ns, const std::function<bool(const Datagram&)>& wanted,
                   const std::function<void()>& provoke = nullptr) {
    std::optional<Datagram> captured;
    network_.on_wire = [&](const Datagram& datagram) {
      if (captured || !wanted(datagram)) return true;
      captured = datagram;
      return false;
    };
    if (provoke) provoke();
    EXPECT_TRUE(RunUntil(limit_ns, [&] { return captured.has_value(); }));
    network_.on_wire = nullptr;
    return captured.value_or(Datagram{});
  }

  static bool FromClient(const Datagram& datagram) { return datagram.to == kServerAt; }
  static bool FromServer(const Datagram& datagram) { return datagram.from == kServerAt; }

  void Flood(int initiations) {
    MacStamper stamper(server_.options.identity.public_key);
    for (int i = 0; i < initiations; ++i) {
      server_.Deliver(InitiationOfNobody(stamper, network_.random(), network_.now_ns()),
                      RandomSource(network_.random()));
    }
  }

  SimulatedNetwork network_;
  SimulatedEnd server_{network_, Role::kServer, {kServerAt}};
  SimulatedEnd client_{network_, Role::kClient, {kClientAt}};
  std::function<void()> every_tick_;
};

// --- Establishing ---

TEST_F(PeersTest, ASessionIsEstablishedAndCarriesTraffic) {
  Start();
  const auto took = RunUntil(2 * kSecondNs, [this] { return SameKeys(); });
  ASSERT_TRUE(took);
  EXPECT_LE(*took, 200 * kMillisecondNs);  // a tick and two round trips
  EXPECT_TRUE(Exchange());
  EXPECT_EQ(client_.drops(), 0u);
  EXPECT_EQ(server_.drops(), 0u);
  EXPECT_TRUE(client_.Reported("session established"));
  EXPECT_TRUE(server_.Reported("session established"));
  EXPECT_EQ(client_.peer().mtu, kMinMtu);
  ASSERT_TRUE(client_.peer().paths[0].rtt_ms);
  EXPECT_NEAR(*client_.peer().paths[0].rtt_ms, 20, 0.1);
}

TEST_F(PeersTest, APeerThatIsRemovedIsToldAndForgotten) {
  Establish();
  server_.peers().Remove({0}, network_.now_ns());
  EXPECT_TRUE(server_.peers().all().empty());
  EXPECT_EQ(server_.keypairs_known(), 0u);
  EXPECT_EQ(server_.peers().indices_in_use(), 0u);
  Run(2 * kSecondNs);
  EXPECT_TRUE(client_.Reported("session ended"));
  EXPECT_FALSE(client_.established());
  EXPECT_GT(server_.drops(Drop::handshake_unknown_peer), 0u);
}

TEST_F(PeersTest, APeerThatComesWhileThisRunsIsAnswered) {
  Start();
  PeerConfig config;
  config.name = "client";
  config.public_key = client_.options.identity.public_key;
  server_.peers().Remove({0}, network_.now_ns());
  Run(3 * kSecondNs);
  ASSERT_FALSE(client_.established());
  const auto slot = server_.peers().Add(config, server_.KeysOf(config), network_.now_ns());
  ASSERT_TRUE(slot.ok());
  EXPECT_EQ(*slot, 1u);  // the first one's rests
  EXPECT_TRUE(RunUntil(5 * kSecondNs, [this] {
    return client_.confirmed() && server_.peers().Find(1)->established();
  }));
}

TEST_F(PeersTest, ASlotIsUsedAgainWhenNobodySpeaksOfTheLastPeerAnyMore) {
  server_.options.max_peers = 1;
  Establish();
  PeerConfig other;
  other.name = "other";
  other.public_key = server_.options.identity.public_key;
  EXPECT_TRUE(absl::IsResourceExhausted(
      server_.peers().Add(other, server_.KeysOf(other), network_.now_ns()).status()));
  server_.peers().Remove({0}, network_.now_ns());
  EXPECT_EQ(server_.peers().room(network_.now_ns()), 0u);
  EXPECT_TRUE(absl::IsResourceExhausted(
      server_.peers().Add(other, server_.KeysOf(other), network_.now_ns()).status()));
  Run(15 * kSecondNs);
  EXPECT_EQ(server_.peers().room(network_.now_ns()), 1u);
  const auto slot = server_.peers().Add(other, server_.KeysOf(other), network_.now_ns());
  ASSERT_TRUE(slot.ok());
  EXPECT_EQ(*slot, 0u);
  EXPECT_EQ(server_.peer().config.name, "other");
  EXPECT_FALSE(server_.established());
}

// A server does not ping its only path; it knows from its probes.
TEST_F(PeersTest, BothEndsTellTheirWorkersThatAPathIsFar) {
  network_.conditions.delay_ns = 3 * kMillisecondNs;
  Start();
  ASSERT_TRUE(RunUntil(2 * kSecondNs, [this] { return SameKeys(); }));
  Run(kSecondNs);
  EXPECT_TRUE(client_.lanes[0].far[0]);
  EXPECT_TRUE(server_.lanes[0].far[0]);
}

TEST_F(PeersTest, OneShortRoundTripShowsThatAPathIsNotFar) {
  client_.keepalive_ms = 1000;
  network_.conditions.delay_ns = 20 * kMillisecondNs;  // as of a machine that is busy
  Start();
  ASSERT_TRUE(RunUntil(2 * kSecondNs, [this] { return SameKeys(); }));
  Run(kSecondNs);
  EXPECT_TRUE(client_.lanes[0].far[0]);
  network_.conditions.delay_ns = kMillisecondNs;
  Run(2 * kSecondNs);
  EXPECT_FALSE(client_.lanes[0].far[0]);
  network_.conditions.delay_ns = 20 * kMillisecondNs;
  Run(5 * kSecondNs);
  EXPECT_FALSE(client_.lanes[0].far[0]);
}

TEST_F(PeersTest, TheRespondersFavouriteOfTheOfferedCiphersIsTaken) {
  if (client_.options.aeads[Cipher::kAes256Gcm] == nullptr) GTEST_SKIP() << "no AES in hardware";
  client_.options.ciphers = {Cipher::kChaCha20Poly1305, Cipher::kAes256Gcm};
  server_.options.ciphers = {Cipher::kAes256Gcm, Cipher::kChaCha20Poly1305};
  Establish();
  EXPECT_EQ(client_.peer().current->aead->cipher, Cipher::kAes256Gcm);
  EXPECT_EQ(server_.peer().current->aead->cipher, Cipher::kAes256Gcm);
  EXPECT_TRUE(Exchange());
}

TEST_F(PeersTest, TheSmallerOfBothMtusAndLaneNumbersIsAgreed) {
  client_.options.mtu = 1420;
  client_.options.lanes = 16;
  server_.options.mtu = 1400;
  server_.options.lanes = 4;
  Establish();
  for (const SimulatedEnd* end : {&client_, &server_}) {
    EXPECT_EQ(end->peer().mtu, 1400);
    EXPECT_EQ(end->lanes[0].mtu, 1400);
    EXPECT_EQ(end->peer().current->lanes, 4);
  }
}

TEST_F(PeersTest, EitherEndMayStartFirst) {
  client_.Start();
  Run(30 * kSecondNs);
  server_.Start();
  const auto took = TimeUntilExchange(10 * kSecondNs);
  ASSERT_TRUE(took);
  EXPECT_LE(*took, 3500 * kMillisecondNs);  // by then it tries every three seconds

  server_.Kill();
  client_.Kill();
  server_.Start();
  Run(30 * kSecondNs);
  client_.Start();
  EXPECT_LE(TimeUntilExchange(10 * kSecondNs).value_or(10 * kSecondNs), 500 * kMillisecondNs);
}

TEST_F(PeersTest, AWrongPresharedKeyGivesNoSession) {
  client_.preshared_key[0] = 1;
  Start();
  Run(10 * kSecondNs);
  EXPECT_FALSE(client_.established());
  EXPECT_FALSE(server_.established());
  EXPECT_GE(client_.drops(Drop::handshake_unauthentic), 5u);
}

class LossOfOne : public PeersTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(LossOfOne, IsRecovered) {
  size_t seen = 0;
  network_.on_wire = [&](const Datagram&) { return seen++ != GetParam(); };
  Start();
  const auto took = RunUntil(5 * kSecondNs, [this] { return SameKeys(); });
  ASSERT_TRUE(took);
  EXPECT_LE(*took, 2 * kSecondNs);
  Run(5 * kSecondNs);
  EXPECT_TRUE(Exchange());
  EXPECT_TRUE(SameKeys());
}
INSTANTIATE_TEST_SUITE_P(Datagram, LossOfOne, ::testing::Range<size_t>(0, 8));

class BadNetwork : public PeersTest, public ::testing::WithParamInterface<uint64_t> {
 protected:
  BadNetwork() : PeersTest(GetParam()) {}
};

TEST_P(BadNetwork, IsLivedWith) {
  network_.conditions = {.loss = 0.2,
                         .duplicates = 0.2,
                         .delay_ns = 20 * kMillisecondNs,
                         .jitter_ns = 150 * kMillisecondNs};
  uint64_t sent = 0;
  every_tick_ = [&] { sent += client_.SendData() + server_.SendData(); };
  Start();
  // At any moment new keys may just be under way.
  const auto have_a_session = [this] { return BothHaveASession(); };
  Run(20 * kSecondNs);
  ASSERT_TRUE(RunUntil(5 * kSecondNs, have_a_session));
  Run(400 * kSecondNs);
  EXPECT_TRUE(RunUntil(5 * kSecondNs, have_a_session));
  EXPECT_GE(sent, 8200u);
  const uint64_t opened = client_.lanes[0].opened + server_.lanes[0].opened;
  EXPECT_GE(static_cast<double>(opened), 0.75 * static_cast<double>(sent));
  EXPECT_LE(opened, sent);
  // What is refused is duplicates only.
  EXPECT_EQ(client_.drops(Drop::unauthentic) + server_.drops(Drop::unauthentic), 0u);
  EXPECT_EQ(client_.drops(Drop::expired_key) + server_.drops(Drop::expired_key), 0u);
}
INSTANTIATE_TEST_SUITE_P(Seed, BadNetwork, ::testing::Range<uint64_t>(1, 7));

TEST_F(PeersTest, ARoundTripOfOneSecondIsBorne) {
  network_.conditions.delay_ns = 450 * kMillisecondNs;
  Start();
  ASSERT_TRUE(RunUntil(10 * kSecondNs, [this] { return SameKeys(); }));
  Run(10 * kSecondNs);
  const uint64_t id = client_.peer().current->id;
  Run(60 * kSecondNs);
  EXPECT_EQ(client_.peer().current->id, id) << "a slow link was taken for a dead one";
  EXPECT_NEAR(client_.peer().paths[0].rtt_ms.value_or(0), 900, 1);
}

// --- Rekeying ---

TEST_F(PeersTest, TheInitiatorRekeysAfterTwoMinutes) {
  Establish();
  const uint64_t id = client_.peer().current->id;
  int initiations = 0;
  network_.on_wire = [&](const Datagram& datagram) {
    if (KindOf(datagram) != Kind::kInitiation) return true;
    EXPECT_TRUE(FromClient(datagram));
    ++initiations;
    return true;
  };
  Run(118 * kSecondNs);
  EXPECT_EQ(client_.peer().current->id, id);
  Run(3 * kSecondNs);
  EXPECT_NE(client_.peer().current->id, id);
  EXPECT_EQ(client_.peer().previous->id, id);
  EXPECT_TRUE(SameKeys());
  EXPECT_EQ(initiations, 1);
  Run(480 * kSecondNs);
  EXPECT_EQ(initiations, 5);
  EXPECT_EQ(client_.reports.size(), 1u) << "a rekey is nothing to report";
}

TEST_F(PeersTest, NothingIsLostByARekey) {
  client_.options.rekey_after_ns = 2 * kSecondNs;
  network_.conditions.jitter_ns = 200 * kMillisecondNs;
  Establish();
  every_tick_ = [this] {
    for (int i = 0; i < 5; ++i) {
      EXPECT_TRUE(client_.SendData());
      EXPECT_TRUE(server_.SendData());
    }
  };
  Run(120 * kSecondNs);
  every_tick_ = nullptr;
  Run(kSecondNs);
  EXPECT_GE(client_.keypairs_announced(), 50u);
  EXPECT_EQ(client_.lanes[0].opened, server_.lanes[0].activity.tx_packets);
  EXPECT_EQ(server_.lanes[0].opened, client_.lanes[0].activity.tx_packets);
  EXPECT_EQ(client_.lanes[0].refused + server_.lanes[0].refused, 0u);
}

TEST_F(PeersTest, RekeysAfterSoManyPackets) {
  client_.options.rekey_after_packets = 1000;
  Establish();
  const uint64_t id = client_.peer().current->id;
  for (int i = 0; i < 999; ++i) client_.SendData();
  Run(2 * kSecondNs);
  EXPECT_EQ(client_.peer().current->id, id);
  client_.SendData();
  Run(kSecondNs);
  EXPECT_EQ(client_.peer().current->id, id + 1);
  Run(5 * kSecondNs);
  EXPECT_EQ(client_.peer().current->id, id + 1) << "the count did not begin anew";
}

TEST_F(PeersTest, AResponderDoesNotSendUnderKeysThatTheInitiatorHasNotUsed) {
  client_.options.rekey_after_ns = 10 * kSecondNs;
  Establish();
  const uint64_t old_id = server_.peer().current->id;
  ASSERT_TRUE(RunUntil(15 * kSecondNs, [this] { return server_.peer().next != nullptr; }));
  const uint32_t next_index = server_.peer().next->remote_index;
  // Nothing of the client comes through any more, though it holds the keys.
  network_.on_wire = [](const Datagram& datagram) { return !FromClient(datagram); };
  network_.TakeLog();
  const Keypair* under = server_.lanes[0].send;
  for (int i = 0; i < 50; ++i) {
    server_.SendData();
    Run(100 * kMillisecondNs);
    EXPECT_EQ(server_.lanes[0].send, under);
  }
  EXPECT_EQ(server_.peer().current->id, old_id);
  for (const Datagram& datagram : network_.TakeLog()) {
    EXPECT_TRUE(!FromServer(datagram) || SessionOf(datagram) != next_index);
  }
}

TEST_F(PeersTest, DataAloneConfirmsTheNextKeys) {
  client_.options.rekey_after_ns = 10 * kSecondNs;
  Establish();
  const uint64_t old_id = server_.peer().current->id;
  network_.on_wire = [](const Datagram& datagram) {
    return !FromClient(datagram) || !IsSlowLane(datagram) || KindOf(datagram) == Kind::kInitiation;
  };
  ASSERT_TRUE(RunUntil(15 * kSecondNs, [&] { return client_.peer().previous != nullptr; }));
  Run(50 * kMillisecondNs);
  EXPECT_EQ(server_.peer().current->id, old_id);
  client_.SendData();
  Run(50 * kMillisecondNs);
  EXPECT_EQ(server_.peer().previous->id, old_id);
  EXPECT_TRUE(server_.peer().current->local_index == client_.peer().current->remote_index);
}

TEST_F(PeersTest, ARequestThatComesLateStartsNoHandshake) {
  Establish();
  const uint64_t id = client_.peer().current->id;
  client_.On({.type = Event::Type::kNeedHandshake, .peer = 0});
  Run(5 * kSecondNs);
  EXPECT_EQ(client_.peer().current->id, id);
}

TEST_F(PeersTest, TenThousandRekeysLeaveNothingBehind) {
  client_.options.rekey_after_ns = 50 * kMillisecondNs;
  Establish();
  for (int i = 0; i < 100; ++i) {
    Run(10 * kSecondNs);
    network_.TakeLog();
  }
  for (SimulatedEnd* end : {&client_, &server_}) {
    EXPECT_GE(end->keypairs_announced(), 9'900u);
    EXPECT_LE(end->keypairs_known(), 3u);
    EXPECT_LE(end->peers().indices_in_use(), 4u);
    EXPECT_EQ(end->keypairs_announced() - end->keypairs_retired(), end->keypairs_known());
    EXPECT_EQ(end->drops(), 0u);
  }
  EXPECT_TRUE(Exchange());
}

// --- Expiry ---

TEST_F(PeersTest, KeysEndAfterThreeMinutesWhateverHappens) {
  Establish();
  const TimeNs made_ns = client_.peer().established_ns;
  // Sealed packets go on, so that neither end sees the other as dead; handshakes do not come
  // through.
  network_.on_wire = [](const Datagram& datagram) { return IsSealed(KindOf(datagram)); };
  Run(made_ns + 178 * kSecondNs - network_.now_ns());
  EXPECT_TRUE(Exchange());
  Run(made_ns + kSealUntilNs + 100 * kMillisecondNs - network_.now_ns());
  network_.TakeLog();
  EXPECT_FALSE(client_.SendData());
  EXPECT_FALSE(server_.SendData());
  Run(5 * kSecondNs);
  for (const Datagram& datagram : network_.TakeLog()) {
    EXPECT_FALSE(IsSealed(KindOf(datagram))) << "sealed under keys that are too old";
  }
  Run(10 * kSecondNs);
  for (SimulatedEnd* end : {&client_, &server_}) {
    EXPECT_FALSE(end->established());
    EXPECT_EQ(end->keypairs_known(), 0u);
    EXPECT_EQ(end->keypairs_retired(), end->keypairs_announced());
    EXPECT_TRUE(end->Reported("session ended"));
  }
  network_.on_wire = nullptr;
  EXPECT_TRUE(TimeUntilExchange(5 * kSecondNs));
}

TEST_F(PeersTest, NextKeysThatNobodyUsesAreForgotten) {
  Start();
  const Datagram initiation = Capture(
      kSecondNs, [](const Datagram& datagram) { return KindOf(datagram) == Kind::kInitiation; });
  client_.Kill();
  server_.Deliver(initiation.bytes, initiation.from);
  EXPECT_EQ(server_.keypairs_known(), 1u);
  Run(191 * kSecondNs);
  EXPECT_EQ(server_.keypairs_known(), 0u);
  EXPECT_EQ(server_.peers().indices_in_use(), 0u);
}

// --- What has become of handshakes ---

class CountedHandshakes : public PeersTest {
 protected:
  static std::vector<uint64_t> CountsOf(SimulatedEnd& end) {
    const HandshakeCounts& counts = end.peers().handshakes();
    return {counts.begun, counts.completed, counts.refused, counts.timed_out};
  }
  using Counts = std::vector<uint64_t>;  // begun, completed, refused, timed out
};

TEST_F(CountedHandshakes, OneThatComesThroughIsBegunAndCompletedAtBothEnds) {
  Establish();
  EXPECT_EQ(CountsOf(client_), (Counts{1, 1, 0, 0}));
  EXPECT_EQ(CountsOf(server_), (Counts{1, 1, 0, 0}));
  Run(121 * kSecondNs);
  EXPECT_EQ(CountsOf(client_), (Counts{2, 2, 0, 0})) << "the rekey";
  EXPECT_EQ(CountsOf(server_), (Counts{2, 2, 0, 0}));
}

TEST_F(CountedHandshakes, AnInitiationThatNobodyAnswersHasTimedOutWhenTheNextOneLeaves) {
  client_.Start();
  Run(10 * kSecondNs);
  const Counts counts = CountsOf(client_);
  EXPECT_GE(counts[0], 4u);
  EXPECT_EQ(counts, (Counts{counts[0], 0, 0, counts[0] - 1}));
}

TEST_F(CountedHandshakes, AnAnswerThatIsLostTimesOutAtBothEnds) {
  network_.on_wire = [](const Datagram& datagram) { return KindOf(datagram) != Kind::kResponse; };
  Start();
  Run(1800 * kMillisecondNs);  // there is one at once, and one after a second or a little more
  for (SimulatedEnd* end : {&client_, &server_}) EXPECT_EQ(CountsOf(*end), (Counts{2, 0, 0, 1}));
  client_.Kill();
  Run(191 * kSecondNs);
  EXPECT_EQ(CountsOf(server_), (Counts{2, 0, 0, 2})) << "the keys were never used";
}

TEST_F(CountedHandshakes, ACookieIsAnAnswer) {
  server_.Start();
  every_tick_ = [this] { Flood(200); };
  Run(2 * kSecondNs);
  client_.Start();
  ASSERT_TRUE(RunUntil(2 * kSecondNs, [this] { return SameKeys(); }));
  EXPECT_EQ(CountsOf(client_), (Counts{2, 1, 0, 0}));
}

TEST_F(CountedHandshakes, EachInitiationThatIsRefusedIsADropOfSomeReason) {
  server_.Start();
  Flood(1400);
  EXPECT_EQ(CountsOf(server_)[2], 1400u);
  EXPECT_EQ(CountsOf(server_)[2], server_.drops());
  EXPECT_EQ(CountsOf(server_)[0], server_.drops(Drop::handshake_unauthentic))
      << "those that were let in";
  EXPECT_EQ(CountsOf(server_)[1], 0u);
}

TEST_F(CountedHandshakes, AReplayIsRefused) {
  Start();
  ASSERT_TRUE(RunUntil(kSecondNs, [this] { return SameKeys(); }));
  const std::vector<Datagram> log = network_.TakeLog();
  for (int i = 0; i < 3; ++i) server_.Deliver(log[0].bytes, kAttackerAt);
  EXPECT_EQ(CountsOf(server_)[1], 1u);
  EXPECT_EQ(CountsOf(server_)[2], 3u);
}

// --- The other end is gone ---

class Restart : public PeersTest, public ::testing::WithParamInterface<bool> {
 protected:
  void LoadIfWanted() {
    if (!GetParam()) return;
    every_tick_ = [this] {
      client_.SendData();
      server_.SendData();
    };
  }
};
INSTANTIATE_TEST_SUITE_P(Loaded, Restart, ::testing::Bool());

TEST_P(Restart, OfTheServerIsOverInFiveSeconds) {
  for (int round = 0; round < 5; ++round) {
    Establish();
    LoadIfWanted();
    Run(30 * kSecondNs + network_.random()() % (2 * kSecondNs));
    server_.Start();
    EXPECT_LE(TimeUntilExchange(20 * kSecondNs).value_or(20 * kSecondNs), 5 * kSecondNs);
    every_tick_ = nullptr;
  }
}

TEST_P(Restart, OfTheClientIsOverInFiveSeconds) {
  for (int round = 0; round < 5; ++round) {
    Establish();
    LoadIfWanted();
    Run(30 * kSecondNs + network_.random()() % (2 * kSecondNs));
    client_.Start();
    EXPECT_LE(TimeUntilExchange(20 * kSecondNs).value_or(20 * kSecondNs), 5 * kSecondNs);
    EXPECT_LE(server_.keypairs_known(), 3u);
    every_tick_ = nullptr;
  }
}

TEST_P(Restart, OfBothAtOnceIsOverInFiveSeconds) {
  Establish();
  LoadIfWanted();
  server_.Start();
  client_.Start();
  EXPECT_LE(TimeUntilExchange(20 * kSecondNs).value_or(20 * kSecondNs), 5 * kSecondNs);
}

TEST_P(Restart, OfAClientWhoseClockStandsAt1970) {
  Establish();
  LoadIfWanted();
  client_.wall_offset_ns = static_cast<uint64_t>(0) - network_.now_ns();
  client_.Start();
  EXPECT_LE(TimeUntilExchange(20 * kSecondNs).value_or(20 * kSecondNs), 5 * kSecondNs);
}

TEST_F(PeersTest, AClientWithoutItsCounterAndItsClockIsRefusedUntilTheClockIsRight) {
  Establish();
  client_.counter = 0;
  client_.wall_offset_ns = static_cast<uint64_t>(0) - network_.now_ns();
  client_.Start();
  Run(10 * kSecondNs);
  EXPECT_FALSE(client_.established());
  EXPECT_GE(server_.drops(Drop::handshake_replayed), 5u);
  client_.wall_offset_ns = 0;
  EXPECT_TRUE(TimeUntilExchange(5 * kSecondNs));
}

TEST_P(Restart, IsNoticedWhenTheServerNeverComesBack) {
  Establish();
  LoadIfWanted();
  Run(20 * kSecondNs);
  server_.Kill();
  network_.TakeLog();
  const auto noticed = RunUntil(10 * kSecondNs, [this] {
    for (const Datagram& datagram : network_.TakeLog()) {
      if (KindOf(datagram) == Kind::kInitiation) return true;
    }
    return false;
  });
  ASSERT_TRUE(noticed);
  EXPECT_LE(*noticed, GetParam() ? 2500 * kMillisecondNs : 4 * kSecondNs);
}

TEST_F(PeersTest, ADeadPeerIsNoticedByTrafficAloneWhenKeepalivesAreOff) {
  SimulatedEnd quiet(network_, Role::kClient, {kElsewhere});
  quiet.keepalive_ms = 0;
  SimulatedEnd hub(network_, Role::kServer, {At("198.51.100.2:7700")});
  hub.Know(quiet);
  quiet.Know(hub, {At("198.51.100.2:7700")});
  hub.Start();
  quiet.Start();
  const auto tick = [&] {
    hub.Tick();
    quiet.Tick();
    if (every_tick_) every_tick_();
  };
  network_.Run(kSecondNs, Peers::kTickNs, tick);
  ASSERT_TRUE(quiet.confirmed());
  network_.TakeLog();
  network_.Run(60 * kSecondNs, Peers::kTickNs, tick);
  EXPECT_TRUE(network_.TakeLog().empty()) << "an idle session speaks although it should not";
  hub.Kill();
  every_tick_ = [&] { quiet.SendData(); };
  network_.Run(3 * kSecondNs, Peers::kTickNs, tick);
  EXPECT_GT(quiet.peer().attempts, 0);
}

TEST_F(PeersTest, AnOutageIsNoRoundTrip) {
  Establish();
  Run(10 * kSecondNs);
  network_.on_wire = [](const Datagram&) { return false; };
  Run(60 * kSecondNs);
  network_.on_wire = nullptr;
  EXPECT_LE(TimeUntilExchange(10 * kSecondNs).value_or(10 * kSecondNs), 4 * kSecondNs);
  Run(5 * kSecondNs);
  EXPECT_LE(client_.peer().paths[0].rtt_ms.value_or(0), 40);
}

// --- Replays ---

TEST_F(PeersTest, AReplayedInitiationIsRefused) {
  Start();
  ASSERT_TRUE(RunUntil(kSecondNs, [this] { return SameKeys(); }));
  Run(kSecondNs);
  const std::vector<Datagram> log = network_.TakeLog();
  const std::string before = server_.Snapshot();
  ASSERT_EQ(KindOf(log[0]), Kind::kInitiation);
  for (const Endpoint& from : {log[0].from, kAttackerAt}) server_.Deliver(log[0].bytes, from);
  EXPECT_EQ(server_.Snapshot(), before);
  EXPECT_EQ(server_.drops(Drop::handshake_replayed), 2u);
  EXPECT_EQ(server_.drops(), 2u);
}

TEST_F(PeersTest, NothingRecordedIsTakenASecondTime) {
  Start();
  Run(20 * kSecondNs);
  const std::vector<Datagram> log = network_.TakeLog();
  ASSERT_GE(log.size(), 20u);
  const std::string before = client_.Snapshot() + server_.Snapshot();
  for (const Datagram& datagram : log) {
    SimulatedEnd& end = FromClient(datagram) ? server_ : client_;
    const uint64_t drops = end.drops();
    end.Deliver(datagram.bytes, kAttackerAt);
    EXPECT_EQ(end.drops(), drops + 1);
  }
  EXPECT_EQ(client_.Snapshot() + server_.Snapshot(), before);
}

TEST_F(PeersTest, AReplayToAServerThatHasForgottenDoesNotDisturbTheClient) {
  Start();
  ASSERT_TRUE(RunUntil(kSecondNs, [this] { return SameKeys(); }));
  const std::vector<Datagram> log = network_.TakeLog();
  server_.Start();
  server_.Deliver(log[0].bytes, kAttackerAt);  // it cannot know
  ASSERT_NE(server_.peer().next, nullptr);
  const auto took = TimeUntilExchange(10 * kSecondNs);
  ASSERT_TRUE(took);
  EXPECT_LE(*took, 5 * kSecondNs);
  EXPECT_EQ(server_.peer().paths[0].route.remote, kClientAt);
}

TEST_F(PeersTest, PacketsOfASessionFromBeforeARestartAreRefused) {
  Establish();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Exchange());
  // Kept back by somebody: they would open, and never did.
  std::vector<Datagram> kept;
  network_.on_wire = [&](const Datagram& datagram) {
    kept.push_back(datagram);
    return false;
  };
  for (int i = 0; i < 10; ++i) client_.SendData();
  Run(3 * kSecondNs);
  network_.on_wire = nullptr;
  client_.Start();
  ASSERT_TRUE(TimeUntilExchange(5 * kSecondNs));
  const uint64_t opened = server_.lanes[0].opened;
  const std::string before = server_.Snapshot();
  for (const Datagram& datagram : kept) {
    if (FromClient(datagram)) server_.Deliver(datagram.bytes, kClientAt);
  }
  EXPECT_EQ(server_.lanes[0].opened, opened);
  EXPECT_EQ(server_.Snapshot(), before);
}

// --- Addresses ---

TEST_F(PeersTest, AClientThatMovesIsFollowedOnceItHasAnsweredThere) {
  Establish();
  client_.MoveAddress(0, kElsewhere);
  network_.TakeLog();
  ASSERT_TRUE(RunUntil(3 * kSecondNs, [this] {
    return server_.peer().paths[0].source.candidate().remote == kElsewhere;
  }));
  EXPECT_EQ(server_.peer().paths[0].route.remote, kClientAt);
  EXPECT_EQ(server_.lanes[0].routes[0].remote, kClientAt) << "bulk traffic moved unproven";
  const auto moved =
      RunUntil(kSecondNs, [this] { return server_.peer().paths[0].route.remote == kElsewhere; });
  ASSERT_TRUE(moved);
  EXPECT_LE(*moved, 30 * kMillisecondNs);  // a round trip
  EXPECT_EQ(server_.lanes[0].routes[0].remote, kElsewhere);
  EXPECT_TRUE(Exchange());
  EXPECT_EQ(server_.keypairs_announced(), 1u) << "moving takes no handshake";
  EXPECT_TRUE(server_.Reported("now leads to"));
}

TEST_F(PeersTest, AClientThatMovesOftenIsFollowed) {
  Establish();
  for (int i = 0; i < 20; ++i) {
    Endpoint next = kElsewhere;
    next.port = static_cast<uint16_t>(next.port + i);
    client_.MoveAddress(0, next);
    Run(4 * kSecondNs);
    EXPECT_EQ(server_.peer().paths[0].route.remote, next);
    EXPECT_TRUE(Exchange());
  }
}

// The attacker sees every datagram of the client, and sends a copy from an address of its own.
class Copies : public PeersTest, public ::testing::WithParamInterface<int> {};

TEST_P(Copies, DoNotDrawTheTrafficToTheAttacker) {
  network_.Attach(kAttackerAt, [](const Datagram&) {});
  Establish();
  const int lead_ms = GetParam();  // how much sooner, or later, the copy is there
  network_.on_wire = [&](const Datagram& datagram) {
    if (!FromClient(datagram) || !IsSealed(KindOf(datagram))) return true;
    Datagram copy = datagram;
    copy.from = kAttackerAt;
    network_.Inject(copy, static_cast<DurationNs>(10 - lead_ms) * kMillisecondNs);
    return lead_ms != 0;  // at 0 the original never comes
  };
  for (int i = 0; i < 200; ++i) {
    client_.SendData();
    server_.SendData();
    Run(100 * kMillisecondNs);
    ASSERT_EQ(server_.peer().paths[0].route.remote, kClientAt);
    ASSERT_EQ(server_.lanes[0].routes[0].remote, kClientAt);
  }
  for (const Datagram& datagram : network_.TakeLog()) {
    EXPECT_TRUE(datagram.to != kAttackerAt || KindOf(datagram) != Kind::kData);
  }
  network_.on_wire = nullptr;
  EXPECT_TRUE(TimeUntilExchange(5 * kSecondNs));
}
INSTANTIATE_TEST_SUITE_P(LeadMs, Copies, ::testing::Values(-20, -1, 0, 1, 9));

TEST_F(PeersTest, AnOldPacketFromElsewhereMovesNothing) {
  Establish();
  const Datagram old = Capture(3 * kSecondNs, [](const Datagram& datagram) {
    return FromClient(datagram) && IsSealed(KindOf(datagram));
  });
  Run(3 * kSecondNs);
  server_.Deliver(old.bytes, kAttackerAt);  // it opens, but newer ones came before
  EXPECT_FALSE(server_.peer().paths[0].source.candidate().remote.is_set());
  EXPECT_EQ(server_.peer().paths[0].route.remote, kClientAt);
}

TEST_F(PeersTest, OnlyTheClientsOwnPongProvesAnAddress) {
  Establish();
  // The pong that the client would have given is kept from the server, others are made up.
  const Datagram ping = Capture(3 * kSecondNs, [](const Datagram& datagram) {
    return FromClient(datagram) && IsSealed(KindOf(datagram));
  });
  server_.Deliver(ping.bytes, kAttackerAt);
  ASSERT_EQ(server_.peer().paths[0].source.candidate().remote, kAttackerAt);
  for (int i = 0; i < 1000; ++i) {
    Buffer pong(kSealOverheadBytes + 9);
    for (uint8_t& byte : pong) byte = static_cast<uint8_t>(network_.random()());
    const uint64_t sequence = server_.peer().sender.sequence() + static_cast<uint64_t>(i);
    WriteHeader(pong.data(), {Kind::kControl, server_.peer().current->local_index, kSlowLane, 0, 0,
                              0, 1000, sequence + 1000});
    server_.Deliver(pong, kAttackerAt);
  }
  EXPECT_EQ(server_.drops(Drop::unauthentic), 1000u);
  EXPECT_EQ(server_.peer().paths[0].route.remote, kClientAt);
}

TEST_F(PeersTest, APongProvesOnlyTheAddressThatItsPingWentTo) {
  Establish();
  client_.MoveAddress(0, kElsewhere);
  ASSERT_TRUE(RunUntil(3 * kSecondNs, [this] {
    return server_.peer().paths[0].source.candidate().remote == kElsewhere;
  }));
  // The client's answer is held back, and what it says next comes from the attacker's address
  // first.
  const Datagram pong = Capture(kSecondNs, FromClient);
  const Datagram later = Capture(5 * kSecondNs, FromClient);
  server_.Deliver(later.bytes, kAttackerAt);
  ASSERT_EQ(server_.peer().paths[0].source.candidate().remote, kAttackerAt);
  server_.Deliver(pong.bytes, kAttackerAt);
  EXPECT_EQ(server_.drops(), 0u) << "it is authentic, and new";
  EXPECT_EQ(server_.peer().paths[0].route.remote, kClientAt);
  Run(5 * kSecondNs);
  EXPECT_EQ(server_.peer().paths[0].route.remote, kElsewhere);
}

TEST_F(PeersTest, AServerThatAnswersFromAnotherAddressIsFollowedWhenItReceivesThere) {
  Establish();
  server_.MoveAddress(0, kElsewhere);
  network_.Attach(kServerAt, [this](const Datagram& datagram) {
    server_.Deliver(datagram.bytes, datagram.from);  // still reached at the old one
  });
  Run(5 * kSecondNs);
  EXPECT_EQ(client_.peer().paths[0].route.remote, kElsewhere);
  EXPECT_TRUE(Exchange());
}

// --- Floods ---

TEST_F(PeersTest, UnderAFloodEveryoneElseIsAskedForACookie) {
  server_.Start();
  Flood(400);
  EXPECT_EQ(server_.sent, 0u) << "nothing is answered that does not authenticate";
  EXPECT_EQ(server_.drops(Drop::handshake_unauthentic), 400u);
  network_.TakeLog();
  Flood(1000);
  const std::vector<Datagram> answers = network_.TakeLog();
  EXPECT_GE(answers.size(), 999u);
  for (const Datagram& answer : answers) {
    EXPECT_EQ(KindOf(answer), Kind::kCookie);
    EXPECT_LT(answer.bytes.size(), kInitiationBytes);
  }
  EXPECT_EQ(server_.drops(), 1400u);
  EXPECT_EQ(server_.keypairs_announced(), 0u);
}

TEST_F(PeersTest, ARealClientGetsInDuringAFlood) {
  server_.Start();
  every_tick_ = [this] {
    Flood(200);
    network_.TakeLog();
  };
  Run(2 * kSecondNs);
  client_.Start();
  const auto took = RunUntil(10 * kSecondNs, [this] { return SameKeys(); });
  ASSERT_TRUE(took);
  EXPECT_LE(*took, 500 * kMillisecondNs);
  EXPECT_TRUE(Exchange());
  EXPECT_EQ(client_.drops(), 0u);
}

TEST_F(PeersTest, TheLoadIsOverSoonAfterTheFlood) {
  server_.Start();
  Flood(1000);
  Run(3 * kSecondNs);
  network_.TakeLog();
  Flood(100);
  EXPECT_TRUE(network_.TakeLog().empty());
}

TEST_F(PeersTest, OneSenderGetsItsShareOfALoadedServerOnly) {
  server_.Start();
  Flood(500);
  network_.TakeLog();
  MacStamper stamper(server_.options.identity.public_key);
  const auto send = [&] {
    server_.Deliver(InitiationOfNobody(stamper, network_.random(), network_.now_ns()), kAttackerAt);
  };
  send();
  const std::vector<Datagram> answers = network_.TakeLog();
  ASSERT_EQ(answers.size(), 1u);
  ASSERT_TRUE(stamper.ConsumeCookie(answers[0].bytes, network_.now_ns()).ok());
  const uint64_t worked_on = server_.drops(Drop::handshake_unauthentic);
  const uint64_t limited = server_.drops(Drop::handshake_rate_limited);
  for (int i = 0; i < 100; ++i) send();
  EXPECT_EQ(server_.drops(Drop::handshake_unauthentic) - worked_on, 20u);
  EXPECT_EQ(server_.drops(Drop::handshake_rate_limited) - limited, 80u);
  EXPECT_TRUE(network_.TakeLog().empty());
}

TEST_F(PeersTest, AWrongMac2IsRefusedWithoutAnyLoad) {
  server_.Start();
  MacStamper stamper(server_.options.identity.public_key);
  Buffer initiation = InitiationOfNobody(stamper, network_.random(), network_.now_ns());
  initiation.back() ^= 1;
  server_.Deliver(initiation, kAttackerAt);
  EXPECT_EQ(server_.drops(Drop::handshake_bad_mac), 1u);
  EXPECT_EQ(server_.drops(), 1u);
}

TEST_F(PeersTest, ACookieOfAServerThatHasRestartedIsGivenUp) {
  server_.Start();
  Flood(1000);
  client_.Start();
  ASSERT_TRUE(RunUntil(5 * kSecondNs, [this] { return SameKeys(); }));
  ASSERT_TRUE(client_.peer().paths[0].stamper->HasCookie(network_.now_ns()));
  server_.Start();
  ASSERT_TRUE(RunUntil(5 * kSecondNs, [this] { return client_.peer().attempts > 0; }));
  const auto took = TimeUntilExchange(10 * kSecondNs);
  ASSERT_TRUE(took);
  EXPECT_LE(*took, 2 * kSecondNs);
  EXPECT_EQ(server_.drops(Drop::handshake_bad_mac), 1u);
}

TEST_F(PeersTest, AnUnknownPeerGetsNoAnswer) {
  SimulatedEnd stranger(network_, Role::kClient, {kElsewhere});
  stranger.Know(server_, {kServerAt});
  server_.Start();
  const std::string before = server_.Snapshot();
  stranger.Start();
  network_.Run(5 * kSecondNs, Peers::kTickNs, [&] {
    server_.Tick();
    stranger.Tick();
  });
  EXPECT_EQ(server_.Snapshot(), before);
  EXPECT_GE(server_.drops(Drop::handshake_unknown_peer), 4u);
  EXPECT_EQ(server_.drops(Drop::handshake_unknown_peer), server_.drops());
}

TEST_F(PeersTest, AClientAnswersNoInitiation) {
  // Both hold each other's keys, and both take themselves for the client.
  SimulatedEnd other(network_, Role::kClient, {kElsewhere});
  client_.Know(other, {kElsewhere});
  other.Know(client_, {kClientAt});
  client_.Start();
  other.Start();
  network_.Run(5 * kSecondNs, Peers::kTickNs, [&] {
    client_.Tick();
    other.Tick();
  });
  EXPECT_FALSE(client_.established(1));
  EXPECT_FALSE(other.established());
  EXPECT_GE(client_.drops(Drop::handshake_unexpected), 4u);
}

// --- Handshakes whose expensive part ends late ---

class LateJobs : public PeersTest {
 protected:
  using Stage = HandshakeJob::Stage;

  // An initiation of the client, kept from the network.
  Datagram NextInitiation() {
    return Capture(5 * kSecondNs,
                   [](const Datagram& datagram) { return KindOf(datagram) == Kind::kInitiation; });
  }
  void HoldJobs() { server_.hold_jobs = true; }
  void RunJobs() {
    while (!server_.jobs.empty()) server_.RunJob(0);
  }
};

TEST_F(LateJobs, NothingChangesBeforeTheyEnd) {
  HoldJobs();
  Start();
  const Datagram initiation = NextInitiation();
  network_.TakeLog();
  const std::string before = server_.Snapshot();
  server_.Deliver(initiation.bytes, initiation.from);
  ASSERT_EQ(server_.jobs.size(), 1u);
  EXPECT_EQ(server_.Snapshot(), before);
  server_.RunJob(0);  // now it is known who it is
  ASSERT_EQ(server_.jobs.size(), 1u);
  EXPECT_EQ(server_.jobs[0]->stage(), Stage::kWrite);
  EXPECT_EQ(server_.keypairs_known(), 0u);
  EXPECT_TRUE(network_.TakeLog().empty());
  server_.RunJob(0);
  EXPECT_EQ(server_.keypairs_known(), 1u);
  EXPECT_EQ(server_.peers().jobs_under_way(), 0u);
  ASSERT_TRUE(RunUntil(kSecondNs, [this] { return SameKeys(); }));
  EXPECT_TRUE(Exchange());
}

TEST_F(LateJobs, ASessionGoesOnWhileItsRekeyIsWorkedOn) {
  client_.options.rekey_after_ns = 5 * kSecondNs;
  Establish();
  HoldJobs();
  const uint64_t id = server_.peer().current->id;
  ASSERT_TRUE(RunUntil(10 * kSecondNs, [this] { return !server_.jobs.empty(); }));
  EXPECT_TRUE(Exchange());
  EXPECT_EQ(server_.peer().current->id, id);
  RunJobs();
  ASSERT_TRUE(RunUntil(kSecondNs, [&] { return server_.peer().current->id != id && SameKeys(); }));
  EXPECT_TRUE(Exchange());
}

// A handshake may be under way in another thread when its peer goes.
TEST_F(LateJobs, AHandshakeOfAPeerThatHasGoneMeanwhileComesToNothing) {
  HoldJobs();
  Start();
  ASSERT_TRUE(RunUntil(2 * kSecondNs, [this] { return !server_.jobs.empty(); }));
  const Key public_key = client_.options.identity.public_key;
  server_.peers().Remove({0}, network_.now_ns());
  PeerConfig config;
  config.name = "again";
  config.public_key = public_key;
  server_.preshared_key = Key{9};
  ASSERT_TRUE(server_.peers().Add(config, server_.KeysOf(config), network_.now_ns()).ok());
  RunJobs();
  EXPECT_EQ(server_.drops(Drop::handshake_unknown_peer), 1u);
  EXPECT_EQ(server_.keypairs_known(), 0u);
}

TEST_F(LateJobs, TheSameInitiationTwiceIsAnsweredOnce) {
  HoldJobs();
  Start();
  const Datagram initiation = NextInitiation();
  server_.Deliver(initiation.bytes, initiation.from);
  server_.Deliver(initiation.bytes, kAttackerAt);
  network_.TakeLog();
  server_.RunJob(1);  // the copy happens to be first
  server_.RunJob(0);
  EXPECT_EQ(server_.drops(Drop::handshake_replayed), 1u);
  RunJobs();
  EXPECT_EQ(network_.TakeLog().size(), 1u);
  EXPECT_EQ(server_.keypairs_announced(), 1u);
}

// Of two attempts of one client the later counts, in whichever order their stages end.
class TwoAttempts : public LateJobs, public ::testing::WithParamInterface<std::vector<size_t>> {};

TEST_P(TwoAttempts, TheLaterOneCounts) {
  HoldJobs();
  Start();
  const Datagram first = NextInitiation();
  const Datagram second = NextInitiation();  // the client has given up on the first
  network_.TakeLog();
  server_.Deliver(first.bytes, first.from);
  server_.Deliver(second.bytes, second.from);
  for (const size_t place : GetParam()) {
    if (place < server_.jobs.size()) server_.RunJob(place);
  }
  RunJobs();
  EXPECT_EQ(server_.drops(), server_.drops(Drop::handshake_replayed));
  EXPECT_EQ(server_.peers().jobs_under_way(), 0u);
  EXPECT_EQ(server_.keypairs_known(), 1u);
  ASSERT_TRUE(RunUntil(500 * kMillisecondNs, [this] { return SameKeys(); }));
  EXPECT_TRUE(Exchange());
}
// A job that goes on to its second stage goes behind the other.
INSTANTIATE_TEST_SUITE_P(Order, TwoAttempts,
                         ::testing::Values(std::vector<size_t>{0, 0, 0, 0},  // in order
                                           std::vector<size_t>{0, 0, 1, 0},  // the later overtakes
                                           std::vector<size_t>{1, 0, 0},     // and at its reading
                                           std::vector<size_t>{0, 1, 0, 0},  // first is done first
                                           std::vector<size_t>{1, 1, 0, 0}));

TEST_F(LateJobs, WhatEndsAfterTheCloseChangesNothing) {
  for (const int stages : {0, 1}) {
    HoldJobs();
    Start();
    const Datagram initiation = NextInitiation();
    server_.Deliver(initiation.bytes, initiation.from);
    for (int i = 0; i < stages; ++i) server_.RunJob(0);
    server_.Close();
    network_.TakeLog();
    const std::string before = server_.Snapshot();
    RunJobs();
    EXPECT_EQ(server_.Snapshot(), before);
    EXPECT_TRUE(network_.TakeLog().empty());
    EXPECT_EQ(server_.keypairs_announced(), 0u);
    EXPECT_EQ(server_.peers().jobs_under_way(), 0u);
  }
}

TEST_F(LateJobs, AJobMayOutliveThePeers) {
  HoldJobs();
  Start();
  const Datagram initiation = NextInitiation();
  server_.Deliver(initiation.bytes, initiation.from);
  std::unique_ptr<HandshakeJob> job = std::move(server_.jobs[0]);
  server_.Kill();
  job->Run();
  EXPECT_TRUE(job->ok());
}

TEST_F(LateJobs, OnlySoManyAreUnderWayAndTheRestIsDropped) {
  constexpr int kMore = 30;
  server_.Start();
  HoldJobs();
  MacStamper stamper(server_.options.identity.public_key);
  for (int i = 0; i < kMaxHandshakeJobs + kMore; ++i) {
    Run(5 * kMillisecondNs);  // too few a second to be a flood
    server_.Deliver(InitiationOfNobody(stamper, network_.random(), network_.now_ns()),
                    RandomSource(network_.random()));
  }
  EXPECT_EQ(server_.jobs.size(), static_cast<size_t>(kMaxHandshakeJobs));
  EXPECT_EQ(server_.peers().jobs_under_way(), static_cast<size_t>(kMaxHandshakeJobs));
  EXPECT_EQ(server_.drops(Drop::handshakes_busy), static_cast<uint64_t>(kMore));
  EXPECT_EQ(server_.drops(), static_cast<uint64_t>(kMore));
  RunJobs();
  EXPECT_EQ(server_.drops(Drop::handshake_unauthentic), static_cast<uint64_t>(kMaxHandshakeJobs));
  server_.hold_jobs = false;
  client_.Start();
  EXPECT_TRUE(TimeUntilExchange(2 * kSecondNs));
}

TEST_F(LateJobs, BelongToTheAddressThatTheInitiationCameFrom) {
  HoldJobs();
  Start();
  const Datagram initiation = NextInitiation();
  server_.Deliver(initiation.bytes, initiation.from);
  server_.Deliver(Buffer(100), kAttackerAt);  // something else comes meanwhile
  network_.TakeLog();
  RunJobs();
  const std::vector<Datagram> sent = network_.TakeLog();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(KindOf(sent[0]), Kind::kResponse);
  EXPECT_EQ(sent[0].to, kClientAt);
}

// --- Mutilated datagrams ---

class Mutilation : public PeersTest {
 protected:
  // Delivers the datagram cut at every length, with every bit turned and with bytes behind it. The
  // receiver counts one drop each time, and nothing else of it changes.
  void ExpectRefused(SimulatedEnd& end, const Datagram& datagram) {
    for (size_t size = 0; size < datagram.bytes.size(); ++size) {
      Buffer cut(datagram.bytes.begin(), datagram.bytes.begin() + static_cast<ptrdiff_t>(size));
      ExpectRefused(end, std::move(cut), datagram.from, "cut at " + std::to_string(size));
    }
    for (size_t bit = 0; bit < datagram.bytes.size() * 8; ++bit) {
      Buffer turned = datagram.bytes;
      turned[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      ExpectRefused(end, std::move(turned), datagram.from, "bit " + std::to_string(bit));
    }
    for (const size_t more : {1, 16, 200}) {
      Buffer longer = datagram.bytes;
      longer.resize(longer.size() + more);
      ExpectRefused(end, std::move(longer), datagram.from, std::to_string(more) + " bytes more");
    }
  }

  void ExpectRefused(SimulatedEnd& end, Buffer bytes, const Endpoint& from,
                     const std::string& how) {
    const uint64_t drops = end.drops();
    const uint64_t opened = end.lanes[0].opened;
    const std::string before = end.Snapshot();
    const bool stray = end.Deliver(std::move(bytes), from);  // a worker's, which counts itself
    EXPECT_EQ(end.drops(), drops + (stray ? 0 : 1)) << how;
    EXPECT_EQ(end.lanes[0].opened, opened) << how;
    EXPECT_EQ(end.Snapshot(), before) << how;
    EXPECT_TRUE(network_.TakeLog().empty()) << how;
  }
};

TEST_F(Mutilation, OfAnInitiation) {
  Start();
  const Datagram initiation = Capture(
      kSecondNs, [](const Datagram& datagram) { return KindOf(datagram) == Kind::kInitiation; });
  network_.TakeLog();
  ExpectRefused(server_, initiation);
  server_.Deliver(initiation.bytes, initiation.from);
  EXPECT_NE(server_.peer().next, nullptr);
}

TEST_F(Mutilation, OfAnInitiationInASession) {
  client_.options.rekey_after_ns = 5 * kSecondNs;
  Establish();
  const Datagram initiation = Capture(10 * kSecondNs, [](const Datagram& datagram) {
    return KindOf(datagram) == Kind::kInitiation;
  });
  network_.TakeLog();
  ExpectRefused(server_, initiation);
  server_.Deliver(initiation.bytes, initiation.from);
  EXPECT_NE(server_.peer().next, nullptr);
}

TEST_F(Mutilation, OfAResponse) {
  Start();
  const Datagram response = Capture(
      kSecondNs, [](const Datagram& datagram) { return KindOf(datagram) == Kind::kResponse; });
  network_.TakeLog();
  ExpectRefused(client_, response);
  client_.Deliver(response.bytes, response.from);
  EXPECT_TRUE(client_.established());
}

TEST_F(Mutilation, OfACookie) {
  server_.Start();
  Flood(1000);
  client_.Start();
  const Datagram cookie = Capture(kSecondNs, [](const Datagram& datagram) {
    return KindOf(datagram) == Kind::kCookie && datagram.to == kClientAt;
  });
  network_.TakeLog();
  ExpectRefused(client_, cookie);
  client_.Deliver(cookie.bytes, cookie.from);
  EXPECT_TRUE(client_.peer().paths[0].stamper->HasCookie(network_.now_ns()));
}

TEST_F(Mutilation, OfSealedPackets) {
  Establish();
  for (SimulatedEnd* end : {&server_, &client_}) {
    for (const bool slow : {true, false}) {
      const auto wanted = [&](const Datagram& datagram) {
        return datagram.to == end->addresses[0] && IsSlowLane(datagram) == slow &&
               IsSealed(KindOf(datagram));
      };
      SimulatedEnd& sender = end == &server_ ? client_ : server_;
      const Datagram sealed = Capture(5 * kSecondNs, wanted, [&] { sender.SendData(); });
      network_.TakeLog();
      ExpectRefused(*end, sealed);
    }
  }
}

TEST_F(Mutilation, ByChance) {
  Establish();
  for (int i = 0; i < 20'000; ++i) {
    Buffer bytes(network_.random()() % 600);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(network_.random()());
    if (bytes.size() > kHeaderBytes && i % 2 == 0) {
      StoreBe16(bytes.data(), kMagic);
      bytes[2] = kWireVersion;
      bytes[3] = static_cast<uint8_t>(network_.random()() % 8);
      bytes[8] = kSlowLane;
      bytes[10] = bytes[11] = 0;
      if (i % 4 == 0) StoreBe32(&bytes[4], server_.peer().current->local_index);
    }
    ExpectRefused(server_, std::move(bytes), kAttackerAt, std::to_string(i));
  }
}

// --- Closing ---

TEST_F(PeersTest, AClosedEndEndsTheOthersSessionAtOnce) {
  for (SimulatedEnd* closing : {&client_, &server_}) {
    Establish();
    SimulatedEnd& other = closing == &client_ ? server_ : client_;
    closing->Close();
    EXPECT_EQ(closing->keypairs_known(), 0u);
    EXPECT_EQ(closing->peers().indices_in_use(), 0u);
    // The other end may begin anew at its next tick.
    EXPECT_TRUE(RunUntil(20 * kMillisecondNs, [&] { return !other.established(); }));
    EXPECT_EQ(other.keypairs_known(), 0u);
    EXPECT_EQ(other.keypairs_retired(), other.keypairs_announced());
    EXPECT_TRUE(other.Reported("closed by the other end"));
    closing->Kill();
    Run(5 * kSecondNs);
  }
}

TEST_F(PeersTest, AClosedEndStaysClosed) {
  client_.options.rekey_after_ns = 10 * kSecondNs;
  Establish();
  // In the middle of a rekey: the response is still on its way.
  ASSERT_TRUE(RunUntil(15 * kSecondNs, [this] { return client_.peer().attempt.has_value(); }));
  client_.Close();
  network_.TakeLog();
  Run(60 * kSecondNs);
  EXPECT_FALSE(client_.established());
  for (const Datagram& datagram : network_.TakeLog()) EXPECT_FALSE(FromClient(datagram));

  Establish();
  ASSERT_TRUE(RunUntil(15 * kSecondNs, [this] { return server_.peer().next != nullptr; }));
  server_.Close();
  EXPECT_EQ(server_.keypairs_known(), 0u);
  Run(60 * kSecondNs);
  EXPECT_EQ(server_.keypairs_known(), 0u);
  EXPECT_FALSE(client_.established());
}

TEST_F(PeersTest, ACloseOfAnEarlierSessionEndsNothing) {
  client_.options.rekey_after_ns = 10 * kSecondNs;
  Establish();
  const Datagram close = [&] {
    std::optional<Datagram> last;
    network_.on_wire = [&](const Datagram& datagram) {
      last = datagram;
      return false;
    };
    client_.Close();
    network_.on_wire = nullptr;
    return last.value();
  }();
  client_.Start();
  ASSERT_TRUE(TimeUntilExchange(5 * kSecondNs));
  const std::string before = server_.Snapshot();
  server_.Deliver(close.bytes, close.from);
  EXPECT_TRUE(server_.established());
  EXPECT_EQ(server_.Snapshot(), before);
}

// --- Several paths ---

class TwoPaths : public PeersTest {
 protected:
  static inline const Endpoint kLink0 = At("192.0.2.20:40000");
  static inline const Endpoint kLink1 = At("203.0.113.20:40001");

  TwoPaths() {
    mobile_.Know(hub_, {kHubAt});
    hub_.Know(mobile_);
  }

  void RunBoth(DurationNs duration_ns) {
    network_.Run(duration_ns, Peers::kTickNs, [this] {
      hub_.Tick();
      mobile_.Tick();
      if (every_tick_) every_tick_();
    });
  }

  void Establish() {
    hub_.Start();
    mobile_.Start();
    RunBoth(3 * kSecondNs);
    ASSERT_TRUE(mobile_.confirmed() && hub_.established());
  }

  static bool Over(const Datagram& datagram, const Endpoint& link) {
    return datagram.from == link || datagram.to == link;
  }
  void Cut(const Endpoint& link) {
    network_.on_wire = [link](const Datagram& datagram) { return !Over(datagram, link); };
  }

  // How long until inner packets go through both ways again.
  std::optional<DurationNs> TimeUntilBothWays(DurationNs limit_ns) {
    const uint64_t at_hub = hub_.lanes[0].opened;
    const uint64_t at_mobile = mobile_.lanes[0].opened;
    for (DurationNs passed_ns = 0; passed_ns < limit_ns; passed_ns += 10 * kMillisecondNs) {
      if (hub_.lanes[0].opened > at_hub && mobile_.lanes[0].opened > at_mobile) return passed_ns;
      RunBoth(10 * kMillisecondNs);
    }
    return std::nullopt;
  }

  static inline const Endpoint kHubAt = At("198.51.100.9:7700");
  SimulatedEnd hub_{network_, Role::kServer, {kHubAt}};
  SimulatedEnd mobile_{network_, Role::kClient, {kLink0, kLink1}};
};

TEST_F(TwoPaths, BothComeUpAndOneCarriesTheTraffic) {
  Establish();
  for (const SimulatedEnd* end : {&mobile_, &hub_}) {
    ASSERT_EQ(end->peer().paths.size(), 2u);
    EXPECT_TRUE(end->peer().paths[0].up);
    EXPECT_TRUE(end->peer().paths[1].up);
    EXPECT_EQ(end->peer().active_path, 0);
  }
  EXPECT_EQ(hub_.peer().paths[1].route.remote, kLink1);
}

TEST_F(TwoPaths, TheOtherCarriesTheTrafficWhenOneFallsSilentAndIdle) {
  Establish();
  Cut(kLink0);
  RunBoth(10 * kSecondNs);
  EXPECT_EQ(mobile_.peer().active_path, 1);
  EXPECT_EQ(hub_.peer().active_path, 1);
  EXPECT_FALSE(mobile_.peer().paths[0].up);
  EXPECT_EQ(mobile_.keypairs_announced(), 1u) << "another path takes no handshake";
}

TEST_F(TwoPaths, TheOtherCarriesTheTrafficWhenOneFallsSilentUnderLoad) {
  Establish();
  every_tick_ = [this] {
    mobile_.SendData();
    hub_.SendData();
  };
  RunBoth(5 * kSecondNs);
  Cut(kLink0);
  RunBoth(50 * kMillisecondNs);
  const auto took = TimeUntilBothWays(30 * kSecondNs);
  ASSERT_TRUE(took) << "the server stayed on the dead path";
  EXPECT_LE(*took, 6 * kSecondNs);
  EXPECT_EQ(mobile_.keypairs_announced(), 1u);
}

TEST_F(TwoPaths, AServersTrafficAloneDoesNotKeepADeadPathOfTheClient) {
  // Only towards the server it is dead; what the server sends still comes.
  mobile_.keepalive_ms = 2000;
  Establish();
  every_tick_ = [this] {
    mobile_.SendData();
    hub_.SendData();
  };
  network_.on_wire = [](const Datagram& datagram) { return datagram.from != kLink0; };
  RunBoth(5 * kSecondNs);
  EXPECT_EQ(mobile_.peer().active_path, 1);
}

TEST_F(TwoPaths, TheFirstComesBackWhenTheOtherDies) {
  Establish();
  Cut(kLink0);
  RunBoth(10 * kSecondNs);
  Cut(kLink1);
  RunBoth(10 * kSecondNs);
  EXPECT_EQ(mobile_.peer().active_path, 0);
  EXPECT_EQ(hub_.peer().active_path, 0);
  EXPECT_TRUE(mobile_.peer().paths[0].up);
}

TEST_F(TwoPaths, APathThatWasSilentForSecondsIsFoundWithinAFifthOfASecond) {
  Establish();
  for (const DurationNs silent_ns : {4'000 * kMillisecondNs, 4'130 * kMillisecondNs}) {
    Cut(kLink0);
    RunBoth(silent_ns);
    ASSERT_FALSE(mobile_.peer().paths[0].up);
    network_.on_wire = nullptr;
    RunBoth(300 * kMillisecondNs);
    EXPECT_TRUE(mobile_.peer().paths[0].up);
  }
}

TEST_F(TwoPaths, NextHopsAreResolvedAnewWhereAPathIsDown) {
  Establish();
  RunBoth(20 * kSecondNs);
  mobile_.resolved_anew.clear();
  hub_.resolved_anew.clear();
  RunBoth(20 * kSecondNs);
  EXPECT_TRUE(mobile_.resolved_anew.empty());
  EXPECT_TRUE(hub_.resolved_anew.empty());
  Cut(kLink0);
  RunBoth(10 * kSecondNs);
  EXPECT_GT(mobile_.resolved_anew.size(), 20u);
  for (const Route& route : mobile_.resolved_anew) {
    EXPECT_EQ(route, mobile_.peer().paths[0].route);
  }
  EXPECT_TRUE(hub_.resolved_anew.empty()) << "it has heard nothing to answer";
  network_.on_wire = nullptr;
  RunBoth(300 * kMillisecondNs);
  ASSERT_FALSE(hub_.resolved_anew.empty());
  EXPECT_EQ(hub_.resolved_anew[0], hub_.peer().paths[0].route);
}

TEST_F(TwoPaths, APathThatIsDownForLongIsPingedLessOften) {
  Establish();
  int pings = 0;
  network_.on_wire = [&pings](const Datagram& datagram) {
    pings += Over(datagram, kLink0) ? 1 : 0;
    return !Over(datagram, kLink0);
  };
  RunBoth(60 * kSecondNs);
  pings = 0;
  RunBoth(10 * kSecondNs);
  EXPECT_GE(pings, 15);
  EXPECT_LE(pings, 25);
}

TEST_F(TwoPaths, AHandshakeTriesThePathsInTurn) {
  Cut(kLink0);
  hub_.Start();
  mobile_.Start();
  RunBoth(4 * kSecondNs);
  EXPECT_TRUE(mobile_.confirmed());
  EXPECT_TRUE(hub_.established());
  EXPECT_EQ(mobile_.peer().active_path, 1);
  EXPECT_EQ(hub_.peer().active_path, 1);
  mobile_.SendData();
  hub_.SendData();
  RunBoth(50 * kMillisecondNs);
  EXPECT_EQ(mobile_.lanes[0].opened_on[1], 1u);
  EXPECT_EQ(hub_.lanes[0].opened_on[1], 1u);
}

TEST_F(TwoPaths, ACookieIsUsedOnThePathThatItCameOver) {
  MacStamper stamper(hub_.options.identity.public_key);
  every_tick_ = [&] {
    for (int i = 0; i < 200; ++i) {
      hub_.Deliver(InitiationOfNobody(stamper, network_.random(), network_.now_ns()),
                   RandomSource(network_.random()));
    }
    network_.TakeLog();
  };
  hub_.Start();
  RunBoth(2 * kSecondNs);
  mobile_.Start();
  RunBoth(500 * kMillisecondNs);
  EXPECT_TRUE(mobile_.confirmed());
  EXPECT_EQ(mobile_.peer().active_path, 0);
}

TEST_F(TwoPaths, AClientThatComesBackOverAnotherPathIsAnsweredThereAtOnce) {
  Establish();
  RunBoth(10 * kSecondNs);
  Cut(kLink0);
  mobile_.Start();
  every_tick_ = [this] {
    mobile_.SendData();
    hub_.SendData();
  };
  const auto took = TimeUntilBothWays(30 * kSecondNs);
  ASSERT_TRUE(took);
  EXPECT_LE(*took, 3 * kSecondNs);
}

TEST_F(TwoPaths, APathWithoutAProvenAddressCarriesNothing) {
  // The second path leads to the server only. So the server never learns that it could answer
  // there.
  network_.on_wire = [](const Datagram& datagram) { return datagram.to != kLink1; };
  Establish();
  ASSERT_EQ(hub_.peer().paths.size(), 2u);
  EXPECT_FALSE(hub_.lanes[0].routes[1].remote.is_set());
  network_.on_wire = [](const Datagram& datagram) {
    return datagram.to != kLink1 && !Over(datagram, kLink0);
  };
  for (int i = 0; i < 100; ++i) {
    RunBoth(100 * kMillisecondNs);
    EXPECT_TRUE(hub_.lanes[0].routes[hub_.lanes[0].path].remote.is_set());
    EXPECT_FALSE(hub_.peer().paths[1].up);
  }
}

TEST_F(TwoPaths, OnlyPeersForWhichSomethingIsDueAreLookedAt) {
  mobile_.options.rekey_after_ns = 100 * kSecondNs;
  SimulatedEnd simple(network_, Role::kClient, {kClientAt});
  SimulatedEnd never(network_, Role::kClient, {kElsewhere});
  simple.Know(hub_, {kHubAt});
  hub_.Know(simple);
  hub_.Know(never);
  simple.Start();
  Establish();
  const auto run = [&](DurationNs duration_ns) {
    network_.Run(duration_ns, Peers::kTickNs, [&] {
      hub_.Tick();
      mobile_.Tick();
      simple.Tick();
    });
  };
  run(3 * kSecondNs);
  ASSERT_TRUE(hub_.established(0) && hub_.established(1));
  hub_.times_looked_at.clear();
  run(60 * kSecondNs);
  EXPECT_GE(hub_.times_looked_at[0], 600u) << "which of two paths is alive shows in time";
  EXPECT_EQ(hub_.times_looked_at[1], 0u);
  EXPECT_EQ(hub_.times_looked_at[2], 0u);
  // Its keys end nevertheless, and it is not looked at more often for having come back.
  simple.Kill();
  run(200 * kSecondNs);
  EXPECT_FALSE(hub_.established(1));
  EXPECT_TRUE(hub_.established(0));
  simple.Start();
  run(10 * kSecondNs);
  EXPECT_TRUE(hub_.established(1));
  hub_.times_looked_at.clear();
  run(60 * kSecondNs);
  EXPECT_EQ(hub_.times_looked_at[1], 0u);
}

// --- Paths that come and go ---

bool IsControl(const Datagram& datagram) {
  return KindOf(datagram) == Kind::kControl && IsSlowLane(datagram);
}

TEST_F(TwoPaths, APathThatEndsIsForgottenByTheServerAtOnce) {
  Establish();
  EXPECT_FALSE(mobile_.peers().MayUsePath(0)) << "there is one";
  mobile_.peers().RemovePath(0, network_.now_ns());
  EXPECT_FALSE(mobile_.peers().MayUsePath(0)) << "the server does not know yet";
  EXPECT_EQ(mobile_.peer().active_path, 1);
  RunBoth(50 * kMillisecondNs);
  EXPECT_TRUE(mobile_.peers().MayUsePath(0));
  EXPECT_EQ(hub_.peer().FindPath(0), nullptr);
  EXPECT_FALSE(hub_.lanes[0].routes[0].remote.is_set());
  EXPECT_EQ(hub_.peer().active_path, 1);
  EXPECT_TRUE(hub_.Reported("\"path0\" is gone"));
  mobile_.SendData();
  hub_.SendData();
  RunBoth(50 * kMillisecondNs);
  EXPECT_EQ(mobile_.lanes[0].opened_on[1], 1u);
  EXPECT_EQ(hub_.lanes[0].opened_on[1], 1u);
  RunBoth(20 * kSecondNs);
  EXPECT_EQ(mobile_.keypairs_announced(), 1u) << "the other path takes no handshake";
}

TEST_F(TwoPaths, ThatAPathIsGoneIsToldUntilItIsAnswered) {
  Establish();
  int told = 0;
  network_.on_wire = [&](const Datagram& datagram) {
    return datagram.from != kLink0 || !IsControl(datagram) || ++told > 3;
  };
  mobile_.peers().RemovePath(1, network_.now_ns());
  RunBoth(100 * kMillisecondNs);
  EXPECT_NE(hub_.peer().FindPath(1), nullptr);
  RunBoth(4 * kSecondNs);
  EXPECT_EQ(hub_.peer().FindPath(1), nullptr);
  EXPECT_TRUE(mobile_.peers().MayUsePath(1));
}

TEST_F(TwoPaths, AnIdIsFreeInTheEndAlsoWhenNobodyAnswers) {
  Establish();
  network_.on_wire = [](const Datagram&) { return false; };
  mobile_.peers().RemovePath(1, network_.now_ns());
  RunBoth(14 * kSecondNs);
  EXPECT_FALSE(mobile_.peers().MayUsePath(1));
  RunBoth(2 * kSecondNs);
  EXPECT_TRUE(mobile_.peers().MayUsePath(1));
}

TEST_F(TwoPaths, WhatComesLateOverAPathThatIsGoneDoesNotBringItBack) {
  Establish();
  std::optional<Datagram> late;
  network_.on_wire = [&](const Datagram& datagram) {
    if (late || datagram.from != kLink1 || !IsControl(datagram)) return true;
    late = datagram;
    return false;
  };
  RunBoth(3 * kSecondNs);
  ASSERT_TRUE(late);
  mobile_.peers().RemovePath(1, network_.now_ns());
  RunBoth(100 * kMillisecondNs);
  ASSERT_EQ(hub_.peer().FindPath(1), nullptr);
  network_.Inject(*late);
  RunBoth(100 * kMillisecondNs);
  EXPECT_EQ(hub_.peer().FindPath(1), nullptr);
}

TEST_F(TwoPaths, APathIsBackThoughItsEndIsHeardOfLater) {
  Establish();
  std::optional<Datagram> gone;
  network_.on_wire = [&](const Datagram& datagram) {
    if (gone || datagram.from != kLink0 || !IsControl(datagram)) return true;
    gone = datagram;
    return false;
  };
  mobile_.peers().SuspendPath(1, network_.now_ns());
  ASSERT_TRUE(gone);
  EXPECT_FALSE(mobile_.peer().paths[1].up);
  mobile_.peers().SetPathRoute(0, 1, {kHubAt, {}, 1}, network_.now_ns());
  RunBoth(500 * kMillisecondNs);
  EXPECT_TRUE(mobile_.peer().paths[1].up);
  network_.Inject(*gone);
  RunBoth(500 * kMillisecondNs);
  ASSERT_NE(hub_.peer().FindPath(1), nullptr);
  EXPECT_TRUE(hub_.peer().paths[1].up);
}

TEST_F(TwoPaths, APathWithoutALinkCarriesNothingUntilItIsBack) {
  Establish();
  for (int round = 0; round < 3; ++round) {
    mobile_.peers().SuspendPath(0, network_.now_ns());
    RunBoth(100 * kMillisecondNs);
    EXPECT_EQ(mobile_.peer().active_path, 1);
    EXPECT_EQ(hub_.peer().active_path, 1);
    EXPECT_EQ(hub_.peer().FindPath(0), nullptr);
    network_.TakeLog();
    RunBoth(10 * kSecondNs);
    for (const Datagram& datagram : network_.TakeLog()) EXPECT_FALSE(Over(datagram, kLink0));
    mobile_.peers().SetPathRoute(0, 0, {kHubAt, {}, 0}, network_.now_ns());
    RunBoth(300 * kMillisecondNs);
    EXPECT_TRUE(mobile_.peer().paths[0].up);
    ASSERT_NE(hub_.peer().FindPath(0), nullptr);
    EXPECT_EQ(hub_.peer().paths[0].route.remote, kLink0);
    EXPECT_EQ(hub_.lanes[0].routes[0].remote, kLink0);
  }
  EXPECT_EQ(mobile_.keypairs_announced(), 1u);
}

TEST_F(TwoPaths, AnIdMeansAnotherPathOnceTheFirstIsForgotten) {
  Establish();
  mobile_.peers().RemovePath(1, network_.now_ns());
  RunBoth(100 * kMillisecondNs);
  mobile_.MoveAddress(1, kElsewhere);
  mobile_.peers().AddPath(1, "another");
  mobile_.peers().SetPathRoute(0, 1, {kHubAt, {}, 1}, network_.now_ns());
  RunBoth(500 * kMillisecondNs);
  EXPECT_TRUE(mobile_.peer().paths[1].up);
  EXPECT_EQ(mobile_.peer().paths[1].name, "another");
  ASSERT_NE(hub_.peer().FindPath(1), nullptr);
  EXPECT_EQ(hub_.peer().paths[1].route.remote, kElsewhere);
}

TEST_F(TwoPaths, AThirdPathComesAndCarriesTheTrafficAlone) {
  Establish();
  mobile_.addresses.push_back(kElsewhere);
  mobile_.MoveAddress(2, kElsewhere);
  mobile_.peers().AddPath(5, "third");
  mobile_.peers().SetPathRoute(0, 5, {kHubAt, {}, 2}, network_.now_ns());
  RunBoth(500 * kMillisecondNs);
  EXPECT_EQ(mobile_.peer().PathCount(), 3u);
  EXPECT_EQ(hub_.peer().PathCount(), 3u);
  for (const uint8_t id : {0, 1}) mobile_.peers().RemovePath(id, network_.now_ns());
  RunBoth(500 * kMillisecondNs);
  EXPECT_EQ(hub_.peer().PathCount(), 1u);
  every_tick_ = [this] {
    mobile_.SendData();
    hub_.SendData();
  };
  EXPECT_TRUE(TimeUntilBothWays(kSecondNs));
  RunBoth(130 * kSecondNs);
  EXPECT_EQ(mobile_.keypairs_announced(), 2u) << "a rekey needs no other path";
  EXPECT_TRUE(TimeUntilBothWays(kSecondNs));
}

TEST_F(TwoPaths, APathThatHasJustComeIsUsedWhenItIsTheLast) {
  for (DurationNs after_ns = 0; after_ns < 300 * kMillisecondNs; after_ns += 10 * kMillisecondNs) {
    Establish();
    mobile_.peers().RemovePath(1, network_.now_ns());
    RunBoth(kSecondNs);
    mobile_.peers().AddPath(1, "again");
    mobile_.peers().SetPathRoute(0, 1, {kHubAt, {}, 1}, network_.now_ns());
    RunBoth(after_ns);
    mobile_.peers().RemovePath(0, network_.now_ns());
    RunBoth(kSecondNs);
    ASSERT_EQ(hub_.peer().PathCount(), 1u) << after_ns;
    EXPECT_TRUE(hub_.peer().paths[1].up) << after_ns;
    EXPECT_EQ(hub_.peer().active_path, 1) << after_ns;
    EXPECT_EQ(hub_.lanes[0].path, 1) << after_ns;
  }
}

TEST_F(TwoPaths, WithoutAnyPathAClientWaits) {
  Establish();
  for (const uint8_t id : {0, 1}) mobile_.peers().SuspendPath(id, network_.now_ns());
  network_.TakeLog();
  RunBoth(60 * kSecondNs);
  for (const Datagram& datagram : network_.TakeLog()) EXPECT_EQ(datagram.from, kHubAt);
  mobile_.peers().SetPathRoute(0, 1, {kHubAt, {}, 1}, network_.now_ns());
  RunBoth(500 * kMillisecondNs);
  EXPECT_TRUE(mobile_.peer().paths[1].up);
  every_tick_ = [this] {
    mobile_.SendData();
    hub_.SendData();
  };
  EXPECT_TRUE(TimeUntilBothWays(6 * kSecondNs));
  // And one that never had any.
  mobile_.Kill();
  for (const uint8_t id : {0, 1}) {
    if (id == 0) mobile_.Start();
    mobile_.peers().RemovePath(id, network_.now_ns());
  }
  RunBoth(10 * kSecondNs);
  EXPECT_FALSE(mobile_.established());
  mobile_.peers().AddPath(3, "first");
  mobile_.peers().SetPathRoute(0, 3, {kHubAt, {}, 0}, network_.now_ns());
  RunBoth(4 * kSecondNs);
  EXPECT_TRUE(mobile_.confirmed());
  mobile_.Close();
}

TEST_F(TwoPaths, AClientThatComesBackWithFewerPathsHasNoMoreThanThose) {
  Establish();
  mobile_.Start();
  mobile_.peers().RemovePath(0, network_.now_ns());
  RunBoth(4 * kSecondNs);
  ASSERT_TRUE(mobile_.confirmed());
  EXPECT_EQ(hub_.peer().PathCount(), 1u);
  EXPECT_NE(hub_.peer().FindPath(1), nullptr);
  // The sequences have begun anew, and what was gone before counts no more.
  mobile_.Start();
  RunBoth(4 * kSecondNs);
  EXPECT_EQ(hub_.peer().PathCount(), 2u);
}

TEST_F(TwoPaths, AChangeOfTheNetworkIsAnsweredWithAPingOfEveryPath) {
  Establish();
  RunBoth(kSecondNs);
  mobile_.MoveAddress(1, kElsewhere);
  network_.TakeLog();
  mobile_.peers().PingPaths(network_.now_ns());
  RunBoth(100 * kMillisecondNs);
  EXPECT_EQ(hub_.peer().paths[1].route.remote, kElsewhere);
  EXPECT_EQ(hub_.peer().paths[0].route.remote, kLink0);
}

// --- What paths carry ---

class PathMtus : public TwoPaths {
 protected:
  PathMtus() {
    for (SimulatedEnd* end : {&mobile_, &hub_}) end->options.mtu = 1432;
    network_.on_wire = [this](const Datagram& datagram) {
      const auto found = carries_.find({datagram.from, datagram.to});
      return found == carries_.end() || datagram.bytes.size() <= found->second + kSealOverheadBytes;
    };
  }

  // In this direction.
  void Limit(const Endpoint& from, const Endpoint& to, size_t mtu) { carries_[{from, to}] = mtu; }

  std::map<std::pair<Endpoint, Endpoint>, size_t> carries_;
};

TEST_F(PathMtus, ASessionTakesWhatItsSmallestPathCarriesInEachDirectionByItself) {
  Limit(kLink0, kHubAt, 1392);
  Limit(kHubAt, kLink1, 1352);
  Establish();
  RunBoth(10 * kSecondNs);
  EXPECT_EQ(mobile_.peer().paths[0].mtu(), 1392);
  EXPECT_EQ(mobile_.peer().paths[1].mtu(), 1432);
  EXPECT_EQ(mobile_.peer().mtu, 1392);
  EXPECT_EQ(mobile_.lanes[0].mtu, 1392);
  EXPECT_EQ(hub_.peer().paths[0].mtu(), 1432);
  EXPECT_EQ(hub_.peer().paths[1].mtu(), 1352);
  EXPECT_EQ(hub_.lanes[0].mtu, 1352);
  // A path that is none counts no more.
  mobile_.peers().RemovePath(0, network_.now_ns());
  RunBoth(kSecondNs);
  EXPECT_EQ(mobile_.lanes[0].mtu, 1432);
  mobile_.peers().AddPath(0, "again");
  mobile_.peers().SetPathRoute(0, 0, {kHubAt, {}, 0}, network_.now_ns());
  RunBoth(10 * kSecondNs);
  EXPECT_EQ(mobile_.lanes[0].mtu, 1392);
}

TEST_F(PathMtus, WhoSendsParityLeavesRoomForIt) {
  constexpr int kRoom = 12;
  mobile_.options.sends_parity = true;
  Limit(kLink0, kHubAt, 1392);
  Establish();
  RunBoth(10 * kSecondNs);
  EXPECT_EQ(mobile_.peer().paths[0].mtu(), 1392);
  EXPECT_EQ(mobile_.peer().mtu, 1392 - kRoom);
  EXPECT_EQ(hub_.peer().mtu, 1432) << "it sends none itself";
}

TEST_F(PathMtus, RoomForParityIsLookedForBeyondTheLargestPacket) {
  constexpr int kRoom = 12;
  for (SimulatedEnd* end : {&mobile_, &hub_}) end->options.mtu = 1400;
  mobile_.options.sends_parity = true;
  mobile_.link_mtus = {{0, 1432}, {1, 1432}};
  Establish();
  RunBoth(10 * kSecondNs);
  EXPECT_EQ(mobile_.peer().paths[0].mtu(), 1400 + kRoom);
  EXPECT_EQ(mobile_.peer().mtu, 1400);
}

TEST_F(PathMtus, APathThatCarriesTooLittleIsNotUsedAndTold) {
  Limit(kLink0, kHubAt, 1200);
  Establish();
  RunBoth(5 * kSecondNs);
  EXPECT_TRUE(mobile_.peer().paths[0].up);
  EXPECT_TRUE(mobile_.peer().paths[0].refused);
  EXPECT_FALSE(mobile_.peer().paths[0].usable());
  EXPECT_EQ(mobile_.peer().active_path, 1);
  EXPECT_FALSE(mobile_.lanes[0].routes[0].remote.is_set()) << "the workers do not have it";
  ASSERT_EQ(mobile_.problems.size(), 1u);
  EXPECT_NE(mobile_.problems[0].find("\"link0\" does not carry inner packets of 1280 bytes"),
            std::string::npos);
  EXPECT_EQ(mobile_.peer().mtu, 1432);
  carries_.clear();
  RunBoth(30 * kSecondNs);
  EXPECT_FALSE(mobile_.peer().paths[0].refused);
  EXPECT_TRUE(mobile_.lanes[0].routes[0].remote.is_set());
  EXPECT_TRUE(mobile_.Reported("carries enough now"));
}

TEST_F(PathMtus, ALinkThatTakesTooLittleIsNotUsedEither) {
  mobile_.link_mtus[1] = 1272;
  Establish();
  RunBoth(kSecondNs);
  EXPECT_TRUE(mobile_.peer().paths[1].refused);
  EXPECT_EQ(mobile_.peer().mtu, 1432);
  // Until it is another.
  mobile_.link_mtus[1] = 1350;
  mobile_.peers().SearchMtus(network_.now_ns());
  RunBoth(2 * kSecondNs);
  EXPECT_FALSE(mobile_.peer().paths[1].refused);
  EXPECT_EQ(mobile_.peer().mtu, 1350);
}

TEST_F(PathMtus, AnEndThatAnswersNoProbesIsTakenAtItsWord) {
  hub_.options.answers_probes = false;
  mobile_.link_mtus[1] = 1400;
  Limit(kLink0, kHubAt, 1392);
  hub_.Start();
  mobile_.Start();
  RunBoth(10 * kSecondNs);
  ASSERT_TRUE(mobile_.confirmed());
  for (const Datagram& datagram : network_.TakeLog()) {
    EXPECT_TRUE(datagram.to != kHubAt || datagram.bytes.size() < 300);
  }
  EXPECT_EQ(mobile_.peer().mtu, 1400);
  EXPECT_EQ(hub_.peer().mtu, 1432);
}

TEST_F(PathMtus, APathThatLeadsElsewhereIsLookedAtAnew) {
  Establish();
  RunBoth(2 * kSecondNs);
  EXPECT_EQ(hub_.peer().mtu, 1432);
  Limit(kHubAt, kElsewhere, 1372);
  mobile_.MoveAddress(0, kElsewhere);
  RunBoth(15 * kSecondNs);
  EXPECT_EQ(hub_.peer().paths[0].route.remote, kElsewhere);
  EXPECT_LE(hub_.peer().mtu, 1372);
  EXPECT_GT(hub_.peer().mtu, 1372 - 8);
}

TEST_F(PathMtus, ABlackHoleIsSuspectedByTrafficThatStalls) {
  Establish();
  RunBoth(2 * kSecondNs);
  Limit(kLink0, kHubAt, 1352);
  RunBoth(10 * kSecondNs);
  EXPECT_EQ(mobile_.peer().mtu, 1432) << "nobody has noticed";
  // What is sent is not answered, pings are.
  every_tick_ = [this] { mobile_.SendData(); };
  RunBoth(15 * kSecondNs);
  EXPECT_EQ(mobile_.peer().mtu, 1352);
}

TEST_F(PathMtus, TrafficThatIsAnsweredIsNoReasonToLook) {
  Establish();
  RunBoth(2 * kSecondNs);
  network_.TakeLog();
  every_tick_ = [this] {
    mobile_.SendData();
    hub_.SendData();
  };
  RunBoth(60 * kSecondNs);
  for (const Datagram& datagram : network_.TakeLog()) EXPECT_LT(datagram.bytes.size(), 200u);
}

TEST_F(PathMtus, ARekeyBeginsNoSearchButTenMinutesDo) {
  Establish();
  RunBoth(5 * kSecondNs);
  network_.TakeLog();
  RunBoth(300 * kSecondNs);
  for (const Datagram& datagram : network_.TakeLog()) EXPECT_LT(datagram.bytes.size(), 300u);
  EXPECT_GE(mobile_.keypairs_announced(), 3u);
  Limit(kLink0, kHubAt, 1392);
  RunBoth(320 * kSecondNs);
  EXPECT_EQ(mobile_.peer().mtu, 1392);
}

TEST_F(PeersTest, AClockThatJumpsEndsWhatIsTooOldAtTheNextTick) {
  Establish();
  server_.peers().Tick(network_.now_ns() + 3600 * kSecondNs);
  EXPECT_FALSE(server_.established());
  EXPECT_EQ(server_.keypairs_known(), 0u);
  EXPECT_EQ(server_.peers().indices_in_use(), 0u);
  EXPECT_TRUE(TimeUntilExchange(10 * kSecondNs));
}

// --- Several clients ---

TEST(ManyClients, EachHaveASessionOfTheirOwn) {
  constexpr int kClients = 20;
  SimulatedNetwork network(3);
  network.conditions.jitter_ns = 30 * kMillisecondNs;
  network.conditions.loss = 0.05;
  SimulatedEnd server(network, Role::kServer, {kServerAt});
  std::vector<std::unique_ptr<SimulatedEnd>> clients;
  for (int i = 0; i < kClients; ++i) {
    Endpoint at = kClientAt;
    at.port = static_cast<uint16_t>(at.port + i);
    clients.push_back(
        std::make_unique<SimulatedEnd>(network, Role::kClient, std::vector<Endpoint>{at}));
    clients.back()->Know(server, {kServerAt});
    server.Know(*clients.back());
  }
  server.Start();
  for (auto& client : clients) client->Start();
  const auto run = [&](DurationNs duration_ns) {
    network.Run(duration_ns, Peers::kTickNs, [&] {
      server.Tick();
      for (auto& client : clients) client->Tick();
    });
  };
  run(20 * kSecondNs);
  for (int i = 0; i < kClients; ++i) {
    EXPECT_TRUE(clients[i]->confirmed());
    EXPECT_TRUE(server.established(static_cast<PeerSlot>(i)));
  }
  // One restarts, one closes; the others do not notice.
  clients[3]->Start();
  clients[4]->Close();
  run(300 * kSecondNs);
  network.conditions.loss = 0;
  run(5 * kSecondNs);
  for (int i = 0; i < kClients; ++i) {
    const auto slot = static_cast<PeerSlot>(i);
    if (i == 4) continue;
    const uint64_t at_server = server.lanes[slot].opened;
    const uint64_t at_client = clients[i]->lanes[0].opened;
    EXPECT_TRUE(server.SendData(slot));
    EXPECT_TRUE(clients[i]->SendData());
    run(200 * kMillisecondNs);
    EXPECT_EQ(server.lanes[slot].opened, at_server + 1) << i;
    EXPECT_EQ(clients[i]->lanes[0].opened, at_client + 1) << i;
  }
  EXPECT_FALSE(server.established(4));
}

// --- The bonding mode ---

TEST_F(PeersTest, AModeByCommandIsTakenByTheOtherEndHoweverMuchIsLost) {
  Establish();
  network_.conditions.loss = 0.6;
  client_.peers().SetMode(BondingMode::kRedundant, network_.now_ns());
  EXPECT_TRUE(RunUntil(20 * kSecondNs, [this] { return client_.peer().wanted_mode->taken; }));
  EXPECT_EQ(server_.lanes[0].mode, BondingMode::kRedundant);
  EXPECT_EQ(client_.lanes[0].mode, std::nullopt) << "the client's own is that of all its bonds";
  network_.conditions.loss = 0;
  network_.TakeLog();
  Run(3 * kSecondNs);
  constexpr size_t kModeBytes = 10 + kSealOverheadBytes;
  for (const Datagram& datagram : network_.TakeLog()) {
    EXPECT_NE(datagram.bytes.size(), kModeBytes) << "what was answered is not said again";
  }
}

TEST_F(PeersTest, OfTwoModesTheNewerOneCountsInWhateverOrderTheyCome) {
  Establish();
  const Datagram first = Capture(kSecondNs, FromClient, [this] {
    client_.peers().SetMode(BondingMode::kRedundant, network_.now_ns());
  });
  client_.peers().SetMode(BondingMode::kPreferred, network_.now_ns());
  Run(kSecondNs);
  EXPECT_EQ(server_.lanes[0].mode, BondingMode::kPreferred);
  network_.Inject(first);
  Run(kSecondNs);
  EXPECT_EQ(server_.lanes[0].mode, BondingMode::kPreferred);
}

TEST_F(PeersTest, AServerThatHasRestartedIsAskedForTheModeAnew) {
  Establish();
  client_.peers().SetMode(BondingMode::kRedundant, network_.now_ns());
  Run(kSecondNs);
  server_.Start();
  ASSERT_TRUE(TimeUntilExchange(10 * kSecondNs));
  Run(kSecondNs);
  EXPECT_EQ(server_.lanes[0].mode, BondingMode::kRedundant);
}

TEST_F(PeersTest, AClientThatHasRestartedIsSentToAsTheServerIsConfigured) {
  Establish();
  client_.peers().SetMode(BondingMode::kRedundant, network_.now_ns());
  Run(kSecondNs);
  client_.Start();
  ASSERT_TRUE(TimeUntilExchange(10 * kSecondNs));
  EXPECT_EQ(server_.lanes[0].mode, std::nullopt);
}

TEST_F(PeersTest, AModeByCommandAtTheServerCountsBeforeWhatAClientHasAskedFor) {
  Establish();
  client_.peers().SetMode(BondingMode::kRedundant, network_.now_ns());
  Run(kSecondNs);
  server_.peers().SetMode(BondingMode::kStripe, network_.now_ns());
  EXPECT_EQ(server_.lanes[0].mode, std::nullopt);
  Run(130 * kSecondNs);  // new keys are no new session
  EXPECT_EQ(server_.lanes[0].mode, std::nullopt);
}

// --- Paths that may not be used any more ---

TEST_F(TwoPaths, OneOfTwoThatIsForbiddenIsGoneForBoth) {
  Establish();
  mobile_.peers().ForbidPath(0, network_.now_ns());
  RunBoth(kSecondNs);
  EXPECT_EQ(hub_.peer().FindPath(0), nullptr);
  EXPECT_TRUE(mobile_.established());
  ASSERT_TRUE(mobile_.SendData());
  ASSERT_TRUE(hub_.SendData());
  EXPECT_TRUE(TimeUntilBothWays(kSecondNs));
}

TEST_F(PeersTest, ThatTheLastPathIsForbiddenEndsTheSessionAtBothEnds) {
  Establish();
  client_.peers().ForbidPath(0, network_.now_ns());
  Run(kSecondNs);
  EXPECT_FALSE(client_.established());
  EXPECT_FALSE(server_.established()) << "or it would go on sending";
  network_.TakeLog();
  Run(60 * kSecondNs);
  EXPECT_TRUE(network_.TakeLog().empty());
  client_.peers().SetPathRoute(0, 0, {kServerAt, {}, 0}, network_.now_ns());
  EXPECT_TRUE(TimeUntilExchange(2 * kSecondNs));
}

TEST_F(TwoPaths, OptionsOfAPathReachTheWorkersOnceWhetherItIsUpOrNot) {
  Establish();
  mobile_.peers().SetPathOptions(1, {2, 0, true});
  EXPECT_EQ(mobile_.lanes[0].path_options[1], (BondPathOptions{2, 0, true}));
  EXPECT_TRUE(mobile_.lanes[0].up[1]);
  mobile_.peers().SetPathOptions(1, {2, 0, true});
  Cut(kLink1);
  RunBoth(10 * kSecondNs);
  ASSERT_FALSE(mobile_.lanes[0].up[1]);
  mobile_.peers().SetPathOptions(1, {3, 0, true});
  network_.on_wire = nullptr;
  RunBoth(10 * kSecondNs);
  ASSERT_TRUE(mobile_.lanes[0].up[1]);
  EXPECT_EQ(mobile_.lanes[0].path_options[1], (BondPathOptions{3, 0, true}));
}

}  // namespace
}  // namespace braid::peers_test
