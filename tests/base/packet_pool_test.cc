// The packet pool: what its owner takes, what other threads give back.
#include "base/packet_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "base/limits.h"

namespace braid::packet_pool_test {
namespace {

std::unique_ptr<PacketPool> MakePool(int buffers) {
  auto pool = PacketPool::Create(buffers);
  EXPECT_TRUE(pool.ok()) << pool.status();
  (*pool)->BindToThisThread();
  return std::move(*pool);
}

TEST(PacketPool, GivesAlignedBuffersThatDoNotOverlap) {
  const auto pool = MakePool(5);
  std::vector<PacketPtr> taken;
  std::set<uint8_t*> buffers;
  for (int i = 0; i < 5; ++i) {
    taken.push_back(pool->Take());
    ASSERT_NE(taken.back(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(taken.back()->buffer) % 64, 0u);
    std::memset(taken.back()->buffer, i, kPacketBufferBytes);
    buffers.insert(taken.back()->buffer);
  }
  EXPECT_EQ(buffers.size(), 5u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(taken[i]->buffer[0], i);
    EXPECT_EQ(taken[i]->buffer[kPacketBufferBytes - 1], i);
  }
}

TEST(PacketPool, HandsOutAnEmptyWindowBehindTheHeadroom) {
  const auto pool = MakePool(1);
  for (int round = 0; round < 2; ++round) {
    const PacketPtr packet = pool->Take();
    EXPECT_EQ(packet->data(), packet->buffer + kPacketHeadroomBytes);
    EXPECT_TRUE(packet->bytes().empty());
    packet->offset = 3;
    packet->length = 1000;
  }
}

TEST(PacketPool, RunsOutAndRecovers) {
  const auto pool = MakePool(3);
  EXPECT_EQ(pool->available(), 3);
  std::vector<PacketPtr> taken;
  for (int i = 0; i < 3; ++i) taken.push_back(pool->Take());
  EXPECT_EQ(pool->available(), 0);
  EXPECT_EQ(pool->Take(), nullptr);
  taken.pop_back();
  EXPECT_EQ(pool->available(), 1);
  EXPECT_NE(pool->Take(), nullptr);
  taken.clear();
  EXPECT_EQ(pool->available(), 3);
}

TEST(PacketPool, TakesBackFromAnotherThread) {
  // Every size that rounds up to the same ring, so that one too small would show.
  for (int buffers = 1; buffers <= 9; ++buffers) {
    const auto pool = MakePool(buffers);
    for (int round = 0; round < 3; ++round) {
      std::vector<PacketPtr> taken;
      while (PacketPtr packet = pool->Take()) taken.push_back(std::move(packet));
      EXPECT_EQ(taken.size(), static_cast<size_t>(buffers));
      std::thread([&] { taken.clear(); }).join();
    }
  }
}

TEST(PacketPool, IsBoundAnewByWhoeverOwnsItNext) {
  auto created = PacketPool::Create(2);
  ASSERT_TRUE(created.ok());
  PacketPool& pool = **created;
  std::thread([&] {
    pool.BindToThisThread();
    const PacketPtr first = pool.Take();
    const PacketPtr second = pool.Take();
    EXPECT_EQ(pool.Take(), nullptr);
  }).join();
  pool.BindToThisThread();
  EXPECT_EQ(pool.available(), 2);
}

// The owner takes and hands over, others write and drop; every buffer comes home.
TEST(PacketPool, LosesNothingBetweenThreads) {
  constexpr int kThreads = 3;
  constexpr int kHandOvers = 60'000;
  const auto pool = MakePool(16);
  std::vector<std::unique_ptr<Ring<PacketPtr>>> inboxes;
  for (int i = 0; i < kThreads; ++i) inboxes.push_back(std::make_unique<Ring<PacketPtr>>(8));
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (;;) {
        const bool last_look = done.load();
        PacketPtr packet;
        while (inboxes[i]->TryPop(packet)) {
          std::memset(packet->data(), i, 64);
          packet.reset();
        }
        if (last_look) return;
        std::this_thread::yield();
      }
    });
  }
  for (int handed = 0; handed < kHandOvers;) {
    PacketPtr packet = pool->Take();
    if (packet == nullptr) {
      std::this_thread::yield();
      continue;
    }
    packet->data()[0] = 1;
    if (inboxes[static_cast<size_t>(handed % kThreads)]->TryPush(std::move(packet))) {
      ++handed;
    } else {
      std::this_thread::yield();  // and drops it here, on the owner's own thread
    }
  }
  done.store(true);
  for (std::thread& thread : threads) thread.join();
  std::vector<PacketPtr> all;
  while (PacketPtr packet = pool->Take()) all.push_back(std::move(packet));
  EXPECT_EQ(all.size(), 16u);
}

}  // namespace
}  // namespace braid::packet_pool_test
