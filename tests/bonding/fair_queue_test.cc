// Flows share a queue fairly, and none makes it long.
#include "bonding/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "support/ip_header.h"

namespace braid::fair_queue_test {
namespace {

constexpr size_t kPacketBytes = 1420;
constexpr DurationNs kTargetNs = 5 * kMillisecondNs;
constexpr DurationNs kIntervalNs = 100 * kMillisecondNs;

class FairQueueTest : public ::testing::Test {
 protected:
  FairQueueTest() { queue_->SetDelays(kTargetNs, kIntervalNs); }

  SlotId Put(uint32_t flow, uint16_t bytes = kPacketBytes, uint8_t ecn = testing::kNotEcn) {
    const SlotId id = slab_.Take();
    EXPECT_NE(id, kNoSlot);
    slab_[id].bytes = bytes;
    slab_[id].flow_hash = flow;
    testing::WriteIpv4Header(slab_.packet(id), ecn, 0);
    queue_->Enqueue(slab_, id, now_ns_);
    return id;
  }

  SlotId Get() {
    return queue_->Dequeue(slab_, now_ns_, [](uint32_t) { return true; });
  }

  // What leaves within a time at a rate, while `put` is called before each departure. Bytes by
  // flow.
  template <typename Put>
  std::map<uint32_t, uint64_t> Serve(DurationNs for_ns, uint64_t bytes_per_s, Put&& put) {
    std::map<uint32_t, uint64_t> bytes;
    const TimeNs end_ns = now_ns_ + for_ns;
    while (now_ns_ < end_ns) {
      put();
      const SlotId id = Get();
      const uint64_t size = id == kNoSlot ? kPacketBytes : slab_[id].bytes;
      if (id != kNoSlot) {
        bytes[slab_[id].flow_hash] += size;
        slab_.Return(id);
      }
      now_ns_ += size * kSecondNs / bytes_per_s;
    }
    return bytes;
  }

  TimeNs now_ns_ = kSecondNs;
  PacketSlab slab_{8192, kPacketBytes};
  std::unique_ptr<FairQueue> queue_ = std::make_unique<FairQueue>();
};

TEST_F(FairQueueTest, HoldsNoMoreThanSoManyPackets) {
  queue_->SetMostPackets(10);
  for (uint32_t flow = 0; flow < 5; ++flow) Put(flow, 100);
  for (int i = 0; i < 20; ++i) Put(7, 200);
  EXPECT_EQ(queue_->packets(), 10u);
  EXPECT_EQ(queue_->counters().overflowed, 15u);  // of the longest
  EXPECT_EQ(slab_.used(), 10u);
  int small = 0;
  for (SlotId id = Get(); id != kNoSlot; id = Get()) small += slab_[id].bytes == 100 ? 1 : 0;
  EXPECT_EQ(small, 5);
}

TEST_F(FairQueueTest, KeepsTheOrderOfAFlow) {
  std::vector<SlotId> ids;
  for (int i = 0; i < 50; ++i) ids.push_back(Put(1, static_cast<uint16_t>(100 + 20 * i)));
  EXPECT_EQ(queue_->packets(), 50u);
  for (const SlotId id : ids) EXPECT_EQ(Get(), id);
  EXPECT_EQ(Get(), kNoSlot);
  EXPECT_TRUE(queue_->empty());
  EXPECT_EQ(queue_->bytes(), 0u);
}

TEST_F(FairQueueTest, SharesBytesAndNotPackets) {
  std::map<uint32_t, size_t> waiting;
  const auto bytes = Serve(kSecondNs, 1'000'000, [&] {
    // Both always have something to send, but not so much that it would be dropped.
    while (queue_->bytes() < 4'000) {
      Put(1, 1400);
      for (int i = 0; i < 7; ++i) Put(2, 200);
    }
  });
  EXPECT_NEAR(static_cast<double>(bytes.at(1)), static_cast<double>(bytes.at(2)),
              static_cast<double>(bytes.at(1)) * 0.05);
}

TEST_F(FairQueueTest, ServesAFlowThatBeginsFirst) {
  for (int i = 0; i < 100; ++i) Put(1);
  slab_.Return(Get());
  slab_.Return(Get());
  const SlotId small = Put(2, 80);
  EXPECT_EQ(Get(), small);
}

TEST_F(FairQueueTest, DoesNotLetAFlowThatComesAndGoesGoFirstForEver) {
  for (int i = 0; i < 200; ++i) Put(1);
  int first = 0;
  for (int i = 0; i < 100; ++i) {
    Put(2, kPacketBytes);
    const SlotId id = Get();
    first += slab_[id].flow_hash == 2 ? 1 : 0;
    slab_.Return(id);
  }
  EXPECT_LE(first, 60);
}

TEST_F(FairQueueTest, GivesOnlyFlowsThatAreAccepted) {
  for (uint32_t flow = 1; flow <= 5; ++flow) Put(flow);
  const auto only = [&](uint32_t wanted) {
    return queue_->Dequeue(slab_, now_ns_, [=](uint32_t flow) { return flow == wanted; });
  };
  const SlotId third = only(3);
  ASSERT_NE(third, kNoSlot);
  EXPECT_EQ(slab_[third].flow_hash, 3u);
  EXPECT_EQ(only(3), kNoSlot);
  EXPECT_EQ(queue_->packets(), 4u);
  EXPECT_NE(only(5), kNoSlot);
}

TEST_F(FairQueueTest, LeavesAShortQueueAlone) {
  // Each packet waits 4 ms.
  for (int i = 0; i < 4; ++i) Put(1);
  Serve(2 * kSecondNs, kPacketBytes * 1000, [&] { Put(1); });
  EXPECT_EQ(queue_->counters().dropped, 0u);
}

TEST_F(FairQueueTest, LeavesABurstAlone) {
  for (int i = 0; i < 60; ++i) Put(1);  // gone after 60 ms, before the interval has passed
  Serve(kSecondNs, kPacketBytes * 1000, [] {});
  EXPECT_EQ(queue_->counters().dropped, 0u);
}

TEST_F(FairQueueTest, DropsMoreAndMoreOfAFlowThatStaysAboveTheTarget) {
  for (int i = 0; i < 50; ++i) Put(1);
  // Somewhat more comes than leaves.
  int puts = 0;
  const auto put = [&] {
    Put(1);
    if (++puts % 8 == 0) Put(1);
  };
  Serve(kIntervalNs / 2, kPacketBytes * 1000, put);
  EXPECT_EQ(queue_->counters().dropped, 0u) << "before an interval has passed";
  Serve(kSecondNs, kPacketBytes * 1000, put);
  const uint64_t in_first_second = queue_->counters().dropped;
  EXPECT_GE(in_first_second, 10u);
  Serve(kSecondNs, kPacketBytes * 1000, put);
  EXPECT_GT(queue_->counters().dropped - in_first_second, in_first_second);
  EXPECT_EQ(queue_->counters().marked, 0u);
}

TEST_F(FairQueueTest, SparesTheFlowsThatDoNotMakeTheQueueLong) {
  for (int i = 0; i < 100; ++i) Put(1);
  uint64_t small_put = 0;
  TimeNs next_ns = now_ns_;
  const auto bytes = Serve(2 * kSecondNs, kPacketBytes * 1000, [&] {
    Put(1);
    if (now_ns_ < next_ns) return;
    next_ns = now_ns_ + 20 * kMillisecondNs;
    Put(2, 100);
    ++small_put;
  });
  EXPECT_GT(queue_->counters().dropped, 0u);
  EXPECT_GE(bytes.at(2) / 100 + 1, small_put);
}

TEST_F(FairQueueTest, MarksPacketsOfFlowsThatUnderstandIt) {
  for (int i = 0; i < 50; ++i) Put(1, kPacketBytes, testing::kEcn0);
  uint64_t marked = 0;
  const TimeNs end_ns = now_ns_ + kSecondNs;
  while (now_ns_ < end_ns) {
    Put(1, kPacketBytes, testing::kEcn0);
    const SlotId id = Get();
    ASSERT_NE(id, kNoSlot);
    marked += (slab_.packet(id)[1] & 3) == testing::kMarked ? 1 : 0;
    EXPECT_EQ(testing::Ipv4HeaderSum(slab_.packet(id)), 0xffff);
    slab_.Return(id);
    now_ns_ += kMillisecondNs;
  }
  EXPECT_GE(marked, 10u);
  EXPECT_EQ(queue_->counters().marked, marked);
  EXPECT_EQ(queue_->counters().dropped, 0u);
}

TEST_F(FairQueueTest, TakesFromTheLongestFlowWhenItIsFull) {
  queue_->SetMostBytes(20 * kPacketBytes);
  for (int i = 0; i < 15; ++i) Put(1);
  for (int i = 0; i < 4; ++i) Put(2);
  EXPECT_EQ(queue_->counters().overflowed, 0u);
  for (int i = 0; i < 4; ++i) Put(2);
  EXPECT_EQ(queue_->counters().overflowed, 3u);
  EXPECT_LE(queue_->bytes(), 20 * kPacketBytes);
  std::map<uint32_t, int> left;
  for (SlotId id = Get(); id != kNoSlot; id = Get()) ++left[slab_[id].flow_hash];
  EXPECT_EQ(left[1], 12);
  EXPECT_EQ(left[2], 8);
}

TEST_F(FairQueueTest, GivesEverythingBackWhenItIsCleared) {
  for (uint32_t flow = 0; flow < 300; ++flow) Put(flow);
  queue_->Clear(slab_);
  EXPECT_TRUE(queue_->empty());
  EXPECT_EQ(slab_.used(), 0u);
  const SlotId id = Put(1);
  EXPECT_EQ(Get(), id);
}

}  // namespace
}  // namespace braid::fair_queue_test
