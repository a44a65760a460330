// The doorbell: nobody sleeps through what was put in, and nobody is woken without need.
#include "fastpath/mailbox.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>
#include <vector>

namespace braid::mailbox_test {
namespace {

uint64_t Rings(const Doorbell& doorbell) {
  uint64_t count = 0;
  return read(doorbell.fd(), &count, sizeof(count)) == sizeof(count) ? count : 0;
}

bool Sleep(const Doorbell& doorbell, int timeout_ms) {
  pollfd wait{doorbell.fd(), POLLIN, 0};
  return poll(&wait, 1, timeout_ms) == 1;
}

TEST(Doorbell, IsHeardByASleeperOnly) {
  Doorbell doorbell;
  doorbell.Ring();
  EXPECT_EQ(Rings(doorbell), 0u);
  doorbell.AnnounceSleep();
  doorbell.Ring();
  EXPECT_EQ(Rings(doorbell), 1u);
  doorbell.AnnounceSleep();
  doorbell.AnnounceAwake();
  doorbell.Ring();
  EXPECT_EQ(Rings(doorbell), 0u);
}

TEST(Doorbell, RingsOncePerSleep) {
  Doorbell doorbell;
  doorbell.AnnounceSleep();
  for (int i = 0; i < 10; ++i) doorbell.Ring();
  EXPECT_EQ(Rings(doorbell), 1u);
}

TEST(Doorbell, AlsoWithManyWhoRingAtOnceTheOwnerMissesNothing) {
  constexpr int kRingers = 3;
  constexpr int kEach = 20'000;
  WorkerMailbox mailbox;
  std::vector<std::thread> ringers;
  for (int i = 0; i < kRingers; ++i) {
    ringers.emplace_back([&mailbox] {
      for (int sent = 0; sent < kEach;) {
        Command command;
        command.type = Command::Type::kUsePath;
        if (!mailbox.commands.TryPush(std::move(command))) {
          std::this_thread::yield();
          continue;
        }
        ++sent;
        mailbox.doorbell.Ring();
      }
    });
  }
  // As a worker does it. A sleep that ends by itself was one with work waiting.
  int taken = 0;
  int overslept = 0;
  while (taken < kRingers * kEach) {
    mailbox.doorbell.AnnounceSleep();
    if (mailbox.commands.Empty()) overslept += !Sleep(mailbox.doorbell, 2000);
    Rings(mailbox.doorbell);
    mailbox.doorbell.AnnounceAwake();
    Command command;
    while (mailbox.commands.TryPop(command)) ++taken;
  }
  for (std::thread& ringer : ringers) ringer.join();
  EXPECT_EQ(overslept, 0);
  EXPECT_EQ(taken, kRingers * kEach);
}

TEST(Doorbell, TwoWhoWakeEachOtherNeverBothSleep) {
  constexpr int kRounds = 20'000;
  SlowPathMailbox mailboxes[2];
  const auto play = [&mailboxes](int self, int& overslept) {
    SlowPathMailbox& own = mailboxes[self];
    SlowPathMailbox& other = mailboxes[1 - self];
    for (int round = 0; round < kRounds; ++round) {
      if (self == 0 || round > 0) {
        Event event;
        event.type = Event::Type::kOpened;
        if (other.events.TryPush(std::move(event))) other.doorbell.Ring();
      }
      Event event;
      while (!own.events.TryPop(event)) {
        own.doorbell.AnnounceSleep();
        if (own.events.Empty()) overslept += !Sleep(own.doorbell, 2000);
        Rings(own.doorbell);
        own.doorbell.AnnounceAwake();
      }
    }
    if (self == 1) {
      Event event;
      if (other.events.TryPush(std::move(event))) other.doorbell.Ring();
    }
  };
  int overslept[2] = {0, 0};
  std::thread other([&] { play(1, overslept[1]); });
  play(0, overslept[0]);
  other.join();
  EXPECT_EQ(overslept[0], 0);
  EXPECT_EQ(overslept[1], 0);
}

TEST(Mailbox, APacketThatFindsNoRoomGoesBackToItsPool) {
  auto pool = PacketPool::Create(kInboxSlots + 1);
  ASSERT_TRUE(pool.ok());
  (*pool)->BindToThisThread();
  {
    WorkerMailbox mailbox;
    for (int i = 0; i < kInboxSlots; ++i) {
      EXPECT_TRUE(mailbox.packets.TryPush({HandedPacket::From::kTun, (*pool)->Take(), {}}));
    }
    EXPECT_FALSE(mailbox.packets.TryPush({HandedPacket::From::kTun, (*pool)->Take(), {}}));
    EXPECT_EQ((*pool)->available(), 1);
  }
  EXPECT_EQ((*pool)->available(), kInboxSlots + 1);
}

}  // namespace
}  // namespace braid::mailbox_test
