// Which name each client was told last of an address: what it most likely means when it connects
// there. Not what others were told, who may have been told it by somebody who wants to be taken for
// that address. So many are kept; the one that was told longest ago makes room. One thread.
#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/address.h"
#include "base/clock.h"

namespace braid {

class ToldNames {
 public:
  // One at least.
  explicit ToldNames(size_t max_names = 65'536) : max_names_(max_names) {}

  void Tell(const IpAddress& client, std::string_view name, const IpAddress& address,
            TimeNs until_ns);
  // Empty: none, or too long ago.
  std::string NameOf(const IpAddress& client, const IpAddress& address, TimeNs now_ns) const;
  size_t size() const { return entries_.size(); }

 private:
  using Key = std::pair<IpAddress, IpAddress>;  // client and address
  struct Entry {
    Key key;
    std::string name;
    TimeNs until_ns = 0;
  };
  using Entries = std::list<Entry>;

  const size_t max_names_;
  Entries entries_;  // what was told last is first
  absl::flat_hash_map<Key, Entries::iterator> index_;
};

}  // namespace braid
