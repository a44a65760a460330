// Finding slots by key, against std::map.
#include "bonding/slot_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace braid::slot_index_test {
namespace {

TEST(SlotIndex, FindsWhatWasInserted) {
  SlotIndex index(4);
  EXPECT_EQ(index.Find(7), kNoSlot);
  EXPECT_TRUE(index.Insert(7, 0));
  EXPECT_TRUE(index.Insert(8, 3));
  EXPECT_EQ(index.Find(7), 0u);
  EXPECT_EQ(index.Find(8), 3u);
  index.Erase(7);
  EXPECT_EQ(index.Find(7), kNoSlot);
  EXPECT_EQ(index.Find(8), 3u);
}

TEST(SlotIndex, GivesAKnownKeyTheNewSlot) {
  SlotIndex index(4);
  EXPECT_TRUE(index.Insert(7, 1));
  EXPECT_TRUE(index.Insert(7, 2));
  EXPECT_EQ(index.Find(7), 2u);
  EXPECT_EQ(index.used(), 1u);
}

TEST(SlotIndex, RefusesMoreThanItHolds) {
  SlotIndex index(3);
  for (uint64_t key = 0; key < 3; ++key) EXPECT_TRUE(index.Insert(key, 0));
  EXPECT_FALSE(index.Insert(3, 0));
  EXPECT_TRUE(index.Insert(2, 1)) << "a key that is there already";
  index.Erase(0);
  EXPECT_TRUE(index.Insert(3, 0));
}

TEST(SlotIndex, IgnoresTheErasingOfAnUnknownKey) {
  SlotIndex index(3);
  EXPECT_TRUE(index.Insert(1, 5));
  index.Erase(2);
  EXPECT_EQ(index.used(), 1u);
  EXPECT_EQ(index.Find(1), 5u);
}

// Few places, so that keys collide, runs grow together and wrap around the end.
TEST(SlotIndex, DoesWhatAMapDoes) {
  for (const size_t most : {1, 5, 32, 500}) {
    std::mt19937_64 random(most);
    SlotIndex index(most);
    std::map<uint64_t, SlotId> expected;
    for (int step = 0; step < 50'000; ++step) {
      const uint64_t key = random() % (2 * most) << 8 * (random() % 5);
      switch (random() % 3) {
        case 0: {
          const auto id = static_cast<SlotId>(random() % 1000);
          const bool fits = expected.size() < most || expected.contains(key);
          ASSERT_EQ(index.Insert(key, id), fits) << "step " << step;
          if (fits) expected[key] = id;
          break;
        }
        case 1:
          index.Erase(key);
          expected.erase(key);
          break;
        default: {
          const auto found = expected.find(key);
          ASSERT_EQ(index.Find(key), found == expected.end() ? kNoSlot : found->second)
              << "step " << step;
        }
      }
      ASSERT_EQ(index.used(), expected.size());
    }
    for (const auto& [key, id] : expected) EXPECT_EQ(index.Find(key), id);
  }
}

}  // namespace
}  // namespace braid::slot_index_test
