// The first rule that fits, by whatever a flow shows, as a plain look at one rule after the other
// would find it.
#include "fastpath/egress_rules.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace braid::egress_rules_test {
namespace {

using To = EgressAction::To;

IpAddress Address(const std::string& text) { return *IpAddress::Parse(text); }
IpPrefix Prefix(const std::string& text) { return *IpPrefix::Parse(text); }

FlowKey Tcp(const std::string& to, uint16_t port, const std::string& from = "10.0.0.2") {
  return {Address(from), Address(to), 40000, port, kProtocolTcp};
}

EgressRule Rule(To to) {
  EgressRule rule;
  rule.action.to = to;
  return rule;
}

TEST(EgressRules, WithoutAnyNoneFits) {
  const EgressRules rules({});
  EXPECT_EQ(rules.Find(Tcp("192.0.2.1", 80)), EgressRules::kNoRule);
  EXPECT_FALSE(rules.has_domains());
}

TEST(EgressRules, OneWithoutConditionsFitsEverything) {
  const EgressRules rules({Rule(To::kDirect)});
  EXPECT_EQ(rules.Find(Tcp("192.0.2.1", 80)), 0u);
  EXPECT_EQ(rules.Find({Address("fd00::1"), Address("fd00::2"), 0, 0, kProtocolIcmpV6}), 0u);
}

TEST(EgressRules, TheFirstThatFitsCountsAndNotTheNarrowest) {
  EgressRule wide = Rule(To::kBlock), narrow = Rule(To::kDirect);
  wide.prefixes = {Prefix("10.0.0.0/8")};
  narrow.prefixes = {Prefix("10.1.0.0/16")};
  EXPECT_EQ(EgressRules({wide, narrow}).Find(Tcp("10.1.2.3", 80)), 0u);
  EXPECT_EQ(EgressRules({narrow, wide}).Find(Tcp("10.1.2.3", 80)), 0u);
  EXPECT_EQ(EgressRules({narrow, wide}).Find(Tcp("10.2.2.3", 80)), 1u);
  EXPECT_EQ(EgressRules({narrow, wide}).Find(Tcp("11.2.2.3", 80)), EgressRules::kNoRule);
}

TEST(EgressRules, EveryConditionHasToHold) {
  EgressRule rule = Rule(To::kGroup);
  rule.prefixes = {Prefix("192.0.2.0/24"), Prefix("2001:db8::/32")};
  rule.sources = {Prefix("10.0.0.0/24"), Prefix("fd00::/64")};
  rule.ports = {{80, 80}, {8000, 8100}};
  rule.protocols = {kProtocolTcp};
  const EgressRules rules({rule});
  EXPECT_EQ(rules.Find(Tcp("192.0.2.9", 80)), 0u);
  EXPECT_EQ(rules.Find(Tcp("192.0.2.9", 8100)), 0u);
  EXPECT_EQ(rules.Find(Tcp("2001:db8::9", 8000, "fd00::7")), 0u);
  EXPECT_EQ(rules.Find(Tcp("192.0.3.9", 80)), EgressRules::kNoRule);
  EXPECT_EQ(rules.Find(Tcp("192.0.2.9", 80, "10.0.1.2")), EgressRules::kNoRule);
  EXPECT_EQ(rules.Find(Tcp("192.0.2.9", 81)), EgressRules::kNoRule);
  EXPECT_EQ(rules.Find(Tcp("192.0.2.9", 8101)), EgressRules::kNoRule);
  FlowKey udp = Tcp("192.0.2.9", 80);
  udp.protocol = kProtocolUdp;
  EXPECT_EQ(rules.Find(udp), EgressRules::kNoRule);
}

TEST(EgressRules, PortsAreOfTcpAndUdpOnly) {
  EgressRule rule = Rule(To::kBlock);
  rule.ports = {{0, 65535}};
  const EgressRules rules({rule});
  EXPECT_EQ(rules.Find(Tcp("192.0.2.9", 65535)), 0u);
  EXPECT_EQ(rules.Find(Tcp("192.0.2.9", 0)), 0u);
  EXPECT_EQ(rules.Find({Address("10.0.0.1"), Address("10.0.0.2"), 0, 0, kProtocolIcmp}),
            EgressRules::kNoRule);
}

TEST(EgressRules, NamesAndWhatIsBelowThem) {
  EgressRule exact = Rule(To::kDirect), below = Rule(To::kGroup), rest = Rule(To::kBlock);
  exact.domains = {"www.example.com"};
  below.domain_suffixes = {"example.com", "org"};
  const EgressRules rules({exact, below, rest});
  const FlowKey flow = Tcp("192.0.2.1", 443);
  const auto of = [&](const char* name) { return rules.Find(flow, rules.NamesSatisfy(name)); };
  EXPECT_TRUE(rules.has_domains());
  EXPECT_EQ(of("www.example.com"), 0u);
  EXPECT_EQ(of("example.com"), 1u);
  EXPECT_EQ(of("a.b.example.com"), 1u);
  EXPECT_EQ(of("badexample.com"), 2u);
  EXPECT_EQ(of("example.com.evil.net"), 2u);
  EXPECT_EQ(of("org"), 1u);
  EXPECT_EQ(of(""), 2u);
  EXPECT_EQ(of("."), 2u);
  EXPECT_EQ(of("..org"), 1u);
  EXPECT_EQ(rules.Find(flow), 2u);
  // One address that several names lead to.
  EgressRules::Set both = rules.NamesSatisfy("elsewhere.net");
  both.Add(rules.NamesSatisfy("www.example.com"));
  EXPECT_EQ(rules.Find(flow, both), 0u);
}

// --- As one look after the other ---

bool FitsAddress(const std::vector<IpPrefix>& prefixes, const IpAddress& address) {
  if (prefixes.empty()) return true;
  for (const IpPrefix& prefix : prefixes) {
    if (prefix.Contains(address)) return true;
  }
  return false;
}

bool Fits(const EgressRule& rule, const FlowKey& flow) {
  bool port = rule.ports.empty();
  for (const PortRange& range : rule.ports) {
    port |= flow.has_ports() && flow.destination_port >= range.first &&
            flow.destination_port <= range.last;
  }
  bool protocol = rule.protocols.empty();
  for (const uint8_t wanted : rule.protocols) protocol |= wanted == flow.protocol;
  return FitsAddress(rule.prefixes, flow.destination) && FitsAddress(rule.sources, flow.source) &&
         port && protocol;
}

TEST(EgressRules, AgreeWithALookAtEachRule) {
  std::mt19937 random(20261130);
  const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  // Few addresses, so that much of it overlaps.
  const auto address = [&] {
    const bool v6 = below(2) == 0;
    IpAddress made = Address(v6 ? "2001:db8::" : "10.0.0.0");
    made.bytes[v6 ? 7 : 1] = static_cast<uint8_t>(below(3));
    made.bytes[v6 ? 15 : 3] = static_cast<uint8_t>(below(8) << below(6));
    return made;
  };
  const auto prefix = [&] {
    const IpAddress of = address();
    return IpPrefix{of, static_cast<int>(below(static_cast<uint32_t>(of.bits()) + 1))}.Network();
  };
  const uint8_t protocols[] = {kProtocolTcp, kProtocolUdp, kProtocolIcmp, 132};
  for (int round = 0; round < 20; ++round) {
    std::vector<EgressRule> made(round == 0 ? kMaxEgressRules : 1 + below(200));
    for (EgressRule& rule : made) {
      for (uint32_t n = below(4); n > 0; --n) rule.prefixes.push_back(prefix());
      for (uint32_t n = below(3); n > 0; --n) rule.sources.push_back(prefix());
      for (uint32_t n = below(3); n > 0; --n) {
        const auto first = static_cast<uint16_t>(below(40));
        rule.ports.push_back({first, static_cast<uint16_t>(first + below(20))});
      }
      for (uint32_t n = below(3); n > 0; --n) rule.protocols.push_back(protocols[below(4)]);
    }
    const EgressRules rules(made);
    for (int i = 0; i < 300; ++i) {
      const FlowKey flow{address(), address(), 7, static_cast<uint16_t>(below(64)),
                         protocols[below(4)]};
      size_t expected = EgressRules::kNoRule;
      for (size_t rule = 0; rule < made.size(); ++rule) {
        if (!Fits(made[rule], flow)) continue;
        expected = rule;
        break;
      }
      ASSERT_EQ(rules.Find(flow), expected) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace braid::egress_rules_test
