// What the slow path gives to the workers and takes from them: commands in order, also when a
// mailbox is full; what was withdrawn is freed once all have passed; counters are summed up. The
// test is in the workers' place, but for the sums.
#include "slowpath/worker_group.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <optional>
#include <set>

#include "support/network.h"
#include "support/packets.h"
#include "support/running_workers.h"
#include "support/test_keys.h"

namespace braid::worker_group_test {
namespace {

using testing::Await;
using testing::Buffer;
using testing::RunningWorkers;
using testing::Unpinned;

Command Numbered(size_t number) {
  return {.type = Command::Type::kSendUnder, .mtu = static_cast<uint16_t>(number)};
}

// Does as a worker does; nothing when it has no command.
std::optional<Command> CarryOut(WorkerGroup& group, int worker) {
  Command command;
  WorkerMailbox& mailbox = group.mailbox(worker);
  if (!mailbox.commands.TryPop(command)) return std::nullopt;
  mailbox.commands_done.fetch_add(1, std::memory_order_release);
  return command;
}

// How many it carries out until it has no more; they are numbered from `first` on.
size_t CarryOutAll(WorkerGroup& group, int worker, size_t first) {
  size_t done = 0;
  while (const auto command = CarryOut(group, worker)) {
    EXPECT_EQ(command->mtu, first + done++) << "of worker " << worker;
  }
  return done;
}

bool Rings(const WorkerMailbox& mailbox) {
  pollfd wait{mailbox.doorbell.fd(), POLLIN, 0};
  return poll(&wait, 1, 0) == 1;
}

TEST(WorkerGroup, EveryWorkerGetsEveryCommandInOrderAndIsWoken) {
  WorkerGroup group(Unpinned(3));
  for (int worker = 0; worker < 3; ++worker) group.mailbox(worker).doorbell.AnnounceSleep();
  for (size_t number = 0; number < 10; ++number) group.Tell(Numbered(number));
  for (int worker = 0; worker < 3; ++worker) {
    EXPECT_TRUE(Rings(group.mailbox(worker)));
    EXPECT_EQ(CarryOutAll(group, worker, 0), 10u);
  }
}

TEST(WorkerGroup, WhatAMailboxHasNoRoomForWaitsForTheNextTick) {
  constexpr size_t kGiven = kInboxSlots + 500;
  WorkerGroup group(Unpinned(2));
  for (size_t number = 0; number < kGiven; ++number) group.Tell(Numbered(number));
  // Worker 0 takes some, so that there is room again: a new command must not overtake.
  for (size_t number = 0; number < 100; ++number) EXPECT_EQ(CarryOut(group, 0)->mtu, number);
  group.Tell(Numbered(kGiven));
  EXPECT_EQ(CarryOutAll(group, 0, 100), kInboxSlots - 100u);
  group.mailbox(0).doorbell.AnnounceSleep();
  group.Tick();
  EXPECT_TRUE(Rings(group.mailbox(0)));
  EXPECT_EQ(CarryOutAll(group, 0, kInboxSlots), kGiven + 1 - kInboxSlots);
  group.Tell(Numbered(kGiven + 1));
  EXPECT_EQ(CarryOutAll(group, 0, kGiven + 1), 1u) << "nothing waits any more";
  // Worker 1 slept through all that, and has missed nothing.
  group.Tick();
  EXPECT_EQ(CarryOutAll(group, 1, 0), size_t{kInboxSlots});
  group.Tick();
  EXPECT_EQ(CarryOutAll(group, 1, kInboxSlots), kGiven + 2 - kInboxSlots);
}

TEST(WorkerGroup, TellsWhetherCommandsWait) {
  WorkerGroup group(Unpinned(2));
  for (size_t number = 0; number < kInboxSlots; ++number) group.Tell(Numbered(number));
  EXPECT_FALSE(group.has_waiting());
  CarryOutAll(group, 1, 0);
  group.Tell(Numbered(kInboxSlots));
  EXPECT_TRUE(group.has_waiting()) << "worker 0 has no room";
  group.Tick();
  EXPECT_TRUE(group.has_waiting());
  CarryOutAll(group, 0, 0);
  group.Tick();
  EXPECT_FALSE(group.has_waiting());
}

TEST(WorkerGroup, WhatWaitsMayNeedManyTicks) {
  constexpr size_t kGiven = 5 * kInboxSlots + 7;
  WorkerGroup group(Unpinned(1));
  for (size_t number = 0; number < kGiven; ++number) group.Tell(Numbered(number));
  size_t done = 0;
  for (int tick = 0; tick < 6; ++tick) {
    done += CarryOutAll(group, 0, done);
    group.Tick();
  }
  EXPECT_EQ(done, kGiven);
}

TEST(WorkerGroup, WhatIsRetiredIsFreedOnceEveryWorkerHasPassed) {
  WorkerGroup group(Unpinned(3));
  auto keypair = std::make_unique<Keypair>();
  group.Tell({.type = Command::Type::kRemoveKeypair, .keypair = keypair.get()});
  std::shared_ptr<const Keypair> shared = std::move(keypair);
  const std::weak_ptr<const Keypair> watched = shared;
  group.Retire(std::move(shared));
  // What comes later need not be passed.
  group.Tell(Numbered(1));
  for (const int worker : {2, 0, 1}) {
    group.Tick();
    EXPECT_FALSE(watched.expired()) << "worker " << worker << " has not passed";
    EXPECT_EQ(CarryOut(group, worker)->type, Command::Type::kRemoveKeypair);
  }
  EXPECT_FALSE(watched.expired());
  group.Tick();
  EXPECT_TRUE(watched.expired());
}

TEST(WorkerGroup, ItIsNotFreedWhileItsWithdrawalStillWaits) {
  WorkerGroup group(Unpinned(2));
  for (size_t number = 0; number < kInboxSlots; ++number) group.Tell(Numbered(number));
  CarryOutAll(group, 1, 0);
  auto keypair = std::make_shared<const Keypair>();
  group.Tell({.type = Command::Type::kRemoveKeypair, .keypair = keypair.get()});
  const std::weak_ptr<const Keypair> watched = keypair;
  group.Retire(std::move(keypair));
  EXPECT_TRUE(CarryOut(group, 1));
  EXPECT_EQ(CarryOutAll(group, 0, 0), size_t{kInboxSlots});
  group.Tick();
  EXPECT_FALSE(watched.expired())
      << "worker 0 has carried out all that was in its mailbox, not this";
  EXPECT_EQ(CarryOut(group, 0)->type, Command::Type::kRemoveKeypair);
  group.Tick();
  EXPECT_TRUE(watched.expired());
}

TEST(WorkerGroup, EachOfManyIsFreedInItsTurn) {
  WorkerGroup group(Unpinned(1));
  std::vector<std::weak_ptr<const Keypair>> watched;
  for (int i = 0; i < 5; ++i) {
    auto keypair = std::make_shared<const Keypair>();
    watched.push_back(keypair);
    group.Tell({.type = Command::Type::kRemoveKeypair, .keypair = keypair.get()});
    group.Retire(std::move(keypair));
  }
  for (size_t passed = 1; passed <= watched.size(); ++passed) {
    EXPECT_TRUE(CarryOut(group, 0));
    group.Tick();
    for (size_t i = 0; i < watched.size(); ++i) EXPECT_EQ(watched[i].expired(), i < passed);
  }
}

TEST(WorkerGroup, ARouteTableIsFreedOnceEveryWorkerHasTheNext) {
  std::weak_ptr<const RouteTable> first, second;
  const auto made = [](std::weak_ptr<const RouteTable>& watched) {
    auto table = std::make_shared<const RouteTable>(std::vector<RouteTable::Route>{});
    watched = table;
    return table;
  };
  {
    WorkerGroup group(Unpinned(2));
    group.SetRoutes(made(first));
    for (int worker = 0; worker < 2; ++worker) {
      EXPECT_EQ(CarryOut(group, worker)->routes, first.lock().get());
    }
    group.Tick();
    EXPECT_FALSE(first.expired()) << "it is the one in use";
    group.SetRoutes(made(second));
    EXPECT_EQ(CarryOut(group, 0)->routes, second.lock().get());
    group.Tick();
    EXPECT_FALSE(first.expired()) << "worker 1 may still read it";
    EXPECT_EQ(CarryOut(group, 1)->routes, second.lock().get());
    group.Tick();
    EXPECT_TRUE(first.expired());
    EXPECT_FALSE(second.expired());
  }
  EXPECT_TRUE(second.expired());
}

TEST(WorkerGroup, LimitsAreFreedOnceEveryWorkerHasTheNextOrNone) {
  WorkerGroup group(Unpinned(2));
  auto throttle = std::make_shared<Throttle>(2);
  const std::weak_ptr<const Throttle> watched = throttle;
  group.SetThrottle(std::move(throttle));
  for (int worker = 0; worker < 2; ++worker) {
    EXPECT_EQ(CarryOut(group, worker)->throttle, watched.lock().get());
  }
  group.SetThrottle(nullptr);
  for (int worker = 0; worker < 2; ++worker) {
    group.Tick();
    EXPECT_FALSE(watched.expired()) << "worker " << worker << " may still take from it";
    const auto command = CarryOut(group, worker);
    EXPECT_EQ(command->type, Command::Type::kSetThrottle);
    EXPECT_EQ(command->throttle, nullptr);
  }
  group.Tick();
  EXPECT_TRUE(watched.expired());
}

TEST(WorkerGroup, APacketGoesToItsWorkerAsLongAsThereIsRoom) {
  WorkerGroup group(Unpinned(3));
  for (int worker = 0; worker < 3; ++worker) {
    WorkerMailbox& owner = group.mailbox(worker);
    owner.doorbell.AnnounceSleep();
    HandedPacket packet;
    packet.incoming.datagram_bytes = static_cast<uint16_t>(100 + worker);
    EXPECT_TRUE(group.HandPacket(worker, std::move(packet)));
    EXPECT_TRUE(Rings(owner));
    HandedPacket got;
    ASSERT_TRUE(owner.packets.TryPop(got));
    EXPECT_EQ(got.incoming.datagram_bytes, 100 + worker);
  }
  for (int i = 0; i < kInboxSlots; ++i) EXPECT_TRUE(group.HandPacket(1, {}));
  EXPECT_FALSE(group.HandPacket(1, {}));
  EXPECT_TRUE(group.HandPacket(2, {})) << "another worker's mailbox has room";
}

TEST(WorkerGroup, AWorkerOwesASignOfLifeFromWhenItWasAsked) {
  constexpr TimeNs kNowNs = 100 * kSecondNs;
  WorkerGroup group(Unpinned(2));
  const auto silent = [&](int worker, DurationNs later_ns) {
    return group.SilentFor(worker, kNowNs + later_ns);
  };
  EXPECT_EQ(silent(0, 0), 0u) << "it was not asked";
  group.Tell(Numbered(0));
  group.AskForLife(kNowNs);
  EXPECT_TRUE(CarryOut(group, 0));
  EXPECT_EQ(silent(0, kSecondNs), kSecondNs) << "a command from before is no answer";
  EXPECT_EQ(CarryOut(group, 0)->type, Command::Type::kNone);
  EXPECT_EQ(silent(0, kSecondNs), 0u);
  EXPECT_EQ(silent(1, kSecondNs), kSecondNs);
  // The other one is asked again, this one goes on owing since it was first asked.
  group.AskForLife(kNowNs + kSecondNs);
  EXPECT_EQ(silent(0, 3 * kSecondNs), 2 * kSecondNs);
  EXPECT_EQ(silent(1, 3 * kSecondNs), 3 * kSecondNs);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(CarryOut(group, 1));
  EXPECT_EQ(silent(1, 3 * kSecondNs), 0u);
  EXPECT_FALSE(CarryOut(group, 1)) << "it was asked once";
}

TEST(WorkerGroup, AWorkerThatDoesNotTakeItsCommandsOwesASignOfLifeToo) {
  constexpr TimeNs kNowNs = 100 * kSecondNs;
  WorkerGroup group(Unpinned(1));
  for (size_t number = 0; number < kInboxSlots; ++number) group.Tell(Numbered(number));
  for (TimeNs second = 0; second < 2000; ++second) group.AskForLife(kNowNs + second * kSecondNs);
  EXPECT_EQ(group.SilentFor(0, kNowNs + 2000 * kSecondNs), 2000 * kSecondNs);
  EXPECT_EQ(CarryOutAll(group, 0, 0), size_t{kInboxSlots});
  group.Tick();
  EXPECT_EQ(CarryOut(group, 0)->type, Command::Type::kNone);
  EXPECT_EQ(group.SilentFor(0, kNowNs + 2000 * kSecondNs), 0u);
  EXPECT_FALSE(CarryOut(group, 0));
}

// --- With real workers, behind a device and sockets of a network of the test's own ---

constexpr int kLanes = 16;

Config ServerConfig() {
  Config config;
  config.role = Role::kServer;
  config.tunnel.listen = {Endpoint::Parse("127.0.0.1:7700").value()};
  config.tunnel.peers.resize(2);
  config.tunnel.lanes = kLanes;
  return config;
}

TEST(WorkerGroup, SumsUpWhatItsWorkersCount) {
  testing::InFreshNetwork([] {
    constexpr uint64_t kPacketsPerLane = 3;
    constexpr uint64_t kFromPeer = kPacketsPerLane * kLanes;
    constexpr uint64_t kToPeer = 40;
    PrepareAeadThread();
    const Config config = ServerConfig();
    const auto aeads = ChooseAeads("auto").value();
    testing::KeypairOfBothEnds keys = testing::MakeKeypair(1, aeads[Cipher::kChaCha20Poly1305]);
    for (Keypair* one : {&keys.client, &keys.server}) {
      one->seal_until_ns = one->open_until_ns = MonotonicNowNs() + 300 * kSecondNs;
    }
    const UdpSocket peer =
        OpenUdp({IpAddress::Parse("127.0.0.1").value(), 0, "", false, false}).value();
    RunningWorkers running(config, Unpinned(3));
    WorkerGroup& group = running.group;
    const RouteTable::Route owned[] = {{IpPrefix::Parse("10.77.0.2/32").value(), 1}};
    group.SetRoutes(std::make_unique<RouteTable>(owned));
    group.Tell({.type = Command::Type::kAddKeypair, .peer = 1, .keypair = &keys.server});
    group.Tell({.type = Command::Type::kSetPath, .peer = 1, .route = {peer.local, {}, 0}});
    group.Tell({.type = Command::Type::kUsePath, .peer = 1});
    group.Tell(
        {.type = Command::Type::kSendUnder, .peer = 1, .keypair = &keys.server, .mtu = 1400});

    for (int worker = 0; worker < 3; ++worker) {
      ASSERT_TRUE(Await([&] { return group.mailbox(worker).commands_done.load() == 5; }));
    }

    const TimeNs before_ns = MonotonicNowNs();
    testing::PacketSpec spec = testing::SpecOf(false, testing::kUdp, 100);
    std::swap(spec.source_host, spec.destination_host);
    const Buffer inner = BuildPacket(spec);
    // Without it the kernel would answer by ICMP, through the tunnel.
    const UdpSocket taker =
        OpenUdp({IpAddress::Parse("10.77.0.1").value(), spec.destination_port, "", false, false})
            .value();
    for (uint8_t lane = 0; lane < kLanes; ++lane) {
      LaneSender sender;
      for (uint64_t i = 0; i < kPacketsPerLane; ++i) {
        Buffer datagram(inner.size() + kSealOverheadBytes);
        ASSERT_FALSE(sender.Prepare(keys.client, lane, MonotonicNowNs()));
        sender.Seal(Kind::kData, 2, 0, inner, datagram.data());
        SendDatagram(peer.fd.get(), config.tunnel.listen[0], {}, datagram);
      }
      // Too short to be anything: dropped by the worker that the lane's byte leads to.
      Buffer cut(9, 0);
      cut[8] = lane;
      SendDatagram(peer.fd.get(), config.tunnel.listen[0], {}, cut);
    }
    sockaddr_storage to;
    const socklen_t length = Endpoint::Parse("10.77.0.2:9").value().To(to);
    for (uint64_t i = 0; i < kToPeer; ++i) {
      const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      ASSERT_EQ(sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), length), 1);
    }
    EXPECT_TRUE(Await([&] {
      const auto totals = group.TrafficOf(1);
      return totals.rx_packets >= kFromPeer && totals.tx_packets >= kToPeer &&
             group.Drops(Drop::short_datagram) >= kLanes;
    }));

    EXPECT_EQ(group.Drops(Drop::short_datagram), uint64_t{kLanes});
    EXPECT_EQ(group.Drops(Drop::unauthentic), 0u);
    const auto totals = group.TrafficOf(1);
    EXPECT_EQ(totals.rx_packets, kFromPeer);
    EXPECT_EQ(totals.rx_bytes, kFromPeer * inner.size());
    EXPECT_EQ(totals.tx_packets, kToPeer);
    EXPECT_EQ(totals.tx_bytes, kToPeer * 29);
    const auto path = group.TrafficOf(1, 2);
    EXPECT_EQ(path.rx_datagrams, kFromPeer);
    EXPECT_EQ(path.rx_expected, kFromPeer);
    EXPECT_EQ(path.rx_bytes, kFromPeer * (inner.size() + kSealOverheadBytes));
    EXPECT_TRUE(Await([&] { return group.TrafficOf(1, 0).tx_datagrams == kToPeer; }));
    EXPECT_EQ(group.TrafficOf(1, 0).tx_bytes, kToPeer * (29 + kSealOverheadBytes));
    EXPECT_EQ(group.TrafficOf(1, 0).rx_datagrams, 0u);

    const PeerActivity activity = group.ActivityOf(1);
    EXPECT_EQ(activity.tx_packets, kToPeer);
    EXPECT_EQ(activity.rx_datagrams[2], kFromPeer);
    EXPECT_EQ(activity.rx_datagrams[0], 0u);
    for (const TimeNs last_ns : {activity.last_rx_ns, activity.last_tx_ns}) {
      EXPECT_GE(last_ns, before_ns);
      EXPECT_LE(last_ns, MonotonicNowNs());
    }
    const PeerActivity other = group.ActivityOf(0);
    EXPECT_EQ(other.last_rx_ns, 0u);
    EXPECT_EQ(other.tx_packets, 0u);
    EXPECT_EQ(group.TrafficOf(0).rx_packets, 0u);

    uint64_t rx_bytes = 0;
    uint64_t tx_bytes = 0;
    uint64_t rx_packets = 0;
    uint64_t tx_packets = 0;
    uint64_t handed_over = 0;
    std::set<uint8_t> lanes;
    for (int worker = 0; worker < 3; ++worker) {
      const auto of_worker = group.TotalsOf(worker);
      EXPECT_EQ(of_worker.cpu, -1);
      EXPECT_GT(of_worker.busy_ns, 0u);
      EXPECT_LT(of_worker.busy_ns, MonotonicNowNs() - before_ns + 10 * kSecondNs);
      EXPECT_EQ(of_worker.inbox_packets + of_worker.inbox_commands, 0u);
      rx_bytes += of_worker.rx_bytes;
      tx_bytes += of_worker.tx_bytes;
      rx_packets += of_worker.rx_packets;
      tx_packets += of_worker.tx_packets;
      handed_over += of_worker.handed_over;
      EXPECT_GE(of_worker.rx_packets, kPacketsPerLane * (kLanes / 3));
      for (const uint8_t lane : of_worker.lanes) {
        EXPECT_EQ(lane % 3, worker);
        EXPECT_TRUE(lanes.insert(lane).second) << "lane " << int{lane} << " has two workers";
      }
    }
    EXPECT_EQ(rx_bytes, kFromPeer * inner.size());
    EXPECT_EQ(tx_bytes, kToPeer * 29);
    EXPECT_EQ(rx_packets, kFromPeer);
    EXPECT_EQ(tx_packets, kToPeer);
    EXPECT_EQ(handed_over, group.HandedOver());
    EXPECT_EQ(lanes.size(), size_t{kLanes});
    ASSERT_TRUE(group.Stop());
  });
}

TEST(WorkerGroup, WorkersAnswerWhenTheyAreAskedForLifeAndSleepElse) {
  testing::InFreshNetwork([] {
    RunningWorkers running(ServerConfig(), Unpinned(2));
    WorkerGroup& group = running.group;
    for (int round = 0; round < 3; ++round) {
      group.AskForLife(MonotonicNowNs());
      for (int worker = 0; worker < 2; ++worker) {
        EXPECT_TRUE(Await([&] { return group.SilentFor(worker, kNever) == 0; }));
      }
    }
    const DurationNs before_ns = group.TotalsOf(0).busy_ns;
    EXPECT_GT(before_ns, 0u);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_LT(group.TotalsOf(0).busy_ns - before_ns, 50 * kMillisecondNs) << "it does nothing";
    ASSERT_TRUE(group.Stop());
    EXPECT_EQ(group.TotalsOf(0).busy_ns, 0u);
  });
}

TEST(WorkerGroup, TellsHowMuchWaitsForAWorker) {
  testing::InFreshNetwork([] {
    RunningWorkers running(ServerConfig(), Unpinned(1));
    WorkerGroup& group = running.group;
    ASSERT_TRUE(group.Stop());
    for (size_t number = 0; number < kInboxSlots + 3; ++number) group.Tell(Numbered(number));
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(group.HandPacket(0, {}));
    EXPECT_EQ(group.TotalsOf(0).inbox_commands, kInboxSlots + 3u);
    EXPECT_EQ(group.TotalsOf(0).inbox_packets, 5u);
    EXPECT_EQ(group.waiting_events(), 0u);
    EXPECT_TRUE(group.events().events.TryPush({}));
    EXPECT_EQ(group.waiting_events(), 1u);
  });
}

TEST(WorkerGroup, PinsEachWorkerToTheCpuThatItWasGiven) {
  testing::InFreshNetwork([] {
    cpu_set_t usable;
    ASSERT_EQ(sched_getaffinity(0, sizeof(usable), &usable), 0);
    std::vector<int> cpus;
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; --cpu) {
      if (CPU_ISSET(static_cast<size_t>(cpu), &usable)) cpus.push_back(cpu);
    }
    cpus.push_back(-1);
    RunningWorkers running(ServerConfig(), cpus);
    for (size_t worker = 0; worker < cpus.size(); ++worker) {
      EXPECT_EQ(running.group.TotalsOf(static_cast<int>(worker)).cpu, cpus[worker]);
    }
    ASSERT_TRUE(running.group.Stop());
  });
}

}  // namespace
}  // namespace braid::worker_group_test
