// What DNS servers have answered, of each way to each by itself: another server, or the same one
// asked from elsewhere, may say something else of the same name. All of them together are within
// the limits of one cache; the one that was used longest ago makes room. For one thread.
#pragma once

#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "egress/dns_cache.h"
#include "slowpath/dns_channel.h"

namespace braid {

inline constexpr size_t kMaxDnsCaches = 16;

class DnsCaches {
 public:
  explicit DnsCaches(const DnsCache::Options& options) : options_(options) {}

  // As DnsCache has them.
  std::optional<std::vector<uint8_t>> Find(const DnsRoute& route, const DnsQuery& query,
                                           Bytes message, TimeNs now_ns);
  void Put(const DnsRoute& route, const DnsQuery& query, Bytes answer, TimeNs now_ns);
  void Clear() { caches_.clear(); }

  DnsCache::Totals totals() const;

 private:
  // Moves it to the front; null: there is none.
  DnsCache* Use(const DnsRoute& route);

  const DnsCache::Options options_;
  std::list<std::pair<DnsRoute, DnsCache>> caches_;  // what was used last is first
  uint64_t hits_ = 0;
  uint64_t misses_ = 0;
};

}  // namespace braid
