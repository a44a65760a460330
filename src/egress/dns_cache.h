// Answers of DNS, kept for as long as they say, within a number and an amount of memory; what was
// asked for longest ago makes room. For one thread, the slow path's. Sans I/O.
//
// Yes is kept for a day at most, no for an hour and for no longer than the zone's SOA says (RFC
// 2308); failures and truncated answers are not kept. Queries share an answer when they ask the
// same and have the same flags, of EDNS too: what is answered depends on these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "egress/dns_message.h"

namespace braid {

class DnsCache {
 public:
  struct Options {
    size_t max_entries = 16'384;
    size_t max_bytes = 16 << 20;  // about what they take of memory, their names counted
  };

  struct Totals {
    uint64_t hits = 0, misses = 0;
    size_t entries = 0;  // that are there, also those whose time is over
    size_t bytes = 0;
  };

  // Queries that are alike but for their ids; as far as they can share an answer.
  struct QueryKey {
    DnsQuestion question;
    uint8_t flags = 0;

    static QueryKey Of(const DnsQuery& query);
    bool operator==(const QueryKey&) const = default;
    template <typename H>
    friend H AbslHashValue(H state, const QueryKey& key) {
      return H::combine(std::move(state), key.question, key.flags);
    }
  };

  explicit DnsCache(const Options& options) : options_(options) {}

  // The answer to `message`, of which `query` was read; its TTLs are what is left of them.
  std::optional<std::vector<uint8_t>> Find(const DnsQuery& query, Bytes message, TimeNs now_ns);
  // What has come as the answer to it. False: it is not one that can be kept.
  bool Put(const DnsQuery& query, Bytes answer, TimeNs now_ns);
  void Clear();

  Totals totals() const { return {hits_, misses_, entries_.size(), bytes_}; }

 private:
  struct Entry {
    QueryKey key;
    std::vector<uint8_t> answer;
    TimeNs stored_ns = 0;
    TimeNs expires_ns = 0;

    size_t bytes() const;
  };
  using Entries = std::list<Entry>;

  void Remove(Entries::iterator entry);

  const Options options_;
  Entries entries_;  // what was asked for last is first
  absl::flat_hash_map<QueryKey, Entries::iterator> index_;
  size_t bytes_ = 0;
  uint64_t hits_ = 0;
  uint64_t misses_ = 0;
};

}  // namespace braid
