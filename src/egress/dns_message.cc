#include "egress/dns_message.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace braid {
namespace {

constexpr uint16_t kDnsAnswerFlag = 0x8000;
constexpr uint16_t kDnsOpcodeMask = 0x7800;
constexpr uint16_t kDnsTruncatedFlag = 0x0200;
constexpr uint16_t kDnsRecursionDesiredFlag = 0x0100;
constexpr uint16_t kDnsRecursionAvailableFlag = 0x0080;
constexpr uint16_t kDnsAuthenticDataFlag = 0x0020;
constexpr uint16_t kDnsCheckingDisabledFlag = 0x0010;
constexpr uint16_t kDnsRcodeMask = 0x000f;

constexpr uint16_t kDnsTypeCname = 5;
constexpr uint16_t kDnsTypeSoa = 6;
constexpr uint16_t kDnsTypeOpt = 41;
// TKEY, TSIG, IXFR and AXFR.
constexpr uint16_t kDnsFirstPrivateType = 249;
constexpr uint16_t kDnsLastPrivateType = 252;
constexpr uint16_t kDnsTypeAny = 255;

constexpr size_t kMaxDnsNameBytes = 255;  // its root's length byte counted
constexpr size_t kMaxDnsPointers = 127;   // as many as a name may have labels
constexpr uint8_t kDnsPointerBits = 0xc0;
constexpr size_t kDnsQuestionTailBytes = 4;  // type, class
constexpr size_t kDnsRecordTailBytes = 10;   // type, class, TTL, length of its data
constexpr size_t kLeastDnsSoaBytes = 22;     // two names, five numbers

// OPT has the size in place of a class, and this in place of a TTL.
constexpr uint32_t kDnsEdnsDoFlag = 0x8000;
constexpr uint32_t kDnsEdnsVersionMask = 0xff0000;
constexpr uint32_t kDnsEdnsRcodeShift = 24;
// What crosses any network in one piece (DNS flag day 2020).
constexpr uint16_t kDnsOwnUdpBytes = 1232;

struct DnsHeader {
  uint16_t id = 0;
  uint16_t flags = 0;
  std::array<uint16_t, 4> counts{};  // of questions, and of the records in each section

  bool has(uint16_t flag) const { return (flags & flag) != 0; }
  bool is_usual() const { return !has(kDnsOpcodeMask); }
};

std::optional<DnsHeader> ReadDnsHeader(Bytes message) {
  if (message.size() < kDnsHeaderBytes || message.size() > kMaxDnsMessageBytes) return std::nullopt;
  DnsHeader header{LoadBe16(&message[0]), LoadBe16(&message[2])};
  for (size_t i = 0; i < header.counts.size(); ++i) {
    header.counts[i] = LoadBe16(&message[4 + 2 * i]);
  }
  return header;
}

std::vector<uint8_t> WriteDnsHeader(const DnsHeader& header) {
  std::vector<uint8_t> bytes(kDnsHeaderBytes);
  StoreBe16(&bytes[0], header.id);
  StoreBe16(&bytes[2], header.flags);
  for (size_t i = 0; i < header.counts.size(); ++i) StoreBe16(&bytes[4 + 2 * i], header.counts[i]);
  return bytes;
}

bool IsDnsPointer(uint8_t length) { return (length & kDnsPointerBits) == kDnsPointerBits; }
bool IsDnsLabel(uint8_t length) { return (length & kDnsPointerBits) == 0; }

enum class DnsPointers : uint8_t { kAllowed, kRefused };

// Where the name at `at` ends, or the part of it that stands there: a pointer is not followed.
std::optional<size_t> DnsNameEnd(Bytes message, size_t at, DnsPointers pointers) {
  const size_t limit = std::min(message.size(), at + kMaxDnsNameBytes);
  while (at < limit) {
    const uint8_t length = message[at];
    if (length == 0) return at + 1;
    if (IsDnsPointer(length)) {
      if (pointers == DnsPointers::kRefused || at + 2 > message.size()) return std::nullopt;
      return at + 2;
    }
    if (!IsDnsLabel(length)) return std::nullopt;
    at += 1u + length;
  }
  return std::nullopt;
}

void AppendDnsLabel(Bytes label, std::string& text) {
  if (!text.empty()) text += '.';
  for (const uint8_t byte : label) {
    const bool is_upper = byte >= 'A' && byte <= 'Z';
    const bool is_lower = byte >= 'a' && byte <= 'z';
    const bool is_digit = byte >= '0' && byte <= '9';
    if (is_upper) {
      text += static_cast<char>(byte - 'A' + 'a');
    } else if (is_lower || is_digit || byte == '-' || byte == '_') {
      text += static_cast<char>(byte);
    } else {
      text += {'\\', static_cast<char>('0' + byte / 100), static_cast<char>('0' + byte / 10 % 10),
               static_cast<char>('0' + byte % 10)};
    }
  }
}

// A pointer leads to what stands before the part of the name that it ends, and so to an end.
std::optional<std::string> ReadDnsName(Bytes message, size_t at) {
  std::string text;
  size_t name_bytes = 1;
  size_t pointers = 0;
  size_t part_at = at;
  while (at < message.size()) {
    const uint8_t length = message[at];
    if (length == 0) return text;
    if (IsDnsPointer(length)) {
      if (at + 2 > message.size() || ++pointers > kMaxDnsPointers) return std::nullopt;
      const size_t target = LoadBe16(&message[at]) & 0x3fff;
      if (target < kDnsHeaderBytes || target >= part_at) return std::nullopt;
      at = part_at = target;
      continue;
    }
    name_bytes += 1u + length;
    if (!IsDnsLabel(length) || name_bytes > kMaxDnsNameBytes) return std::nullopt;
    if (at + 1 + length > message.size()) return std::nullopt;
    AppendDnsLabel(message.subspan(at + 1, length), text);
    at += 1u + length;
  }
  return std::nullopt;
}

// The question of a message that has one. Nothing stands before its name that it could point to.
std::optional<size_t> DnsQuestionEnd(Bytes message) {
  const auto name_end = DnsNameEnd(message, kDnsHeaderBytes, DnsPointers::kRefused);
  if (!name_end || *name_end + kDnsQuestionTailBytes > message.size()) return std::nullopt;
  return *name_end + kDnsQuestionTailBytes;
}

std::optional<DnsQuestion> ReadDnsQuestion(Bytes message) {
  const auto end = DnsQuestionEnd(message);
  auto name = ReadDnsName(message, kDnsHeaderBytes);
  if (!end || !name) return std::nullopt;
  return DnsQuestion{std::move(*name), LoadBe16(&message[*end - 4]), LoadBe16(&message[*end - 2])};
}

// One that is greater than a positive number has bits counts as 0 (RFC 2181).
uint32_t ReadDnsTtl(const uint8_t* from) {
  const uint32_t ttl_s = LoadBe32(from);
  return ttl_s > INT32_MAX ? 0 : ttl_s;
}

struct DnsRecord {
  enum class Section : uint8_t { kAnswer, kAuthority, kAdditional };
  Section section = Section::kAnswer;
  size_t name_at = 0;
  uint16_t type = 0;
  uint16_t dns_class = 0;
  size_t ttl_at = 0;
  size_t data_at = 0;
  Bytes data;
};

class DnsRecordReader {
 public:
  DnsRecordReader(Bytes message, const DnsHeader& header, size_t first_at)
      : message_(message), header_(header), at_(first_at) {}

  // Nothing after the last, and where one is not whole.
  std::optional<DnsRecord> Next() {
    while (section_ < 3 && taken_ == header_.counts[section_ + 1]) {
      ++section_;
      taken_ = 0;
    }
    if (section_ == 3 || is_broken_) return std::nullopt;
    const auto name_end = DnsNameEnd(message_, at_, DnsPointers::kAllowed);
    is_broken_ = !name_end || *name_end + kDnsRecordTailBytes > message_.size();
    if (is_broken_) return std::nullopt;
    const size_t data_at = *name_end + kDnsRecordTailBytes;
    const size_t data_bytes = LoadBe16(&message_[data_at - 2]);
    is_broken_ = data_bytes > message_.size() - data_at;
    if (is_broken_) return std::nullopt;
    const DnsRecord record = {.section = static_cast<DnsRecord::Section>(section_),
                              .name_at = at_,
                              .type = LoadBe16(&message_[*name_end]),
                              .dns_class = LoadBe16(&message_[*name_end + 2]),
                              .ttl_at = *name_end + 4,
                              .data_at = data_at,
                              .data = message_.subspan(data_at, data_bytes)};
    at_ = data_at + data_bytes;
    ++taken_;
    return record;
  }
  // Servers have cut truncated messages within a record.
  bool is_malformed() const { return is_broken_ && !header_.has(kDnsTruncatedFlag); }

 private:
  const Bytes message_;
  const DnsHeader header_;
  size_t at_;
  size_t section_ = 0;
  uint16_t taken_ = 0;
  bool is_broken_ = false;
};

// Where the records begin; nothing when there is more than one question (RFC 9619).
std::optional<size_t> DnsRecordsAt(Bytes message, const DnsHeader& header) {
  if (header.counts[0] == 0) return kDnsHeaderBytes;
  if (header.counts[0] != 1) return std::nullopt;
  return DnsQuestionEnd(message);
}

void AppendDnsOpt(uint16_t udp_bytes, uint32_t in_place_of_ttl, std::vector<uint8_t>& to) {
  std::array<uint8_t, 1 + kDnsRecordTailBytes> opt{};  // of the root, without options
  StoreBe16(&opt[1], kDnsTypeOpt);
  StoreBe16(&opt[3], udp_bytes);
  StoreBe32(&opt[5], in_place_of_ttl);
  to.insert(to.end(), opt.begin(), opt.end());
}

// What the records of an answer say, and what follows from it.
class DnsAnswerRecords {
 public:
  DnsAnswerRecords(Bytes message, DnsAnswer& answer) : message_(message), answer_(answer) {}

  // False when the record is not what its type says.
  bool Take(const DnsRecord& record) {
    if (record.type == kDnsTypeOpt) TakeOpt(record);
    if (record.type == kDnsTypeOpt || record.section == DnsRecord::Section::kAdditional)
      return true;
    const uint32_t ttl_s = ReadDnsTtl(&message_[record.ttl_at]);
    least_ttl_s_ = std::min(least_ttl_s_, ttl_s);
    if (record.section == DnsRecord::Section::kAnswer) return TakeAnswer(record, ttl_s);
    if (record.type != kDnsTypeSoa) return true;
    if (record.data.size() < kLeastDnsSoaBytes) return false;
    soa_minimum_s_ = ReadDnsTtl(record.data.last(4).data());
    return true;
  }

  void Conclude() {
    answer_.least_ttl_s = least_ttl_s_ == kNoTtl ? 0 : least_ttl_s_;
    if (!answer_.question) return;
    answer_.is_negative =
        answer_.rcode == kDnsNameError || (answer_.rcode == kDnsNoError && !has_what_was_asked_);
    if (answer_.is_negative) {
      answer_.least_ttl_s =
          std::min(answer_.least_ttl_s, soa_minimum_s_ == kNoTtl ? 0 : soa_minimum_s_);
    }
    if (answer_.question->dns_class == kDnsClassIn) NameAddresses();
  }

 private:
  struct Alias {
    std::string name, target;
    uint32_t ttl_s = 0;
  };

  void TakeOpt(const DnsRecord& record) {
    const uint32_t upper_rcode = LoadBe32(&message_[record.ttl_at]) >> kDnsEdnsRcodeShift;
    answer_.rcode = static_cast<uint16_t>((answer_.rcode & kDnsRcodeMask) | upper_rcode << 4);
  }

  bool TakeAnswer(const DnsRecord& record, uint32_t ttl_s) {
    const uint16_t asked = answer_.question ? answer_.question->type : uint16_t{0};
    has_what_was_asked_ |= record.type == asked || asked == kDnsTypeAny;
    const bool is_alias = record.type == kDnsTypeCname;
    const bool is_v4 = record.type == kDnsTypeA;
    if (record.dns_class != kDnsClassIn) return true;
    if (!is_alias && !is_v4 && record.type != kDnsTypeAaaa) return true;
    if (++named_records_ > kMaxDnsNamedRecords) return true;
    auto name = ReadDnsName(message_, record.name_at);
    if (!name) return false;
    if (is_alias) {
      auto target = ReadDnsName(message_, record.data_at);
      const auto end = DnsNameEnd(message_, record.data_at, DnsPointers::kAllowed);
      if (!target || end != record.data_at + record.data.size()) return false;
      aliases_.push_back({std::move(*name), std::move(*target), ttl_s});
      return true;
    }
    if (record.data.size() != (is_v4 ? 4 : 16)) return false;
    const uint8_t* bytes = record.data.data();
    hosts_.push_back(
        {std::move(*name), is_v4 ? IpAddress::V4(bytes) : IpAddress::V6(bytes), ttl_s});
    return true;
  }

  // The aliases that lead on from the name that was asked for, in their order.
  std::vector<const Alias*> Chain() const {
    std::vector<const Alias*> chain;
    std::string_view name = answer_.question->name;
    while (chain.size() < kMaxDnsAliases) {
      const auto next = std::find_if(aliases_.begin(), aliases_.end(),
                                     [name](const Alias& alias) { return alias.name == name; });
      if (next == aliases_.end()) break;
      // They lead in a circle.
      if (std::find(chain.begin(), chain.end(), &*next) != chain.end()) break;
      chain.push_back(&*next);
      name = next->target;
    }
    return chain;
  }

  void NameAddresses() {
    const std::vector<const Alias*> chain = Chain();
    for (const DnsAddress& host : hosts_) {
      size_t aliases = 0;  // that lead to it
      std::string_view name = answer_.question->name;
      while (name != host.name && aliases < chain.size()) name = chain[aliases++]->target;
      if (name != host.name) continue;
      uint32_t ttl_s = host.ttl_s;
      answer_.addresses.push_back(host);
      while (aliases-- > 0) {
        ttl_s = std::min(ttl_s, chain[aliases]->ttl_s);
        answer_.addresses.push_back({chain[aliases]->name, host.address, ttl_s});
      }
    }
  }

  const Bytes message_;
  DnsAnswer& answer_;
  static constexpr uint32_t kNoTtl = UINT32_MAX;  // they have 31 bits
  uint32_t least_ttl_s_ = kNoTtl;
  uint32_t soa_minimum_s_ = kNoTtl;
  bool has_what_was_asked_ = false;
  size_t named_records_ = 0;
  std::vector<Alias> aliases_;
  std::vector<DnsAddress> hosts_;
};

std::optional<DnsHeader> ReadDnsQueryHeader(Bytes message) {
  const auto header = ReadDnsHeader(message);
  const bool is_one =
      header && !header->has(kDnsAnswerFlag) && header->is_usual() && header->counts[0] == 1;
  return is_one ? header : std::nullopt;
}

}  // namespace

bool LooksLikeDnsQuery(Bytes message) { return ReadDnsQueryHeader(message).has_value(); }

std::optional<DnsQuery> ReadDnsQuery(Bytes message) {
  const auto header = ReadDnsQueryHeader(message);
  if (!header) return std::nullopt;
  auto question = ReadDnsQuestion(message);
  if (!question) return std::nullopt;
  DnsQuery query;
  query.id = header->id;
  query.recursion_desired = header->has(kDnsRecursionDesiredFlag);
  query.authentic_data = header->has(kDnsAuthenticDataFlag);
  query.checking_disabled = header->has(kDnsCheckingDisabledFlag);
  query.can_share_answer =
      question->type < kDnsFirstPrivateType || question->type > kDnsLastPrivateType;
  query.question = std::move(*question);

  DnsRecordReader records(message, *header, *DnsQuestionEnd(message));
  while (const auto record = records.Next()) {
    if (record->type != kDnsTypeOpt) {
      query.can_share_answer = false;
      continue;
    }
    const bool is_of_root = message[record->name_at] == 0;
    if (record->section != DnsRecord::Section::kAdditional || !is_of_root || query.has_edns) {
      return std::nullopt;
    }
    query.has_edns = true;
    query.udp_bytes = std::max(record->dns_class, kMinDnsUdpBytes);
    const uint32_t in_place_of_ttl = LoadBe32(&message[record->ttl_at]);
    query.dnssec_ok = (in_place_of_ttl & kDnsEdnsDoFlag) != 0;
    const bool is_plain = (in_place_of_ttl & kDnsEdnsVersionMask) == 0 && record->data.empty();
    query.can_share_answer = query.can_share_answer && is_plain;
  }
  if (records.is_malformed()) return std::nullopt;
  return query;
}

std::optional<DnsAnswer> ReadDnsAnswer(Bytes message) {
  const auto header = ReadDnsHeader(message);
  if (!header || !header->has(kDnsAnswerFlag) || !header->is_usual()) return std::nullopt;
  const auto records_at = DnsRecordsAt(message, *header);
  if (!records_at) return std::nullopt;
  DnsAnswer answer;
  answer.id = header->id;
  answer.rcode = header->flags & kDnsRcodeMask;
  answer.truncated = header->has(kDnsTruncatedFlag);
  if (header->counts[0] == 1) {
    answer.question = ReadDnsQuestion(message);
    if (!answer.question) return std::nullopt;
  }
  DnsAnswerRecords told(message, answer);
  DnsRecordReader records(message, *header, *records_at);
  while (const auto record = records.Next()) {
    if (!told.Take(*record)) return std::nullopt;
  }
  if (records.is_malformed()) return std::nullopt;
  told.Conclude();
  return answer;
}

void SetDnsId(MutableBytes message, uint16_t id) { StoreBe16(&message[0], id); }

void FitDnsAnswer(MutableBytes answer, Bytes query) {
  SetDnsId(answer, LoadBe16(&query[0]));
  const size_t end = DnsQuestionEnd(query).value_or(kDnsHeaderBytes);
  std::copy(query.begin() + kDnsHeaderBytes, query.begin() + static_cast<ptrdiff_t>(end),
            answer.begin() + kDnsHeaderBytes);
}

bool AgeDnsTtls(MutableBytes message, uint32_t seconds) {
  const auto header = ReadDnsHeader(message);
  const auto records_at = header ? DnsRecordsAt(message, *header) : std::nullopt;
  if (!records_at) return false;
  std::vector<size_t> ttls_at;
  DnsRecordReader records(message, *header, *records_at);
  while (const auto record = records.Next()) {
    if (record->type != kDnsTypeOpt) ttls_at.push_back(record->ttl_at);
  }
  if (records.is_malformed()) return false;
  for (const size_t at : ttls_at) {
    // One that counts as 0 stays as it is: less of it would count as more.
    const uint32_t ttl_s = ReadDnsTtl(&message[at]);
    if (ttl_s > 0) StoreBe32(&message[at], ttl_s - std::min(ttl_s, seconds));
  }
  return true;
}

std::vector<uint8_t> MakeDnsError(Bytes query, uint8_t rcode) {
  const auto read = ReadDnsQuery(query);
  if (!read) return {};
  DnsHeader header = *ReadDnsHeader(query);
  header.flags &= kDnsRecursionDesiredFlag | kDnsCheckingDisabledFlag;
  header.flags |= kDnsAnswerFlag | kDnsRecursionAvailableFlag;
  header.flags |= rcode & kDnsRcodeMask;
  header.counts = {1, 0, 0, read->has_edns ? uint16_t{1} : uint16_t{0}};
  std::vector<uint8_t> answer = WriteDnsHeader(header);
  const Bytes question = query.first(*DnsQuestionEnd(query)).subspan(kDnsHeaderBytes);
  answer.insert(answer.end(), question.begin(), question.end());
  // Who speaks EDNS is answered in it (RFC 6891, section 6.1.1).
  if (read->has_edns) AppendDnsOpt(kDnsOwnUdpBytes, read->dnssec_ok ? kDnsEdnsDoFlag : 0, answer);
  return answer;
}

std::vector<uint8_t> TruncatedDnsAnswer(Bytes answer) {
  const auto header = ReadDnsHeader(answer);
  const auto records_at = header ? DnsRecordsAt(answer, *header) : std::nullopt;
  if (!records_at) return {};
  std::optional<DnsRecord> opt;
  DnsRecordReader records(answer, *header, *records_at);
  while (const auto record = records.Next()) {
    if (record->type == kDnsTypeOpt) opt = record;
  }
  DnsHeader short_header = *header;
  short_header.flags |= kDnsTruncatedFlag;
  short_header.counts = {header->counts[0], 0, 0, opt ? uint16_t{1} : uint16_t{0}};
  std::vector<uint8_t> bytes = WriteDnsHeader(short_header);
  bytes.insert(bytes.end(), answer.begin() + kDnsHeaderBytes,
               answer.begin() + static_cast<ptrdiff_t>(*records_at));
  // It stays when the rest goes (RFC 6891, section 7).
  if (opt) AppendDnsOpt(opt->dns_class, LoadBe32(&answer[opt->ttl_at]), bytes);
  return bytes;
}

}  // namespace braid
