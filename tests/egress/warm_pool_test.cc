// Connections that wait: the freshest first, as many as demand asks for, none for ever; as a plain
// list would have it.
#include "egress/warm_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

namespace braid::warm_pool_test {
namespace {

using ::testing::ElementsAre;
using ::testing::Pointee;

using Connection = std::unique_ptr<int>;  // can be moved only, as a socket
using Pool = WarmPool<Connection>;

constexpr Pool::Options kOptions = {
    .initial = 8, .max = 40, .idle_ns = 300 * kSecondNs, .cleanup_ns = 60 * kSecondNs};

Connection Numbered(int number) { return std::make_unique<int>(number); }

// Opens all that the pool wants, numbered from `first`.
void Fill(Pool& pool, TimeNs now_ns, int first = 0) {
  const size_t wanted = pool.Wanted();
  pool.OnOpening(wanted);
  for (size_t i = 0; i < wanted; ++i) {
    pool.OnOpened();
    ASSERT_FALSE(pool.Put(Numbered(first + static_cast<int>(i)), now_ns));
  }
}

TEST(WarmPool, WantsItsInitialOnesAtOnce) {
  Pool pool(kOptions, 0);
  EXPECT_EQ(pool.Wanted(), 8u);
  pool.OnOpening(5);
  EXPECT_EQ(pool.Wanted(), 3u) << "what is under way comes";
  EXPECT_EQ(pool.opening(), 5u);
  pool.OnOpenFailed();
  EXPECT_EQ(pool.Wanted(), 4u);
  pool.OnOpened();
  pool.Put(Numbered(1), 0);
  EXPECT_EQ(pool.Wanted(), 4u);
  EXPECT_EQ(pool.idle(), 1u);
  EXPECT_EQ(pool.opening(), 3u);
}

TEST(WarmPool, TheFreshestIsTakenFirst) {
  Pool pool(kOptions, 0);
  for (int number = 0; number < 3; ++number) pool.Put(Numbered(number), 0);
  EXPECT_THAT(pool.Take(0), ::testing::Optional(Pointee(2)));
  pool.Put(Numbered(3), 0);
  EXPECT_THAT(pool.Take(0), ::testing::Optional(Pointee(3)));
  EXPECT_THAT(pool.Take(0), ::testing::Optional(Pointee(1)));
  EXPECT_THAT(pool.Take(0), ::testing::Optional(Pointee(0)));
  EXPECT_FALSE(pool.Take(0));
  EXPECT_EQ(pool.totals().taken, 4u);
  EXPECT_EQ(pool.totals().empty, 1u);
}

TEST(WarmPool, ItsTargetGrowsOnceLessThanAQuarterIsLeft) {
  Pool pool(kOptions, 0);
  Fill(pool, 0);
  for (int left = 8; left >= 2; --left) {
    EXPECT_EQ(pool.target(), 8u);
    pool.Take(0);
  }
  EXPECT_EQ(pool.target(), 8u) << "the last one still found two of eight";
  pool.Take(0);
  EXPECT_EQ(pool.target(), 12u);
  EXPECT_EQ(pool.Wanted(), 12u);
  // A quarter of what it is now has to be asked for before it is raised once more.
  for (const auto& [asked, target] : {std::pair(3u, 18u), {5u, 27u}, {7u, 40u}, {10u, 40u}}) {
    for (size_t i = 1; i < asked; ++i) {
      const size_t before = pool.target();
      EXPECT_FALSE(pool.Take(0));
      EXPECT_EQ(pool.target(), before);
    }
    EXPECT_FALSE(pool.Take(0));
    EXPECT_EQ(pool.target(), target);
  }
}

TEST(WarmPool, AQuarterIsNotRounded) {
  Pool::Options options = kOptions;
  options.initial = 10;
  Pool pool(options, 0);
  for (int number = 0; number < 4; ++number) pool.Put(Numbered(number), 0);
  pool.Take(0);
  pool.Take(0);
  EXPECT_EQ(pool.target(), 10u) << "two of ten have been asked for, which is less than a quarter";
  pool.Take(0);
  EXPECT_EQ(pool.target(), 15u) << "two of ten are left, which are less, too";
}

TEST(WarmPool, EvenATargetOfNoneOrOneGrows) {
  Pool::Options options = kOptions;
  options.initial = 0;
  Pool pool(options, 0);
  EXPECT_EQ(pool.Wanted(), 0u);
  EXPECT_FALSE(pool.Take(0));
  pool.Cleanup(0);
  EXPECT_EQ(pool.target(), 1u) << "it was needed";
  pool.Cleanup(0);
  EXPECT_EQ(pool.target(), 0u);
  for (const size_t target : {1u, 2u, 3u, 4u, 6u}) {
    EXPECT_FALSE(pool.Take(0));
    EXPECT_EQ(pool.target(), target);
  }
  for (TimeNs now_ns = 0; pool.target() > 0; now_ns += 60 * kSecondNs) {
    ASSERT_LT(now_ns, 10 * 60 * kSecondNs);
    pool.Cleanup(now_ns);
  }
}

TEST(WarmPool, ItsTargetFallsWithoutNeed) {
  Pool pool(kOptions, 0);
  while (pool.target() < 40) pool.Take(0);
  Fill(pool, 0);
  pool.Cleanup(60 * kSecondNs);
  EXPECT_EQ(pool.target(), 40u) << "it was needed since the last one";
  TimeNs now_ns = 60 * kSecondNs;
  for (const size_t target : {27u, 18u, 12u, 8u, 8u}) {
    now_ns += 30 * kSecondNs;
    // What is taken and given back is no need while half is there.
    pool.Put(*pool.Take(now_ns), now_ns);
    pool.Cleanup(now_ns);
    EXPECT_EQ(pool.target(), target);
  }
  EXPECT_EQ(pool.idle(), 40u) << "those that are too many may grow old";
  EXPECT_EQ(pool.Wanted(), 0u);
}

TEST(WarmPool, ItsTargetStaysWhileHalfOfItIsUsed) {
  Pool pool(kOptions, 0);
  while (pool.target() < 40) pool.Take(0);
  pool.Cleanup(0);
  TimeNs now_ns = 0;
  for (int minute = 0; minute < 10; ++minute) {
    now_ns += 60 * kSecondNs;
    Fill(pool, now_ns);
    for (int i = 0; i < 22; ++i) ASSERT_TRUE(pool.Take(now_ns));
    pool.Cleanup(now_ns);
    EXPECT_EQ(pool.target(), 40u);
  }
  // One less than half of it at a time is fewer than is needed.
  now_ns += 60 * kSecondNs;
  Fill(pool, now_ns);
  for (int i = 0; i < 21; ++i) ASSERT_TRUE(pool.Take(now_ns));
  pool.Cleanup(now_ns);
  EXPECT_EQ(pool.target(), 27u);
}

TEST(WarmPool, ThoseThatNobodyNeededGrowOldAndGo) {
  Pool pool(kOptions, 0);
  for (int number = 0; number < 4; ++number) {
    pool.Put(Numbered(number), static_cast<TimeNs>(number) * kSecondNs);
  }
  EXPECT_EQ(pool.NextCleanup(), 60 * kSecondNs);
  EXPECT_THAT(pool.Cleanup(300 * kSecondNs), ElementsAre()) << "no longer than it may";
  EXPECT_EQ(pool.NextCleanup(), 360 * kSecondNs);
  EXPECT_THAT(pool.Cleanup(302 * kSecondNs), ElementsAre(Pointee(0), Pointee(1)));
  EXPECT_THAT(pool.Take(302 * kSecondNs), ::testing::Optional(Pointee(3)));
  // One that was taken and not used begins to wait anew.
  pool.Put(Numbered(3), 302 * kSecondNs);
  EXPECT_THAT(pool.Cleanup(600 * kSecondNs), ElementsAre(Pointee(2)));
  EXPECT_EQ(pool.idle(), 1u);
  EXPECT_EQ(pool.totals().expired, 3u);
}

TEST(WarmPool, WhileTheClockStandsStillNothingGrowsOld) {
  Pool pool(kOptions, 7);
  Fill(pool, 7);
  for (int i = 0; i < 100; ++i) EXPECT_THAT(pool.Cleanup(7), ElementsAre());
  EXPECT_EQ(pool.idle(), 8u);
  EXPECT_EQ(pool.Wanted(), 0u);
}

TEST(WarmPool, WhatGoesIsReplacedOnlyWhileSomebodyTakesAny) {
  Pool pool(kOptions, 0);
  Fill(pool, 0);
  pool.Take(100 * kSecondNs);
  Fill(pool, 100 * kSecondNs, 10);
  EXPECT_EQ(pool.Cleanup(360 * kSecondNs).size(), 7u);
  EXPECT_EQ(pool.Wanted(), 7u);
  EXPECT_THAT(pool.Cleanup(400 * kSecondNs), ElementsAre());
  EXPECT_EQ(pool.Wanted(), 7u);
  // Since then nobody has.
  EXPECT_EQ(pool.Cleanup(401 * kSecondNs).size(), 1u);
  EXPECT_EQ(pool.Wanted(), 0u);
  EXPECT_EQ(pool.idle(), 0u);
  // The next flow has to connect by itself, and wakes it.
  EXPECT_FALSE(pool.Take(1000 * kSecondNs));
  EXPECT_EQ(pool.Wanted(), pool.target());
  pool.Cleanup(1060 * kSecondNs);
  EXPECT_EQ(pool.Wanted(), pool.target());
}

TEST(WarmPool, WhatItsServerHasClosedGoesFromBetweenTheOthers) {
  Pool pool(kOptions, 0);
  Fill(pool, 0);
  const auto removed = pool.Remove([](const Connection& one) { return *one == 3 || *one == 6; });
  EXPECT_THAT(removed, ElementsAre(Pointee(3), Pointee(6)));
  EXPECT_EQ(pool.totals().stale, 2u);
  EXPECT_EQ(pool.Wanted(), 2u);
  EXPECT_THAT(pool.Remove([](const Connection& one) { return *one == 3; }), ElementsAre());
  for (const int number : {7, 5, 4, 2, 1, 0}) {
    EXPECT_THAT(pool.Take(0), ::testing::Optional(Pointee(number)));
  }
  EXPECT_EQ(pool.totals().stale, 2u);
}

TEST(WarmPool, WhenThereAreTooManyTheOldestComesBack) {
  Pool pool(kOptions, 0);
  for (int number = 0; number < 40; ++number) ASSERT_FALSE(pool.Put(Numbered(number), 0));
  EXPECT_THAT(pool.Put(Numbered(40), 0), ::testing::Optional(Pointee(0)));
  EXPECT_EQ(pool.idle(), 40u);
  EXPECT_THAT(pool.Take(0), ::testing::Optional(Pointee(40)));
}

TEST(WarmPool, AgreesWithAList) {
  struct Waiting {
    int number;
    TimeNs since_ns;
  };
  std::mt19937 random(17);
  Pool pool(kOptions, 0);
  std::vector<Waiting> waiting;  // the oldest first
  Pool::Totals totals;
  TimeNs now_ns = 0, cleanup_ns = kOptions.cleanup_ns, used_ns = 0;
  bool used = true, slept = false;
  size_t opening = 0, largest_target = 0;
  int next_number = 0, returned = 0;
  const auto put = [&] {
    waiting.push_back({next_number, now_ns});
    const auto oldest = pool.Put(Numbered(next_number++), now_ns);
    ASSERT_EQ(oldest.has_value(), waiting.size() > kOptions.max);
    if (!oldest) return;
    ASSERT_EQ(**oldest, waiting.front().number);
    waiting.erase(waiting.begin());
    ++returned;
  };
  size_t asked = 0;
  for (int i = 0; i < 100'000; ++i) {
    // Busy times, and others.
    const bool busy = (i / 2000) % 2 == 0;
    now_ns += random() % (busy ? kSecondNs : 20 * kSecondNs);
    ASSERT_EQ(pool.NextCleanup(), cleanup_ns);
    if (pool.NextCleanup() <= now_ns) {
      const size_t target = pool.target();
      for (const Connection& expired : pool.Cleanup(now_ns)) {
        ASSERT_FALSE(waiting.empty());
        ASSERT_EQ(*expired, waiting.front().number);
        ASSERT_GT(now_ns - waiting.front().since_ns, kOptions.idle_ns);
        waiting.erase(waiting.begin());
        ++totals.expired;
      }
      for (const Waiting& one : waiting) ASSERT_LE(now_ns - one.since_ns, kOptions.idle_ns);
      ASSERT_LE(pool.target(), target);
      cleanup_ns = now_ns + kOptions.cleanup_ns;
      used = now_ns - used_ns <= kOptions.idle_ns;
      slept |= !used;
    }
    switch (random() % 8) {
      case 0:
      case 1:
      case 2: {
        if (!busy && random() % 8 != 0) break;
        const size_t before = pool.target();
        const auto taken = pool.Take(now_ns);
        used_ns = now_ns;
        used = true;
        ASSERT_EQ(taken.has_value(), !waiting.empty());
        const bool few = waiting.empty() || waiting.size() * 4 < before;
        const bool raised = few && ++asked * 4 >= before;
        if (!few) ++asked;
        if (raised) asked = 0;
        ASSERT_EQ(pool.target(), raised ? std::min<size_t>(before * 3 / 2, kOptions.max) : before);
        if (!taken) {
          ++totals.empty;
          break;
        }
        ASSERT_EQ(**taken, waiting.back().number);
        waiting.pop_back();
        ++totals.taken;
        break;
      }
      case 3: {
        const size_t count = std::min<size_t>(pool.Wanted(), random() % 20);
        pool.OnOpening(count);
        opening += count;
        break;
      }
      case 4:
      case 5:
        for (; opening > 0 && random() % 4 != 0; --opening) {
          if (random() % 4 == 0) {
            pool.OnOpenFailed();
          } else {
            pool.OnOpened();
            put();
          }
        }
        break;
      case 6: {
        const int rest = static_cast<int>(random() % 50);
        const auto is_closed = [&](int number) { return number % 50 == rest; };
        for (const Connection& removed :
             pool.Remove([&](const Connection& one) { return is_closed(*one); })) {
          ASSERT_TRUE(is_closed(*removed));
          ++totals.stale;
        }
        std::erase_if(waiting, [&](const Waiting& one) { return is_closed(one.number); });
        break;
      }
      default:
        if (random() % 40 == 0) {
          for (int burst = 0; burst < 30; ++burst) put();
        }
    }
    ASSERT_EQ(pool.idle(), waiting.size());
    ASSERT_EQ(pool.opening(), opening);
    ASSERT_GE(pool.target(), kOptions.initial);
    ASSERT_LE(pool.target(), kOptions.max);
    const size_t coming = waiting.size() + opening;
    ASSERT_EQ(pool.Wanted(), used && coming < pool.target() ? pool.target() - coming : 0);
    ASSERT_EQ(pool.totals().taken, totals.taken);
    ASSERT_EQ(pool.totals().empty, totals.empty);
    ASSERT_EQ(pool.totals().expired, totals.expired);
    ASSERT_EQ(pool.totals().stale, totals.stale);
    largest_target = std::max(largest_target, pool.target());
  }
  EXPECT_EQ(largest_target, kOptions.max) << "the walk has not been everywhere";
  EXPECT_TRUE(slept);
  EXPECT_GT(returned, 10);
  EXPECT_GT(totals.expired, 100u);
  EXPECT_GT(totals.empty, 100u);
}

}  // namespace
}  // namespace braid::warm_pool_test
