// What a path has used of its quota, month by month, whatever the clock does.
#include "slowpath/path_quota.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <filesystem>

#include "slowpath/small_file.h"

namespace braid::path_quota_test {
namespace {

constexpr uint64_t kGb = 1'000'000'000;
constexpr int64_t kHourS = 3600;
constexpr int64_t kDayS = 24 * kHourS;

int64_t Local(int year, int month, int day, int hour = 0, int minute = 0) {
  tm local{};
  local.tm_year = year - 1900;
  local.tm_mon = month - 1;
  local.tm_mday = day;
  local.tm_hour = hour;
  local.tm_min = minute;
  local.tm_isdst = -1;
  return mktime(&local);
}

// A quota beside its two clocks.
class PathQuotaTest : public ::testing::Test {
 protected:
  PathQuotaTest() { SetZone("Europe/Berlin"); }
  ~PathQuotaTest() override {
    unsetenv("TZ");
    tzset();
  }
  static void SetZone(const char* zone) {
    setenv("TZ", zone, 1);
    tzset();
  }

  void Begin(int64_t wall_s, QuotaConfig config, PathQuota::Kept kept = {}) {
    quota_ = PathQuota(kept);
    quota_.SetConfig(config);
    wall_s_ = wall_s;
    Look();
  }
  void Look() { quota_.Look(wall_s_, now_ns_); }
  // Time passes on both clocks, and is looked at ten times an hour.
  void Pass(int64_t seconds) {
    for (const int64_t end_s = wall_s_ + seconds; wall_s_ < end_s;) {
      const int64_t step_s = std::min<int64_t>(360, end_s - wall_s_);
      wall_s_ += step_s;
      now_ns_ += static_cast<TimeNs>(step_s) * kSecondNs;
      Look();
    }
  }
  // Somebody sets the clock.
  void Set(int64_t wall_s) {
    wall_s_ = wall_s;
    Look();
  }
  uint64_t used() const { return quota_.kept().used_bytes; }

  PathQuota quota_;
  int64_t wall_s_ = 0;
  TimeNs now_ns_ = 1000 * kSecondNs;
};

TEST_F(PathQuotaTest, IsUsedUpAtItsLimitUntilLocalMidnightOfTheResetDay) {
  Begin(Local(2026, 11, 20), {kGb, 1});
  Pass(kHourS);
  quota_.Count(kGb - 1);
  EXPECT_FALSE(quota_.used_up());
  quota_.Count(1);
  EXPECT_TRUE(quota_.used_up());
  EXPECT_EQ(quota_.NextReset(wall_s_), "2026-12-01");
  Pass(Local(2026, 11, 30, 23, 54) - wall_s_);
  EXPECT_TRUE(quota_.used_up());
  Pass(360);
  EXPECT_FALSE(quota_.used_up());
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(quota_.NextReset(wall_s_), "2027-01-01");
}

TEST_F(PathQuotaTest, AResetDayThatAMonthDoesNotHaveIsItsLast) {
  Begin(Local(2028, 1, 31, 1), {kGb, 31});
  Pass(kHourS);
  const std::pair<int, int> kResets[] = {{2, 29}, {3, 31}, {4, 30}, {5, 31}};
  for (const auto& [month, day] : kResets) {
    quota_.Count(5);
    Pass(Local(2028, month, day) - 360 - wall_s_);
    EXPECT_EQ(used(), 5u) << month;
    Pass(720);
    EXPECT_EQ(used(), 0u) << month;
  }
  Begin(Local(2027, 2, 1), {kGb, 29});
  EXPECT_EQ(quota_.NextReset(wall_s_), "2027-02-28");
}

TEST_F(PathQuotaTest, AMonthThatPassedWhileTheMachineWasOffIsOver) {
  Begin(Local(2026, 12, 24), {kGb, 1}, {7, Local(2026, 11, 1), 1});
  EXPECT_EQ(used(), 7u) << "a clock is not believed at once";
  Pass(2 * 60);
  EXPECT_EQ(used(), 0u);
}

TEST_F(PathQuotaTest, AClockAt1970ChangesNothing) {
  const PathQuota::Kept kept = {7, Local(2026, 11, 1), 1};
  Begin(100, {kGb, 1}, kept);
  Pass(40 * kDayS);
  EXPECT_EQ(quota_.kept(), kept);
  EXPECT_EQ(quota_.NextReset(wall_s_), "the clock is set");
  Set(Local(2026, 11, 29));
  Pass(kHourS);
  EXPECT_EQ(quota_.kept(), kept);
}

TEST_F(PathQuotaTest, WhatWasCountedBeforeTheClockWasFirstSetCounts) {
  Begin(100, {kGb, 1});
  quota_.Count(7);
  Set(Local(2026, 11, 29));
  Pass(kHourS);
  EXPECT_EQ(quota_.kept(), (PathQuota::Kept{7, Local(2026, 11, 1), 1}));
}

TEST_F(PathQuotaTest, AClockThatJumpsForthAndBackResetsNothing) {
  Begin(Local(2026, 11, 20), {kGb, 1});
  Pass(kHourS);
  quota_.Count(7);
  Set(Local(2027, 3, 20));
  Pass(30);
  Set(Local(2026, 11, 20, 2));
  Pass(kHourS);
  EXPECT_EQ(quota_.kept(), (PathQuota::Kept{7, Local(2026, 11, 1), 1}));
}

TEST_F(PathQuotaTest, AfterAResetByAWrongClockTheRightOneCountsAgain) {
  Begin(Local(2036, 11, 20), {kGb, 1});
  Pass(kHourS);
  Set(Local(2026, 11, 20));
  quota_.Count(7);
  Pass(kHourS);
  EXPECT_EQ(used(), 7u);
  Pass(Local(2026, 12, 1, 1) - wall_s_);
  EXPECT_EQ(used(), 0u);
}

TEST_F(PathQuotaTest, ACorrectionOverMidnightResetsOnce) {
  Begin(Local(2026, 11, 20), {kGb, 1});
  Pass(Local(2026, 12, 1, 0, 30) - wall_s_);
  quota_.Count(7);
  Set(Local(2026, 11, 30, 23, 30));
  Pass(2 * kHourS);
  EXPECT_EQ(used(), 7u);
}

TEST_F(PathQuotaTest, AnotherTimeZoneIsNoNewMonth) {
  Begin(Local(2026, 12, 1, 12), {kGb, 1});
  Pass(kHourS);
  quota_.Count(7);
  SetZone("America/Los_Angeles");
  Pass(kDayS);
  EXPECT_EQ(used(), 7u);
}

TEST_F(PathQuotaTest, AnotherResetDayForgetsNothing) {
  Begin(Local(2026, 11, 20), {kGb, 15}, {7, Local(2026, 11, 1), 1});
  Pass(kHourS);
  EXPECT_EQ(used(), 7u);
  Pass(Local(2026, 12, 15, 1) - wall_s_);
  EXPECT_EQ(used(), 0u);
}

TEST_F(PathQuotaTest, WarnsOnceAMonthBeforeItIsUsedUp) {
  Begin(Local(2026, 11, 20), {kGb, 1});
  Pass(kHourS);
  quota_.Count(kGb / 10 * 8 - 1);
  EXPECT_FALSE(quota_.TakeWarning());
  quota_.Count(1);
  EXPECT_TRUE(quota_.TakeWarning());
  EXPECT_FALSE(quota_.TakeWarning());
  Pass(Local(2026, 12, 1, 1) - wall_s_);
  EXPECT_FALSE(quota_.TakeWarning());
  quota_.Count(kGb);
  EXPECT_TRUE(quota_.TakeWarning());
}

class PathQuotasTest : public ::testing::Test {
 protected:
  PathQuotasTest() : folder_(::testing::TempDir() + "quotas") {
    std::filesystem::remove_all(folder_);
  }
  ~PathQuotasTest() override { std::filesystem::remove_all(folder_); }

  uint64_t OnDisk() {
    PathQuotas read(folder_, Key{});
    EXPECT_TRUE(read.Load().ok());
    return read.Of("lte", config_).kept().used_bytes;
  }
  std::string File() const { return std::filesystem::directory_iterator(folder_)->path().string(); }

  const std::string folder_;
  const QuotaConfig config_{kGb, 1};
};

TEST_F(PathQuotasTest, LittleIsLostWithoutBeingWrittenOften) {
  PathQuotas quotas(folder_, Key{});
  ASSERT_TRUE(quotas.Load().ok());
  TimeNs now_ns = 1000 * kSecondNs;
  quotas.Of("lte", config_).Count(1000);
  ASSERT_TRUE(quotas.SaveIfDue(now_ns).ok());
  EXPECT_EQ(OnDisk(), 1000u);
  quotas.Of("lte", config_).Count(1000);
  ASSERT_TRUE(quotas.SaveIfDue(now_ns + 29 * kSecondNs).ok());
  EXPECT_EQ(OnDisk(), 1000u);
  ASSERT_TRUE(quotas.SaveIfDue(now_ns += 30 * kSecondNs).ok());
  EXPECT_EQ(OnDisk(), 2000u);
  // A hundredth of the quota is much, but is not written more than once a second either.
  quotas.Of("lte", config_).Count(kGb / 100);
  ASSERT_TRUE(quotas.SaveIfDue(now_ns + kSecondNs / 2).ok());
  EXPECT_EQ(OnDisk(), 2000u);
  ASSERT_TRUE(quotas.SaveIfDue(now_ns + kSecondNs).ok());
  EXPECT_EQ(OnDisk(), 2000 + kGb / 100);
  quotas.Of("lte", config_).Count(1);
  ASSERT_TRUE(quotas.Save().ok());
  EXPECT_EQ(OnDisk(), 2001 + kGb / 100);
}

TEST_F(PathQuotasTest, AFileThatIsDamagedIsTold) {
  PathQuotas quotas(folder_, Key{});
  ASSERT_TRUE(quotas.Load().ok());
  quotas.Of("lte", config_).Count(1000);
  ASSERT_TRUE(quotas.Save().ok());
  const std::string file = File();
  ASSERT_TRUE(ReplaceSmallFile(file, "{}").ok());
  PathQuotas again(folder_, Key{});
  const absl::Status status = again.Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find(".damaged"), absl::string_view::npos) << status;
  EXPECT_EQ(again.Of("lte", config_).kept().used_bytes, 0u);
  // Nothing is lost by it: what is written later does not go over what was there.
  EXPECT_EQ(*ReadSmallFile(file + ".damaged", 100, FilePrivacy::kAny), "{}");
}

TEST_F(PathQuotasTest, AFileThatCannotBeReadStaysAsItIs) {
  PathQuotas quotas(folder_, Key{});
  ASSERT_TRUE(quotas.Load().ok());
  quotas.Of("lte", config_).Count(1000);
  ASSERT_TRUE(quotas.Save().ok());
  const std::string file = File();
  const std::string long_text(PathQuotas::kMaxFileBytes + 1, ' ');
  ASSERT_TRUE(ReplaceSmallFile(file, long_text).ok());
  PathQuotas again(folder_, Key{});
  EXPECT_FALSE(again.Load().ok());
  again.Of("lte", config_).Count(1);
  EXPECT_TRUE(again.Save().ok());
  EXPECT_EQ(std::filesystem::file_size(file), long_text.size());
}

TEST_F(PathQuotasTest, AFolderThatCannotBeWrittenIsToldOnce) {
  PathQuotas quotas("/proc/nothing", Key{});
  ASSERT_TRUE(quotas.Load().ok());
  quotas.Of("lte", config_).Count(1000);
  EXPECT_FALSE(quotas.Save().ok());
  EXPECT_TRUE(quotas.Save().ok());
}

TEST_F(PathQuotasTest, NoMoreNamesAreKeptThanThereMayBe) {
  PathQuotas quotas(folder_, Key{});
  ASSERT_TRUE(quotas.Load().ok());
  for (size_t i = 0; i < PathQuotas::kMaxNames + 5; ++i) {
    quotas.Of("path" + std::to_string(i), config_).Count(1);
  }
  ASSERT_TRUE(quotas.Save().ok());
  PathQuotas again(folder_, Key{});
  EXPECT_TRUE(again.Load().ok());
}

TEST(QuotaText, IsReadAsItWasWritten) {
  const std::map<std::string, PathQuota::Kept> quotas = {{"lte", {UINT64_MAX, 1'700'000'000, 31}},
                                                         {"a \"b\"", {0, 0, 1}}};
  EXPECT_EQ(ParseQuotaText(RenderQuotaText(quotas)), quotas);
  for (const char* text :
       {"", "[]", "{}", R"({"version": 2, "paths": {}})", R"({"version": 1, "paths": []})",
        R"({"version": 1, "paths": {"a": 7}})", R"({"version": 1, "paths": {"a": {}}})",
        R"({"version": 1, "paths": {"a": {"used_bytes": -1, "since_s": 1, "reset_day": 1}}})"}) {
    EXPECT_EQ(ParseQuotaText(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace braid::path_quota_test
