// Which rules an address satisfies by the names that it was learned to have, for how long, and what
// makes room; and what readers see while it is being learned.
#include "fastpath/learned_names.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <initializer_list>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace braid::learned_names_test {
namespace {

using Set = EgressRules::Set;

constexpr TimeNs kStart = 1'000 * kSecondNs;
constexpr TimeNs kUntil = kStart + kLeastNameLifeNs;

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

IpAddress Numbered(size_t number) {
  IpAddress address = Address("10.0.0.0");
  StoreBe32(address.bytes.data(), 0x0a000000u + static_cast<uint32_t>(number));
  return address;
}

EgressRule RuleFor(std::vector<std::string> suffixes) {
  EgressRule rule;
  rule.domain_suffixes = std::move(suffixes);
  return rule;
}

// Rule k is for what is below "r<k>.test", and the last for everything.
EgressRules RulesFor(size_t count) {
  std::vector<EgressRule> rules;
  for (size_t k = 0; k + 1 < count; ++k)
    rules.push_back(RuleFor({"r" + std::to_string(k) + ".test"}));
  rules.push_back(RuleFor({}));
  return EgressRules(std::move(rules));
}

std::string NameFor(size_t rule) { return "www.r" + std::to_string(rule) + ".test"; }

Set Of(const EgressRules& rules, std::initializer_list<size_t> named) {
  Set set = rules.NamesSatisfy("");
  for (const size_t rule : named) set.Add(rule);
  return set;
}

std::optional<Set> Find(const LearnedNames& names, const IpAddress& address,
                        TimeNs now_ns = kStart) {
  Set found;
  found.Add(kMaxEgressRules - 1);  // what was there before is gone
  if (names.Find(address, now_ns, found)) return found;
  return std::nullopt;
}

TEST(LearnedNames, AreWhatTheRulesMakeOfThem) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 64);
  EXPECT_FALSE(Find(names, Address("192.0.2.1")));
  names.Learn(NameFor(3), Address("192.0.2.1"), kUntil, kStart);
  names.Learn("elsewhere.net", Address("2001:db8::1"), kUntil, kStart);
  EXPECT_EQ(Find(names, Address("192.0.2.1")), Of(rules, {3}));
  EXPECT_EQ(Find(names, Address("2001:db8::1")), Of(rules, {}));
  EXPECT_FALSE(Find(names, Address("192.0.2.2")));
  EXPECT_FALSE(Find(names, Address("2001:db8::")));
  EXPECT_FALSE(Find(names, Address("0.0.0.0")));
  EXPECT_FALSE(Find(names, Address("::")));
}

TEST(LearnedNames, WhatIsNotFoundIsLeftAlone) {
  const EgressRules rules = RulesFor(10);
  const LearnedNames names(rules, 64);
  Set untouched;
  untouched.Add(5);
  const Set before = untouched;
  EXPECT_FALSE(names.Find(Address("192.0.2.1"), kStart, untouched));
  EXPECT_EQ(untouched, before);
}

TEST(LearnedNames, OfOneAddressAllCount) {
  const EgressRules rules = RulesFor(300);
  LearnedNames names(rules, 64);
  const IpAddress address = Address("192.0.2.1");
  for (const size_t rule : {298u, 0u, 64u, 63u}) {
    names.Learn(NameFor(rule), address, kUntil, kStart);
  }
  EXPECT_EQ(Find(names, address), Of(rules, {0, 63, 64, 298}));
  names.Learn("elsewhere.net", address, kUntil, kStart);
  EXPECT_EQ(Find(names, address), Of(rules, {0, 63, 64, 298}));
}

TEST(LearnedNames, AreRightForEveryRuleThatThereMayBe) {
  const EgressRules rules = RulesFor(kMaxEgressRules);
  LearnedNames names(rules, 4 * kMaxEgressRules);
  for (size_t rule = 0; rule < kMaxEgressRules; ++rule) {
    names.Learn(NameFor(rule), Numbered(rule), kUntil, kStart);
  }
  size_t found = 0;
  for (size_t rule = 0; rule + 1 < kMaxEgressRules; ++rule) {
    const auto set = Find(names, Numbered(rule));
    if (!set) continue;
    ++found;
    EXPECT_EQ(*set, Of(rules, {rule}));
  }
  EXPECT_GT(found, kMaxEgressRules * 9 / 10);
}

TEST(LearnedNames, WithoutRulesAreKnownAllTheSame) {
  const EgressRules rules({});
  LearnedNames names(rules, 4);
  names.Learn("a.test", Address("192.0.2.1"), kUntil, kStart);
  EXPECT_EQ(Find(names, Address("192.0.2.1")), Set());
}

TEST(LearnedNames, HoldAsLongAsIsSaidButForAWhileAtLeast) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 64);
  const IpAddress brief = Address("192.0.2.1"), lasting = Address("192.0.2.2");
  names.Learn(NameFor(1), brief, kStart + kSecondNs, kStart);
  names.Learn(NameFor(2), lasting, kStart + 2 * kLeastNameLifeNs, kStart);
  EXPECT_TRUE(Find(names, brief, kUntil - 1));
  EXPECT_FALSE(Find(names, brief, kUntil));
  EXPECT_TRUE(Find(names, lasting, kStart + 2 * kLeastNameLifeNs - 1));
  EXPECT_FALSE(Find(names, lasting, kStart + 2 * kLeastNameLifeNs));
}

TEST(LearnedNames, OfOneAddressHoldAsLongAsTheLastOfThem) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 64);
  const IpAddress address = Address("192.0.2.1");
  const TimeNs later_ns = kStart + 100 * kSecondNs;
  names.Learn(NameFor(1), address, kStart + 2 * kLeastNameLifeNs, kStart);
  names.Learn(NameFor(2), address, kUntil, later_ns);
  EXPECT_EQ(Find(names, address, kStart + 2 * kLeastNameLifeNs - 1), Of(rules, {1, 2}));
  EXPECT_FALSE(Find(names, address, kStart + 2 * kLeastNameLifeNs));
  names.Learn(NameFor(3), address, 0, kStart + 2 * kLeastNameLifeNs - 1);
  EXPECT_EQ(Find(names, address, kStart + 2 * kLeastNameLifeNs), Of(rules, {1, 2, 3}));
}

TEST(LearnedNames, ThatAreOverDoNotComeBackWithOthers) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 64);
  const IpAddress address = Address("192.0.2.1");
  names.Learn(NameFor(1), address, kUntil, kStart);
  names.Learn(NameFor(2), address, kUntil, kUntil);
  EXPECT_EQ(Find(names, address, kUntil), Of(rules, {2}));
}

TEST(LearnedNames, OfMappedAddressesAreThoseOfIpv4) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 64);
  names.Learn(NameFor(1), Address("::ffff:192.0.2.1"), kUntil, kStart);
  EXPECT_EQ(Find(names, Address("192.0.2.1")), Of(rules, {1}));
  EXPECT_FALSE(Find(names, Address("::192.0.2.1")));
}

// --- Making room: here there is one set of four ---

TEST(LearnedNames, WhatIsOverMakesRoomFirst) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 1);
  for (size_t i = 0; i < 4; ++i) {
    names.Learn(NameFor(i), Numbered(i), kUntil + (i == 2 ? 0 : kSecondNs), kStart);
  }
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Find(names, Numbered(i)), Of(rules, {i}));
  names.Learn("elsewhere.net", Numbered(4), 0, kUntil);
  EXPECT_FALSE(Find(names, Numbered(2), kUntil));
  for (const size_t i : {0u, 1u, 3u, 4u}) EXPECT_TRUE(Find(names, Numbered(i), kUntil)) << i;
}

TEST(LearnedNames, WhatNoRuleAsksForMakesRoomNext) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 1);
  names.Learn(NameFor(0), Numbered(0), kUntil, kStart);
  names.Learn("elsewhere.net", Numbered(1), kUntil + kSecondNs, kStart);
  names.Learn("elsewhere.net", Numbered(2), kUntil + 2 * kSecondNs, kStart);
  names.Learn(NameFor(0), Numbered(3), kUntil, kStart);
  names.Learn(NameFor(1), Numbered(4), kUntil, kStart);
  EXPECT_FALSE(Find(names, Numbered(1)));
  EXPECT_TRUE(Find(names, Numbered(2)));
  names.Learn("elsewhere.net", Numbered(5), kUntil, kStart);
  EXPECT_FALSE(Find(names, Numbered(2)));
  EXPECT_TRUE(Find(names, Numbered(5)));
  names.Learn(NameFor(1), Numbered(6), kUntil, kStart);
  EXPECT_FALSE(Find(names, Numbered(5)));
  // Nor does it take the place of what one asks for.
  names.Learn("elsewhere.net", Numbered(7), kUntil + 9 * kSecondNs, kStart);
  EXPECT_FALSE(Find(names, Numbered(7)));
  for (const size_t i : {0u, 3u, 4u, 6u}) EXPECT_TRUE(Find(names, Numbered(i))) << i;
}

TEST(LearnedNames, OfTheSameWorthWhatIsOverSoonestMakesRoom) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 4);
  for (size_t i = 0; i < 4; ++i) {
    names.Learn(NameFor(i), Numbered(i), kUntil + (i + 2) % 4 * kSecondNs, kStart);
  }
  names.Learn(NameFor(5), Numbered(5), kUntil, kStart);
  EXPECT_FALSE(Find(names, Numbered(2)));
  for (const size_t i : {0u, 1u, 3u, 5u}) EXPECT_TRUE(Find(names, Numbered(i))) << i;
}

TEST(LearnedNames, HoldAboutAsManyAddressesAsWereAskedFor) {
  const EgressRules rules = RulesFor(2);
  LearnedNames names(rules, 4096);
  for (size_t i = 0; i < 4096; ++i) names.Learn(NameFor(0), Numbered(i), kUntil, kStart);
  size_t found = 0;
  for (size_t i = 0; i < 4096; ++i) found += Find(names, Numbered(i)) ? 1u : 0u;
  EXPECT_GT(found, 4096u * 3 / 4);
}

TEST(LearnedNames, AgreeWithAMap) {
  struct Known {
    Set set;
    TimeNs until_ns = 0;
  };
  const EgressRules rules = RulesFor(200);
  LearnedNames names(rules, 65'536);  // none makes room
  std::map<IpAddress, Known> model;
  std::mt19937 random(3);
  TimeNs now_ns = kStart;
  for (int step = 0; step < 50'000; ++step) {
    now_ns += random() % kSecondNs;
    IpAddress address = Numbered(random() % 500);
    if (random() % 2 == 0) {
      address = Address("2001:db8::");
      address.bytes[15] = static_cast<uint8_t>(random());
    }
    Known& known = model[address];
    if (random() % 3 == 0) {
      const size_t rule = random() % 220;
      const TimeNs until_ns = now_ns + random() % 1'000 * kSecondNs;
      names.Learn(NameFor(rule), address, until_ns, now_ns);
      if (now_ns >= known.until_ns) known = {};
      known.set.Add(rules.NamesSatisfy(NameFor(rule)));
      known.until_ns = std::max({known.until_ns, until_ns, now_ns + kLeastNameLifeNs});
    }
    const auto found = Find(names, address, now_ns);
    ASSERT_EQ(found.has_value(), now_ns < known.until_ns);
    if (!found) continue;
    ASSERT_EQ(*found, known.set);
  }
}

// --- While it is being learned ---

// Many addresses for few places, each with a name of its own: whatever is found is right.
TEST(LearnedNames, AreNeverOnesOfAnotherAddress) {
  constexpr size_t kAddresses = 12;
  const EgressRules rules = RulesFor(192);
  LearnedNames names(rules, 4);
  std::vector<Set> expected;
  for (size_t i = 0; i < kAddresses; ++i) {
    expected.push_back(Of(rules, {i, 64 + i, 128 + i}));
  }
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> found{0}, wrong{0};
  const auto read = [&] {
    for (size_t i = 0; !is_over.load(std::memory_order_relaxed); i = (i + 1) % kAddresses) {
      const auto set = Find(names, Numbered(i));
      if (!set) continue;
      ++found;
      // Its names are learned one after the other, which is seen as well.
      Set all = expected[i];
      all.Add(*set);
      const bool is_in_order =
          (set->Has(i) || !set->Has(64 + i)) && (set->Has(64 + i) || !set->Has(128 + i));
      if (!set->Has(i) || all != expected[i] || !is_in_order) ++wrong;
    }
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) readers.emplace_back(read);
  std::mt19937 random(1);
  TimeNs until_ns = kUntil;
  for (int round = 0; round < 60'000 || found == 0; ++round) {
    const size_t i = random() % kAddresses;
    for (const size_t rule : {i, 64 + i, 128 + i}) {
      names.Learn(NameFor(rule), Numbered(i), ++until_ns, kStart);
    }
  }
  is_over = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0u);
}

// One that is there is found at any time, however often it is learned again, and others beside it.
TEST(LearnedNames, AreFoundWhileTheyAreLearnedAgain) {
  const EgressRules rules = RulesFor(192);
  LearnedNames names(rules, 4);
  const IpAddress address = Address("192.0.2.1");
  names.Learn(NameFor(0), address, kUntil + 1'000 * kSecondNs, kStart);
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> missed{0};
  std::thread reader([&] {
    while (!is_over.load(std::memory_order_relaxed)) {
      const auto set = Find(names, address);
      if (!set || !set->Has(0)) ++missed;
    }
  });
  for (size_t round = 0; round < 60'000; ++round) {
    names.Learn(NameFor(round % 190), address, kUntil + 1'000 * kSecondNs + round, kStart);
    names.Learn(NameFor(1), Numbered(round), kUntil, kStart);
  }
  is_over = true;
  reader.join();
  EXPECT_EQ(missed, 0u);
}

// A name that satisfies rules in every word of a set: whoever sees one of them sees those before.
TEST(LearnedNames, AreAddedFromTheFirstRuleOn) {
  std::vector<EgressRule> made(kMaxEgressRules, RuleFor({"other.test"}));
  for (size_t rule = 0; rule < kMaxEgressRules; rule += 64) made[rule] = RuleFor({"a.test"});
  const EgressRules rules(std::move(made));
  LearnedNames names(rules, 4);
  const IpAddress address = Address("192.0.2.1");
  std::atomic<bool> is_over{false};
  std::atomic<uint64_t> wrong{0}, without{0}, with{0};
  std::thread reader([&] {
    while (!is_over.load(std::memory_order_relaxed)) {
      const auto set = Find(names, address);
      if (!set) continue;
      ++(set->Has(0) ? with : without);
      for (size_t rule = 64; rule < kMaxEgressRules; rule += 64) {
        if (set->Has(rule) && !set->Has(rule - 64)) ++wrong;
      }
    }
  });
  TimeNs now_ns = kStart;
  for (int round = 0; round < 100'000 || with == 0 || without == 0; ++round) {
    now_ns += kLeastNameLifeNs;  // for the reader it is never over
    names.Learn("b.test", address, 0, now_ns);
    names.Learn("a.test", address, 0, now_ns);
  }
  is_over = true;
  reader.join();
  EXPECT_EQ(wrong, 0u);
}

// --- What is remembered ---

TEST(NameMemory, FillsTheNamesOfOtherRules) {
  NameMemory memory;
  const IpAddress one = Address("192.0.2.1"), two = Address("2001:db8::2");
  memory.Learn(NameFor(1), one, kUntil, kStart);
  memory.Learn(NameFor(4), one, kUntil, kStart);
  memory.Learn(NameFor(2), two, kUntil, kStart);
  EXPECT_EQ(memory.size(), 3u);
  const EgressRules few = RulesFor(3), many = RulesFor(100);
  LearnedNames of_few(few, 64), of_many(many, 64);
  memory.Refill(of_few, kStart);
  memory.Refill(of_many, kStart);
  EXPECT_EQ(Find(of_few, one), Of(few, {1}));
  EXPECT_EQ(Find(of_many, one), Of(many, {1, 4}));
  EXPECT_EQ(Find(of_few, two), Of(few, {}));
  EXPECT_EQ(Find(of_many, two), Of(many, {2}));
}

TEST(NameMemory, WhatIsOverCountsNoMoreOnceAnotherNameIsTold) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 64);
  NameMemory memory;
  const IpAddress address = Address("192.0.2.1");
  memory.Learn(NameFor(1), address, kUntil, kStart, &names);
  memory.Learn(NameFor(2), address, kUntil + 100 * kSecondNs, kStart, &names);
  EXPECT_EQ(Find(names, address), Of(rules, {1, 2}));
  memory.Learn(NameFor(3), address, 0, kUntil, &names);
  EXPECT_EQ(Find(names, address, kUntil), Of(rules, {2, 3}));
  EXPECT_EQ(memory.size(), 2u);
}

TEST(NameMemory, NoNameHoldsForLongerThanADay) {
  const EgressRules rules = RulesFor(10);
  LearnedNames names(rules, 64);
  NameMemory memory;
  memory.Learn(NameFor(1), Address("192.0.2.1"), kNever, kStart, &names);
  EXPECT_TRUE(Find(names, Address("192.0.2.1"), kStart + kMostNameLifeNs - 1));
  EXPECT_FALSE(Find(names, Address("192.0.2.1"), kStart + kMostNameLifeNs));
}

TEST(NameMemory, OfOneAddressTheNewestCount) {
  const EgressRules rules = RulesFor(kMaxNamesOfAddress + 10);
  LearnedNames names(rules, 64);
  NameMemory memory;
  const IpAddress address = Address("192.0.2.1");
  for (size_t rule = 0; rule < kMaxNamesOfAddress + 2; ++rule) {
    memory.Learn(NameFor(rule), address, kUntil, kStart, &names);
  }
  EXPECT_EQ(memory.size(), kMaxNamesOfAddress);
  const auto found = Find(names, address);
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->Has(0));
  EXPECT_FALSE(found->Has(1));
  for (size_t rule = 2; rule < kMaxNamesOfAddress + 2; ++rule) EXPECT_TRUE(found->Has(rule));
}

TEST(NameMemory, FillsNothingThatIsOver) {
  NameMemory memory;
  memory.Learn(NameFor(0), Address("192.0.2.1"), 0, kStart);
  memory.Learn(NameFor(0), Address("192.0.2.2"), kUntil + kSecondNs, kStart);
  const EgressRules rules = RulesFor(3);
  LearnedNames names(rules, 64);
  memory.Refill(names, kUntil);
  EXPECT_FALSE(Find(names, Address("192.0.2.1"), kUntil));
  EXPECT_TRUE(Find(names, Address("192.0.2.2"), kUntil));
  LearnedNames before(rules, 64);
  memory.Refill(before, kUntil - 1);
  EXPECT_TRUE(Find(before, Address("192.0.2.1"), kUntil - 1));
}

TEST(NameMemory, ForgetsWhatWasToldLongestAgo) {
  NameMemory memory(2);
  memory.Learn(NameFor(0), Numbered(0), kUntil, kStart);
  memory.Learn(NameFor(0), Numbered(1), kUntil, kStart);
  memory.Learn(NameFor(0), Numbered(0), kUntil + kSecondNs, kStart);
  EXPECT_EQ(memory.size(), 2u);
  memory.Learn(NameFor(0), Numbered(2), kUntil, kStart);
  EXPECT_EQ(memory.size(), 2u);
  const EgressRules rules = RulesFor(3);
  LearnedNames names(rules, 64);
  memory.Refill(names, kStart);
  EXPECT_TRUE(Find(names, Numbered(0), kUntil)) << "for longer, as it was told again";
  EXPECT_FALSE(Find(names, Numbered(1)));
  EXPECT_TRUE(Find(names, Numbered(2)));
  NameMemory none(0);
  none.Learn(NameFor(0), Numbered(0), kUntil, kStart);
  EXPECT_EQ(none.size(), 0u);
}

TEST(NameMemory, KeepsItsNamesWhateverGoes) {
  NameMemory memory(100);
  std::mt19937 random(2);
  std::map<std::pair<std::string, IpAddress>, int> last;
  for (int i = 0; i < 20'000; ++i) {
    const std::pair key{NameFor(random() % 30), Numbered(random() % 10)};
    memory.Learn(key.first, key.second, kUntil, kStart);
    last[key] = i;
  }
  ASSERT_EQ(memory.size(), 100u);
  std::vector<std::pair<int, std::pair<std::string, IpAddress>>> by_age;
  for (const auto& [key, when] : last) by_age.emplace_back(when, key);
  std::sort(by_age.rbegin(), by_age.rend());
  by_age.resize(100);
  const EgressRules rules = RulesFor(40);
  std::map<IpAddress, Set> expected;
  for (const auto& [when, key] : by_age) expected[key.second].Add(rules.NamesSatisfy(key.first));
  LearnedNames names(rules, 4096);
  memory.Refill(names, kStart);
  for (const auto& [address, set] : expected) EXPECT_EQ(Find(names, address), set);
}

}  // namespace
}  // namespace braid::learned_names_test
