// Reads and replaces small regular files whole: configurations, keys, what is kept on disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "io/unique_fd.h"
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

// The same, and whose it is.
struct OwnedText {
  std::string text;
  uint32_t owner = 0;
  uint32_t group = 0;
};
[[nodiscard]] absl::StatusOr<OwnedText> ReadOwnedFile(const std::string& path, size_t max_bytes,
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
  // Nothing: of what root writes, that of the folder, so that the service whose folder it is can go
  // on with it; else this process's.
  std::optional<uint32_t> owner = {};
  std::optional<uint32_t> group = {};
  Xattrs xattrs = {};
  // Of the file that is written beside it, and renamed; for who is the only one that replaces it:
  // what a crash has left of such a file is thrown away. Null: a name that nobody else takes.
  const char* temporary_suffix = nullptr;
};
// For a file whose writers keep each other out.
inline constexpr char kOnlyWriterSuffix[] = ".new";

// Puts a file in the place of `path`, in one step: a machine that loses power has
// the old contents or the new ones. When this returns, the new ones are on disk. Its folder must
// exist.
[[nodiscard]] absl::Status ReplaceSmallFile(const std::string& path, const std::string& contents,
                                            const FileAttributes& attributes = {});

// OK also where there is none. On disk when this returns.
[[nodiscard]] absl::Status RemoveSmallFile(const std::string& path);

// All of it, however often the kernel has to be asked. False, with errno.
[[nodiscard]] bool WriteAll(int fd, std::string_view bytes);

enum class LockWait : uint8_t { kNo, kUntilFree };
// Keeps others out of `path` until the result goes, by a file beside it, since `path` itself is
// replaced by each change. AlreadyExists where somebody is in there, and nobody is to wait.
[[nodiscard]] absl::StatusOr<UniqueFd> LockFile(const std::string& path, LockWait wait);
// Whether somebody has it locked, without making anything.
bool IsFileLocked(const std::string& path);

// What was done to the names in the folder of `path` is on disk when this returns.
[[nodiscard]] absl::Status SyncFolderOf(const std::string& path);

}  // namespace braid
