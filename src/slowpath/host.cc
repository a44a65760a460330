#include "slowpath/host.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
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

// A link beside the path takes its place in one step.
absl::Status PutLink(const ReplacedFile& file) {
  const std::string temporary = file.path + kTemporarySuffix;
  unlink(temporary.c_str());
  struct stat now;
  const bool put = symlink(file.link_target.c_str(), temporary.c_str()) == 0 &&
                   lstat(temporary.c_str(), &now) == 0 &&
                   ((now.st_uid == file.owner && now.st_gid == file.group) ||
                    lchown(temporary.c_str(), file.owner, file.group) == 0) &&
                   GiveXattrs(temporary, file.xattrs) &&
                   rename(temporary.c_str(), file.path.c_str()) == 0;
  if (put) return InFile(file.path, SyncFolderOf(file.path));
  return absl::ErrnoToStatus(errno, file.path);
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
  return IsMountPoint(path) || faccessat(AT_FDCWD, folder.c_str(), W_OK, AT_EACCESS) != 0;
}

absl::Status WriteInPlace(const std::string& path, const std::string& contents) {
  std::error_code error;
  if (std::filesystem::is_symlink(path, error)) {
    return absl::FailedPreconditionError(
        path + " is a link, and this user may not put a file in its place: make it a file");
  }
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return absl::ErrnoToStatus(errno, path);
  const bool written = WriteAll(fd.get(), contents) && fsync(fd.get()) == 0;
  return written ? absl::OkStatus() : absl::ErrnoToStatus(errno, path);
}

absl::Status PutFile(const std::string& path, const std::string& contents,
                     FileAttributes attributes) {
  if (IsWrittenInPlace(path)) return WriteInPlace(path, contents);
  attributes.temporary_suffix = kTemporarySuffix;
  return InFile(path, ReplaceSmallFile(path, contents, attributes));
}

FileAttributes AttributesOf(const ReplacedFile& file) {
  if (!file.existed) return {.mode = 0644};
  return {.mode = file.mode & kKeptModeBits,
          .owner = file.owner,
          .group = file.group,
          .xattrs = file.xattrs};
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
  // Whoever could read it before still can, also where that depends on its label.
  absl::Status operator()(const ReplacedFile& file) const {
    if (file.link_target.empty()) return PutFile(file.path, file.ours, AttributesOf(file));
    std::error_code error;
    const auto target = std::filesystem::canonical(file.path, error);
    return PutFile(file.path, file.ours,
                   {.mode = 0644, .xattrs = error ? Xattrs() : ReadLabels(target.string())});
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
    if (!file.link_target.empty()) return PutLink(file);
    if (file.existed) return PutFile(file.path, file.before, AttributesOf(file));
    if (unlink(file.path.c_str()) != 0 && errno != ENOENT) {
      return absl::ErrnoToStatus(errno, file.path);
    }
    return InFile(file.path, SyncFolderOf(file.path));
  }
};

bool IsRouteOrRule(const HostChange& change) {
  return std::holds_alternative<OwnRoute>(change) || std::holds_alternative<OwnRule>(change);
}

// Braid's own routes of the tables that are named, and its own rules of the families: one question
// to the kernel each.
absl::StatusOr<std::set<HostChange>> ReadWhatIsLike(const std::vector<HostChange>& changes) {
  std::set<std::pair<IpAddress::Family, uint32_t>> tables;
  std::set<IpAddress::Family> families;
  for (const HostChange& change : changes) {
    if (const auto* route = std::get_if<OwnRoute>(&change)) {
      tables.emplace(route->to.address.family, route->table);
    } else if (const auto* rule = std::get_if<OwnRule>(&change)) {
      families.insert(rule->family);
    }
  }
  std::set<HostChange> found;
  for (const auto& [family, table] : tables) {
    auto routes = OwnRoutesIn(family, table);
    if (!routes.ok()) return routes.status();
    found.insert(routes->begin(), routes->end());
  }
  for (const IpAddress::Family family : families) {
    auto rules = OwnRules(family);
    if (!rules.ok()) return rules.status();
    found.insert(rules->begin(), rules->end());
  }
  return found;
}

struct Finder {
  template <typename RouteOrRule>
  absl::StatusOr<bool> operator()(const RouteOrRule& wanted) const {
    const auto found = ReadWhatIsLike({wanted});
    if (!found.ok()) return found.status();
    return found->contains(wanted);
  }
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

FilesAs::FilesAs(uint32_t user, uint32_t group) {
  groups_.resize(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  const bool known = getgroups(static_cast<int>(groups_.size()), groups_.data()) >= 0;
  if (!known || setgroups(0, nullptr) != 0) {
    groups_.clear();
    status_ = absl::ErrnoToStatus(errno, "cannot use files as another user");
    user_before_ = group_before_ = -1;
    return;
  }
  // Neither call tells whether it went; each tells what was before, and -1 changes nothing.
  group_before_ = setfsgid(group);
  user_before_ = setfsuid(user);
  if (setfsuid(UINT32_MAX) != static_cast<int>(user) ||
      setfsgid(UINT32_MAX) != static_cast<int>(group)) {
    status_ = absl::PermissionDeniedError("cannot use files as another user");
  }
}

FilesAs::~FilesAs() {
  if (user_before_ < 0) return;
  setfsuid(static_cast<uid_t>(user_before_));
  setfsgid(static_cast<gid_t>(group_before_));
  (void)!setgroups(groups_.size(), groups_.data());
}

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
  file.owner = now.st_uid;
  file.group = now.st_gid;
  file.xattrs = ReadXattrs(path);
  if (S_ISLNK(now.st_mode)) {
    std::error_code error;
    file.link_target = std::filesystem::read_symlink(path, error).string();
    if (error) return absl::ErrnoToStatus(error.value(), path);
    return file;
  }
  auto before = ReadSmallFile(path, kMaxReplacedBytes, FilePrivacy::kAny);
  if (!before.ok()) return InFile(path, before.status());
  file.before = *std::move(before);
  file.mode = now.st_mode & kKeptModeBits;
  return file;
}

absl::Status ThisHost::Make(const HostChange& change) {
  if (absl::Status status = std::visit(Maker(), change); !status.ok()) return status;
  const auto* table = std::get_if<NftTable>(&change);
  return table != nullptr ? Remember(*table) : absl::OkStatus();
}

absl::Status ThisHost::Replace(const NftTable& table) {
  if (absl::Status status = ReplaceTable(table); !status.ok()) return status;
  return Remember(table);
}

absl::Status ThisHost::TakeBack(const HostChange& change) {
  return std::visit(TakerBack(), change);
}
absl::StatusOr<bool> ThisHost::IsThere(const HostChange& change) {
  return std::visit(Finder(), change);
}

absl::StatusOr<std::vector<HostChange>> ThisHost::Missing(const std::vector<HostChange>& changes) {
  const auto routes_and_rules = ReadWhatIsLike(changes);
  if (!routes_and_rules.ok()) return routes_and_rules.status();
  std::vector<HostChange> missing;
  for (const HostChange& change : changes) {
    absl::StatusOr<bool> is_there = routes_and_rules->contains(change);
    if (const auto* table = std::get_if<NftTable>(&change)) {
      is_there = IsAsMade(*table);
    } else if (!IsRouteOrRule(change)) {
      is_there = IsThere(change);
    }
    if (!is_there.ok()) return is_there.status();
    if (!*is_there) missing.push_back(change);
  }
  return missing;
}

// nftables shows rules in its own words, which are known once it was asked.
absl::Status ThisHost::Remember(const NftTable& table) {
  auto shown = ShowTable(table);
  if (!shown.ok()) return shown.status();
  tables_.insert_or_assign(table.family + " " + table.name, std::pair(table, *std::move(shown)));
  return absl::OkStatus();
}

absl::StatusOr<bool> ThisHost::IsAsMade(const NftTable& table) {
  const auto made = tables_.find(table.family + " " + table.name);
  if (made == tables_.end() || made->second.first != table) return false;
  const auto shown = ShowTable(table);
  if (!shown.ok()) return shown.status();
  return *shown == made->second.second;
}

}  // namespace braid
