#include "slowpath/path_quota.h"

#include <sodium.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "slowpath/damaged_file.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kQuotaFileVersion = 1;

constexpr int64_t kDayS = 86'400;
// A clock that shows less was never set: 2024-01-01.
constexpr int64_t kEarliestS = 1'704'067'200;
constexpr int64_t kJumpS = 5;
constexpr DurationNs kSettleNs = 60 * kSecondNs;
// Resets are 28 days apart at least; what is nearer is the same one, in another time zone.
constexpr int64_t kSameResetS = 2 * kDayS;
constexpr uint64_t kWarnPercent = 80;

constexpr DurationNs kSaveEveryNs = 30 * kSecondNs;
constexpr DurationNs kSaveSoonestNs = kSecondNs;
constexpr uint64_t kPartsThatCount = 100;  // of a quota

int DaysIn(int year, int month) {
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return month == 1 && leap ? 29 : kDays[month];
}

// Local midnight of that day, or of the month's last. `month` counts from 0, and may be -1 or 12.
int64_t ResetIn(int year, int month, int day) {
  if (month < 0) return ResetIn(year - 1, month + 12, day);
  if (month > 11) return ResetIn(year + 1, month - 12, day);
  tm local{};
  local.tm_year = year - 1900;
  local.tm_mon = month;
  local.tm_mday = std::min(day, DaysIn(year, month));
  local.tm_isdst = -1;
  return mktime(&local);
}

tm LocalTime(int64_t wall_s) {
  const time_t time = wall_s;
  tm local{};
  localtime_r(&time, &local);
  return local;
}

// The last reset that is not after `wall_s`, and the one after that.
int64_t ResetBefore(int64_t wall_s, int day) {
  const tm now = LocalTime(wall_s);
  const int64_t this_month_s = ResetIn(now.tm_year + 1900, now.tm_mon, day);
  if (this_month_s <= wall_s) return this_month_s;
  return ResetIn(now.tm_year + 1900, now.tm_mon - 1, day);
}

int64_t ResetAfter(int64_t wall_s, int day) {
  const tm now = LocalTime(wall_s);
  const int64_t this_month_s = ResetIn(now.tm_year + 1900, now.tm_mon, day);
  if (this_month_s > wall_s) return this_month_s;
  return ResetIn(now.tm_year + 1900, now.tm_mon + 1, day);
}

std::string FileName(const std::string& state_dir, const Key& public_key) {
  char name[17];
  sodium_bin2hex(name, sizeof(name), public_key.data(), 8);
  return state_dir + "/path-quotas-" + name;
}

}  // namespace

void PathQuota::Look(int64_t wall_s, TimeNs now_ns) {
  const int64_t offset_s = wall_s - static_cast<int64_t>(now_ns / kSecondNs);
  if (!offset_s_ || std::abs(offset_s - *offset_s_) > kJumpS) steady_since_ns_ = now_ns;
  offset_s_ = offset_s;
  if (wall_s < kEarliestS || now_ns < steady_since_ns_ + kSettleNs) return;
  const int64_t since_s = ResetBefore(wall_s, config_.reset_day);
  // What was counted by another day, or by a clock that was wrong, counts for this month: rather
  // too much than too little.
  const bool by_another_count = kept_.since_s == 0 || kept_.reset_day != config_.reset_day ||
                                kept_.since_s > wall_s + kSameResetS;
  if (!by_another_count && since_s <= kept_.since_s + kSameResetS) return;
  if (!by_another_count) {
    kept_.used_bytes = 0;
    warned_ = false;
  }
  kept_.since_s = since_s;
  kept_.reset_day = config_.reset_day;
}

bool PathQuota::TakeWarning() {
  if (warned_ || config_.bytes == 0) return false;
  warned_ = kept_.used_bytes >= config_.bytes / 100 * kWarnPercent;
  return warned_;
}

std::string PathQuota::NextReset(int64_t wall_s) const {
  if (wall_s < kEarliestS) return "the clock is set";
  const tm local = LocalTime(ResetAfter(wall_s, config_.reset_day));
  return absl::StrFormat("%04d-%02d-%02d", local.tm_year + 1900, local.tm_mon + 1, local.tm_mday);
}

PathQuotas::PathQuotas(const std::string& state_dir, const Key& public_key)
    : state_dir_(state_dir), path_(FileName(state_dir, public_key)) {}

absl::Status PathQuotas::Load() {
  std::error_code error;
  std::filesystem::create_directories(state_dir_, error);
  const auto text = ReadSmallFile(path_, kMaxFileBytes, FilePrivacy::kAny);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  // What cannot be read now stays for a time when it can.
  may_save_ = text.ok();
  const auto quotas = text.ok() ? ParseQuotaText(*text) : std::nullopt;
  if (!quotas) {
    const std::string why =
        text.ok() ? SetAsideDamaged(path_) : std::string(text.status().message());
    return absl::DataLossError("security.state_dir: \"" + path_ + "\" " + why +
                               "; the quotas of the paths are counted from 0" +
                               (may_save_ ? "" : ", and what they use is not kept"));
  }
  on_disk_ = *quotas;
  for (const auto& [name, kept] : *quotas) quotas_.emplace(name, PathQuota(kept));
  return absl::OkStatus();
}

absl::Status PathQuotas::SaveIfDue(TimeNs now_ns) {
  bool changed = false;
  bool counts = false;
  for (const auto& [name, quota] : quotas_) {
    const PathQuota::Kept& before = on_disk_[name];
    const PathQuota::Kept& kept = quota.kept();
    changed |= !(kept == before);
    counts |= kept.since_s != before.since_s || kept.used_bytes < before.used_bytes ||
              kept.used_bytes - before.used_bytes >= quota.config().bytes / kPartsThatCount;
  }
  if (!changed || now_ns < saved_ns_ + (counts ? kSaveSoonestNs : kSaveEveryNs)) {
    return absl::OkStatus();
  }
  saved_ns_ = now_ns;
  return Save();
}

absl::Status PathQuotas::Save() {
  if (!may_save_) return absl::OkStatus();
  std::map<std::string, PathQuota::Kept> kept;
  for (const auto& [name, quota] : quotas_) kept.emplace(name, quota.kept());
  if (kept == on_disk_) return absl::OkStatus();
  const absl::Status status = ReplaceSmallFile(path_, RenderQuotaText(kept));
  if (status.ok()) on_disk_ = std::move(kept);
  if (status.ok() || std::exchange(told_failure_, true)) return absl::OkStatus();
  return absl::Status(status.code(), "security.state_dir: \"" + path_ + "\" " +
                                         std::string(status.message()) +
                                         "; what paths use of their quotas is lost at the end");
}

PathQuota& PathQuotas::Of(const std::string& name, const QuotaConfig& config) {
  if (!quotas_.contains(name) && quotas_.size() == kMaxNames) ForgetOldest();
  PathQuota& quota = quotas_[name];
  quota.SetConfig(config);
  return quota;
}

const PathQuota* PathQuotas::Find(const std::string& name) const {
  const auto found = quotas_.find(name);
  return found == quotas_.end() ? nullptr : &found->second;
}

void PathQuotas::ForgetOldest() {
  const auto oldest = std::min_element(quotas_.begin(), quotas_.end(), [](auto& a, auto& b) {
    return a.second.kept().since_s < b.second.kept().since_s;
  });
  on_disk_.erase(oldest->first);
  quotas_.erase(oldest);
}

std::optional<std::map<std::string, PathQuota::Kept>> ParseQuotaText(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("version", Json()) != kQuotaFileVersion) return std::nullopt;
  const auto paths = json.find("paths");
  if (paths == json.end() || !paths->is_object()) return std::nullopt;
  std::map<std::string, PathQuota::Kept> quotas;
  for (const auto& [name, path] : paths->items()) {
    if (!path.is_object()) return std::nullopt;
    const Json used = path.value("used_bytes", Json());
    const Json since = path.value("since_s", Json());
    const Json day = path.value("reset_day", Json());
    if (!used.is_number_unsigned() || !since.is_number_integer() || !day.is_number_integer()) {
      return std::nullopt;
    }
    quotas[name] = {used.get<uint64_t>(), since.get<int64_t>(), day.get<int>()};
    if (quotas.size() > PathQuotas::kMaxNames) return std::nullopt;
  }
  return quotas;
}

std::string RenderQuotaText(const std::map<std::string, PathQuota::Kept>& quotas) {
  Json json = {{"version", kQuotaFileVersion}, {"paths", Json::object()}};
  for (const auto& [name, kept] : quotas) {
    json["paths"][name] = {
        {"used_bytes", kept.used_bytes}, {"since_s", kept.since_s}, {"reset_day", kept.reset_day}};
  }
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace braid
