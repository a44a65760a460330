#include "cli/new_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "io/unique_fd.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kFolderMode = 0700;

absl::Status Failed(const std::string& path, const char* what) {
  const int error = errno;
  return absl::ErrnoToStatus(error, path + ": " + what);
}

// The owner first: to give a file away takes bits of its mode.
bool GiveTo(int fd, const NewFile& file) {
  constexpr uid_t kAsItIs = static_cast<uid_t>(-1);
  const uid_t owner = file.owner.value_or(kAsItIs);
  const gid_t group = file.group.value_or(kAsItIs);
  if ((file.owner || file.group) && fchown(fd, owner, group) != 0) return false;
  return fchmod(fd, file.mode) == 0;
}

}  // namespace

NewFiles::NewFiles(NewFiles&& other) noexcept : made_(std::exchange(other.made_, {})) {}

NewFiles::~NewFiles() {
  for (auto path = made_.rbegin(); path != made_.rend(); ++path) {
    std::error_code error;
    fs::remove(*path, error);  // a folder that somebody has put something into stays
  }
}

absl::StatusOr<NewFiles> NewFiles::Create(const std::vector<NewFile>& files) {
  NewFiles made;
  for (const NewFile& file : files) {
    if (absl::Status status = made.MakeFolders(file.path); !status.ok()) return status;
    if (absl::Status status = made.Make(file); !status.ok()) return status;
  }
  return made;
}

absl::Status NewFiles::MakeFolders(const std::string& path) {
  fs::path folder;
  for (const fs::path& part : fs::path(path).parent_path()) {
    folder /= part;
    if (mkdir(folder.c_str(), kFolderMode) == 0) {
      made_.push_back(folder.string());
    } else if (std::error_code error; !fs::is_directory(folder, error)) {
      if (errno == EEXIST) errno = ENOTDIR;
      return Failed(folder.string(), "cannot be made");
    }
  }
  return absl::OkStatus();
}

// A rename replaces nothing under this flag, so that two that do this at once cannot either.
absl::Status NewFiles::Make(const NewFile& file) {
  std::string unnamed = file.path + ".XXXXXX";
  const UniqueFd fd(mkostemp(unnamed.data(), O_CLOEXEC));
  if (!fd) return Failed(file.path, "cannot be made");
  absl::Cleanup remove = [&] { unlink(unnamed.c_str()); };
  if (!WriteAll(fd.get(), file.contents) || fsync(fd.get()) != 0 || !GiveTo(fd.get(), file)) {
    return Failed(file.path, "cannot be written");
  }
  if (renameat2(AT_FDCWD, unnamed.c_str(), AT_FDCWD, file.path.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) {
      return absl::AlreadyExistsError(file.path + ": exists already; nothing was written");
    }
    return Failed(file.path, "cannot be made");
  }
  std::move(remove).Cancel();
  made_.push_back(file.path);
  if (absl::Status status = SyncFolderOf(file.path); !status.ok()) {
    return absl::Status(status.code(), file.path + ": " + std::string(status.message()));
  }
  return absl::OkStatus();
}

}  // namespace braid
