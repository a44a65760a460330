#include "fastpath/learned_names.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <optional>

#include "absl/hash/hash.h"
#include "base/bytes.h"

namespace braid {
namespace {

// Each store is a release, each load an acquire: who sees what was written sees the sequence that
// was set before.
uint64_t LoadWord(const std::atomic<uint64_t>& word) {
  return word.load(std::memory_order_acquire);
}
void StoreWord(std::atomic<uint64_t>& word, uint64_t value) {
  word.store(value, std::memory_order_release);
}

}  // namespace

LearnedNames::Key LearnedNames::Key::Of(const IpAddress& address) {
  constexpr uint64_t kMappedPrefix = 0xffff'0000'0000;
  const uint8_t* bytes = address.bytes.data();
  if (address.is_v4()) return {0, kMappedPrefix | LoadBe32(bytes)};
  return {LoadBe64(bytes), LoadBe64(bytes + 8)};
}

LearnedNames::LearnedNames(const EgressRules& rules, size_t addresses)
    : rules_(rules),
      nameless_(rules.NamesSatisfy("")),
      rule_words_((rules.size() + 63) / 64),
      set_mask_(std::bit_ceil((addresses + kSlotsPerSet - 1) / kSlotsPerSet) - 1),
      words_(new Word[(set_mask_ + 1) * kSlotsPerSet * (kFirstRules + rule_words_)]) {}

// Whoever chooses addresses knows nothing of how it is seeded.
size_t LearnedNames::SetOf(const Key& key) const {
  const size_t hash = absl::Hash<std::pair<uint64_t, uint64_t>>()({key.high, key.low});
  return (hash ^ hash >> 32) & set_mask_;
}

LearnedNames::Word* LearnedNames::SlotAt(size_t set, size_t i) const {
  return &words_[(set * kSlotsPerSet + i) * (kFirstRules + rule_words_)];
}

std::pair<LearnedNames::Worth, TimeNs> LearnedNames::WorthOf(const Word* slot,
                                                             TimeNs now_ns) const {
  const TimeNs until_ns = LoadWord(slot[kUntil]);
  if (now_ns >= until_ns) return {Worth::kOver, until_ns};
  for (size_t i = 0; i < rule_words_; ++i) {
    if (LoadWord(slot[kFirstRules + i]) != nameless_.word(i)) return {Worth::kOfRules, until_ns};
  }
  return {Worth::kOfNoRule, until_ns};
}

void LearnedNames::Learn(std::string_view name, const IpAddress& address, TimeNs until_ns,
                         TimeNs now_ns) {
  Put(address, rules_.NamesSatisfy(name), until_ns, now_ns, true);
}

void LearnedNames::Relearn(const std::vector<std::string_view>& names, const IpAddress& address,
                           TimeNs until_ns, TimeNs now_ns) {
  EgressRules::Set all = nameless_;
  for (const std::string_view name : names) all.Add(rules_.NamesSatisfy(name));
  Put(address, all, until_ns, now_ns, false);
}

void LearnedNames::Put(const IpAddress& address, const EgressRules::Set& names, TimeNs until_ns,
                       TimeNs now_ns, bool adds) {
  const Key key = Key::Of(address);
  until_ns = std::max(until_ns, now_ns + kLeastNameLifeNs);
  const size_t set = SetOf(key);
  Word* least = nullptr;
  std::optional<std::pair<Worth, TimeNs>> least_worth;
  for (size_t i = 0; i < kSlotsPerSet; ++i) {
    Word* const slot = SlotAt(set, i);
    const auto worth = WorthOf(slot, now_ns);
    if (LoadWord(slot[kAddressHigh]) == key.high && LoadWord(slot[kAddressLow]) == key.low) {
      if (adds && worth.first != Worth::kOver) return Widen(slot, names, until_ns);
      return Overwrite(slot, key, names, until_ns);
    }
    if (least_worth && worth >= *least_worth) continue;
    least = slot;
    least_worth = worth;
  }
  // A flow to it goes by the same rule when it is not known.
  if (least_worth->first == Worth::kOfRules && names == nameless_) return;
  Overwrite(least, key, names, until_ns);
}

void LearnedNames::Overwrite(Word* slot, const Key& key, const EgressRules::Set& names,
                             TimeNs until_ns) {
  const uint64_t sequence = LoadWord(slot[kSequence]);
  StoreWord(slot[kSequence], sequence + 1);
  StoreWord(slot[kAddressHigh], key.high);
  StoreWord(slot[kAddressLow], key.low);
  StoreWord(slot[kUntil], until_ns);
  for (size_t i = 0; i < rule_words_; ++i) StoreWord(slot[kFirstRules + i], names.word(i));
  StoreWord(slot[kSequence], sequence + 2);
}

void LearnedNames::Widen(Word* slot, const EgressRules::Set& names, TimeNs until_ns) {
  for (size_t i = 0; i < rule_words_; ++i) {
    Word& rules = slot[kFirstRules + i];
    StoreWord(rules, LoadWord(rules) | names.word(i));
  }
  StoreWord(slot[kUntil], std::max(LoadWord(slot[kUntil]), until_ns));
}

bool LearnedNames::Find(const IpAddress& address, TimeNs now_ns, EgressRules::Set& names) const {
  const Key key = Key::Of(address);
  const size_t set = SetOf(key);
  for (size_t i = 0; i < kSlotsPerSet; ++i) {
    const Word* const slot = SlotAt(set, i);
    std::array<uint64_t, kMaxEgressRules / 64> rules;
    TimeNs until_ns = 0;
    bool is_its = false;
    for (int look = 0; look < kLooks && !is_its; ++look) {
      const uint64_t sequence = LoadWord(slot[kSequence]);
      if (LoadWord(slot[kAddressHigh]) != key.high || LoadWord(slot[kAddressLow]) != key.low) break;
      until_ns = LoadWord(slot[kUntil]);
      for (size_t word = rule_words_; word-- > 0;) rules[word] = LoadWord(slot[kFirstRules + word]);
      is_its = sequence % 2 == 0 && LoadWord(slot[kSequence]) == sequence;
    }
    if (!is_its) continue;
    if (now_ns >= until_ns) return false;
    names = {};
    for (size_t word = 0; word < rule_words_; ++word) {
      for (uint64_t left = rules[word]; left != 0; left &= left - 1) {
        names.Add(word * 64 + static_cast<size_t>(std::countr_zero(left)));
      }
    }
    return true;
  }
  return false;
}

void NameMemory::Learn(std::string_view name, const IpAddress& address, TimeNs until_ns,
                       TimeNs now_ns, LearnedNames* names) {
  until_ns = NameHoldsUntil(until_ns, now_ns);
  if (max_names_ == 0) return;
  OfAddress& of = by_address_[address];
  bool has_lost_some = false;
  for (auto one = of.begin(); one != of.end();) {
    const bool is_this = (*one)->name == name;
    const bool is_over = (*one)->until_ns <= now_ns;
    if (is_this && !is_over) until_ns = std::max(until_ns, (*one)->until_ns);
    has_lost_some |= is_over && !is_this;
    one = is_this || is_over ? Forget(of, one) : std::next(one);
  }
  if (of.size() == kMaxNamesOfAddress) {
    Forget(of, of.begin());
    has_lost_some = true;
  }
  if (entries_.size() >= max_names_) {
    OfAddress& last = by_address_.find(entries_.back().address)->second;
    Forget(last, last.begin());
    if (last.empty() && &last != &of) by_address_.erase(entries_.back().address);
  }
  entries_.push_front({std::string(name), address, until_ns});
  of.push_back(entries_.begin());
  if (names == nullptr) return;
  if (!has_lost_some) return names->Learn(name, address, until_ns, now_ns);
  std::vector<std::string_view> all;
  for (const auto& one : of) {
    all.push_back(one->name);
    until_ns = std::max(until_ns, one->until_ns);
  }
  names->Relearn(all, address, until_ns, now_ns);
}

NameMemory::OfAddress::iterator NameMemory::Forget(OfAddress& of, OfAddress::iterator entry) {
  entries_.erase(*entry);
  return of.erase(entry);
}

void NameMemory::Refill(LearnedNames& names, TimeNs now_ns) const {
  for (const Entry& entry : entries_) {
    if (now_ns < entry.until_ns) names.Learn(entry.name, entry.address, entry.until_ns, now_ns);
  }
}

}  // namespace braid
