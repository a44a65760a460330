// DNS messages (RFC 1035) as far as a forwarder looks into them: what is asked, which addresses an
// answer gives to which names, and for how long it holds (RFC 2181, RFC 2308). Of EDNS (RFC 6891)
// what the other end takes, the DO flag and the upper bits of the response code. Sans I/O; nothing
// is kept of what is read. For one thread at a time, the slow path's.
//
// Names are text in lower case without a dot at the end: "www.example.com", the root is "".
// Letters, digits, '-' and '_' stand for themselves, every other byte is a backslash and its value
// in three decimal digits. So no two names have the same text, and none that is escaped is a
// host's.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"

namespace braid {

inline constexpr size_t kDnsHeaderBytes = 12;
inline constexpr size_t kMaxDnsMessageBytes = 65535;
inline constexpr uint16_t kMinDnsUdpBytes = 512;  // that everybody takes
// Of an answer: records whose names are looked at, and aliases that are followed one after another.
inline constexpr size_t kMaxDnsNamedRecords = 256;
inline constexpr size_t kMaxDnsAliases = 16;

inline constexpr uint16_t kDnsTypeA = 1;
inline constexpr uint16_t kDnsTypeAaaa = 28;
inline constexpr uint16_t kDnsClassIn = 1;

inline constexpr uint8_t kDnsNoError = 0;
inline constexpr uint8_t kDnsServerFailure = 2;
inline constexpr uint8_t kDnsNameError = 3;  // NXDOMAIN

struct DnsQuestion {
  std::string name;
  uint16_t type = 0;
  uint16_t dns_class = 0;

  auto operator<=>(const DnsQuestion&) const = default;
  template <typename H>
  friend H AbslHashValue(H state, const DnsQuestion& question) {
    return H::combine(std::move(state), question.name, question.type, question.dns_class);
  }
};

struct DnsQuery {
  uint16_t id = 0;
  DnsQuestion question;
  bool recursion_desired = false;
  bool authentic_data = false;  // wants to be told whether the answer was validated (RFC 6840)
  bool checking_disabled = false;
  bool has_edns = false;
  bool dnssec_ok = false;  // DO of EDNS
  uint16_t udp_bytes = kMinDnsUdpBytes;
  // Another query that is alike but for its id gets the same answer. Not so with options or another
  // version of EDNS, a signature, or a transfer of a zone.
  bool can_share_answer = true;
};

// Of one that asks exactly one thing in the usual way (opcode 0).
std::optional<DnsQuery> ReadDnsQuery(Bytes message);
// By its header it may be one.
bool LooksLikeDnsQuery(Bytes message);

struct DnsAddress {
  std::string name;
  IpAddress address;
  uint32_t ttl_s = 0;  // also of the aliases in between

  bool operator==(const DnsAddress&) const = default;
};

struct DnsAnswer {
  uint16_t id = 0;
  std::optional<DnsQuestion> question;
  uint16_t rcode = 0;  // with the bits that EDNS adds
  bool truncated = false;
  bool is_negative = false;  // there is no such name, or nothing of that type
  // For how long all of the answer and authority sections hold; for a negative one at most what its
  // SOA says. 0: there is nothing that says it.
  uint32_t least_ttl_s = 0;
  // Of the answer section, each for the name that was asked for and for every alias on the way to
  // it. What belongs to other names is left out: nobody has asked whether that is so.
  std::vector<DnsAddress> addresses;
};

// A truncated one is read as far as its records are whole.
std::optional<DnsAnswer> ReadDnsAnswer(Bytes message);

// Of a message that has been read.
void SetDnsId(MutableBytes message, uint16_t id);
// Makes an answer to the same question one to this query: its id, and the name as it is spelt there
// (some compare upper and lower case). Both have been read.
void FitDnsAnswer(MutableBytes answer, Bytes query);
// Takes time off each record's TTL, down to 0. False when the message cannot be read, which is then
// as it was.
bool AgeDnsTtls(MutableBytes message, uint32_t seconds);

// An answer without records. Empty when the query cannot be read.
std::vector<uint8_t> MakeDnsError(Bytes query, uint8_t rcode);
// What a client gets whose `udp_bytes` the answer exceeds, so that it asks again by TCP: at most
// kMinDnsUdpBytes. Empty when the answer's question cannot be read.
std::vector<uint8_t> TruncatedDnsAnswer(Bytes answer);

}  // namespace braid
