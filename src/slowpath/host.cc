#include "slowpath/host.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "io/unique_fd.h"
#include "slowpath/host_files.h"
#include "slowpath/nft.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

constexpr size_t kMaxReplacedBytes = 1 << 20;
// Nobody else's: what is left of it is taken away.
constexpr char kTemporarySuffix[] = ".braid-new";
constexpr char kChangedSincePayload[] = "braid/changed-since";

absl::Status WithPath(const std::string& path, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

// A link beside the path takes its place in one step.
absl::Status PutLink(const std::string& path, const std::string& target) {
  const std::string temporary = path + kTemporarySuffix;
  std::error_code error;
  std::filesystem::remove(temporary, error);
  std::filesystem::create_symlink(target, temporary, error);
  if (!error) std::filesystem::rename(temporary, path, error);
  if (!error) return WithPath(path, SyncFolderOf(path));
  return absl::ErrnoToStatus(error.value(), path);
}

// As containers have /etc/resolv.conf: nothing can take its place.
bool IsMountPoint(const std::string& path) {
  struct statx file, folder;
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &file) == 0 &&
         statx(AT_FDCWD, parent.c_str(), 0, STATX_MNT_ID, &folder) == 0 &&
         file.stx_mnt_id != folder.stx_mnt_id;
}

// What can be put in its place neither: an ordinary user may be allowed to write the file, but
// hardly ever to change the folder.
bool IsWrittenInPlace(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return IsMountPoint(path) || access(folder.c_str(), W_OK) != 0;
}

absl::Status WriteInPlace(const std::string& path, const std::string& contents) {
  std::error_code error;
  if (std::filesystem::is_symlink(path, error)) {
    return absl::FailedPreconditionError(
        path + " is a link, and this user may not put a file in its place: make it a file");
  }
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return absl::ErrnoToStatus(errno, path);
  for (size_t done = 0; done < contents.size();) {
    const ssize_t written = write(fd.get(), contents.data() + done, contents.size() - done);
    if (written < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, path);
    if (written > 0) done += static_cast<size_t>(written);
  }
  return fsync(fd.get()) == 0 ? absl::OkStatus() : absl::ErrnoToStatus(errno, path);
}

absl::Status PutFile(const std::string& path, const std::string& contents,
                     FileAttributes attributes) {
  if (IsWrittenInPlace(path)) return WriteInPlace(path, contents);
  attributes.temporary_suffix = kTemporarySuffix;
  return WithPath(path, ReplaceSmallFile(path, contents, attributes));
}

// The file itself, not what a link leads to.
absl::StatusOr<std::string> ReadRegular(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_symlink(path, error)) return absl::NotFoundError("is a symbolic link");
  return ReadSmallFile(path, kMaxReplacedBytes, FilePrivacy::kAny);
}

bool IsOurs(const ReplacedFile& file) {
  const auto now = ReadRegular(file.path);
  if (!now.ok()) return false;
  if (*now == file.ours) return true;
  // What cannot be replaced in one step may have been left half written.
  return IsWrittenInPlace(file.path) &&
         (file.ours.starts_with(*now) || file.before.starts_with(*now));
}

bool IsAsBefore(const ReplacedFile& file) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(file.path, error);
  if (!error) return file.existed && target.string() == file.link_target;
  if (!file.existed) return !std::filesystem::exists(file.path, error);
  if (!file.link_target.empty()) return false;
  const auto now = ReadSmallFile(file.path, kMaxReplacedBytes, FilePrivacy::kAny);
  return now.ok() && *now == file.before;
}

struct Maker {
  absl::Status operator()(const OwnRoute& route) const { return AddRoute(route); }
  absl::Status operator()(const OwnRule& rule) const { return AddRule(rule); }
  absl::Status operator()(const NftTable& table) const { return MakeTable(table); }
  absl::Status operator()(const Sysctl& sysctl) const {
    return HostFiles().Write(sysctl.path, sysctl.ours);
  }
  absl::Status operator()(const ReplacedFile& file) const {
    return PutFile(file.path, file.ours, {.mode = 0644});
  }
};

struct TakerBack {
  absl::Status operator()(const OwnRoute& route) const { return RemoveRoute(route); }
  absl::Status operator()(const OwnRule& rule) const { return RemoveRule(rule); }
  absl::Status operator()(const NftTable& table) const { return RemoveTable(table); }
  absl::Status operator()(const Sysctl& sysctl) const {
    const auto now = HostFiles().Read(sysctl.path);
    // It went with its interface.
    if (absl::IsNotFound(now.status())) return absl::OkStatus();
    if (!now.ok()) return now.status();
    if (*now == sysctl.before) return absl::OkStatus();
    // One whose value was to stay may have been turned by another one.
    const bool kept = sysctl.before == sysctl.ours && *now == "0";
    if (*now != sysctl.ours && !kept) return ChangedSince(sysctl);
    return HostFiles().Write(sysctl.path, sysctl.before);
  }
  absl::Status operator()(const ReplacedFile& file) const {
    unlink((file.path + kTemporarySuffix).c_str());
    if (IsAsBefore(file)) return absl::OkStatus();
    if (!IsOurs(file)) return ChangedSince(file);
    if (!file.link_target.empty()) return PutLink(file.path, file.link_target);
    if (file.existed) {
      return PutFile(file.path, file.before,
                     {.mode = file.mode, .owner = file.owner, .group = file.group});
    }
    if (unlink(file.path.c_str()) != 0 && errno != ENOENT) {
      return absl::ErrnoToStatus(errno, file.path);
    }
    return WithPath(file.path, SyncFolderOf(file.path));
  }
};

struct Finder {
  absl::StatusOr<bool> operator()(const OwnRoute& route) const { return HasRoute(route); }
  absl::StatusOr<bool> operator()(const OwnRule& rule) const { return HasRule(rule); }
  absl::StatusOr<bool> operator()(const NftTable& table) const { return HasTable(table); }
  absl::StatusOr<bool> operator()(const Sysctl& sysctl) const {
    return HostFiles().Read(sysctl.path).value_or("") == sysctl.ours;
  }
  absl::StatusOr<bool> operator()(const ReplacedFile& file) const {
    const auto now = ReadRegular(file.path);
    return now.ok() && *now == file.ours;
  }
};

}  // namespace

absl::Status ChangedSince(const HostChange& change) {
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat(Describe(change), " was changed by somebody else since, and stays as it is"));
  status.SetPayload(kChangedSincePayload, absl::Cord());
  return status;
}

bool IsChangedSince(const absl::Status& status) {
  return status.GetPayload(kChangedSincePayload).has_value();
}

absl::StatusOr<Sysctl> ThisHost::LookAtSysctl(const std::string& path, const std::string& ours) {
  auto now = HostFiles().Read(path);
  if (!now.ok()) return now.status();
  return Sysctl{path, *std::move(now), ours};
}

absl::StatusOr<ReplacedFile> ThisHost::LookAtFile(const std::string& path,
                                                  const std::string& ours) {
  ReplacedFile file{.path = path, .ours = ours};
  struct stat now;
  if (lstat(path.c_str(), &now) != 0) {
    if (errno == ENOENT) return file;
    return absl::ErrnoToStatus(errno, path);
  }
  file.existed = true;
  if (S_ISLNK(now.st_mode)) {
    std::error_code error;
    file.link_target = std::filesystem::read_symlink(path, error).string();
    if (error) return absl::ErrnoToStatus(error.value(), path);
    return file;
  }
  auto before = ReadSmallFile(path, kMaxReplacedBytes, FilePrivacy::kAny);
  if (!before.ok()) return WithPath(path, before.status());
  file.before = *std::move(before);
  file.mode = now.st_mode & 07777;
  file.owner = now.st_uid;
  file.group = now.st_gid;
  return file;
}

absl::Status ThisHost::Make(const HostChange& change) { return std::visit(Maker(), change); }
absl::Status ThisHost::Replace(const NftTable& table) { return ReplaceTable(table); }
absl::Status ThisHost::TakeBack(const HostChange& change) {
  return std::visit(TakerBack(), change);
}
absl::StatusOr<bool> ThisHost::IsThere(const HostChange& change) {
  return std::visit(Finder(), change);
}

}  // namespace braid
