// The replay window: a table of (sequence, accepted), and a set that remembers everything.
#include "fastpath/replay_window.h"

#include <gtest/gtest.h>

#include <set>

#include "support/packets.h"

namespace braid::replay_window_test {
namespace {

// What can still be told apart: all but one word, which is being slid over.
constexpr uint64_t kReach = ReplayWindow::kBits - 64;

struct Step {
  uint64_t sequence;
  bool accepted;
};

TEST(ReplayWindow, FollowsTheTable) {
  constexpr Step kSteps[] = {
      {0, true},
      {0, false},
      {1, true},
      {1, false},
      {9, true},
      {8, true},
      {7, true},
      {7, false},
      {63, true},
      {64, true},
      {64, false},
      {63, false},
      {62, true},
      {65, true},
      // The window's far end.
      {kReach, true},
      {0, false},
      {kReach - 1, true},
      {2, true},
      {2, false},
      {kReach + 3, true},
      {3, false},  // too old by now
      {4, true},
      {4, false},
      // A whole turn of the ring, with nothing left behind.
      {ReplayWindow::kBits * 2 + 70, true},
      {ReplayWindow::kBits * 2 + 70, false},
      {ReplayWindow::kBits * 2 + 69, true},
      {ReplayWindow::kBits * 2 + 70 - kReach + 1, true},
      {ReplayWindow::kBits * 2 + 70 - kReach, false},
      {kReach + 3, false},
      // Far beyond the window.
      {uint64_t{1} << 40, true},
      {(uint64_t{1} << 40) - 1, true},
      {(uint64_t{1} << 40) + 1, true},
      {uint64_t{1} << 40, false},
      {ReplayWindow::kBits * 2 + 71, false},
      {(uint64_t{1} << 60) - 1, true},
      {(uint64_t{1} << 60) - 1, false},
      // The end of numbers.
      {UINT64_MAX - 1, true},
      {UINT64_MAX - 1, false},
      {UINT64_MAX - 2, true},
      {UINT64_MAX, false},
      {UINT64_MAX - 1, false},
      {0, false},
  };
  ReplayWindow window;
  for (const Step& step : kSteps) {
    EXPECT_EQ(window.MayAccept(step.sequence), step.accepted) << step.sequence;
    EXPECT_EQ(window.Accept(step.sequence), step.accepted) << step.sequence;
    EXPECT_FALSE(window.MayAccept(step.sequence)) << step.sequence;
  }
}

TEST(ReplayWindow, AskingChangesNothing) {
  ReplayWindow window;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(window.MayAccept(1'000'000));
  EXPECT_EQ(window.next(), 0u);
  EXPECT_TRUE(window.Accept(0));
  EXPECT_EQ(window.next(), 1u);
}

TEST(ReplayWindow, MayBeginAnywhere) {
  for (const uint64_t first : {uint64_t{1}, uint64_t{63}, uint64_t{64}, ReplayWindow::kBits - 1,
                               ReplayWindow::kBits, uint64_t{1} << 50}) {
    ReplayWindow window;
    EXPECT_TRUE(window.Accept(first));
    EXPECT_TRUE(window.Accept(first - 1));
    EXPECT_FALSE(window.Accept(first));
    EXPECT_FALSE(window.Accept(first - 1));
    EXPECT_EQ(window.next(), first + 1);
  }
}

// Each word of the ring is cleared exactly when it is slid over, wherever in a word a jump begins
// and ends.
TEST(ReplayWindow, JumpsOfEverySizeLeaveNothingBehind) {
  for (uint64_t start = 0; start < 130; start += 13) {
    for (uint64_t jump = 1; jump < ReplayWindow::kBits + 200; jump += 61) {
      ReplayWindow window;
      for (uint64_t i = 0; i <= start; ++i) ASSERT_TRUE(window.Accept(i));
      const uint64_t to = start + jump;
      ASSERT_TRUE(window.Accept(to));
      const uint64_t oldest = to + 1 > kReach ? to + 1 - kReach : 0;
      for (uint64_t i = std::max(oldest, start + 1); i < to; i += 7) ASSERT_TRUE(window.Accept(i));
      for (uint64_t i = oldest; i <= start; ++i) ASSERT_FALSE(window.MayAccept(i));
    }
  }
}

TEST(ReplayWindow, AgreesWithASetThatForgetsNothing) {
  testing::Random random(1);
  for (int round = 0; round < 20; ++round) {
    ReplayWindow window;
    std::set<uint64_t> accepted;
    uint64_t newest = testing::Below(random, 3) == 0 ? random() >> 8 : 0;
    bool any = false;
    for (int i = 0; i < 20'000; ++i) {
      uint64_t sequence = newest + 1;
      switch (testing::Below(random, 40)) {
        case 0:
          sequence = newest + testing::Below(random, ReplayWindow::kBits * 3);
          break;
        case 1:
          sequence = newest + testing::Below(random, 200);
          break;
        case 2:
          sequence = newest - std::min(newest, testing::Below(random, kReach * 2));
          break;
        case 3:
          sequence = newest - std::min(newest, kReach - 66 + testing::Below(random, 132));
          break;
        default:
          sequence = newest + 8 - std::min(newest + 8, testing::Below(random, 16));
          break;
      }
      const bool too_old = any && sequence <= newest && newest + 1 - sequence > kReach;
      const bool expected = !too_old && !accepted.contains(sequence);
      ASSERT_EQ(window.MayAccept(sequence), expected) << sequence << " after " << newest;
      ASSERT_EQ(window.Accept(sequence), expected) << sequence << " after " << newest;
      if (!expected) continue;
      accepted.insert(sequence);
      newest = any ? std::max(newest, sequence) : sequence;
      any = true;
      ASSERT_EQ(window.next(), newest + 1);
    }
  }
}

}  // namespace
}  // namespace braid::replay_window_test
