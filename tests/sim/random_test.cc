// Scenarios by the thousand. BRAID_TEST_SEED=N runs one of them again, and tells it;
// BRAID_TEST_SCENARIOS=N runs so many.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "sim/random_scenario.h"

namespace braid::sim::random_test {
namespace {

constexpr uint64_t kScenarios = 2000;
constexpr int kMostFailures = 5;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

TEST(RandomScenarios, KeepWhatABondPromises) {
  if (std::getenv("BRAID_TEST_SEED") != nullptr) {
    const RandomOutcome outcome = RunRandomScenario(FromEnvironment("BRAID_TEST_SEED", 1), true);
    EXPECT_TRUE(outcome.violations.empty()) << outcome.violations;
    return;
  }
  int failures = 0;
  const uint64_t scenarios = FromEnvironment("BRAID_TEST_SCENARIOS", kScenarios);
  for (uint64_t seed = 1; seed <= scenarios && failures < kMostFailures; ++seed) {
    const RandomOutcome outcome = RunRandomScenario(seed);
    if (outcome.violations.empty()) continue;
    ++failures;
    ADD_FAILURE() << "BRAID_TEST_SEED=" << seed << " shows:\n" << outcome.violations;
  }
}

TEST(RandomScenarios, OfOneSeedAreTheSame) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    EXPECT_EQ(RunRandomScenario(seed).digest, RunRandomScenario(seed).digest) << "seed " << seed;
  }
  EXPECT_NE(RunRandomScenario(1).digest, RunRandomScenario(2).digest);
}

}  // namespace
}  // namespace braid::sim::random_test
