#include "slowpath/restart_policy.h"

#include <gtest/gtest.h>

namespace braid::restart_policy_test {
namespace {

TEST(RestartPolicyTest, WaitsLongerEachTimeAndGivesUp) {
  RestartPolicy policy;
  DurationNs last_ns = 0;
  for (int i = 0; i < RestartPolicy::kMaxRestarts; ++i) {
    const auto delay_ns = policy.OnFailure(0, kSecondNs);
    ASSERT_TRUE(delay_ns);
    EXPECT_GE(*delay_ns, last_ns);
    EXPECT_LE(*delay_ns, RestartPolicy::kMostDelayNs);
    last_ns = *delay_ns;
  }
  EXPECT_EQ(last_ns, RestartPolicy::kMostDelayNs);
  EXPECT_FALSE(policy.OnFailure(0, kSecondNs));
  EXPECT_FALSE(policy.OnFailure(0, kSecondNs)) << "it was given up";
}

TEST(RestartPolicyTest, WhatHasRunWellIsTrustedAnew) {
  RestartPolicy policy;
  for (int i = 0; i < RestartPolicy::kMaxRestarts; ++i) policy.OnFailure(0, kSecondNs);
  const TimeNs now_ns = 10 * kSecondNs + RestartPolicy::kTrustedAfterNs;
  EXPECT_EQ(policy.OnFailure(10 * kSecondNs, now_ns), RestartPolicy::kFirstDelayNs);
}

TEST(RestartPolicyTest, SomebodyWhoWantsItTriedAnewGetsThat) {
  RestartPolicy policy;
  while (policy.OnFailure(0, 1)) {
  }
  policy.Reset();
  EXPECT_EQ(policy.OnFailure(0, 1), RestartPolicy::kFirstDelayNs);
}

}  // namespace
}  // namespace braid::restart_policy_test
