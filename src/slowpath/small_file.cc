#include "slowpath/small_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"

namespace braid {
namespace {

constexpr char kLockSuffix[] = ".lock";

std::string FolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

absl::Status CheckFile(int fd, const std::string& path, FilePrivacy privacy, struct stat& file) {
  if (fstat(fd, &file) != 0) return absl::ErrnoToStatus(errno, "cannot be examined");
  if (!S_ISREG(file.st_mode)) return absl::InvalidArgumentError("is not a regular file");
  if (privacy == FilePrivacy::kOwnerOnly && (file.st_mode & 0077) != 0) {
    return absl::PermissionDeniedError(
        absl::StrFormat("has mode %04o, which lets more than its owner in; run: chmod 600 %s",
                        file.st_mode & 07777, path));
  }
  return absl::OkStatus();
}

// Asks for nothing that is so already: hardened units refuse the call.
bool GiveOwner(int fd, const struct stat& now, uint32_t owner, uint32_t group) {
  return (owner == now.st_uid && group == now.st_gid) || fchown(fd, owner, group) == 0;
}

// Root may write beside a service that runs as another user. Where it may not give files away,
// they stay its own.
void TakeAfterFolder(int fd, const std::string& path) {
  struct stat now, folder;
  if (geteuid() != 0 || fstat(fd, &now) != 0 || stat(FolderOf(path).c_str(), &folder) != 0) return;
  (void)GiveOwner(fd, now, folder.st_uid, folder.st_gid);
}

bool GiveAttributes(int fd, const std::string& path, const FileAttributes& wanted) {
  if (!wanted.owner && !wanted.group) TakeAfterFolder(fd, path);
  struct stat now;
  if (fstat(fd, &now) != 0) return false;
  if ((now.st_mode & 07777) != wanted.mode && fchmod(fd, wanted.mode) != 0) return false;
  return GiveOwner(fd, now, wanted.owner.value_or(now.st_uid), wanted.group.value_or(now.st_gid));
}

// Nobody else has this file open, or has laid it there.
UniqueFd OpenTemporary(std::string& name, const char* suffix) {
  if (suffix == nullptr) {
    name += ".new.XXXXXX";
    return UniqueFd(mkostemp(name.data(), O_CLOEXEC));
  }
  name += suffix;
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  UniqueFd fd(open(name.c_str(), kFlags, 0600));
  if (fd || errno != EEXIST || unlink(name.c_str()) != 0) return fd;
  return UniqueFd(open(name.c_str(), kFlags, 0600));
}

int FlockUninterrupted(int fd, int operation) {
  int result = 0;
  do {
    result = flock(fd, operation);
  } while (result != 0 && errno == EINTR);
  return result;
}

}  // namespace

absl::Status InFile(const std::string& path, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes,
                                          FilePrivacy privacy) {
  auto file = ReadOwnedFile(path, max_bytes, privacy);
  if (!file.ok()) return file.status();
  return std::move(file->text);
}

absl::StatusOr<OwnedText> ReadOwnedFile(const std::string& path, size_t max_bytes,
                                        FilePrivacy privacy) {
  // Without O_NONBLOCK the open of a named pipe would wait for a writer.
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return absl::ErrnoToStatus(errno, "cannot be opened");
  struct stat file;
  const absl::Status status = CheckFile(fd.get(), path, privacy, file);
  if (!status.ok()) return status;

  OwnedText read_text{std::string(max_bytes + 1, '\0'), file.st_uid, file.st_gid};
  std::string& contents = read_text.text;
  size_t used = 0;
  while (used < contents.size()) {
    const ssize_t got = read(fd.get(), contents.data() + used, contents.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, "cannot be read");
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  if (used > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("is larger than ", max_bytes, " bytes"));
  }
  contents.resize(used);
  return read_text;
}

FileVersion VersionOf(const std::string& path) {
  struct stat file;
  if (stat(path.c_str(), &file) != 0) return {};
  return {file.st_dev, file.st_ino, static_cast<uint64_t>(file.st_size), ToNs(file.st_mtim),
          ToNs(file.st_ctim)};
}

absl::Status ReplaceSmallFile(const std::string& path, const std::string& contents,
                              const FileAttributes& attributes) {
  std::string temporary = path;
  const UniqueFd fd = OpenTemporary(temporary, attributes.temporary_suffix);
  if (!fd) return absl::ErrnoToStatus(errno, "cannot be written");
  const bool written = GiveAttributes(fd.get(), path, attributes) &&
                       GiveXattrs(temporary, attributes.xattrs) && WriteAll(fd.get(), contents) &&
                       fdatasync(fd.get()) == 0;
  if (!written || rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    return absl::ErrnoToStatus(error, "cannot be replaced");
  }
  // The new name is on disk only when its folder is.
  return SyncFolderOf(path);
}

absl::Status RemoveSmallFile(const std::string& path) {
  if (unlink(path.c_str()) == 0) return SyncFolderOf(path);
  return errno == ENOENT ? absl::OkStatus() : absl::ErrnoToStatus(errno, "cannot be removed");
}

bool WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written == 0) errno = ENOSPC;  // the kernel sets none
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// Given to the folder's owner only when it was made here: one that was there may be anything.
absl::StatusOr<UniqueFd> LockFile(const std::string& path, LockWait wait) {
  const std::string name = path + kLockSuffix;
  UniqueFd lock(open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock) {
    TakeAfterFolder(lock.get(), name);
  } else if (errno == EEXIST) {
    lock = UniqueFd(open(name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  }
  if (!lock) return absl::ErrnoToStatus(errno, name);
  const int unless_free = wait == LockWait::kNo ? LOCK_NB : 0;
  if (FlockUninterrupted(lock.get(), LOCK_EX | unless_free) == 0) return lock;
  if (errno == EWOULDBLOCK) return absl::AlreadyExistsError(path + ": somebody else has it open");
  return absl::ErrnoToStatus(errno, name);
}

bool IsFileLocked(const std::string& path) {
  const UniqueFd lock(
      open((path + kLockSuffix).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  return lock && FlockUninterrupted(lock.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

absl::Status SyncFolderOf(const std::string& path) {
  const UniqueFd directory(open(FolderOf(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) != 0) {
    return absl::ErrnoToStatus(errno, "cannot be kept");
  }
  return absl::OkStatus();
}

}  // namespace braid
