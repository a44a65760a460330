// Records of any length through a ring, one after another and from thread to thread.
#include "base/record_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

namespace braid {
namespace {

std::vector<uint8_t> Filled(size_t bytes, uint8_t with) {
  return std::vector<uint8_t>(bytes, with);
}

TEST(RecordRing, GivesBackWhatItGotInOrder) {
  RecordRing ring(256);
  EXPECT_TRUE(ring.Empty());
  EXPECT_EQ(ring.Front().data(), nullptr);
  const auto one = Filled(3, 1);
  const auto two = Filled(20, 2);
  ASSERT_TRUE(ring.TryPush(one, two));
  ASSERT_TRUE(ring.TryPush({}, {}));
  const MutableBytes first = ring.Front();
  ASSERT_EQ(first.size(), 23u);
  EXPECT_EQ(first[2], 1);
  EXPECT_EQ(first[3], 2);
  ring.Pop();
  EXPECT_NE(ring.Front().data(), nullptr) << "an empty one is one, too";
  EXPECT_EQ(ring.Front().size(), 0u);
  ring.Pop();
  EXPECT_TRUE(ring.Empty());
}

TEST(RecordRing, SaysWhenItIsFullAndTakesAgain) {
  RecordRing ring(256);
  EXPECT_FALSE(ring.TryPush(Filled(121, 0), {})) << "more than half of it, with its length";
  int taken = 0;
  while (ring.TryPush(Filled(24, 7), {})) ++taken;
  EXPECT_EQ(taken, 8);
  ring.Front();
  ring.Pop();
  EXPECT_TRUE(ring.TryPush(Filled(24, 7), {}));
  EXPECT_FALSE(ring.TryPush({}, {}));
}

TEST(RecordRing, BeginsAnewBeforeItsEnd) {
  RecordRing ring(256);
  for (int round = 0; round < 1000; ++round) {
    const size_t bytes = 1 + static_cast<size_t>(round) % 100;
    ASSERT_TRUE(ring.TryPush(Filled(bytes, static_cast<uint8_t>(round)), {}));
    const MutableBytes got = ring.Front();
    ASSERT_EQ(got.size(), bytes);
    ASSERT_TRUE(std::all_of(got.begin(), got.end(),
                            [round](uint8_t byte) { return byte == static_cast<uint8_t>(round); }));
    ring.Pop();
  }
}

TEST(RecordRing, FromThreadToThread) {
  constexpr int kRecords = 200'000;
  RecordRing ring(4096);
  std::thread sender([&ring] {
    std::mt19937 random(1);
    for (int number = 0; number < kRecords;) {
      const auto record = Filled(random() % 600, static_cast<uint8_t>(number));
      while (!ring.TryPush(record, {})) std::this_thread::yield();
      ++number;
    }
  });
  std::mt19937 random(1);
  int wrong = 0;
  for (int number = 0; number < kRecords; ++number) {
    MutableBytes got;
    while ((got = ring.Front()).data() == nullptr) std::this_thread::yield();
    const bool is_right = got.size() == random() % 600 &&
                          (got.empty() || (got.front() == static_cast<uint8_t>(number) &&
                                           got.back() == static_cast<uint8_t>(number)));
    wrong += !is_right;
    ring.Pop();
  }
  sender.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace braid
