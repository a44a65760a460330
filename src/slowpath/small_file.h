// Reads and replaces small regular files whole: configurations, keys, what is kept on disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "slowpath/xattrs.h"

namespace braid {

enum class FilePrivacy : uint8_t {
  kAny,
  kOwnerOnly,  // refused when its mode lets group or others in
};

// The texts of the errors do not repeat `path`; the caller knows how to name the file. The bytes
// are read into one buffer that never moves, so a caller who wipes the result has wiped all.
[[nodiscard]] absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes,
                                                        FilePrivacy privacy);

// Such an error with the file's name in front of it; OK stays OK.
absl::Status InFile(const std::string& path, const absl::Status& status);

// Tells whether a file is still the one that it was, without reading it. All zeros: there is none.
struct FileVersion {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t bytes = 0;
  uint64_t modified_ns = 0;
  uint64_t changed_ns = 0;  // mode and owner, too

  bool operator==(const FileVersion&) const = default;
};
FileVersion VersionOf(const std::string& path);

struct FileAttributes {
  uint32_t mode = 0600;
  std::optional<uint32_t> owner = {};  // nothing: this process's
  std::optional<uint32_t> group = {};
  Xattrs xattrs = {};
  const char* temporary_suffix = ".new";  // of the file that is written beside it, and renamed
};

// Puts a file in the place of `path`, in one step: a machine that loses power has
// the old contents or the new ones. When this returns, the new ones are on disk. Its folder must
// exist.
[[nodiscard]] absl::Status ReplaceSmallFile(const std::string& path, const std::string& contents,
                                            const FileAttributes& attributes = {});

// What was done to the names in the folder of `path` is on disk when this returns.
[[nodiscard]] absl::Status SyncFolderOf(const std::string& path);

}  // namespace braid
