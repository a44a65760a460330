// The pool of lane states: fixed memory, fresh states, given back and used again.
#include "fastpath/session.h"

#include <gtest/gtest.h>

#include <set>

#include "support/test_keys.h"

namespace braid::session_test {
namespace {

TEST(LanePool, GivesSoManyStatesAndNoMore) {
  LanePool pool(5);
  std::set<LaneState*> taken;
  for (uint8_t lane = 0; lane < 5; ++lane) {
    LaneState* state = pool.Take(lane);
    ASSERT_NE(state, nullptr);
    EXPECT_EQ(state->id, lane);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(state) % alignof(LaneState), 0u);
    EXPECT_TRUE(taken.insert(state).second);
  }
  EXPECT_EQ(pool.Take(5), nullptr);
  pool.Return(*taken.begin());
  EXPECT_EQ(pool.Take(6), *taken.begin());
  EXPECT_EQ(pool.Take(7), nullptr);
}

TEST(LanePool, StatesDoNotOverlap) {
  LanePool pool(3);
  LaneState* states[3];
  for (uint8_t lane = 0; lane < 3; ++lane) {
    states[lane] = pool.Take(lane);
    states[lane]->sources.hello_sent_ns = lane + 100u;
    states[lane]->sources.paths.back().version = lane + 200u;
  }
  for (uint8_t lane = 0; lane < 3; ++lane) {
    EXPECT_EQ(states[lane]->id, lane);
    EXPECT_EQ(states[lane]->sources.hello_sent_ns, lane + 100u);
    EXPECT_EQ(states[lane]->sources.paths.back().version, lane + 200u);
  }
}

// A lane that went on with another's counter, window or address would be no lane of its own.
TEST(LanePool, AStateThatIsUsedAgainRemembersNothing) {
  LanePool pool(1);
  LaneState* state = pool.Take(3);
  const auto keypair =
      testing::MakeKeypair(1, ChooseAeads("sodium").value()[Cipher::kChaCha20Poly1305]);
  ASSERT_FALSE(state->sender.Prepare(keypair.client, 3, kSecondNs));
  uint8_t datagram[kSealOverheadBytes];
  state->sender.Seal(Kind::kData, 0, 0, {}, datagram);
  state->sources.hello_sent_ns = 5;
  state->sources.paths[2].version = 9;
  Header header;
  ASSERT_EQ(ReadHeader(datagram, header), HeaderVerdict::kOk);
  LaneReceiver::Opened opened;
  uint8_t copy[kSealOverheadBytes];
  std::copy(std::begin(datagram), std::end(datagram), copy);
  ASSERT_FALSE(state->receiver.Open(keypair.server, header, copy, kSecondNs, opened));

  pool.Return(state);
  state = pool.Take(4);
  EXPECT_EQ(state->id, 4);
  EXPECT_EQ(state->sender.sequence(), 0u);
  EXPECT_EQ(state->sender.left(), 0u);
  EXPECT_EQ(state->sources.hello_sent_ns, 0u);
  EXPECT_EQ(state->sources.paths[2].version, 0u);
  std::copy(std::begin(datagram), std::end(datagram), copy);
  EXPECT_FALSE(state->receiver.Open(keypair.server, header, copy, kSecondNs, opened));
}

TEST(LanePool, OfTheLargestServerIsReservedOnly) {
  LanePool pool(size_t{kMaxPeers} * kDefaultLanes);  // gigabytes, were they touched
  EXPECT_NE(pool.Take(0), nullptr);
}

}  // namespace
}  // namespace braid::session_test
