// Who is believed about names, for whom they count, and when anybody asks for them.
#include "slowpath/egress_names.h"

#include <gtest/gtest.h>

namespace braid::egress_names_test {
namespace {

using Message = std::vector<uint8_t>;

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

// "www.test", of addresses.
Message Query(uint16_t id) {
  Message message = {0,   0,   0x01, 0, 0,   1,   0,   0,   0, 0, 0, 0, 3,
                     'w', 'w', 'w',  4, 't', 'e', 's', 't', 0, 0, 1, 0, 1};
  StoreBe16(&message[0], id);
  return message;
}

// 192.0.2.1.
Message Answer(Message query) {
  query[2] |= 0x80;
  query[7] = 1;
  for (const uint8_t byte : {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1}) {
    query.push_back(byte);
  }
  return query;
}

FlowKey ToServer(const char* client = "10.0.0.1", uint16_t port = 5000) {
  return {Address(client), Address("198.51.100.53"), port, 53, kProtocolUdp};
}

class EgressNamesTest : public ::testing::Test {
 protected:
  EgressNamesTest() { SetRules(true); }

  EgressNames::ForWorkers SetRules(bool by_domain, bool do_groups_ask = false) {
    EgressRule rule;
    if (by_domain) rule.domain_suffixes = {"test"};
    rule.action.to = EgressAction::To::kDirect;
    return for_workers_ = names_.SetRules({rule}, do_groups_ask);
  }
  bool IsKnown() const {
    EgressRules::Set set;
    return for_workers_.names->Find(Address("192.0.2.1"), MonotonicNowNs(), set);
  }

  EgressNames names_;
  EgressNames::ForWorkers for_workers_;
};

TEST_F(EgressNamesTest, AnAnswerToWhatWasAskedThroughTheTunnelIsBelieved) {
  names_.OnTunnelQuery(ToServer(), Query(7));
  names_.OnTunnelAnswer(ToServer().Reversed(), Answer(Query(7)));
  EXPECT_TRUE(IsKnown());
  EXPECT_EQ(names_.NameOf(Address("10.0.0.1"), Address("192.0.2.1")), "www.test");
  EXPECT_EQ(names_.NameOf(Address("10.0.0.2"), Address("192.0.2.1")), "") << "it has not asked";
}

TEST_F(EgressNamesTest, WhatNobodyHasAskedIsNot) {
  const Message answer = Answer(Query(7));
  names_.OnTunnelAnswer(ToServer().Reversed(), answer);
  names_.OnTunnelQuery(ToServer(), Query(8));
  names_.OnTunnelAnswer(ToServer().Reversed(), answer);
  names_.OnTunnelQuery(ToServer("10.0.0.2"), Query(7));
  names_.OnTunnelAnswer(ToServer().Reversed(), answer);
  names_.OnTunnelQuery(ToServer("10.0.0.1", 5001), Query(7));
  names_.OnTunnelAnswer(ToServer().Reversed(), answer);
  Message another = Query(7);
  another[15] = 'v';
  names_.OnTunnelQuery(ToServer(), another);
  names_.OnTunnelAnswer(ToServer().Reversed(), answer);
  EXPECT_FALSE(IsKnown());
  names_.OnTunnelQuery(ToServer(), Query(7));
  names_.OnTunnelAnswer(ToServer().Reversed(), answer);
  EXPECT_TRUE(IsKnown());
}

TEST_F(EgressNamesTest, VeryManyQueriesAreNotAllRemembered) {
  for (int i = 0; i < 10'000; ++i) {
    names_.OnTunnelQuery(ToServer("10.0.0.3", static_cast<uint16_t>(1 + i)), Query(7));
  }
  names_.OnTunnelAnswer(ToServer("10.0.0.3", 1).Reversed(), Answer(Query(7)));
  EXPECT_FALSE(IsKnown());
  names_.OnTunnelAnswer(ToServer("10.0.0.3", 10'000).Reversed(), Answer(Query(7)));
  EXPECT_TRUE(IsKnown());
}

TEST_F(EgressNamesTest, NamesMatterToRulesAndToGroupsThatAskByThem) {
  EXPECT_NE(SetRules(true).names, nullptr);
  EXPECT_EQ(SetRules(false).names, nullptr);
  EXPECT_NE(SetRules(false, true).names, nullptr);
  EXPECT_TRUE(names_.do_names_matter());
}

}  // namespace
}  // namespace braid::egress_names_test
