// Reads and replaces small regular files whole: configurations, keys, what is kept on disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace braid {

enum class FilePrivacy : uint8_t {
  kAny,
  kOwnerOnly,  // refused when its mode lets group or others in
};

// The texts of the errors do not repeat `path`; the caller knows how to name the file. The bytes
// are read into one buffer that never moves, so a caller who wipes the result has wiped all.
[[nodiscard]] absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes,
                                                        FilePrivacy privacy);

// Puts a file with mode 0600 in the place of `path`, in one step: a machine that loses power has
// the old contents or the new ones. When this returns, the new ones are on disk. Its folder must
// exist.
[[nodiscard]] absl::Status ReplaceSmallFile(const std::string& path, const std::string& contents);

}  // namespace braid
