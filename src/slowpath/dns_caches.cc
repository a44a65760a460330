#include "slowpath/dns_caches.h"

#include <algorithm>

namespace braid {

DnsCache* DnsCaches::Use(const DnsRoute& route) {
  const auto found = std::find_if(caches_.begin(), caches_.end(),
                                  [&route](const auto& one) { return one.first == route; });
  if (found == caches_.end()) return nullptr;
  caches_.splice(caches_.begin(), caches_, found);
  return &found->second;
}

std::optional<std::vector<uint8_t>> DnsCaches::Find(const DnsRoute& route, const DnsQuery& query,
                                                    Bytes message, TimeNs now_ns) {
  DnsCache* const cache = Use(route);
  auto answer = cache != nullptr ? cache->Find(query, message, now_ns) : std::nullopt;
  ++(answer ? hits_ : misses_);
  return answer;
}

void DnsCaches::Put(const DnsRoute& route, const DnsQuery& query, Bytes answer, TimeNs now_ns) {
  if (Use(route) == nullptr) caches_.emplace_front(route, DnsCache(options_));
  caches_.front().second.Put(query, answer, now_ns);
  if (caches_.front().second.totals().entries == 0) return caches_.pop_front();
  const auto is_within = [this] {
    const DnsCache::Totals now = totals();
    return caches_.size() <= kMaxDnsCaches && now.entries <= options_.max_entries &&
           now.bytes <= options_.max_bytes;
  };
  while (!is_within()) caches_.pop_back();
}

DnsCache::Totals DnsCaches::totals() const {
  DnsCache::Totals all{hits_, misses_, 0, 0};
  for (const auto& [route, cache] : caches_) {
    all.entries += cache.totals().entries;
    all.bytes += cache.totals().bytes;
  }
  return all;
}

}  // namespace braid
