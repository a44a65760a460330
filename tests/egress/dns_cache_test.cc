// What of DNS is kept, for how long, for whom, and what goes first; as a plain map would have it.
#include "egress/dns_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace braid::dns_cache_test {
namespace {

using Message = std::vector<uint8_t>;

constexpr uint32_t kDayS = 86'400;
constexpr uint32_t kHourS = 3'600;
constexpr TimeNs kStart = 1'000 * kSecondNs;
constexpr uint16_t kCheckingDisabled = 0x0010;
constexpr uint16_t kRecursionDesired = 0x0100;

void Append(Message& to, const Message& more) { to.insert(to.end(), more.begin(), more.end()); }

// For the addresses of "<label>.test".
Message Query(const std::string& label, uint16_t id = 1, uint16_t flags = kRecursionDesired) {
  Message message(12);
  StoreBe16(&message[0], id);
  StoreBe16(&message[2], flags);
  message[5] = 1;
  message.push_back(static_cast<uint8_t>(label.size()));
  message.insert(message.end(), label.begin(), label.end());
  Append(message, {4, 't', 'e', 's', 't', 0, 0, 1, 0, 1});
  return message;
}

Message QueryWithEdns(const std::string& label, bool dnssec_ok, const Message& options = {}) {
  Message message = Query(label);
  message[11] = 1;
  Append(message, {0, 0, 41, 0x04, 0xd0, 0, 0, dnssec_ok ? uint8_t{0x80} : uint8_t{0}, 0, 0});
  message.push_back(static_cast<uint8_t>(options.size()));
  Append(message, options);
  return message;
}

// With one record: an address in the answer section, or an SOA in the authority section.
Message Answer(Message query, uint8_t rcode, bool soa, uint32_t ttl_s, const Message& data) {
  query[2] = static_cast<uint8_t>(query[2] | 0x80);
  query[3] = static_cast<uint8_t>(0x80 | rcode);
  query[soa ? 9 : 7] = 1;
  query[11] = 0;
  Append(query, {0xc0, 12, 0, soa ? uint8_t{6} : uint8_t{1}, 0, 1, 0, 0, 0, 0, 0, 0});
  StoreBe32(&query[query.size() - 6], ttl_s);
  StoreBe16(&query[query.size() - 2], static_cast<uint16_t>(data.size()));
  Append(query, data);
  return query;
}

Message Yes(const std::string& label, uint32_t ttl_s, uint8_t host = 1) {
  return Answer(Query(label), kDnsNoError, false, ttl_s, {192, 0, 2, host});
}

Message No(const std::string& label, uint32_t ttl_s, uint32_t minimum_s,
           uint8_t rcode = kDnsNameError) {
  Message soa(22);
  StoreBe32(&soa[18], minimum_s);
  return Answer(Query(label), rcode, true, ttl_s, soa);
}

bool Put(DnsCache& cache, const Message& query, const Message& answer, TimeNs now_ns = kStart) {
  return cache.Put(*ReadDnsQuery(query), answer, now_ns);
}

std::optional<Message> Find(DnsCache& cache, const Message& query, TimeNs now_ns = kStart) {
  return cache.Find(*ReadDnsQuery(query), query, now_ns);
}

TEST(DnsCache, GivesWhatWasPutToWhoAsksTheSame) {
  DnsCache cache({});
  EXPECT_FALSE(Find(cache, Query("a")));
  ASSERT_TRUE(Put(cache, Query("a"), Yes("a", 60)));
  EXPECT_EQ(Find(cache, Query("a")), Yes("a", 60));
  EXPECT_FALSE(Find(cache, Query("b")));
  EXPECT_EQ(cache.totals().hits, 1u);
  EXPECT_EQ(cache.totals().misses, 2u);
  EXPECT_EQ(cache.totals().entries, 1u);
}

TEST(DnsCache, AnswersByTheIdAndTheSpellingOfTheQuery) {
  DnsCache cache({});
  ASSERT_TRUE(Put(cache, Query("NaMe"), Yes("name", 60)));
  const auto answer = Find(cache, Query("nAmE", 0x4321));
  ASSERT_TRUE(answer);
  Message expected = Yes("nAmE", 60);
  StoreBe16(&expected[0], 0x4321);
  EXPECT_EQ(*answer, expected);
}

TEST(DnsCache, LetsTtlsRunDown) {
  DnsCache cache({});
  ASSERT_TRUE(Put(cache, Query("a"), Yes("a", 60)));
  EXPECT_EQ(Find(cache, Query("a"), kStart + kSecondNs - 1), Yes("a", 60));
  EXPECT_EQ(Find(cache, Query("a"), kStart + kSecondNs), Yes("a", 59));
  EXPECT_EQ(Find(cache, Query("a"), kStart + 60 * kSecondNs - 1), Yes("a", 1));
  EXPECT_FALSE(Find(cache, Query("a"), kStart + 60 * kSecondNs));
  EXPECT_EQ(cache.totals().entries, 0u);
  EXPECT_EQ(cache.totals().bytes, 0u);
}

TEST(DnsCache, KeepsYesForADayAtMost) {
  DnsCache cache({});
  ASSERT_TRUE(Put(cache, Query("a"), Yes("a", 7 * kDayS)));
  EXPECT_EQ(Find(cache, Query("a"), kStart + kDayS * kSecondNs - 1), Yes("a", 6 * kDayS + 1));
  EXPECT_FALSE(Find(cache, Query("a"), kStart + kDayS * kSecondNs));
}

TEST(DnsCache, KeepsNoForAnHourAtMostAndNoLongerThanTheSoaSays) {
  DnsCache cache({});
  for (const uint8_t rcode : {kDnsNameError, kDnsNoError}) {
    ASSERT_TRUE(Put(cache, Query("a"), No("a", kDayS, kDayS, rcode)));
    ASSERT_TRUE(Put(cache, Query("b"), No("b", kDayS, 9, rcode)));
    ASSERT_TRUE(Put(cache, Query("c"), No("c", 9, kDayS, rcode)));
    EXPECT_TRUE(Find(cache, Query("a"), kStart + kHourS * kSecondNs - 1));
    EXPECT_FALSE(Find(cache, Query("a"), kStart + kHourS * kSecondNs));
    for (const char* label : {"b", "c"}) {
      EXPECT_TRUE(Find(cache, Query(label), kStart + 9 * kSecondNs - 1));
      EXPECT_FALSE(Find(cache, Query(label), kStart + 9 * kSecondNs));
    }
  }
}

TEST(DnsCache, KeepsNothingThatDoesNotHold) {
  DnsCache cache({});
  EXPECT_FALSE(Put(cache, Query("a"), Yes("a", 0)));
  EXPECT_FALSE(Put(cache, Query("a"), No("a", 60, 0)));
  for (const uint8_t rcode : {uint8_t{1}, kDnsServerFailure, uint8_t{5}}) {
    EXPECT_FALSE(Put(cache, Query("a"), Answer(Query("a"), rcode, false, 60, {192, 0, 2, 1})));
  }
  Message truncated = Yes("a", 60);
  truncated[2] |= 2;
  EXPECT_FALSE(Put(cache, Query("a"), truncated));
  EXPECT_FALSE(Put(cache, Query("a"), MakeDnsError(Query("a"), kDnsNameError))) << "without SOA";
  EXPECT_FALSE(Put(cache, Query("a"), Yes("b", 60))) << "to another question";
  Message without_question = Yes("a", 60);
  without_question[5] = 0;
  without_question.erase(without_question.begin() + 12, without_question.begin() + 24);
  EXPECT_FALSE(Put(cache, Query("a"), without_question));
  EXPECT_FALSE(Put(cache, Query("a"), Query("a"))) << "a query";
  EXPECT_FALSE(Put(cache, Query("a"), {1, 2, 3}));
  EXPECT_EQ(cache.totals().entries, 0u);
}

TEST(DnsCache, KeepsAnswersOfDifferentFlagsApart) {
  const std::vector<Message> queries = {
      Query("a"),
      Query("a", 1, 0),
      Query("a", 1, kRecursionDesired | kCheckingDisabled),
      Query("a", 1, kRecursionDesired | 0x20),
      QueryWithEdns("a", false),
      QueryWithEdns("a", true),
  };
  DnsCache cache({});
  for (size_t i = 0; i < queries.size(); ++i) {
    EXPECT_FALSE(Find(cache, queries[i])) << i;
    ASSERT_TRUE(Put(cache, queries[i], Yes("a", 60, static_cast<uint8_t>(i))));
  }
  for (size_t i = 0; i < queries.size(); ++i) {
    EXPECT_EQ(Find(cache, queries[i])->back(), i);
  }
}

TEST(DnsCache, SharesNoAnswerThatIsForOneAlone) {
  DnsCache cache({});
  ASSERT_TRUE(Put(cache, QueryWithEdns("a", false), Yes("a", 60)));
  const Message with_option = QueryWithEdns("a", false, {0, 10, 0, 0});
  EXPECT_FALSE(Find(cache, with_option));
  EXPECT_FALSE(Put(cache, with_option, Yes("a", 60)));
}

TEST(DnsCache, TakesTheNewerOfTwoAnswers) {
  DnsCache cache({});
  ASSERT_TRUE(Put(cache, Query("a"), Yes("a", 60, 1)));
  const size_t bytes = cache.totals().bytes;
  ASSERT_TRUE(Put(cache, Query("a"), Yes("a", 60, 2), kStart + 30 * kSecondNs));
  EXPECT_EQ(Find(cache, Query("a"), kStart + 89 * kSecondNs), Yes("a", 1, 2));
  EXPECT_EQ(cache.totals().entries, 1u);
  EXPECT_EQ(cache.totals().bytes, bytes);
  // A failure takes nothing away.
  EXPECT_FALSE(Put(cache, Query("a"), MakeDnsError(Query("a"), kDnsServerFailure)));
  EXPECT_TRUE(Find(cache, Query("a"), kStart + 89 * kSecondNs));
}

TEST(DnsCache, ForgetsWhatWasAskedForLongestAgo) {
  DnsCache cache({.max_entries = 2});
  ASSERT_TRUE(Put(cache, Query("a"), Yes("a", 60)));
  ASSERT_TRUE(Put(cache, Query("b"), Yes("b", 60)));
  EXPECT_TRUE(Find(cache, Query("a")));
  ASSERT_TRUE(Put(cache, Query("c"), Yes("c", 60)));
  EXPECT_TRUE(Find(cache, Query("a")));
  EXPECT_FALSE(Find(cache, Query("b")));
  EXPECT_TRUE(Find(cache, Query("c")));
}

TEST(DnsCache, StaysWithinItsMemory) {
  DnsCache measured({});
  ASSERT_TRUE(Put(measured, Query("a"), Yes("a", 60)));
  const size_t one_bytes = measured.totals().bytes;
  EXPECT_GT(one_bytes, Yes("a", 60).size());
  DnsCache cache({.max_bytes = 2 * one_bytes});
  for (const char* label : {"a", "b", "c"}) ASSERT_TRUE(Put(cache, Query(label), Yes(label, 60)));
  EXPECT_EQ(cache.totals().entries, 2u);
  EXPECT_FALSE(Find(cache, Query("a")));
  // What would not fit alone makes no room.
  DnsCache small({.max_bytes = one_bytes});
  ASSERT_TRUE(Put(small, Query("a"), Yes("a", 60)));
  EXPECT_FALSE(Put(small, Query("bb"), Yes("bb", 60)));
  EXPECT_TRUE(Find(small, Query("a")));
}

TEST(DnsCache, OfNoSizeKeepsNothing) {
  DnsCache none({.max_entries = 0});
  EXPECT_FALSE(Put(none, Query("a"), Yes("a", 60)));
  EXPECT_FALSE(Find(none, Query("a")));
}

TEST(DnsCache, IsEmptyOnceCleared) {
  DnsCache cache({});
  ASSERT_TRUE(Put(cache, Query("a"), Yes("a", 60)));
  cache.Clear();
  EXPECT_FALSE(Find(cache, Query("a")));
  EXPECT_EQ(cache.totals().entries, 0u);
  EXPECT_EQ(cache.totals().bytes, 0u);
  EXPECT_TRUE(Put(cache, Query("a"), Yes("a", 60)));
}

// Each name with the answer that it must have now, and when it was last asked for.
TEST(DnsCache, AgreesWithAMap) {
  struct Kept {
    uint8_t host = 0;
    TimeNs put_ns = 0;
    uint32_t ttl_s = 0;
    uint64_t used = 0;
  };
  constexpr size_t kEntries = 20;
  std::mt19937 random(5);
  DnsCache cache({.max_entries = kEntries});
  std::map<std::string, Kept> model;
  TimeNs now_ns = kStart;
  uint64_t hits = 0;
  for (uint64_t step = 1; step <= 20'000; ++step) {
    now_ns += random() % kSecondNs;
    const std::string name = "n" + std::to_string(random() % 40);
    const auto known = model.find(name);
    if (random() % 2 == 0) {
      const Kept kept = {static_cast<uint8_t>(random()), now_ns,
                         1 + static_cast<uint32_t>(random() % 100), step};
      ASSERT_TRUE(Put(cache, Query(name), Yes(name, kept.ttl_s, kept.host), now_ns));
      if (known == model.end() && model.size() == kEntries) {
        model.erase(std::min_element(model.begin(), model.end(), [](auto& a, auto& b) {
          return a.second.used < b.second.used;
        }));
      }
      model[name] = kept;
    } else {
      const auto found = Find(cache, Query(name), now_ns);
      const bool holds =
          known != model.end() && now_ns < known->second.put_ns + known->second.ttl_s * kSecondNs;
      ASSERT_EQ(found.has_value(), holds);
      if (holds) {
        ++hits;
        Kept& kept = known->second;
        const auto age_s = static_cast<uint32_t>((now_ns - kept.put_ns) / kSecondNs);
        ASSERT_EQ(*found, Yes(name, kept.ttl_s - age_s, kept.host));
        kept.used = step;
      } else if (known != model.end()) {
        model.erase(known);
      }
    }
    ASSERT_EQ(cache.totals().entries, model.size());
  }
  EXPECT_GT(hits, 1'000u);
  EXPECT_EQ(cache.totals().hits, hits);
}

}  // namespace
}  // namespace braid::dns_cache_test
