// Extended attributes of a file that say who may use it: its security label, its access list, and
// what users have noted there. Those that go with its very bytes or its inode (IMA, EVM, the parts
// of an overlay) are none of these.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace braid {

using Xattrs = std::map<std::string, std::string>;  // values are any bytes

bool IsKeptXattr(std::string_view name);

// Of the file or the symbolic link itself; those that cannot be read are left out.
Xattrs ReadXattrs(const std::string& path);
// Security labels alone.
Xattrs ReadLabels(const std::string& path);

// Gives them to the file or the link itself, which has no other access list then. False, with
// errno, where one is refused that this file system knows and this process may set.
bool GiveXattrs(const std::string& path, const Xattrs& xattrs);

}  // namespace braid
