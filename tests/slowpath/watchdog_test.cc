#include "slowpath/watchdog.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

namespace braid::watchdog_test {
namespace {

constexpr TimeNs kNowNs = 1000 * kSecondNs;

TEST(Watchdog, IsDueAtOnceAndThenAfterHalfOfItsTimeout) {
  Watchdog watchdog(10'000'000);
  EXPECT_TRUE(watchdog.IsDue(true, kNowNs));
  EXPECT_FALSE(watchdog.IsDue(true, kNowNs));
  EXPECT_FALSE(watchdog.IsDue(true, kNowNs + 5 * kSecondNs - 1));
  EXPECT_TRUE(watchdog.IsDue(true, kNowNs + 5 * kSecondNs));
  EXPECT_FALSE(watchdog.IsDue(true, kNowNs + 6 * kSecondNs));
}

TEST(Watchdog, IsNotDueWhileAWorkerIsNotAliveAndThenAtOnce) {
  Watchdog watchdog(10'000'000);
  EXPECT_TRUE(watchdog.IsDue(true, kNowNs));
  for (int second = 5; second < 20; ++second) {
    EXPECT_FALSE(watchdog.IsDue(false, kNowNs + static_cast<uint64_t>(second) * kSecondNs));
  }
  EXPECT_TRUE(watchdog.IsDue(true, kNowNs + 20 * kSecondNs));
  EXPECT_FALSE(watchdog.IsDue(true, kNowNs + 24 * kSecondNs));
}

TEST(Watchdog, IsNeverDueWhereNobodyWatches) {
  Watchdog watchdog(0);
  EXPECT_FALSE(watchdog.IsDue(true, kNowNs));
  EXPECT_FALSE(watchdog.IsDue(true, kNever));
}

TEST(Watchdog, TakesTheTimeoutFromTheEnvironmentUnlessItIsMeantForAnotherProcess) {
  const auto is_due = [](const char* timeout_us, const std::string& pid) {
    setenv("WATCHDOG_USEC", timeout_us, 1);
    setenv("WATCHDOG_PID", pid.c_str(), 1);
    Watchdog watchdog = Watchdog::OfThisProcess();
    const bool due = watchdog.IsDue(true, kNowNs) && watchdog.IsDue(true, kNowNs + kSecondNs);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return due;
  };
  EXPECT_TRUE(is_due("2000000", std::to_string(getpid())));
  EXPECT_FALSE(is_due("2000000", std::to_string(getppid())));
  EXPECT_FALSE(is_due("soon", std::to_string(getpid())));
  EXPECT_FALSE(Watchdog::OfThisProcess().IsDue(true, kNowNs)) << "nobody has said anything";
}

}  // namespace
}  // namespace braid::watchdog_test
