#include "slowpath/health_watch.h"

#include <gtest/gtest.h>

#include <map>

#include "support/network.h"
#include "support/status_rig.h"

namespace braid::health_watch_test {
namespace {

using testing::Await;
using testing::StatusRig;

TEST(HealthWatch, TheLongestLagIsRememberedForTenSecondsAndNotForTwenty) {
  constexpr DurationNs kEveryNs = 100 * kMillisecondNs;
  constexpr DurationNs kLagNs = 700 * kMillisecondNs;
  HealthWatch watch;
  TimeNs now_ns = 1000 * kSecondNs;
  EXPECT_EQ(watch.LagAt(now_ns), 0u);
  const auto run = [&](DurationNs duration_ns) {
    for (const TimeNs end_ns = now_ns + duration_ns; now_ns < end_ns; now_ns += kEveryNs) {
      watch.OnTimer(now_ns - kMillisecondNs, now_ns);
    }
  };
  run(7 * kSecondNs);
  EXPECT_EQ(watch.LagAt(now_ns), kMillisecondNs);
  watch.OnTimer(now_ns - kLagNs, now_ns);
  EXPECT_EQ(watch.LagAt(now_ns), kLagNs);
  run(10 * kSecondNs);
  EXPECT_EQ(watch.LagAt(now_ns), kLagNs);
  run(10 * kSecondNs);
  EXPECT_EQ(watch.LagAt(now_ns), kMillisecondNs);
}

TEST(HealthWatch, ATimerThatIsEarlyHasNoLag) {
  HealthWatch watch;
  watch.OnTimer(101 * kSecondNs, 100 * kSecondNs);
  EXPECT_EQ(watch.LagAt(100 * kSecondNs), 0u);
}

TEST(HealthWatch, APoolWasUsedUpForAMinuteAfterItsDropsWereCounted) {
  HealthWatch watch;
  std::map<Drop, uint64_t> drops;
  TimeNs now_ns = 1000 * kSecondNs;
  const auto sample = [&](DurationNs later_ns) {
    now_ns += later_ns;
    watch.Sample([&](Drop reason) { return drops[reason]; }, now_ns);
  };
  sample(0);
  EXPECT_TRUE(watch.UsedUpAt(now_ns).empty());
  drops[Drop::replayed] = 7;
  sample(kSecondNs);
  EXPECT_TRUE(watch.UsedUpAt(now_ns).empty()) << "that is no pool";
  drops[Drop::no_buffer] = 1;
  sample(kSecondNs);
  drops[Drop::bond_full] = 1;
  sample(30 * kSecondNs);
  EXPECT_EQ(watch.UsedUpAt(now_ns), (std::vector{Drop::bond_full, Drop::no_buffer}));
  sample(30 * kSecondNs);
  EXPECT_EQ(watch.UsedUpAt(now_ns), (std::vector{Drop::bond_full}));
  drops[Drop::bond_full] = 2;
  sample(kSecondNs);
  sample(59 * kSecondNs);
  EXPECT_EQ(watch.UsedUpAt(now_ns), (std::vector{Drop::bond_full}));
  EXPECT_TRUE(watch.UsedUpAt(now_ns + kSecondNs).empty());
}

TEST(HealthWatch, SeesAClientsPeersAndPaths) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 2, 2);
    HealthWatch watch;
    rig.far[0]->Start();
    rig.Run(3 * kSecondNs);
    rig.warnings = {"one"};
    HealthInputs inputs = watch.See(rig.sources(), "a problem");
    EXPECT_TRUE(inputs.is_client);
    ASSERT_EQ(inputs.peers.size(), 2u);
    EXPECT_EQ(inputs.peers[0].name, "peer0");
    EXPECT_TRUE(inputs.peers[0].established);
    EXPECT_FALSE(inputs.peers[1].established);
    ASSERT_EQ(inputs.peers[0].paths.size(), 2u);
    for (size_t id = 0; id < 2; ++id) {
      EXPECT_EQ(inputs.peers[0].paths[id].name, "link" + std::to_string(id));
      EXPECT_TRUE(inputs.peers[0].paths[id].up);
      EXPECT_FALSE(inputs.peers[1].paths[id].up);
    }
    EXPECT_EQ(inputs.network_problem, "a problem");
    EXPECT_EQ(inputs.warnings, rig.warnings);
    EXPECT_EQ(inputs.workers_silent_ns, (std::vector<DurationNs>{0, 0}));
    EXPECT_GT(inputs.open_files, 10u);
    EXPECT_GT(inputs.most_files, inputs.open_files);

    // A path loses its link.
    rig.FollowPaths([](const PathConfig& path) {
      return path.name == "link1" ? BindingChoice{std::nullopt, "its link is gone"}
                                  : BindingChoice{{{path.name, 1, {}}}, ""};
    });
    rig.near.peers().SuspendPath(1, rig.network.now_ns());
    inputs = watch.See(rig.sources(), "");
    EXPECT_TRUE(inputs.peers[0].paths[0].up);
    EXPECT_FALSE(inputs.peers[0].paths[1].up);
    EXPECT_EQ(inputs.peers[0].paths[1].problem, "its link is gone");
  });
}

TEST(HealthWatch, LooksAtNoneOfAServersPeers) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kServer, 2);
    const HealthInputs inputs = HealthWatch().See(rig.sources(), "");
    EXPECT_FALSE(inputs.is_client);
    EXPECT_TRUE(inputs.peers.empty());
  });
}

TEST(HealthWatch, SeesAWorkerThatDoesNotAnswer) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kServer, 1);
    WorkerGroup& group = rig.workers.group;
    group.AskForLife(rig.network.now_ns());
    EXPECT_TRUE(
        Await([&] { return group.SilentFor(0, kNever) + group.SilentFor(1, kNever) == 0; }));
    ASSERT_TRUE(group.Stop());
    group.Tell({});  // it was given one command less than it has carried out: to stop
    group.AskForLife(rig.network.now_ns());
    rig.Run(4 * kSecondNs);
    const HealthInputs inputs = HealthWatch().See(rig.sources(), "");
    EXPECT_EQ(inputs.workers_silent_ns, (std::vector<DurationNs>(2, 4 * kSecondNs)));
    EXPECT_FALSE(AreWorkersAlive(SilencesOf(group, rig.network.now_ns())));
  });
}

}  // namespace
}  // namespace braid::health_watch_test
