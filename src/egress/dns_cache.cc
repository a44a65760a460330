#include "egress/dns_cache.h"

#include <algorithm>
#include <iterator>

namespace braid {
namespace {

constexpr uint32_t kMaxDnsPositiveTtlS = 86'400;
constexpr uint32_t kMaxDnsNegativeTtlS = 3'600;

}  // namespace

DnsCache::QueryKey DnsCache::QueryKey::Of(const DnsQuery& query) {
  unsigned flags = 0;
  for (const bool flag : {query.recursion_desired, query.authentic_data, query.checking_disabled,
                          query.has_edns, query.dnssec_ok}) {
    flags = flags << 1 | (flag ? 1u : 0u);
  }
  return {query.question, static_cast<uint8_t>(flags)};
}

// The key is there twice, and for each place in the index that is taken another one is free.
size_t DnsCache::Entry::bytes() const {
  constexpr size_t kListNodeBytes = sizeof(Entry) + 2 * sizeof(void*);
  constexpr size_t kPlaceBytes = sizeof(QueryKey) + sizeof(Entries::iterator) + 1;
  return kListNodeBytes + 2 * kPlaceBytes + 2 * key.question.name.size() + answer.size();
}

std::optional<std::vector<uint8_t>> DnsCache::Find(const DnsQuery& query, Bytes message,
                                                   TimeNs now_ns) {
  const auto found = query.can_share_answer ? index_.find(QueryKey::Of(query)) : index_.end();
  if (found == index_.end()) {
    ++misses_;
    return std::nullopt;
  }
  const Entries::iterator entry = found->second;
  if (now_ns >= entry->expires_ns) {
    Remove(entry);
    ++misses_;
    return std::nullopt;
  }
  ++hits_;
  entries_.splice(entries_.begin(), entries_, entry);
  std::vector<uint8_t> answer = entry->answer;
  AgeDnsTtls(answer, static_cast<uint32_t>((now_ns - entry->stored_ns) / kSecondNs));
  FitDnsAnswer(answer, message);
  return answer;
}

bool DnsCache::Put(const DnsQuery& query, Bytes answer, TimeNs now_ns) {
  const auto read = query.can_share_answer ? ReadDnsAnswer(answer) : std::nullopt;
  if (!read || read->truncated || read->question != query.question) return false;
  if (read->rcode != kDnsNoError && read->rcode != kDnsNameError) return false;
  const uint32_t ttl_s =
      std::min(read->least_ttl_s, read->is_negative ? kMaxDnsNegativeTtlS : kMaxDnsPositiveTtlS);
  if (ttl_s == 0) return false;
  Entry entry = {
      QueryKey::Of(query), {answer.begin(), answer.end()}, now_ns, now_ns + ttl_s * kSecondNs};
  const size_t bytes = entry.bytes();
  if (bytes > options_.max_bytes || options_.max_entries == 0) return false;
  if (const auto before = index_.find(entry.key); before != index_.end()) Remove(before->second);
  while (entries_.size() >= options_.max_entries || bytes_ + bytes > options_.max_bytes) {
    Remove(std::prev(entries_.end()));
  }
  entries_.push_front(std::move(entry));
  index_.emplace(entries_.front().key, entries_.begin());
  bytes_ += bytes;
  return true;
}

void DnsCache::Clear() {
  index_.clear();
  entries_.clear();
  bytes_ = 0;
}

void DnsCache::Remove(Entries::iterator entry) {
  bytes_ -= entry->bytes();
  index_.erase(entry->key);
  entries_.erase(entry);
}

}  // namespace braid
