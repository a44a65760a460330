// Any bytes as a message of DNS: what is read of it is bounded and grows old as its records do, an
// error or a short answer to it is to the same question, and a cache gives back what it was given.
#include <algorithm>
#include <string>
#include <vector>

#include "egress/dns_cache.h"
#include "egress/dns_message.h"
#include "support/fuzz_input.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::Check;

constexpr uint32_t kDayS = 86'400;

uint32_t Less(uint32_t ttl_s, uint32_t seconds) { return ttl_s - std::min(ttl_s, seconds); }

bool IsText(const std::string& name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' ||
           c == '\\';
  });
}

void CheckAge(const Buffer& message, const DnsAnswer& before, uint32_t seconds) {
  Buffer same = message;
  Check(AgeDnsTtls(same, 0) && same == message);
  Buffer older = message;
  Check(AgeDnsTtls(older, seconds) && older.size() == message.size());
  const auto after = ReadDnsAnswer(older);
  // A name may have part of a TTL in it, and be none once that has changed.
  if (!after) return;
  Check(after->id == before.id && after->question == before.question);
  Check(after->rcode == before.rcode && after->truncated == before.truncated);
  Check(after->is_negative == before.is_negative);
  const uint32_t least_ttl_s = Less(before.least_ttl_s, seconds);
  if (!before.is_negative) Check(after->least_ttl_s == least_ttl_s);
  // What the SOA says of no does not run down.
  Check(after->least_ttl_s >= least_ttl_s && after->least_ttl_s <= before.least_ttl_s);
}

void CheckAnswer(const Buffer& message, uint32_t seconds) {
  const auto answer = ReadDnsAnswer(message);
  const Buffer truncated = TruncatedDnsAnswer(message);
  if (!answer) {
    Buffer copy = message;
    Check(AgeDnsTtls(copy, seconds) || copy == message);
    return;
  }
  Check(answer->addresses.size() <= kMaxDnsNamedRecords * (kMaxDnsAliases + 1));
  for (const DnsAddress& address : answer->addresses) {
    Check(IsText(address.name) && address.address.is_set());
    Check(address.ttl_s >= answer->least_ttl_s);
  }
  CheckAge(message, *answer, seconds);

  Check(truncated.size() <= kMinDnsUdpBytes);
  const auto again = ReadDnsAnswer(truncated);
  Check(again && again->id == answer->id && again->question == answer->question);
  Check(again->truncated && again->addresses.empty() && again->rcode == answer->rcode);

  Buffer renamed = message;
  SetDnsId(renamed, static_cast<uint16_t>(answer->id + 1));
  SetDnsId(renamed, answer->id);
  Check(renamed == message);
}

void CheckQuery(const Buffer& message, uint8_t rcode) {
  const auto query = ReadDnsQuery(message);
  const Buffer error = MakeDnsError(message, rcode);
  Check(error.empty() == !query);
  if (!query) return;
  Check(IsText(query->question.name) && query->udp_bytes >= kMinDnsUdpBytes);
  Check(error.size() <= kMinDnsUdpBytes);
  const auto answer = ReadDnsAnswer(error);
  Check(answer && answer->id == query->id && answer->question == query->question);
  Check(answer->rcode == (rcode & 0xf) && !answer->truncated && answer->addresses.empty());
}

// The query that the answer would be one to.
Buffer QueryOf(Bytes answer) {
  Buffer query = TruncatedDnsAnswer(answer);
  if (query.empty()) return query;
  StoreBe16(&query[2], 0x0100);
  return query;
}

void CheckCache(const Buffer& message, uint32_t seconds) {
  const Buffer bytes = QueryOf(message);
  const auto query = ReadDnsQuery(bytes);
  if (!query) return;
  constexpr TimeNs kNow = 5 * kSecondNs;
  DnsCache cache({.max_entries = 2});
  if (!cache.Put(*query, message, kNow)) return;
  const auto answer = ReadDnsAnswer(message);
  Check(answer && !answer->truncated && answer->least_ttl_s > 0);
  const auto now = cache.Find(*query, bytes, kNow);
  Check(now == message);
  const auto later = cache.Find(*query, bytes, kNow + seconds * kSecondNs);
  if (seconds >= std::min(answer->least_ttl_s, kDayS)) Check(!later);
  if (!later) return;
  Buffer older = message;
  Check(AgeDnsTtls(older, seconds) && later == older);
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  testing::FuzzInput input({data, size});
  const uint8_t choice = input.Byte();
  const uint32_t seconds = input.Word() * uint32_t{input.Byte()};
  testing::Buffer message = input.Take(size);
  // Flags and counts would seldom be guessed.
  if (choice % 4 != 0 && message.size() >= kDnsHeaderBytes) {
    message[2] = choice % 4 == 1 ? 0x01 : 0x81;
    StoreBe16(&message[4], 1);
    if (choice % 4 == 3) message[3] &= 3;
    for (size_t at = 6; at < kDnsHeaderBytes; at += 2) {
      message[at] = 0;
      message[at + 1] &= 3;
    }
  }
  CheckQuery(message, choice);
  CheckAnswer(message, seconds);
  CheckCache(message, seconds);
  return 0;
}
