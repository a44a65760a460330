#include "slowpath/process_usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "io/unique_fd.h"
#include "support/host_tree.h"

namespace braid::process_usage_test {
namespace {

TEST(ProcessUsage, IsReadWhereTheKernelTellsItWhateverTheProcessIsCalled) {
  const auto ticks_per_s = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  testing::HostTree host;
  host.Put("/proc/self/stat",
           "7 (a) b 1 (c) S 1 7 7 0 -1 4194560 100 0 0 0 " + std::to_string(3 * ticks_per_s) + " " +
               std::to_string(2 * ticks_per_s) + " 0 0 20 0 4 0 " +
               std::to_string(50 * ticks_per_s) + " 123456789 1000 18446744073709551615 1 1");
  host.Put("/proc/stat", "cpu  1 2 3 4\nctxt 5\nbtime 1700000000\nprocesses 9");
  for (const char* fd : {"0", "1", "17"}) host.Put(std::string("/proc/self/fd/") + fd, "");
  const ProcessUsage usage = UsageOfThisProcess(host.files());
  EXPECT_EQ(usage.cpu_ns, 5 * kSecondNs);
  EXPECT_EQ(usage.virtual_bytes, 123'456'789u);
  EXPECT_EQ(usage.resident_bytes, 1000u * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
  EXPECT_DOUBLE_EQ(usage.started_s, 1'700'000'050);
  EXPECT_EQ(usage.open_files, 3u);
}

TEST(ProcessUsage, OfThisProcessMovesWithWhatItDoes) {
  const ProcessUsage before = UsageOfThisProcess();
  EXPECT_GT(before.resident_bytes, 1u << 20);
  EXPECT_GE(before.virtual_bytes, before.resident_bytes);
  EXPECT_GT(before.open_files, 2u);
  EXPECT_GE(before.most_files, before.open_files);
  const double now_s = static_cast<double>(WallNowNs()) / kSecondNs;
  EXPECT_LT(before.started_s, now_s + 2);
  EXPECT_GT(before.started_s, now_s - 24 * 3600);

  std::vector<UniqueFd> more;
  for (int i = 0; i < 10; ++i) more.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  while (ReadClockNs(CLOCK_PROCESS_CPUTIME_ID) < before.cpu_ns + 100 * kMillisecondNs) {
  }
  const ProcessUsage after = UsageOfThisProcess();
  EXPECT_EQ(after.open_files, before.open_files + 10);
  EXPECT_GT(after.cpu_ns, before.cpu_ns);
}

TEST(ProcessUsage, WhatCannotBeReadIsNothing) {
  testing::HostTree host;
  const ProcessUsage usage = UsageOfThisProcess(host.files());
  EXPECT_EQ(usage.resident_bytes, 0u);
  EXPECT_EQ(usage.started_s, 0);
  EXPECT_EQ(usage.open_files, 0u);
  host.Put("/proc/self/stat", "7 (braid) S 1");
  EXPECT_EQ(UsageOfThisProcess(host.files()).cpu_ns, 0u);
}

}  // namespace
}  // namespace braid::process_usage_test
