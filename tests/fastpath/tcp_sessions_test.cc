// Ports of flows: one each, never a live one twice, at rest before they are used again; as a plain
// map would have it.
#include "fastpath/tcp_sessions.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

namespace braid::tcp_sessions_test {
namespace {

using Place = TcpSessions::Place;
using State = TcpSessions::State;

FlowKey Flow(uint32_t number) {
  FlowKey flow{*IpAddress::Parse("10.0.0.2"), *IpAddress::Parse("192.0.2.1"), 0, 443, kProtocolTcp};
  flow.source_port = static_cast<uint16_t>(number);
  flow.destination.bytes[2] = static_cast<uint8_t>(number >> 16);
  return flow;
}

std::vector<uint16_t> Ports(size_t count) {
  std::vector<uint16_t> ports;
  for (size_t i = 0; i < count; ++i) ports.push_back(static_cast<uint16_t>(65535 - i));
  return ports;
}

void ExpireAll(TcpSessions& sessions, TimeNs now_ns) {
  while (sessions.NextDue() <= now_ns) sessions.Expire();
}

TEST(TcpSessions, AFlowIsFoundByItsKeyAndByItsPort) {
  TcpSessions sessions(Ports(3), 3);
  const Place place = sessions.Begin(Flow(1));
  ASSERT_NE(place, TcpSessions::kNowhere);
  EXPECT_EQ(sessions[place].port, 65535);
  EXPECT_EQ(sessions[place].state, State::kPending);
  EXPECT_EQ(sessions.Find(Flow(1)), place);
  EXPECT_EQ(sessions.FindPort(65535), place);
  EXPECT_EQ(sessions.Find(Flow(1).Reversed()), TcpSessions::kNowhere);
  EXPECT_EQ(sessions.FindPort(65534), TcpSessions::kNowhere);
  EXPECT_EQ(sessions.FindPort(1), TcpSessions::kNowhere);
}

TEST(TcpSessions, WhenAllAreInUseNobodyIsOverwritten) {
  TcpSessions sessions(Ports(2), 2);
  const Place first = sessions.Begin(Flow(1));
  sessions.Begin(Flow(2));
  EXPECT_EQ(sessions.Begin(Flow(3)), TcpSessions::kNowhere);
  EXPECT_EQ(sessions.Find(Flow(1)), first);
  // Nor one that rests.
  sessions.End(first, 0);
  EXPECT_EQ(sessions.Begin(Flow(3)), TcpSessions::kNowhere);
  EXPECT_EQ(sessions.Find(Flow(1)), first);
  EXPECT_EQ(sessions.FindPort(sessions[first].port), first);
  ExpireAll(sessions, 60 * kSecondNs);
  EXPECT_EQ(sessions.Find(Flow(1)), TcpSessions::kNowhere);
  const uint32_t generation = sessions[first].generation;
  EXPECT_EQ(sessions.Begin(Flow(3)), first);
  EXPECT_EQ(sessions[first].generation, generation + 1);
}

TEST(TcpSessions, ThoseThatRestKeepNoOtherFromBeginning) {
  TcpSessions sessions(Ports(3), 1);
  const Place first = sessions.Begin(Flow(1));
  EXPECT_EQ(sessions.Begin(Flow(2)), TcpSessions::kNowhere);
  sessions.End(first, 0);
  const Place second = sessions.Begin(Flow(2));
  EXPECT_NE(second, TcpSessions::kNowhere);
  EXPECT_NE(second, first);
}

TEST(TcpSessions, OneThatBeginsAnewHasAnotherPort) {
  TcpSessions sessions(Ports(2), 2);
  const Place before = sessions.Begin(Flow(1));
  sessions.Open(before);
  sessions.End(before, 0);
  sessions.Detach(before);
  EXPECT_EQ(sessions.Find(Flow(1)), TcpSessions::kNowhere);
  EXPECT_EQ(sessions.FindPort(sessions[before].port), TcpSessions::kNowhere);
  const Place after = sessions.Begin(Flow(1));
  EXPECT_NE(after, before);
  ExpireAll(sessions, 60 * kSecondNs);
  EXPECT_EQ(sessions.Find(Flow(1)), after);
}

TEST(TcpSessions, ThoseThatRestAreFreeInTheirOrder) {
  TcpSessions sessions(Ports(3), 3);
  EXPECT_EQ(sessions.NextDue(), kNever);
  const Place first = sessions.Begin(Flow(1)), second = sessions.Begin(Flow(2));
  sessions.End(second, 10 * kSecondNs);
  sessions.End(first, 11 * kSecondNs);
  EXPECT_EQ(sessions.in_use(), 0u);
  EXPECT_GT(sessions.NextDue(), 11 * kSecondNs);
  EXPECT_EQ(sessions.Expire(), second);
  EXPECT_EQ(sessions.Expire(), first);
  EXPECT_EQ(sessions.NextDue(), kNever);
}

TEST(TcpSessions, AgreeWithAMap) {
  std::mt19937 random(3);
  TcpSessions sessions(Ports(300), 300);
  std::map<uint32_t, Place> live, resting;
  TimeNs now_ns = 0;
  for (int i = 0; i < 50'000; ++i) {
    now_ns += random() % (20 * kMillisecondNs);
    while (sessions.NextDue() <= now_ns) {
      const Place place = sessions.Expire();
      std::erase_if(resting, [&](const auto& one) { return one.second == place; });
    }
    const uint32_t number = static_cast<uint32_t>(random() % 400) * 997;
    const Place place = sessions.Find(Flow(number));
    if (live.contains(number)) {
      ASSERT_EQ(place, live.at(number));
      ASSERT_EQ(sessions.FindPort(sessions[place].port), place);
      if (random() % 2 == 0) sessions.Open(place);
      if (random() % 2 == 0) continue;
      sessions.End(place, now_ns);
      resting.insert(live.extract(number));
    } else {
      ASSERT_EQ(place, resting.contains(number) ? resting.at(number) : TcpSessions::kNowhere);
      if (place != TcpSessions::kNowhere) continue;
      const Place begun = sessions.Begin(Flow(number));
      ASSERT_EQ(begun == TcpSessions::kNowhere, live.size() + resting.size() == 300);
      if (begun != TcpSessions::kNowhere) live[number] = begun;
    }
    ASSERT_EQ(sessions.in_use(), live.size());
  }
}

}  // namespace
}  // namespace braid::tcp_sessions_test
