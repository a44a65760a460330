// Messages of DNS, written out byte by byte: what is read of them, what of broken ones is not, and
// what is changed in them.
#include "egress/dns_message.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace braid::dns_message_test {
namespace {

using Message = std::vector<uint8_t>;

// "WwW.Example.COM" A IN, recursion desired, with EDNS: 1232 bytes, DO.
const Message kQuery = {0x12, 0x34, 0x01, 0x00, 0,    1,   0,   0,   0,   0,   0,   1,  //
                        3,    'W',  'w',  'W',  7,    'E', 'x', 'a', 'm', 'p', 'l', 'e',
                        3,    'C',  'O',  'M',  0,    0,   1,   0,   1,   0,   0,   41,
                        0x04, 0xd0, 0,    0,    0x80, 0,   0,   0};
constexpr size_t kQuestionEnd = 33;

// www.example.com is www.example.net, that is edge.example.net, and that has two addresses, one of
// IPv4 and one of IPv6. With an SOA that says nothing here, and EDNS.
const Message kChain = {
    // 0: header, 12: question
    0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 4, 0, 0, 0, 1,  //
    3, 'w', 'w', 'w', 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e', 3, 'c', 'o', 'm', 0, 0, 1, 0, 1,
    // 33: CNAME, 300 s; its data at 45: www.example.net, of which "example.net" at 49
    0xc0, 12, 0, 5, 0, 1, 0, 0, 0x01, 0x2c, 0, 17,  //
    3, 'w', 'w', 'w', 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e', 3, 'n', 'e', 't', 0,
    // 62: CNAME, 60 s; its data at 74: edge and a pointer
    0xc0, 45, 0, 5, 0, 1, 0, 0, 0, 60, 0, 7, 4, 'e', 'd', 'g', 'e', 0xc0, 49,
    // 81: A, 3600 s
    0xc0, 74, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1,
    // 97: AAAA, 30 s
    0xc0, 74, 0, 28, 0, 1, 0, 0, 0, 30, 0, 16,  //
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
    // 125: OPT
    0, 0, 41, 0x02, 0x00, 0, 0, 0, 0, 0, 0};
constexpr size_t kFirstTargetAt = 45;
constexpr size_t kSecondTargetAt = 74;
constexpr size_t kAddressAt = 81;
constexpr size_t kLastAddressAt = 97;
constexpr size_t kOptAt = 125;

// no.example A: there is no such name; SOA, 900 s, whose minimum is 120 s.
const Message kNoSuchName = {0, 7, 0x81, 0x83, 0, 1, 0, 0, 0, 1, 0, 0,  //
                             2, 'n', 'o', 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e', 0, 0, 1, 0, 1,
                             // 28: SOA; its data at 40: ns.example, root.example, five numbers
                             0xc0, 15, 0, 6, 0, 1, 0, 0, 0x03, 0x84, 0, 32,           //
                             2, 'n', 's', 0xc0, 15, 4, 'r', 'o', 'o', 't', 0xc0, 15,  //
                             0, 0, 0, 1, 0, 0, 0x0e, 0x10, 0, 0, 0x02, 0x58, 0, 1, 0x51, 0x80, 0, 0,
                             0, 120};
constexpr size_t kSoaTtlAt = 34;

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

Message Cut(const Message& message, size_t bytes) {
  return {message.begin(), message.begin() + static_cast<ptrdiff_t>(bytes)};
}

Message Changed(Message message, size_t at, uint8_t to) {
  message.at(at) = to;
  return message;
}

void Append(Message& to, const Message& more) { to.insert(to.end(), more.begin(), more.end()); }

Message Record(const Message& name, uint8_t type, uint32_t ttl_s, const Message& data) {
  Message record = name;
  Append(record, {0, type, 0, 1, 0, 0, 0, 0, 0, 0});
  StoreBe32(&record[record.size() - 6], ttl_s);
  StoreBe16(&record[record.size() - 2], static_cast<uint16_t>(data.size()));
  Append(record, data);
  return record;
}

// A name of one label.
Message Name(const std::string& label) {
  Message name = {static_cast<uint8_t>(label.size())};
  name.insert(name.end(), label.begin(), label.end());
  name.push_back(0);
  return name;
}

// To the question for the addresses of "q".
Message AnswerWith(const std::vector<Message>& records, uint8_t rcode = 0) {
  Message answer = {0, 1, 0x81, rcode, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'q', 0, 0, 1, 0, 1};
  StoreBe16(&answer[6], static_cast<uint16_t>(records.size()));
  for (const Message& record : records) Append(answer, record);
  return answer;
}

std::vector<std::string> Names(const std::vector<DnsAddress>& addresses) {
  std::vector<std::string> names;
  for (const DnsAddress& address : addresses) names.push_back(address.name);
  return names;
}

Message QueryFor(const Message& name) {
  Message query = {0, 1, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  Append(query, name);
  Append(query, {0, 1, 0, 1});
  return query;
}

TEST(DnsQuery, IsReadWithItsFlags) {
  const auto query = ReadDnsQuery(kQuery);
  ASSERT_TRUE(query);
  EXPECT_EQ(query->id, 0x1234);
  EXPECT_EQ(query->question, (DnsQuestion{"www.example.com", kDnsTypeA, kDnsClassIn}));
  EXPECT_TRUE(query->recursion_desired);
  EXPECT_FALSE(query->checking_disabled);
  EXPECT_FALSE(query->authentic_data);
  EXPECT_TRUE(query->has_edns);
  EXPECT_TRUE(query->dnssec_ok);
  EXPECT_EQ(query->udp_bytes, 1232);
  EXPECT_TRUE(query->can_share_answer);

  const auto other = ReadDnsQuery(Changed(Changed(kQuery, 2, 0), 3, 0x30));
  ASSERT_TRUE(other);
  EXPECT_FALSE(other->recursion_desired);
  EXPECT_TRUE(other->checking_disabled);
  EXPECT_TRUE(other->authentic_data);
}

TEST(DnsQuery, WithoutEdnsTakesWhatEverybodyDoes) {
  const auto plain = ReadDnsQuery(Changed(Cut(kQuery, kQuestionEnd), 11, 0));
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->has_edns);
  EXPECT_FALSE(plain->dnssec_ok);
  EXPECT_EQ(plain->udp_bytes, 512);
  // Nor does anybody take less.
  const auto small = ReadDnsQuery(Changed(kQuery, kQuestionEnd + 3, 0));
  ASSERT_TRUE(small);
  EXPECT_EQ(small->udp_bytes, 512);
}

TEST(DnsQuery, CutAnywhereIsNone) {
  for (size_t bytes = 0; bytes < kQuery.size(); ++bytes) {
    EXPECT_FALSE(ReadDnsQuery(Cut(kQuery, bytes))) << bytes;
  }
}

TEST(DnsQuery, OfAnotherKindIsNone) {
  EXPECT_FALSE(ReadDnsQuery(kChain));
  EXPECT_FALSE(ReadDnsQuery(Changed(kQuery, 2, 0x81))) << "an answer";
  EXPECT_FALSE(ReadDnsQuery(Changed(kQuery, 2, 0x29))) << "an update";
  EXPECT_FALSE(ReadDnsQuery(Changed(kQuery, 5, 0))) << "no question";
  EXPECT_FALSE(ReadDnsQuery(Changed(kQuery, 5, 2))) << "two questions";
  EXPECT_FALSE(ReadDnsQuery(Message(kMaxDnsMessageBytes + 1)));
  Message twice = Changed(kQuery, 11, 2);
  Append(twice, {0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0});
  EXPECT_FALSE(ReadDnsQuery(twice)) << "EDNS twice";
  // EDNS of a name, and where answers stand.
  Message named = Cut(kQuery, kQuestionEnd);
  Append(named, {0xc0, 12, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0});
  EXPECT_FALSE(ReadDnsQuery(named));
  EXPECT_FALSE(ReadDnsQuery(Changed(Changed(kQuery, 11, 0), 7, 1)));
}

TEST(DnsQuery, ThatIsAnsweredByItselfSaysSo) {
  EXPECT_FALSE(ReadDnsQuery(Changed(kQuery, kQuestionEnd + 6, 1))->can_share_answer) << "version 1";
  EXPECT_FALSE(ReadDnsQuery(Changed(kQuery, kQuestionEnd - 3, 252))->can_share_answer) << "AXFR";
  Message cookie = Changed(kQuery, kQuery.size() - 1, 12);
  Append(cookie, {0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_FALSE(ReadDnsQuery(cookie)->can_share_answer);
  Message is_signed = Changed(kQuery, 11, 2);
  Append(is_signed, Record(Name("key"), 250, 0, {1, 2, 3}));
  EXPECT_FALSE(ReadDnsQuery(is_signed)->can_share_answer);
}

TEST(DnsName, OfAnyBytesHasATextOfItsOwn) {
  EXPECT_EQ(ReadDnsQuery(QueryFor({0}))->question.name, "");
  EXPECT_EQ(ReadDnsQuery(QueryFor(Name("_a-Z09")))->question.name, "_a-z09");
  EXPECT_EQ(ReadDnsQuery(QueryFor(Name("a.b")))->question.name, "a\\046b");
  EXPECT_EQ(ReadDnsQuery(QueryFor({1, 'a', 1, 'b', 0}))->question.name, "a.b");
  EXPECT_EQ(ReadDnsQuery(QueryFor(Name("a\\046b")))->question.name, "a\\092046b");
  EXPECT_EQ(ReadDnsQuery(QueryFor({2, 0, 255, 0}))->question.name, "\\000\\255");
  std::set<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) {
    texts.insert(ReadDnsQuery(QueryFor({1, static_cast<uint8_t>(byte), 0}))->question.name);
  }
  EXPECT_EQ(texts.size(), 256u - 26) << "all but upper case";
}

TEST(DnsName, HasAtMost255Bytes) {
  Message name;
  for (int label = 0; label < 3; ++label) {
    name.push_back(63);
    name.insert(name.end(), 63, 'a');
  }
  Message longest = name, too_long = name;
  longest.push_back(61);
  longest.insert(longest.end(), 61, 'b');
  longest.push_back(0);
  too_long.push_back(62);
  too_long.insert(too_long.end(), 62, 'b');
  too_long.push_back(0);
  ASSERT_TRUE(ReadDnsQuery(QueryFor(longest)));
  EXPECT_EQ(ReadDnsQuery(QueryFor(longest))->question.name.size(), 253u);
  EXPECT_FALSE(ReadDnsQuery(QueryFor(too_long)));
  // Nor by way of a pointer: in front of the first three labels there is room for one of 61.
  const auto with_label = [&name](uint8_t bytes) {
    Message answer = name;
    answer.push_back(0);
    answer = QueryFor(answer);
    answer[2] = 0x81;
    answer[7] = 1;
    Message owner(bytes + 1u, 'c');
    owner[0] = bytes;
    Append(owner, {0xc0, 12});
    Append(answer, Record(owner, 1, 60, {192, 0, 2, 1}));
    return ReadDnsAnswer(answer).has_value();
  };
  EXPECT_TRUE(with_label(61));
  EXPECT_FALSE(with_label(62));
}

TEST(DnsName, HasNoLabelOfAnUnknownKind) {
  EXPECT_FALSE(ReadDnsQuery(QueryFor({0x40, 'a', 0})));
  EXPECT_FALSE(ReadDnsQuery(QueryFor({0x81, 'a', 0})));
}

TEST(DnsAnswer, NamesAddressesByEveryAliasOnTheWay) {
  const auto answer = ReadDnsAnswer(kChain);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->id, 0xabcd);
  EXPECT_EQ(answer->question, (DnsQuestion{"www.example.com", kDnsTypeA, kDnsClassIn}));
  EXPECT_EQ(answer->rcode, kDnsNoError);
  EXPECT_FALSE(answer->truncated);
  EXPECT_FALSE(answer->is_negative);
  EXPECT_EQ(answer->least_ttl_s, 30u);
  const IpAddress v4 = Address("192.0.2.1"), v6 = Address("2001:db8::7");
  EXPECT_EQ(answer->addresses, (std::vector<DnsAddress>{{"edge.example.net", v4, 3600},
                                                        {"www.example.net", v4, 60},
                                                        {"www.example.com", v4, 60},
                                                        {"edge.example.net", v6, 30},
                                                        {"www.example.net", v6, 30},
                                                        {"www.example.com", v6, 30}}));
}

TEST(DnsAnswer, OfAliasesInAnyOrderSaysTheSame) {
  const Message to_b = Record(Name("q"), 5, 50, Name("b")),
                to_c = Record(Name("B"), 5, 40, Name("c"));
  const Message address = Record(Name("c"), 1, 90, {192, 0, 2, 1});
  const auto forward = ReadDnsAnswer(AnswerWith({to_b, to_c, address}));
  const auto backward = ReadDnsAnswer(AnswerWith({address, to_c, to_b}));
  ASSERT_TRUE(forward && backward);
  EXPECT_EQ(Names(forward->addresses), (std::vector<std::string>{"c", "b", "q"}));
  EXPECT_EQ(forward->addresses, backward->addresses);
}

TEST(DnsAnswer, LeavesOutWhatWasNotAskedFor) {
  const auto answer = ReadDnsAnswer(AnswerWith({Record(Name("bank"), 1, 90, {192, 0, 2, 66}),
                                                Record(Name("bank"), 5, 90, Name("q")),
                                                Record(Name("q"), 1, 90, {192, 0, 2, 1})}));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->addresses, (std::vector<DnsAddress>{{"q", Address("192.0.2.1"), 90}}));
  // What stands behind the answer section belongs to nobody's question.
  Message glue = AnswerWith({Record(Name("q"), 1, 90, {192, 0, 2, 1})});
  std::swap(glue[7], glue[11]);
  ASSERT_TRUE(ReadDnsAnswer(glue));
  EXPECT_TRUE(ReadDnsAnswer(glue)->addresses.empty());
  // Nor are addresses of another class ones of the Internet.
  Message chaos = AnswerWith({Record(Name("q"), 1, 90, {192, 0, 2, 1})});
  chaos[chaos.size() - 11] = 3;
  ASSERT_TRUE(ReadDnsAnswer(chaos));
  EXPECT_TRUE(ReadDnsAnswer(chaos)->addresses.empty());
}

TEST(DnsAnswer, WithAliasesInACircleEnds) {
  const auto circle = ReadDnsAnswer(
      AnswerWith({Record(Name("q"), 5, 50, Name("b")), Record(Name("b"), 5, 50, Name("q")),
                  Record(Name("b"), 1, 90, {192, 0, 2, 1})}));
  ASSERT_TRUE(circle);
  EXPECT_EQ(Names(circle->addresses), (std::vector<std::string>{"b", "q"}));
  const auto itself = ReadDnsAnswer(
      AnswerWith({Record(Name("q"), 5, 50, Name("q")), Record(Name("q"), 1, 90, {192, 0, 2, 1})}));
  ASSERT_TRUE(itself);
  EXPECT_EQ(Names(itself->addresses), (std::vector<std::string>{"q"}));
}

TEST(DnsAnswer, FollowsAsManyAliasesAsItMay) {
  const auto with_aliases = [](size_t count) {
    std::vector<Message> records;
    const auto name = [](size_t i) { return i == 0 ? Name("q") : Name("n" + std::to_string(i)); };
    for (size_t i = 0; i < count; ++i) records.push_back(Record(name(i), 5, 50, name(i + 1)));
    records.push_back(Record(name(count), 1, 90, {192, 0, 2, 1}));
    return ReadDnsAnswer(AnswerWith(records))->addresses.size();
  };
  EXPECT_EQ(with_aliases(kMaxDnsAliases), kMaxDnsAliases + 1);
  EXPECT_EQ(with_aliases(kMaxDnsAliases + 1), 0u);
}

TEST(DnsAnswer, LooksAtAsManyNamesAsItMayAndAtEveryTtl) {
  std::vector<Message> records(kMaxDnsNamedRecords + 10, Record({0xc0, 12}, 1, 90, {192, 0, 2, 1}));
  records.back() = Record({0xc0, 12}, 1, 20, {192, 0, 2, 2});
  const auto answer = ReadDnsAnswer(AnswerWith(records));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->addresses.size(), kMaxDnsNamedRecords);
  EXPECT_EQ(answer->least_ttl_s, 20u);
}

TEST(DnsAnswer, ThatSaysNoHoldsAsLongAsTheSoaSays) {
  const auto no_name = ReadDnsAnswer(kNoSuchName);
  ASSERT_TRUE(no_name);
  EXPECT_EQ(no_name->rcode, kDnsNameError);
  EXPECT_TRUE(no_name->is_negative);
  EXPECT_EQ(no_name->least_ttl_s, 120u);
  EXPECT_EQ(
      ReadDnsAnswer(Changed(Changed(kNoSuchName, kSoaTtlAt + 2, 0), kSoaTtlAt + 3, 9))->least_ttl_s,
      9u);
  // The name is there, and nothing of that type.
  const auto no_data = ReadDnsAnswer(Changed(kNoSuchName, 3, 0x80));
  ASSERT_TRUE(no_data);
  EXPECT_EQ(no_data->rcode, kDnsNoError);
  EXPECT_TRUE(no_data->is_negative);
  EXPECT_EQ(no_data->least_ttl_s, 120u);
  // A failure is neither yes nor no.
  EXPECT_FALSE(ReadDnsAnswer(Changed(kNoSuchName, 3, 0x82))->is_negative);
}

TEST(DnsAnswer, ThatSaysNoWithoutSoaDoesNotHold) {
  EXPECT_EQ(ReadDnsAnswer(AnswerWith({}, kDnsNameError))->least_ttl_s, 0u);
  EXPECT_EQ(ReadDnsAnswer(AnswerWith({}))->least_ttl_s, 0u);
  const auto alias_only = ReadDnsAnswer(AnswerWith({Record(Name("q"), 5, 50, Name("b"))}));
  EXPECT_TRUE(alias_only->is_negative);
  EXPECT_EQ(alias_only->least_ttl_s, 0u);
}

TEST(DnsAnswer, ToAQuestionForAllTypesIsMetByAny) {
  Message answer = AnswerWith({Record(Name("q"), 16, 50, {1, 'x'})});
  EXPECT_TRUE(ReadDnsAnswer(answer)->is_negative);
  answer[16] = 255;
  EXPECT_FALSE(ReadDnsAnswer(answer)->is_negative);
  EXPECT_EQ(ReadDnsAnswer(answer)->least_ttl_s, 50u);
}

TEST(DnsAnswer, TakesATtlThatIsTooGreatForNone) {
  const Message good = Record(Name("q"), 1, INT32_MAX, {192, 0, 2, 1});
  const Message bad = Record(Name("q"), 1, uint32_t{INT32_MAX} + 1, {192, 0, 2, 2});
  EXPECT_EQ(ReadDnsAnswer(AnswerWith({good}))->least_ttl_s, uint32_t{INT32_MAX});
  EXPECT_EQ(ReadDnsAnswer(AnswerWith({good, bad}))->least_ttl_s, 0u);
}

TEST(DnsAnswer, HasTheRcodeBitsOfEdns) {
  EXPECT_EQ(ReadDnsAnswer(Changed(kChain, kOptAt + 5, 1))->rcode, 16) << "BADVERS";
  EXPECT_EQ(ReadDnsAnswer(Changed(Changed(kChain, kOptAt + 5, 1), 3, 0x87))->rcode, 23);
}

TEST(DnsAnswer, MayHaveNoQuestion) {
  const Message refusal = {0, 9, 0x80, 0x05, 0, 0, 0, 0, 0, 0, 0, 0};
  const auto answer = ReadDnsAnswer(refusal);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->id, 9);
  EXPECT_FALSE(answer->question);
  EXPECT_EQ(answer->rcode, 5);
}

TEST(DnsAnswer, CutAnywhereIsNone) {
  for (const Message& whole : {kChain, kNoSuchName}) {
    ASSERT_TRUE(ReadDnsAnswer(whole));
    for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
      Message cut = Cut(whole, bytes);
      EXPECT_FALSE(ReadDnsAnswer(cut)) << bytes;
      EXPECT_FALSE(AgeDnsTtls(cut, 1)) << bytes;
      EXPECT_EQ(cut, Cut(whole, bytes));
    }
  }
}

TEST(DnsAnswer, ThatIsTruncatedIsReadAsFarAsItGoes) {
  const Message truncated = Changed(kChain, 2, 0x83);
  for (size_t bytes = 0; bytes < truncated.size(); ++bytes) {
    const auto answer = ReadDnsAnswer(Cut(truncated, bytes));
    EXPECT_EQ(answer.has_value(), bytes >= kQuestionEnd) << bytes;
    if (!answer) continue;
    EXPECT_TRUE(answer->truncated);
    const size_t addresses = bytes < kLastAddressAt ? 0 : bytes < kOptAt ? 3 : 6;
    EXPECT_EQ(answer->addresses.size(), addresses) << bytes;
  }
}

TEST(DnsAnswer, OfAnotherKindIsNone) {
  EXPECT_FALSE(ReadDnsAnswer(kQuery));
  EXPECT_FALSE(ReadDnsAnswer(Changed(kChain, 2, 0xa9)));
  EXPECT_FALSE(ReadDnsAnswer(Changed(kChain, 5, 2)));
  EXPECT_FALSE(ReadDnsAnswer(AnswerWith({Record(Name("q"), 1, 90, {192, 0, 2})})));
  EXPECT_FALSE(ReadDnsAnswer(AnswerWith({Record(Name("q"), 28, 90, {192, 0, 2, 1})})));
  EXPECT_FALSE(ReadDnsAnswer(AnswerWith({Record(Name("q"), 5, 90, {1, 'b', 0, 0})})));
  Message short_soa = AnswerWith({Record(Name("q"), 6, 90, Message(21))});
  std::swap(short_soa[7], short_soa[9]);
  EXPECT_FALSE(ReadDnsAnswer(short_soa));
}

// Pointers that lead to themselves, to each other, ahead, into the header and past the end.
TEST(DnsAnswer, WithPointersThatLeadNowhereIsNone) {
  const auto with_target = [](size_t at, uint16_t target) {
    Message message = kChain;
    StoreBe16(&message[at], static_cast<uint16_t>(0xc000 | target));
    return ReadDnsAnswer(message).has_value();
  };
  EXPECT_TRUE(with_target(kAddressAt, kSecondTargetAt));
  EXPECT_FALSE(with_target(kAddressAt, kAddressAt)) << "to itself";
  EXPECT_FALSE(with_target(kAddressAt, kLastAddressAt)) << "ahead";
  EXPECT_FALSE(with_target(kAddressAt, 0)) << "into the header";
  EXPECT_FALSE(with_target(kAddressAt, 4)) << "where a zero would be the root's name";
  EXPECT_FALSE(with_target(kAddressAt, 0x3fff)) << "past the end";
  EXPECT_FALSE(with_target(kSecondTargetAt + 5, kSecondTargetAt)) << "to its own beginning";
  EXPECT_FALSE(with_target(kSecondTargetAt + 5, kSecondTargetAt + 5));
  EXPECT_FALSE(with_target(kSecondTargetAt + 5, kAddressAt)) << "to one that leads back";
  EXPECT_TRUE(with_target(kSecondTargetAt + 5, kFirstTargetAt));
  // A question's name has nothing before it.
  for (const uint8_t target : Message{0, 6, 12}) {
    EXPECT_FALSE(ReadDnsQuery(QueryFor({0xc0, target})));
    Message answer = QueryFor({0xc0, target});
    answer[2] = 0x81;
    EXPECT_FALSE(ReadDnsAnswer(answer));
    EXPECT_FALSE(AgeDnsTtls(answer, 1));
    EXPECT_TRUE(TruncatedDnsAnswer(answer).empty());
  }
}

TEST(DnsAnswer, FollowsAsManyPointersAsANameMayHaveLabels) {
  // In the data of a record of some other type: pointers, each to the one before it.
  const auto with_pointers = [](size_t count) {
    Message pointers;
    const size_t data_at = AnswerWith({}).size() + 2 + 10;
    for (size_t i = 0; i < count; ++i) {
      const size_t target = i == 0 ? kDnsHeaderBytes : data_at + 2 * (i - 1);
      Append(pointers, {static_cast<uint8_t>(0xc0 | target >> 8), static_cast<uint8_t>(target)});
    }
    const Message last(pointers.end() - 2, pointers.end());
    return ReadDnsAnswer(AnswerWith({Record({0xc0, 12}, 16, 9, pointers),
                                     Record(last, 1, 9, {192, 0, 2, 1})}))
        .has_value();
  };
  EXPECT_TRUE(with_pointers(127));
  EXPECT_FALSE(with_pointers(129));
}

TEST(DnsAnswer, GrowsOld) {
  Message message = kChain;
  ASSERT_TRUE(AgeDnsTtls(message, 0));
  EXPECT_EQ(message, kChain);
  ASSERT_TRUE(AgeDnsTtls(message, 25));
  const auto later = ReadDnsAnswer(message);
  EXPECT_EQ(later->least_ttl_s, 5u);
  EXPECT_EQ(later->addresses[0].ttl_s, 3575u);
  EXPECT_EQ(later->addresses[1].ttl_s, 35u);
  ASSERT_TRUE(AgeDnsTtls(message, 100));
  const auto last = ReadDnsAnswer(message);
  EXPECT_EQ(last->least_ttl_s, 0u);
  EXPECT_EQ(last->addresses[0].ttl_s, 3475u);
  EXPECT_EQ(last->addresses[1].ttl_s, 0u);
}

TEST(DnsAnswer, DoesNotAgeInWhatIsNoTtl) {
  // The flags of EDNS stand where a TTL would.
  Message message = Changed(kChain, kOptAt + 7, 0x80);
  ASSERT_TRUE(AgeDnsTtls(message, 5));
  EXPECT_EQ(message[kOptAt + 7], 0x80);
  EXPECT_EQ(message[kOptAt + 8], 0);
  // One that counts as none does not come to count as much.
  const Message great = AnswerWith({Record(Name("q"), 1, uint32_t{INT32_MAX} + 1, {192, 0, 2, 2})});
  for (const uint32_t seconds : {0u, 5u}) {
    Message later = great;
    ASSERT_TRUE(AgeDnsTtls(later, seconds));
    EXPECT_EQ(later, great);
  }
}

TEST(DnsAnswer, IsMadeToFitAnotherQuery) {
  Message query = Changed(kQuery, 0, 0x77);
  Message answer = kChain;
  FitDnsAnswer(answer, query);
  EXPECT_EQ(LoadBe16(&answer[0]), 0x7734);
  EXPECT_TRUE(std::equal(answer.begin() + 12, answer.begin() + kQuestionEnd, kQuery.begin() + 12));
  EXPECT_TRUE(
      std::equal(answer.begin() + kQuestionEnd, answer.end(), kChain.begin() + kQuestionEnd));
  EXPECT_TRUE(std::equal(answer.begin() + 2, answer.begin() + 12, kChain.begin() + 2));
  EXPECT_EQ(ReadDnsAnswer(answer)->addresses, ReadDnsAnswer(kChain)->addresses);
}

TEST(DnsError, AnswersTheQuery) {
  const Message error = MakeDnsError(kQuery, kDnsServerFailure);
  Message expected = Cut(kQuery, kQuestionEnd);
  expected[2] = 0x81;
  expected[3] = 0x82;
  Append(expected, {0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0});
  EXPECT_EQ(error, expected);
  const auto read = ReadDnsAnswer(error);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->rcode, kDnsServerFailure);
}

TEST(DnsError, HasEdnsWhereTheQueryHas) {
  const Message plain = Changed(Cut(kQuery, kQuestionEnd), 11, 0);
  EXPECT_EQ(MakeDnsError(plain, kDnsServerFailure).size(), kQuestionEnd);
  const Message error = MakeDnsError(Changed(kQuery, kQuestionEnd + 7, 0), kDnsServerFailure);
  EXPECT_EQ(error.size(), kQuestionEnd + 11);
  EXPECT_EQ(error[kQuestionEnd + 7], 0);
}

TEST(DnsError, KeepsTheFlagsThatAnAnswerRepeats) {
  EXPECT_EQ(LoadBe16(&MakeDnsError(Changed(kQuery, 3, 0x30), 3)[2]), 0x8193);
  EXPECT_EQ(LoadBe16(&MakeDnsError(Changed(kQuery, 2, 0), 5)[2]), 0x8085);
  EXPECT_TRUE(MakeDnsError(kChain, 2).empty());
  EXPECT_TRUE(MakeDnsError({}, 2).empty());
}

TEST(TruncatedDnsAnswer, KeepsTheQuestionAndEdns) {
  Message expected = Cut(kChain, kQuestionEnd);
  expected[2] = 0x83;
  expected[7] = 0;
  Append(expected, Cut({kChain.begin() + kOptAt, kChain.end()}, 11));
  EXPECT_EQ(TruncatedDnsAnswer(kChain), expected);
  const Message without = TruncatedDnsAnswer(kNoSuchName);
  EXPECT_EQ(without.size(), 28u);
  const auto read = ReadDnsAnswer(without);
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->truncated);
  EXPECT_EQ(read->id, 7);
  EXPECT_EQ(read->rcode, kDnsNameError);
  EXPECT_EQ(read->question->name, "no.example");
}

TEST(TruncatedDnsAnswer, LeavesTheOptionsOfEdnsOut) {
  Message padded = Changed(kChain, kChain.size() - 1, 4);
  Append(padded, {0, 12, 0, 0});
  ASSERT_TRUE(ReadDnsAnswer(padded));
  EXPECT_EQ(TruncatedDnsAnswer(padded), TruncatedDnsAnswer(kChain));
}

TEST(TruncatedDnsAnswer, OfWhatHasNoQuestionToReadIsNone) {
  EXPECT_TRUE(TruncatedDnsAnswer({}).empty());
  EXPECT_TRUE(TruncatedDnsAnswer(Cut(kChain, kQuestionEnd - 1)).empty());
  EXPECT_TRUE(TruncatedDnsAnswer(Changed(kChain, 5, 2)).empty());
}

TEST(DnsId, IsWritten) {
  Message message = kChain;
  SetDnsId(message, 0x0102);
  EXPECT_EQ(ReadDnsAnswer(message)->id, 0x0102);
  EXPECT_TRUE(std::equal(message.begin() + 2, message.end(), kChain.begin() + 2));
}

}  // namespace
}  // namespace braid::dns_message_test
