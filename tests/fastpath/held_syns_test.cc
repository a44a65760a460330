// SYNs come back as they were held, and in the order of their age, as a plain list would have it.
#include "fastpath/held_syns.h"

#include <gtest/gtest.h>

#include <list>

#include "support/packets.h"

namespace braid::held_syns_test {
namespace {

using testing::Below;
using testing::Buffer;
using testing::PacketSpec;
using testing::Random;

Buffer FromTun(uint16_t source_port, bool partial) {
  PacketSpec spec = testing::SpecOf(false, testing::kTcp);
  spec.source_port = source_port;
  spec.tcp_flags = testing::kSyn;
  Buffer packet = testing::BuildPacket(spec);
  if (partial) testing::MakePartial(spec, packet);
  return testing::BehindVnetHeader(partial ? testing::VnetFor(spec) : VnetHeader(), packet);
}

HeldSyns::Slot Hold(HeldSyns& syns, Buffer from_tun, uint32_t place, TimeNs now_ns = 0) {
  Segmenter segmenter;
  EXPECT_TRUE(segmenter.Begin(from_tun));
  return syns.Hold(segmenter, place, now_ns);
}

TEST(HeldSyns, AreKeptAsTheyCame) {
  HeldSyns syns(2);
  for (const bool partial : {false, true}) {
    const Buffer syn = FromTun(1000, partial);
    HeldSyns::Syn& held = syns[Hold(syns, syn, 7, 5)];
    EXPECT_EQ(held.partial_checksum, partial);
    EXPECT_EQ(held.place, 7u);
    EXPECT_EQ(held.since_ns, 5u);
    EXPECT_EQ(Buffer(held.from_tun().begin(), held.from_tun().end()), syn);
  }
  EXPECT_FALSE(syns.HasRoom());
}

TEST(HeldSyns, OneThatIsTakenIsNoLongerWaitedFor) {
  HeldSyns syns(2);
  const auto first = Hold(syns, FromTun(1000, false), 1);
  const auto second = Hold(syns, FromTun(1001, false), 2);
  EXPECT_EQ(syns.oldest(), first);
  syns.Take(first);
  EXPECT_EQ(syns.oldest(), second);
  EXPECT_FALSE(syns.HasRoom()) << "it is still to be sent on";
  syns.Free(first);
  EXPECT_TRUE(syns.HasRoom());
  syns.Drop(second);
  EXPECT_EQ(syns.oldest(), HeldSyns::kNone);
}

TEST(HeldSyns, AgreeWithAList) {
  constexpr HeldSyns::Slot kCapacity = 50;
  HeldSyns syns(kCapacity);
  std::list<HeldSyns::Slot> waiting;  // the oldest is first
  std::vector<HeldSyns::Slot> taken;
  Random random(1);
  const Buffer syn = FromTun(1000, false);
  for (int i = 0; i < 20'000; ++i) {
    ASSERT_EQ(syns.HasRoom(), waiting.size() + taken.size() < kCapacity);
    ASSERT_EQ(syns.oldest(), waiting.empty() ? HeldSyns::kNone : waiting.front());
    const uint64_t what = Below(random, 8);
    if (what < 4) {
      if (syns.HasRoom()) waiting.push_back(Hold(syns, syn, 0));
    } else if (what == 7) {
      for (const auto slot : taken) syns.Free(slot);
      taken.clear();
    } else if (!waiting.empty()) {
      const auto one =
          std::next(waiting.begin(), static_cast<ptrdiff_t>(Below(random, waiting.size())));
      if (what == 4) {
        syns.Take(*one);
        taken.push_back(*one);
      } else {
        syns.Drop(*one);
      }
      waiting.erase(one);
    }
  }
}

}  // namespace
}  // namespace braid::held_syns_test
