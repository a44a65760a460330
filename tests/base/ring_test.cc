// The ring by itself, and with as many threads at it as braid ever has.
#include "base/ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace braid::ring_test {
namespace {

TEST(Ring, GivesBackInOrder) {
  Ring<int> ring(8);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(ring.TryPush(int{i}));
  for (int i = 0; i < 8; ++i) {
    int value = -1;
    EXPECT_TRUE(ring.TryPop(value));
    EXPECT_EQ(value, i);
  }
}

TEST(Ring, AnswersFullAndEmptyInsteadOfWaiting) {
  Ring<int> ring(4);
  int value = 7;
  EXPECT_TRUE(ring.Empty());
  EXPECT_FALSE(ring.TryPop(value));
  EXPECT_EQ(value, 7);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(ring.TryPush(int{i}));
  EXPECT_FALSE(ring.Empty());
  EXPECT_EQ(ring.ApproximateSize(), 4u);
  EXPECT_FALSE(ring.TryPush(4));
  EXPECT_TRUE(ring.TryPop(value));
  EXPECT_TRUE(ring.TryPush(4));
  EXPECT_FALSE(ring.TryPush(5));
  for (int i = 1; i <= 4; ++i) {
    EXPECT_TRUE(ring.TryPop(value));
    EXPECT_EQ(value, i);
  }
  EXPECT_TRUE(ring.Empty());
}

TEST(Ring, ItsSizeIsNeverMoreThanItHoldsWhoeverUsesItMeanwhile) {
  Ring<int> ring(8);
  std::atomic<bool> done{false};
  std::thread pushing([&] {
    while (!done) ring.TryPush(1);
  });
  std::thread popping([&] {
    int value;
    while (!done) ring.TryPop(value);
  });
  size_t largest = 0;
  for (int i = 0; i < 200'000; ++i) largest = std::max(largest, ring.ApproximateSize());
  done = true;
  pushing.join();
  popping.join();
  EXPECT_LE(largest, 8u);
}

TEST(Ring, GoesRoundManyTimes) {
  Ring<uint64_t> ring(4);
  uint64_t pushed = 0;
  uint64_t popped = 0;
  for (int round = 0; round < 10'000; ++round) {
    for (int i = 0; i <= round % 4; ++i) {
      if (ring.TryPush(uint64_t{pushed})) ++pushed;
    }
    uint64_t value;
    for (int i = 0; i <= round % 3; ++i) {
      if (ring.TryPop(value)) {
        EXPECT_EQ(value, popped++);
      }
    }
  }
  EXPECT_GT(popped, 5'000u);
}

TEST(Ring, LeavesARefusedValueWithItsOwner) {
  Ring<std::unique_ptr<int>> ring(2);
  EXPECT_TRUE(ring.TryPush(std::make_unique<int>(1)));
  EXPECT_TRUE(ring.TryPush(std::make_unique<int>(2)));
  auto third = std::make_unique<int>(3);
  EXPECT_FALSE(ring.TryPush(std::move(third)));
  ASSERT_NE(third, nullptr);
  EXPECT_EQ(*third, 3);
}

TEST(Ring, KeepsNothingOfWhatWasTaken) {
  Ring<std::shared_ptr<int>> ring(2);
  auto value = std::make_shared<int>(1);
  EXPECT_TRUE(ring.TryPush(std::shared_ptr<int>(value)));
  {
    std::shared_ptr<int> taken;
    EXPECT_TRUE(ring.TryPop(taken));
  }
  EXPECT_EQ(value.use_count(), 1);
}

// Each producer's values arrive whole, once, and in that producer's order.
TEST(Ring, CarriesEverythingFromManyThreadsToOne) {
  constexpr uint64_t kProducers = 4;
  constexpr uint64_t kValuesEach = 50'000;
  struct Item {
    uint64_t producer = 0;
    uint64_t value = 0;
    uint64_t check = 0;
  };
  Ring<Item> ring(64);
  std::vector<std::thread> producers;
  for (uint64_t producer = 0; producer < kProducers; ++producer) {
    producers.emplace_back([&ring, producer] {
      for (uint64_t value = 0; value < kValuesEach; ++value) {
        while (!ring.TryPush({producer, value, producer ^ value})) std::this_thread::yield();
      }
    });
  }
  std::vector<uint64_t> next(kProducers);
  for (uint64_t received = 0; received < kProducers * kValuesEach;) {
    Item item;
    if (!ring.TryPop(item)) {
      std::this_thread::yield();
      continue;
    }
    ++received;
    ASSERT_EQ(item.check, item.producer ^ item.value);
    ASSERT_EQ(item.value, next[item.producer]++);
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(ring.Empty());
}

}  // namespace
}  // namespace braid::ring_test
