// The memory of bonds, and the lists through it.
#include "bonding/packet_slab.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <random>
#include <set>
#include <vector>

namespace braid::packet_slab_test {
namespace {

constexpr size_t kPacketBytes = 100;

TEST(PacketSlab, GivesEachSlotOnce) {
  PacketSlab slab(5, kPacketBytes);
  std::set<SlotId> taken;
  for (int i = 0; i < 5; ++i) taken.insert(slab.Take());
  EXPECT_EQ(taken.size(), 5u);
  EXPECT_FALSE(taken.contains(kNoSlot));
  EXPECT_EQ(slab.Take(), kNoSlot);
  EXPECT_EQ(slab.used(), 5u);
}

TEST(PacketSlab, GivesAgainWhatWasReturned) {
  PacketSlab slab(2, kPacketBytes);
  const SlotId first = slab.Take();
  slab.Take();
  slab.Return(first);
  EXPECT_EQ(slab.used(), 1u);
  EXPECT_EQ(slab.Take(), first);
}

TEST(PacketSlab, GivesASlotAsNew) {
  PacketSlab slab(1, kPacketBytes);
  const SlotId id = slab.Take();
  slab[id].bytes = 50;
  slab[id].copies_used = 7;
  slab[id].transmissions_used = 3;
  slab[id].repair_waits = true;
  slab.Return(id);
  ASSERT_EQ(slab.Take(), id);
  EXPECT_EQ(slab[id].bytes, 0);
  EXPECT_EQ(slab[id].copies_used, 0);
  EXPECT_EQ(slab[id].transmissions_used, 0);
  EXPECT_FALSE(slab[id].repair_waits);
}

TEST(PacketSlab, KeepsPacketsApart) {
  PacketSlab slab(8, kPacketBytes);
  std::vector<SlotId> ids;
  for (uint8_t i = 0; i < 8; ++i) {
    ids.push_back(slab.Take());
    slab[ids.back()].bytes = kPacketBytes;
    // With the headroom in front of it, which is the packet's too.
    std::fill_n(slab.data(ids.back()) - PacketSlab::kHeadroomBytes,
                PacketSlab::kHeadroomBytes + kPacketBytes + kPacketTailroomBytes, i);
  }
  for (uint8_t i = 0; i < 8; ++i) {
    const MutableBytes packet = slab.packet(ids[i]);
    EXPECT_EQ(packet.size(), kPacketBytes);
    EXPECT_TRUE(std::all_of(packet.begin(), packet.end(), [&](uint8_t b) { return b == i; }));
  }
}

TEST(SlotList, IsFirstInFirstOut) {
  PacketSlab slab(3, kPacketBytes);
  SlotList list;
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(list.PopFront(slab), kNoSlot);
  const SlotId a = slab.Take(), b = slab.Take(), c = slab.Take();
  for (const SlotId id : {a, b, c}) list.PushBack(slab, id);
  EXPECT_EQ(list.first(), a);
  EXPECT_EQ(list.last(), c);
  for (const SlotId id : {a, b, c}) EXPECT_EQ(list.PopFront(slab), id);
  EXPECT_TRUE(list.empty());
}

TEST(SlotList, DoesWhatAListDoes) {
  constexpr size_t kSlots = 20;
  PacketSlab slab(kSlots, kPacketBytes);
  std::mt19937_64 random(1);
  SlotList list;
  std::list<SlotId> expected;
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0) {
      const SlotId id = slab.Take();
      if (id == kNoSlot) continue;
      list.PushBack(slab, id);
      expected.push_back(id);
    } else if (!expected.empty()) {
      auto at = expected.begin();
      if (random() % 2 == 0) {
        std::advance(at, random() % expected.size());
        list.Remove(slab, *at);
      } else {
        ASSERT_EQ(list.PopFront(slab), *at);
      }
      slab.Return(*at);
      expected.erase(at);
    }
    ASSERT_EQ(list.empty(), expected.empty());
    if (expected.empty()) continue;
    ASSERT_EQ(list.first(), expected.front());
    ASSERT_EQ(list.last(), expected.back());
  }
  std::vector<SlotId> forwards;
  for (SlotId id = list.first(); id != kNoSlot; id = slab[id].next) forwards.push_back(id);
  EXPECT_EQ(forwards, std::vector<SlotId>(expected.begin(), expected.end()));
  std::vector<SlotId> backwards;
  for (SlotId id = list.last(); id != kNoSlot; id = slab[id].previous) backwards.push_back(id);
  EXPECT_EQ(backwards, std::vector<SlotId>(expected.rbegin(), expected.rend()));
}

}  // namespace
}  // namespace braid::packet_slab_test
