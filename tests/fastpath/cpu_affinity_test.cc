// The batch's time is the test's own, so that it alone says how busy the thread was.
#include "fastpath/cpu_affinity.h"

#include <gtest/gtest.h>

#include <thread>

namespace braid::cpu_affinity_test {
namespace {

void WorkFor(DurationNs duration_ns) {
  const DurationNs until_ns = ThreadCpuTimeNs() + duration_ns;
  while (ThreadCpuTimeNs() < until_ns) {
  }
}

cpu_set_t Usable() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  return set;
}

int LastUsableCpu() {
  const cpu_set_t usable = Usable();
  int last = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &usable)) last = cpu;
  }
  return last;
}

// In a thread of its own, whose affinity ends with it.
void InThread(void (*body)()) { std::thread(body).join(); }

TEST(CpuAffinity, HoldsABusyThreadAndLetsAnIdleOneGo) {
  InThread([] {
    const cpu_set_t before = Usable();
    const int cpu = LastUsableCpu();
    TimeNs now_ns = 100 * kSecondNs;
    CpuAffinity affinity;
    ASSERT_TRUE(affinity.Start(cpu).ok());
    cpu_set_t pinned = Usable();
    EXPECT_EQ(CPU_COUNT(&pinned), 1);
    EXPECT_TRUE(CPU_ISSET(static_cast<size_t>(cpu), &pinned));

    affinity.OnBatch(now_ns);  // worked next to nothing since the clock began
    EXPECT_FALSE(affinity.pinned());
    cpu_set_t free = Usable();
    EXPECT_TRUE(CPU_EQUAL(&free, &before));

    WorkFor(20 * kMillisecondNs);
    affinity.OnBatch(now_ns += 20 * kMillisecondNs);
    EXPECT_TRUE(affinity.pinned());
    pinned = Usable();
    EXPECT_EQ(CPU_COUNT(&pinned), 1);

    WorkFor(20 * kMillisecondNs);
    affinity.OnBatch(now_ns += 20 * kMillisecondNs);
    EXPECT_TRUE(affinity.pinned());

    affinity.OnBatch(now_ns += kSecondNs);
    EXPECT_FALSE(affinity.pinned());
    free = Usable();
    EXPECT_TRUE(CPU_EQUAL(&free, &before));
  });
}

TEST(CpuAffinity, LooksNotMoreOftenThanItNeeds) {
  InThread([] {
    CpuAffinity affinity;
    ASSERT_TRUE(affinity.Start(LastUsableCpu()).ok());
    TimeNs now_ns = 100 * kSecondNs;
    affinity.OnBatch(now_ns);
    ASSERT_FALSE(affinity.pinned());
    WorkFor(20 * kMillisecondNs);
    affinity.OnBatch(now_ns + CpuAffinity::kLookEveryNs - 1);
    EXPECT_FALSE(affinity.pinned());
    affinity.OnBatch(now_ns + CpuAffinity::kLookEveryNs);
    EXPECT_TRUE(affinity.pinned());
  });
}

TEST(CpuAffinity, LeavesAThreadAloneThatIsNotToBePinned) {
  InThread([] {
    const cpu_set_t before = Usable();
    CpuAffinity affinity;
    ASSERT_TRUE(affinity.Start(-1).ok());
    WorkFor(20 * kMillisecondNs);
    affinity.OnBatch(100 * kSecondNs);
    const cpu_set_t after = Usable();
    EXPECT_TRUE(CPU_EQUAL(&before, &after));
    EXPECT_FALSE(affinity.pinned());
  });
}

TEST(CpuAffinity, ACpuThatIsNotThereIsAnError) {
  InThread([] {
    CpuAffinity affinity;
    const absl::Status status = affinity.Start(CPU_SETSIZE - 1);
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find("performance.pin"), absl::string_view::npos) << status;
  });
}

}  // namespace
}  // namespace braid::cpu_affinity_test
