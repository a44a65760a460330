// The token that lets a client of the HTTP API write: a file of one line that belongs to its owner
// alone, read anew when it changes.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "slowpath/small_file.h"

namespace braid {

inline constexpr size_t kMinTokenBytes = 16;
inline constexpr size_t kMaxTokenBytes = 256;
// How often a file that others may replace is looked at.
inline constexpr std::chrono::seconds kLookAtFilesEvery{1};

// The characters are those of RFC 6750. Errors name the file, never what is in it.
[[nodiscard]] absl::StatusOr<std::string> ReadTokenFile(const std::string& path);

class AccessToken {
 public:
  AccessToken() = default;  // that nothing matches
  // Reads the file at once.
  static absl::StatusOr<AccessToken> Load(const std::string& path);

  bool is_set() const { return !path_.empty(); }
  // In constant time. A file that has become unreadable lets nobody in: it may have been taken away
  // for that.
  bool Matches(std::string_view token, std::chrono::steady_clock::time_point now);

 private:
  void LookAtFile(std::chrono::steady_clock::time_point now);

  std::string path_;
  std::string token_;  // empty: nobody is let in
  FileVersion version_;
  std::chrono::steady_clock::time_point next_look_{};
};

}  // namespace braid
