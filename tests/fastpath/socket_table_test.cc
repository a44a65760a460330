#include "fastpath/socket_table.h"

#include <gtest/gtest.h>

#include <set>

namespace braid::socket_table_test {
namespace {

TEST(SocketTable, EverySocketOfAClientHasAnIdOfItsOwn) {
  constexpr int kLanes = 13, kWorkers = 3;
  std::set<int> fds;
  for (int worker = 0; worker < kWorkers; ++worker) {
    SocketTable table(kLanes, kWorkers);
    std::set<uint16_t> ids;
    for (uint16_t group = 0; group < kMaxSocketGroups; ++group) {
      for (int lane = worker; lane < kLanes; lane += kWorkers) {
        const WorkerSocket socket{group * 100 + lane, group, static_cast<int16_t>(lane), false};
        const uint16_t id = table.Put(socket);
        EXPECT_TRUE(ids.insert(id).second);
        EXPECT_EQ(table[id].fd, socket.fd);
        EXPECT_EQ(table[id].lane, lane);
      }
    }
    for (uint16_t group = 0; group < kMaxSocketGroups; ++group) {
      for (int lane = worker; lane < kLanes; lane += kWorkers) {
        EXPECT_EQ(table.Find(group, static_cast<uint8_t>(lane)), group * 100 + lane);
      }
    }
    EXPECT_EQ(table.Find(0, 127), -1) << "a lane that there is not";
  }
}

TEST(SocketTable, AServersSocketIsForAnyLane) {
  SocketTable table(16, 4);
  table.Put({7, 2, Incoming::kAnyLane, true});
  for (const int lane : {0, 3, 15, 127, 255})
    EXPECT_EQ(table.Find(2, static_cast<uint8_t>(lane)), 7);
  EXPECT_EQ(table.Find(1, 0), -1);
  EXPECT_EQ(table.Find(kMaxSocketGroups, 0), -1);
}

TEST(SocketTable, AGroupIsTakenAwayByItselfAndCanComeAgain) {
  SocketTable table(4, 2);
  for (const uint16_t group : {0, 1}) {
    for (const int16_t lane : {0, 2}) table.Put({10 * group + lane + 1, group, lane, false});
  }
  std::set<int> removed;
  table.Clear(1, [&](int fd) { EXPECT_TRUE(removed.insert(fd).second); });
  EXPECT_EQ(removed, (std::set<int>{11, 13}));
  EXPECT_EQ(table.Find(1, 2), -1);
  EXPECT_EQ(table.Find(0, 2), 3);
  table.Clear(1, [](int) { ADD_FAILURE() << "there is nothing left"; });
  table.Put({20, 1, 2, false});
  EXPECT_EQ(table.Find(1, 2), 20);
}

}  // namespace
}  // namespace braid::socket_table_test
