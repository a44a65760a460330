// The session table: against a map, with indices that crowd each other.
#include "fastpath/session_table.h"

#include <gtest/gtest.h>

#include <array>
#include <map>

#include "support/packets.h"

namespace braid::session_table_test {
namespace {

TEST(SessionTable, FindsWhatWasInsertedUntilItIsErased) {
  SessionTable table(3);
  const Keypair keypair{};
  EXPECT_EQ(table.Find(7), nullptr);
  EXPECT_TRUE(table.Insert(7, 1, &keypair));
  ASSERT_NE(table.Find(7), nullptr);
  EXPECT_EQ(table.Find(7)->index, 7u);
  EXPECT_EQ(table.Find(7)->peer, 1u);
  EXPECT_EQ(table.Find(7)->keypair, &keypair);
  EXPECT_EQ(table.size(), 1u);
  table.Erase(8);
  EXPECT_EQ(table.size(), 1u);
  table.Erase(7);
  EXPECT_EQ(table.Find(7), nullptr);
  EXPECT_EQ(table.size(), 0u);
}

TEST(SessionTable, HoldsAsManyAsItWasMadeForAndThenSaysFull) {
  const Keypair keypair{};
  for (const size_t entries : {1, 2, 3, 7, 8, 100}) {
    SessionTable table(entries);
    uint32_t index = 0;
    while (table.Insert(index * 1024, 0, &keypair)) {
      ASSERT_LT(++index, 10'000u);  // a full table would be searched for ever
    }
    EXPECT_GE(table.size(), entries);
    EXPECT_EQ(table.Find(0xffffffff), nullptr);
  }
}

// Indices that share their low bits, and wrap around the table's end.
TEST(SessionTable, AgreesWithAMap) {
  testing::Random random(1);
  constexpr size_t kEntries = 60;
  const std::array<Keypair, 4> keypairs{};
  for (const uint32_t spread : {1u, 7u, 128u, 12345u}) {
    SessionTable table(kEntries);
    std::map<uint32_t, std::pair<PeerSlot, const Keypair*>> model;
    for (int i = 0; i < 30'000; ++i) {
      const auto index = static_cast<uint32_t>(120 + testing::Below(random, 90) * spread);
      if (model.contains(index)) {
        table.Erase(index);
        model.erase(index);
      } else if (model.size() < kEntries) {
        const auto peer = static_cast<PeerSlot>(i);
        const Keypair* keypair = &keypairs[testing::Below(random, keypairs.size())];
        ASSERT_TRUE(table.Insert(index, peer, keypair));
        model[index] = {peer, keypair};
      }
      ASSERT_EQ(table.size(), model.size());
      if (i % 16 != 0) continue;
      for (uint32_t n = 0; n < 90; ++n) {
        const uint32_t wanted = 120 + n * spread;
        const SessionTable::Entry* found = table.Find(wanted);
        const auto expected = model.find(wanted);
        ASSERT_EQ(found != nullptr, expected != model.end()) << wanted;
        if (found == nullptr) continue;
        ASSERT_EQ(found->index, wanted);
        ASSERT_EQ(found->peer, expected->second.first);
        ASSERT_EQ(found->keypair, expected->second.second);
      }
    }
  }
}

}  // namespace
}  // namespace braid::session_table_test
