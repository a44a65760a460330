// Each rule, both ways.
#include "slowpath/health.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace braid::health_test {
namespace {

using Component = HealthReport::Component;
using PeerView = HealthInputs::PeerView;

HealthInputs WellClient() {
  HealthInputs inputs;
  inputs.workers_silent_ns = {0, 2 * kSecondNs};
  inputs.slow_path_lag_ns = 20 * kMillisecondNs;
  inputs.peers = {{"hub", true, {{"fibre", true, ""}, {"lte", true, ""}}}};
  inputs.open_files = 60;
  inputs.most_files = 1024;
  return inputs;
}

Component Find(const HealthReport& report, std::string_view name) {
  for (const Component& component : report.components) {
    if (component.name == name) return component;
  }
  ADD_FAILURE() << "there is no component " << name;
  return {};
}

// That this component alone is so, and with it the whole.
void Expect(const HealthInputs& inputs, std::string_view name, Health health,
            const std::string& why) {
  const HealthReport report = JudgeHealth(inputs);
  EXPECT_EQ(report.health, health);
  EXPECT_EQ(Find(report, name).why, why);
  for (const Component& component : report.components) {
    EXPECT_EQ(component.health, component.name == name ? health : Health::kOk) << component.name;
  }
}

TEST(Health, AllIsWell) {
  const HealthReport report = JudgeHealth(WellClient());
  EXPECT_EQ(report.health, Health::kOk);
  EXPECT_EQ(report.components.size(), 6u);
  for (const Component& component : report.components) {
    EXPECT_EQ(component.health, Health::kOk) << component.name;
    EXPECT_EQ(component.why, "") << component.name;
  }
}

TEST(Health, AWorkerThatOwesASignOfLifeForThreeSecondsHasFailed) {
  HealthInputs inputs = WellClient();
  EXPECT_TRUE(AreWorkersAlive(inputs.workers_silent_ns));
  inputs.workers_silent_ns[1] = 3 * kSecondNs - 1;
  EXPECT_TRUE(AreWorkersAlive(inputs.workers_silent_ns));
  EXPECT_EQ(JudgeHealth(inputs).health, Health::kOk);
  inputs.workers_silent_ns[1] = 7 * kSecondNs;
  EXPECT_FALSE(AreWorkersAlive(inputs.workers_silent_ns));
  Expect(inputs, "workers", Health::kFailed,
         "worker 1 has not answered for 7 s: it hangs, or has no CPU");
}

TEST(Health, ASlowPathWhoseTimerIsLateIsDegraded) {
  HealthInputs inputs = WellClient();
  inputs.slow_path_lag_ns = 500 * kMillisecondNs - 1;
  EXPECT_EQ(JudgeHealth(inputs).health, Health::kOk);
  inputs.slow_path_lag_ns = 730 * kMillisecondNs;
  Expect(inputs, "slow_path", Health::kDegraded,
         "its timer came 730 ms late: the machine is short of CPU");
}

TEST(Health, APathThatIsDownDegradesAClient) {
  HealthInputs inputs = WellClient();
  inputs.peers[0].paths[1] = {"lte", false, ""};
  Expect(inputs, "connectivity", Health::kDegraded, "path \"lte\" to \"hub\" is down");
  inputs.peers[0].paths[1].problem = "this machine has no interface \"wwan0\"";
  Expect(inputs, "connectivity", Health::kDegraded,
         "path \"lte\" to \"hub\" is down: this machine has no interface \"wwan0\"");
}

TEST(Health, AClientThatReachesNobodyHasFailed) {
  HealthInputs inputs = WellClient();
  inputs.peers[0].established = false;
  Expect(inputs, "connectivity", Health::kFailed, "no session with \"hub\"");
  inputs.peers[0].paths[0].problem = "there is no route";
  Expect(inputs, "connectivity", Health::kFailed,
         "no session with \"hub\"; path \"fibre\": there is no route");
  // The session is still there, but nothing answers.
  inputs = WellClient();
  for (auto& path : inputs.peers[0].paths) path.up = false;
  Expect(inputs, "connectivity", Health::kFailed, "no answer over any path from \"hub\"");
  inputs.peers[0].paths.clear();
  EXPECT_EQ(JudgeHealth(inputs).health, Health::kFailed);
}

TEST(Health, AClientThatReachesSomeOfItsServersIsDegraded) {
  HealthInputs inputs = WellClient();
  inputs.peers[0].paths[0].up = false;
  inputs.peers.push_back({"spare", false, {{"fibre", false, ""}}});
  Expect(inputs, "connectivity", Health::kDegraded, "no session with \"spare\" (and 1 more)");
  inputs.peers.pop_back();
  Expect(inputs, "connectivity", Health::kDegraded, "path \"fibre\" to \"hub\" is down");
}

TEST(Health, AServerIsWellWhoeverConnects) {
  HealthInputs inputs = WellClient();
  inputs.is_client = false;
  inputs.peers.clear();
  EXPECT_EQ(JudgeHealth(inputs).health, Health::kOk);
}

TEST(Health, AProblemOfTheNetworkAroundTheTunnelDegrades) {
  HealthInputs inputs = WellClient();
  inputs.network_problem = "nftables: Permission denied";
  Expect(inputs, "network", Health::kDegraded, "nftables: Permission denied");
}

TEST(Health, FewFileDescriptorsThatAreLeftDegrade) {
  HealthInputs inputs = WellClient();
  inputs.open_files = 819;
  EXPECT_EQ(JudgeHealth(inputs).health, Health::kOk);
  inputs.open_files = 820;
  Expect(inputs, "resources", Health::kDegraded,
         "820 of 1024 file descriptors are in use: raise the limit (LimitNOFILE=)");
  inputs.open_files = 0;
  Expect(inputs, "resources", Health::kDegraded,
         "no file descriptor of 1024 is left to count them with: raise the limit (LimitNOFILE=)");
}

TEST(Health, APoolThatWasUsedUpLatelyDegrades) {
  HealthInputs inputs = WellClient();
  inputs.used_up = {Drop::bond_full, Drop::no_lane_state};
  Expect(inputs, "resources", Health::kDegraded,
         "a worker's memory was used up, and packets were dropped: bond_full, no_lane_state");
}

TEST(Health, WarningsAreToldAndNothingMore) {
  HealthInputs inputs = WellClient();
  inputs.warnings = {"io_uring may not be used: going on with epoll"};
  Expect(inputs, "configuration", Health::kOk, inputs.warnings[0]);
  inputs.warnings.push_back("another");
  Expect(inputs, "configuration", Health::kOk, inputs.warnings[0] + " (and 1 more)");
}

TEST(Health, TheWorstComponentIsTheWhole) {
  HealthInputs inputs = WellClient();
  inputs.network_problem = "no";
  inputs.workers_silent_ns = {10 * kSecondNs};
  const HealthReport report = JudgeHealth(inputs);
  EXPECT_EQ(report.health, Health::kFailed);
  EXPECT_EQ(Find(report, "network").health, Health::kDegraded);
}

TEST(Health, IsToldAsJson) {
  HealthInputs inputs = WellClient();
  inputs.network_problem = "no";
  EXPECT_EQ(DescribeHealth(JudgeHealth(inputs)).dump(), R"({"status":"degraded","components":{)"
                                                        R"("workers":{"status":"ok"},)"
                                                        R"("slow_path":{"status":"ok"},)"
                                                        R"("connectivity":{"status":"ok"},)"
                                                        R"("network":{"status":"degraded","why":)"
                                                        R"("no"},"resources":{"status":"ok"},)"
                                                        R"("configuration":{"status":"ok"}}})");
}

}  // namespace
}  // namespace braid::health_test
