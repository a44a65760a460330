// Scenarios by the thousand. BRAID_TEST_SEED=N runs one of them again, and tells it;
// BRAID_TEST_SCENARIOS=N runs so many.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "sim/random_scenario.h"

namespace braid::sim::random_test {
namespace {

constexpr uint64_t kScenarios = 1000;
constexpr uint64_t kParts = 8;
constexpr int kMostFailures = 5;  // of a part

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// Parts, so that they can be done beside each other.
class ManyRandomScenarios : public ::testing::TestWithParam<uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Parts, ManyRandomScenarios, ::testing::Range<uint64_t>(0, kParts));

TEST_P(ManyRandomScenarios, KeepWhatABondPromises) {
  int failures = 0;
  const uint64_t scenarios = FromEnvironment("BRAID_TEST_SCENARIOS", kScenarios);
  for (uint64_t seed = 1 + GetParam(); seed <= scenarios && failures < kMostFailures;
       seed += kParts) {
    const RandomOutcome outcome = RunRandomScenario(seed);
    if (outcome.violations.empty()) continue;
    ++failures;
    ADD_FAILURE() << "BRAID_TEST_SEED=" << seed << " shows:\n" << outcome.violations;
  }
}

TEST(RandomScenarios, OfOneSeedKeepWhatABondPromises) {
  const bool is_asked_for = std::getenv("BRAID_TEST_SEED") != nullptr;
  const RandomOutcome outcome =
      RunRandomScenario(FromEnvironment("BRAID_TEST_SEED", 1), is_asked_for);
  EXPECT_TRUE(outcome.violations.empty()) << outcome.violations;
}

TEST(RandomScenarios, OfOneSeedAreTheSame) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    EXPECT_EQ(RunRandomScenario(seed).digest, RunRandomScenario(seed).digest) << "seed " << seed;
  }
  EXPECT_NE(RunRandomScenario(1).digest, RunRandomScenario(2).digest);
}

}  // namespace
}  // namespace braid::sim::random_test
