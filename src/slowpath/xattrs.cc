#include "slowpath/xattrs.h"

#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

namespace braid {
namespace {

constexpr char kAccessList[] = "system.posix_acl_access";
constexpr std::string_view kLabels[] = {"security.selinux", "security.SMACK64"};
constexpr std::string_view kUsers = "user.";
// Of one value, and of all names; the kernel's own limit.
constexpr size_t kMaxXattrBytes = 64 << 10;

bool IsLabel(std::string_view name) {
  return std::find(std::begin(kLabels), std::end(kLabels), name) != std::end(kLabels);
}

}  // namespace

bool IsKeptXattr(std::string_view name) {
  return IsLabel(name) || name == kAccessList || name.starts_with(kUsers);
}

Xattrs ReadXattrs(const std::string& path) {
  Xattrs xattrs;
  std::string names(kMaxXattrBytes, '\0');
  const ssize_t length = llistxattr(path.c_str(), names.data(), names.size());
  names.resize(static_cast<size_t>(std::max<ssize_t>(length, 0)));
  for (size_t at = 0; at < names.size(); at = names.find('\0', at) + 1) {
    const std::string name = names.c_str() + at;
    if (!IsKeptXattr(name)) continue;
    std::string value(kMaxXattrBytes, '\0');
    const ssize_t bytes = lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (bytes < 0) continue;
    value.resize(static_cast<size_t>(bytes));
    xattrs[name] = std::move(value);
  }
  return xattrs;
}

Xattrs ReadLabels(const std::string& path) {
  Xattrs xattrs = ReadXattrs(path);
  std::erase_if(xattrs, [](const auto& xattr) { return !IsLabel(xattr.first); });
  return xattrs;
}

bool GiveXattrs(const std::string& path, const Xattrs& xattrs) {
  const Xattrs now = ReadXattrs(path);
  // A folder may give what is made in it an access list.
  if (now.contains(kAccessList) && !xattrs.contains(kAccessList) &&
      lremovexattr(path.c_str(), kAccessList) != 0) {
    return false;
  }
  for (const auto& [name, value] : xattrs) {
    const auto found = now.find(name);
    if (found != now.end() && found->second == value) continue;
    const bool given = lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0) == 0 ||
                       errno == ENOTSUP || errno == EPERM;
    if (!given) return false;
  }
  return true;
}

}  // namespace braid
