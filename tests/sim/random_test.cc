// Scenarios by the thousand. BRAID_TEST_SEED=N runs one of them again, and tells it;
// BRAID_TEST_SCENARIOS=N runs so many.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "sim/random_scenario.h"

namespace braid::sim::random_test {
namespace {

constexpr uint64_t kScenarios = 2000;
constexpr uint64_t kParts = 8;
constexpr int kMostFailures = 5;  // of a part

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// Parts, so that they can be done beside each other.
class RandomScenarios : public ::testing::TestWithParam<uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Parts, RandomScenarios, ::testing::Range<uint64_t>(0, kParts));

TEST_P(RandomScenarios, KeepWhatABondPromises) {
  if (const uint64_t seed = FromEnvironment("BRAID_TEST_SEED", 0); seed != 0) {
    if ((seed - 1) % kParts != GetParam()) return;  // another part's
    const RandomOutcome outcome = RunRandomScenario(seed, true);
    EXPECT_TRUE(outcome.violations.empty()) << outcome.violations;
    return;
  }
  int failures = 0;
  const uint64_t scenarios = FromEnvironment("BRAID_TEST_SCENARIOS", kScenarios);
  for (uint64_t seed = 1 + GetParam(); seed <= scenarios && failures < kMostFailures;
       seed += kParts) {
    const RandomOutcome outcome = RunRandomScenario(seed);
    EXPECT_TRUE(outcome.violations.empty()) << "BRAID_TEST_SEED=" << seed << " shows:\n"
                                            << outcome.violations;
    if (!outcome.violations.empty()) ++failures;
  }
}

TEST(RandomScenario, OfOneSeedIsTheSame) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    EXPECT_EQ(RunRandomScenario(seed).digest, RunRandomScenario(seed).digest) << "seed " << seed;
  }
  EXPECT_NE(RunRandomScenario(1).digest, RunRandomScenario(2).digest);
}

}  // namespace
}  // namespace braid::sim::random_test
