// Which names an address has, as answers of DNS said: for the workers, which ask about the
// destination of a flow that begins, and for the rules that it may satisfy by its names.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/address.h"
#include "base/clock.h"
#include "fastpath/egress_rules.h"

namespace braid {

// A name holds at least so long, whatever its TTL: programs keep what they were told, and
// connections, for longer. And so long at most: an answer may claim decades.
inline constexpr DurationNs kLeastNameLifeNs = 300 * kSecondNs;
inline constexpr DurationNs kMostNameLifeNs = 86'400 * kSecondNs;
constexpr TimeNs NameHoldsUntil(TimeNs until_ns, TimeNs now_ns) {
  return std::clamp(until_ns, now_ns + kLeastNameLifeNs, now_ns + kMostNameLifeNs);
}
// Of those that share an address, as many sites of one operator do.
inline constexpr size_t kMaxNamesOfAddress = 64;

// One thread, the slow path's, writes; any other reads at any time, and neither locks nor waits.
// All memory is taken at the beginning: sets of four addresses, of which the one that is worth
// least makes room.
//
// Each place has a sequence that is odd while it is written anew (Boehm, "Can seqlocks get along
// with programming language memory models?", MSPC 2012); a reader that meets this looks again, a
// few times: a writer that was interrupted must not hold it up, and who finds no names goes by the
// rules without. Where another name of a known address is learned, rules are only added, from the
// first on, and readers look from the last on: whoever sees one that was added sees those before
// it. So a flow's rule is that of before or that of after.
class LearnedNames {
 public:
  // `rules` outlive it: other rules have another one. `addresses`: how many there may be, rounded
  // up.
  LearnedNames(const EgressRules& rules, size_t addresses);
  LearnedNames(const LearnedNames&) = delete;
  LearnedNames& operator=(const LearnedNames&) = delete;

  // By the thread that writes. The name is as NamesSatisfy() wants it. Several names of one address
  // hold as long as the one that holds longest.
  void Learn(std::string_view name, const IpAddress& address, TimeNs until_ns, TimeNs now_ns);
  // As well; what else the address was called counts no more.
  void Relearn(const std::vector<std::string_view>& names, const IpAddress& address,
               TimeNs until_ns, TimeNs now_ns);

  // By any thread. `names`: what NamesSatisfy() says of all names of the address together. False
  // when none is known; `names` is then untouched. An IPv4-mapped IPv6 address is the IPv4 one.
  bool Find(const IpAddress& address, TimeNs now_ns, EgressRules::Set& names) const;

 private:
  using Word = std::atomic<uint64_t>;
  static constexpr size_t kSlotsPerSet = 4;
  // Where in a slot what stands; the words of the rules follow.
  enum Field : size_t { kSequence, kAddressHigh, kAddressLow, kUntil, kFirstRules };
  struct Key {
    uint64_t high = 0;
    uint64_t low = 0;

    static Key Of(const IpAddress& address);
  };
  // What is worth least goes first. Of the same: what is over first.
  enum class Worth : uint8_t { kOver, kOfNoRule, kOfRules };

  static constexpr int kLooks = 100;

  void Put(const IpAddress& address, const EgressRules::Set& names, TimeNs until_ns, TimeNs now_ns,
           bool adds);
  size_t SetOf(const Key& key) const;
  Word* SlotAt(size_t set, size_t i) const;
  std::pair<Worth, TimeNs> WorthOf(const Word* slot, TimeNs now_ns) const;
  void Overwrite(Word* slot, const Key& key, const EgressRules::Set& names, TimeNs until_ns);
  void Widen(Word* slot, const EgressRules::Set& names, TimeNs until_ns);

  const EgressRules& rules_;
  const EgressRules::Set nameless_;  // that every name satisfies
  const size_t rule_words_;          // of a set of rules that are in use
  const size_t set_mask_;
  const std::unique_ptr<Word[]> words_;
};

// What was learned last, for the LearnedNames of these rules and of others: so many names of
// addresses, of which the one that was told longest ago makes room. For one thread, the slow
// path's.
class NameMemory {
 public:
  explicit NameMemory(size_t max_names = 65'536) : max_names_(max_names) {}

  // Remembers the name, and tells it to `names` (null: to nobody), together with what else the
  // address is called where some of that has become too old.
  void Learn(std::string_view name, const IpAddress& address, TimeNs until_ns, TimeNs now_ns,
             LearnedNames* names = nullptr);
  // What still holds.
  void Refill(LearnedNames& names, TimeNs now_ns) const;
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::string name;
    IpAddress address;
    TimeNs until_ns = 0;
  };
  using Entries = std::list<Entry>;
  using OfAddress = std::vector<Entries::iterator>;  // what was told longest ago is first

  OfAddress::iterator Forget(OfAddress& of, OfAddress::iterator entry);

  const size_t max_names_;
  Entries entries_;  // what was told last is first
  absl::flat_hash_map<IpAddress, OfAddress> by_address_;
};

}  // namespace braid
