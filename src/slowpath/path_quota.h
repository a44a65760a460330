// The data quotas of a client's paths: how much each has used since its last reset, when the next
// one is, and what of that is on disk.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/bytes.h"
#include "base/clock.h"

namespace braid {

inline constexpr double kBytesPerGb = 1e9;

struct QuotaConfig {
  uint64_t bytes = 0;  // both ways, as the link sees them
  int reset_day = 1;   // of each month, at local midnight; 29 to 31: at most its last day

  bool operator==(const QuotaConfig&) const = default;
};

// Of one path. Sans I/O. Seconds are of the wall clock, which may be wrong: one from before this
// program was written tells nothing, and one that has just jumped is not believed for a while.
class PathQuota {
 public:
  // What outlives the process.
  struct Kept {
    uint64_t used_bytes = 0;
    int64_t since_s = 0;  // the reset that they are counted from; 0: not known
    int reset_day = 0;    // by which that was

    bool operator==(const Kept&) const = default;
  };

  PathQuota() = default;  // no limit
  explicit PathQuota(const Kept& kept) : kept_(kept) {}

  void SetConfig(const QuotaConfig& config) { config_ = config; }
  void Count(uint64_t bytes) { kept_.used_bytes += bytes; }
  // Now and then; resets it when it is time.
  void Look(int64_t wall_s, TimeNs now_ns);

  bool used_up() const { return config_.bytes != 0 && kept_.used_bytes >= config_.bytes; }
  // Once for each time that it comes near its limit.
  bool TakeWarning();
  // "2026-12-01"; "the clock is set" where that is not known.
  std::string NextReset(int64_t wall_s) const;
  const QuotaConfig& config() const { return config_; }
  const Kept& kept() const { return kept_; }

 private:
  QuotaConfig config_;
  Kept kept_;
  bool warned_ = false;
  // Of the two clocks, when they were last looked at.
  std::optional<int64_t> offset_s_;
  TimeNs steady_since_ns_ = 0;
};

// Of all paths, by name, in one file. A path that has gone keeps what it has used.
class PathQuotas {
 public:
  static constexpr size_t kMaxNames = 64;
  static constexpr size_t kMaxFileBytes = 64 << 10;

  // The file lies in `state_dir` under a name of its own for each public key.
  PathQuotas(const std::string& state_dir, const Key& public_key);

  // Not OK when nothing can be kept there, or what is there cannot be read: that is left as it is,
  // or set aside where it is damaged.
  [[nodiscard]] absl::Status Load();
  // Writes what has changed, when a part of a quota that counts, or some time, is not on disk yet.
  // Not OK the first time that this fails.
  [[nodiscard]] absl::Status SaveIfDue(TimeNs now_ns);
  [[nodiscard]] absl::Status Save();

  PathQuota& Of(const std::string& name, const QuotaConfig& config);
  const PathQuota* Find(const std::string& name) const;

 private:
  void ForgetOldest();

  const std::string state_dir_;
  const std::string path_;
  std::map<std::string, PathQuota> quotas_;
  std::map<std::string, PathQuota::Kept> on_disk_;
  TimeNs saved_ns_ = 0;
  bool told_failure_ = false;
  bool may_save_ = true;  // else there is a file that could not be read
};

// The text of the file, and back. Nothing when it is not of this version, or damaged.
std::optional<std::map<std::string, PathQuota::Kept>> ParseQuotaText(std::string_view text);
std::string RenderQuotaText(const std::map<std::string, PathQuota::Kept>& quotas);

}  // namespace braid
