// Handshakes on the arena's threads: all of them end, with the results they would have had inline;
// one wake may bring several; stopping awaits what runs, lets go of the rest and ends the threads.
#include "slowpath/handshake_arena.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace braid::handshake_arena_test {
namespace {

constexpr int kThreads = 3;

class HandshakeArenaTest : public ::testing::Test {
 protected:
  HandshakeArenaTest() {
    directory_->Add(0, std::make_shared<const PeerKeys>(
                           PeerKeys::Create(server_, client_.public_key, psk_).value()));
    server_at_client_ = PeerKeys::Create(client_, server_.public_key, psk_).value();
  }

  struct Attempt {
    InitiatorHandshake handshake;
    std::vector<uint8_t> initiation;
  };
  Attempt MakeAttempt(uint32_t index) {
    Attempt attempt{InitiatorHandshake::Create(client_, server_at_client_).value(),
                    std::vector<uint8_t>(kInitiationBytes)};
    MacStamper stamper(server_.public_key);
    const InitiationPayload offer{.sender_index = index, .counter = index, .lanes = 4};
    EXPECT_TRUE(attempt.handshake.Write(0, offer, stamper, 1, attempt.initiation).ok());
    return attempt;
  }
  std::unique_ptr<HandshakeJob> JobFor(const Attempt& attempt) {
    return std::make_unique<HandshakeJob>(directory_, attempt.initiation, Route{});
  }

  // As the slow path waits: it says that it sleeps, looks once more, and sleeps until it is rung
  // for.
  std::unique_ptr<HandshakeJob> Await(HandshakeArena& arena) {
    while (true) {
      arena.doorbell().AnnounceSleep();
      if (auto job = arena.TryTake()) {
        arena.doorbell().AnnounceAwake();
        return job;
      }
      pollfd wait{arena.doorbell().fd(), POLLIN, 0};
      EXPECT_GE(poll(&wait, 1, -1), 0);
      uint64_t count;
      EXPECT_EQ(read(arena.doorbell().fd(), &count, sizeof(count)), 8);
      ++wakes_;
    }
  }

  const Identity client_ = Identity::Generate();
  const Identity server_ = Identity::Generate();
  const Key psk_{7};
  PeerKeys server_at_client_;
  std::shared_ptr<PeerDirectory> directory_ = std::make_shared<PeerDirectory>(server_);
  int wakes_ = 0;
};

// By name; the numbers of threads of this process.
std::vector<pid_t> ThreadsNamed(const std::string& wanted) {
  std::vector<pid_t> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::ifstream(task.path() / "comm") >> name;
    if (name == wanted) found.push_back(std::stoi(task.path().filename()));
  }
  return found;
}

// The kernel lists a thread for a moment after it was joined.
bool AllThreadsEnd() {
  const TimeNs until_ns = MonotonicNowNs() + 5 * kSecondNs;
  while (!ThreadsNamed("braid-handshake").empty()) {
    if (MonotonicNowNs() > until_ns) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

TEST_F(HandshakeArenaTest, DoesBothStagesOfManyHandshakes) {
  constexpr uint32_t kHandshakes = 200;
  HandshakeArena arena(kThreads);
  std::vector<Attempt> attempts;
  for (uint32_t i = 0; i < kHandshakes; ++i) {
    attempts.push_back(MakeAttempt(i + 1));
    arena.Run(JobFor(attempts.back()));
  }
  std::set<uint32_t> answered;
  while (answered.size() < kHandshakes) {
    std::unique_ptr<HandshakeJob> job = Await(arena);
    ASSERT_TRUE(job->ok());
    const uint32_t index = job->initiation().sender_index;
    if (job->stage() == HandshakeJob::Stage::kRead) {
      EXPECT_EQ(job->peer(), 0u);
      job->Answer({.sender_index = 1000 + index, .lanes = 2, .mtu = 1400});
      arena.Run(std::move(job));
      continue;
    }
    EXPECT_TRUE(answered.insert(index).second) << "answered twice";
    const auto result = attempts[index - 1].handshake.Read(job->response());
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->response.sender_index, 1000 + index);
    EXPECT_EQ(result->roots.send, job->roots().receive);
    EXPECT_EQ(result->roots.receive, job->roots().send);
  }
  EXPECT_TRUE(arena.Empty());
  EXPECT_LE(wakes_, 2 * static_cast<int>(kHandshakes));
}

TEST_F(HandshakeArenaTest, WhatDoesNotAuthenticateComesBackAsRefused) {
  HandshakeArena arena(kThreads);
  Attempt attempt = MakeAttempt(1);
  attempt.initiation[kHeaderBytes + 40] ^= 1;
  arena.Run(JobFor(attempt));
  EXPECT_FALSE(Await(arena)->ok());
  // Longer than any initiation: it does not even fit.
  attempt.initiation.resize(kMaxHandshakeBytes + 1);
  arena.Run(JobFor(attempt));
  EXPECT_FALSE(Await(arena)->ok());
}

TEST_F(HandshakeArenaTest, HasNoThreadsBeforeTheFirstJobAndThenThoseThatStandBack) {
  ASSERT_TRUE(AllThreadsEnd()) << "those of an earlier arena";
  HandshakeArena arena(1);
  EXPECT_TRUE(ThreadsNamed("braid-handshake").empty());
  arena.Run(JobFor(MakeAttempt(1)));
  EXPECT_TRUE(Await(arena)->ok());
  const std::vector<pid_t> threads = ThreadsNamed("braid-handshake");
  ASSERT_GE(threads.size(), 1u);
  for (const pid_t thread : threads) {
    EXPECT_EQ(getpriority(PRIO_PROCESS, static_cast<id_t>(thread)), 10);
    EXPECT_EQ(sched_getscheduler(thread), SCHED_BATCH);
  }
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 0) << "the thread that asks does not stand back";
}

TEST_F(HandshakeArenaTest, StoppingLetsGoOfAllJobsAtOnce) {
  const Attempt attempt = MakeAttempt(1);
  for (int round = 0; round < 20; ++round) {
    HandshakeArena arena(kThreads);
    for (int i = 0; i < 10 * round; ++i) arena.Run(JobFor(attempt));
    arena.Stop();
    EXPECT_EQ(directory_.use_count(), 1) << "a job is left";
    EXPECT_EQ(arena.TryTake(), nullptr);
    arena.Run(JobFor(attempt));
    EXPECT_EQ(directory_.use_count(), 1) << "a job was taken after the end";
  }
}

TEST_F(HandshakeArenaTest, NoThreadIsLeftOnceItHasStopped) {
  HandshakeArena arena(kThreads);
  for (uint32_t i = 0; i < 50; ++i) arena.Run(JobFor(MakeAttempt(i + 1)));
  EXPECT_TRUE(Await(arena)->ok());
  EXPECT_FALSE(ThreadsNamed("braid-handshake").empty());
  arena.Stop();
  EXPECT_TRUE(AllThreadsEnd());
}

TEST_F(HandshakeArenaTest, AJobOutlivesWhoAskedForIt) {
  HandshakeArena arena(kThreads);
  arena.Run(JobFor(MakeAttempt(1)));
  directory_ = nullptr;
  EXPECT_TRUE(Await(arena)->ok());
}

}  // namespace
}  // namespace braid::handshake_arena_test
