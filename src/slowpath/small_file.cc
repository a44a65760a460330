#include "slowpath/small_file.h"

#include <fcntl.h>
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

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

absl::Status CheckFile(int fd, const std::string& path, FilePrivacy privacy) {
  struct stat file;
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
bool GiveAttributes(int fd, const FileAttributes& wanted) {
  struct stat now;
  if (fstat(fd, &now) != 0) return false;
  if ((now.st_mode & 07777) != wanted.mode && fchmod(fd, wanted.mode) != 0) return false;
  const uint32_t owner = wanted.owner.value_or(now.st_uid);
  const uint32_t group = wanted.group.value_or(now.st_gid);
  return (owner == now.st_uid && group == now.st_gid) || fchown(fd, owner, group) == 0;
}

}  // namespace

absl::Status InFile(const std::string& path, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes,
                                          FilePrivacy privacy) {
  // Without O_NONBLOCK the open of a named pipe would wait for a writer.
  const FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd.get() < 0) return absl::ErrnoToStatus(errno, "cannot be opened");
  if (const absl::Status status = CheckFile(fd.get(), path, privacy); !status.ok()) return status;

  std::string contents(max_bytes + 1, '\0');
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
  return contents;
}

FileVersion VersionOf(const std::string& path) {
  struct stat file;
  if (stat(path.c_str(), &file) != 0) return {};
  return {file.st_dev, file.st_ino, static_cast<uint64_t>(file.st_size), ToNs(file.st_mtim),
          ToNs(file.st_ctim)};
}

absl::Status ReplaceSmallFile(const std::string& path, const std::string& contents,
                              const FileAttributes& attributes) {
  const std::string temporary = path + attributes.temporary_suffix;
  const FileDescriptor fd(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return absl::ErrnoToStatus(errno, "cannot be written");
  const bool written =
      GiveAttributes(fd.get(), attributes) && GiveXattrs(temporary, attributes.xattrs) &&
      write(fd.get(), contents.data(), contents.size()) == static_cast<ssize_t>(contents.size()) &&
      fdatasync(fd.get()) == 0;
  if (!written || rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    return absl::ErrnoToStatus(error, "cannot be replaced");
  }
  // The new name is on disk only when its folder is.
  return SyncFolderOf(path);
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const FileDescriptor directory(
      open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || fsync(directory.get()) != 0) {
    return absl::ErrnoToStatus(errno, "cannot be kept");
  }
  return absl::OkStatus();
}

}  // namespace braid
