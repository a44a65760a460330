#include "cli/private_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include <filesystem>
#include <utility>

namespace braid {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "braid-bench-";
constexpr char kLockName[] = "lock";
// Between making a folder and locking it another process must not take it for abandoned.
constexpr time_t kSweepOlderThanSeconds = 60;

// The lock is a file's, since the folder's own is for who makes sockets in it.
bool IsAbandoned(const fs::path& folder) {
  const std::string lock = (folder / kLockName).string();
  const UniqueFd fd(open(lock.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  return fd ? flock(fd.get(), LOCK_EX | LOCK_NB) == 0 : errno == ENOENT;
}

void Sweep(const fs::path& parent) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
    if (entry.path().filename().string().rfind(kPrefix, 0) != 0) continue;
    struct stat info;
    if (lstat(entry.path().c_str(), &info) != 0) continue;
    if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid()) continue;
    if (time(nullptr) - info.st_mtime < kSweepOlderThanSeconds) continue;
    if (IsAbandoned(entry.path())) fs::remove_all(entry.path(), error);
  }
}

}  // namespace

absl::StatusOr<PrivateFolder> PrivateFolder::Create() {
  std::error_code error;
  const fs::path parent = fs::temp_directory_path(error);
  if (error) {
    return absl::FailedPreconditionError("there is no temporary folder; set TMPDIR to one");
  }
  Sweep(parent);
  std::string path = (parent / (std::string(kPrefix) + "XXXXXX")).string();
  if (mkdtemp(path.data()) == nullptr) {
    return absl::ErrnoToStatus(errno, "cannot make a folder in " + parent.string());
  }
  UniqueFd lock(
      open((fs::path(path) / kLockName).c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!lock || flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    fs::remove_all(path, error);
    return absl::ErrnoToStatus(reason, "cannot lock the folder " + path);
  }
  return PrivateFolder(std::move(path), std::move(lock));
}

PrivateFolder::PrivateFolder(PrivateFolder&& other) noexcept
    : path_(std::exchange(other.path_, "")), lock_(std::move(other.lock_)) {}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

absl::Status PrivateFolder::Write(const std::string& name, const std::string& text) const {
  const std::string path = Path(name);
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, "cannot write " + path);
}

}  // namespace braid
