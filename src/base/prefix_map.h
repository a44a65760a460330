// A value for each of many address prefixes; of those that contain an address the longest counts.
// One hash table a length: as many lookups as there are different lengths.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/address.h"

namespace braid {

template <typename Value>
class PrefixMap {
 public:
  // Of two equal prefixes the later one counts. Host bits of `prefix` are cleared.
  void Set(const IpPrefix& prefix, Value value) {
    auto& lengths = prefix.address.is_v4() ? v4_ : v6_;
    auto at = std::find_if(lengths.begin(), lengths.end(), [&prefix](const Length& length) {
      return length.bits <= prefix.length;
    });
    if (at == lengths.end() || at->bits != prefix.length) {
      at = lengths.insert(at, {prefix.length, {}});
    }
    at->values.insert_or_assign(prefix.Network().address, std::move(value));
  }

  // nullptr when no prefix contains it. Valid until the next Set().
  const Value* Find(const IpAddress& address) const {
    for (const Length& length : address.is_v4() ? v4_ : v6_) {
      const auto found = length.values.find(IpPrefix{address, length.bits}.Network().address);
      if (found != length.values.end()) return &found->second;
    }
    return nullptr;
  }

 private:
  struct Length {
    int bits;
    absl::flat_hash_map<IpAddress, Value> values;  // by network
  };

  std::vector<Length> v4_;  // longest first
  std::vector<Length> v6_;
};

}  // namespace braid
