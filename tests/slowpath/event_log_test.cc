#include "slowpath/event_log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace braid::event_log_test {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kStartNs = 1'000'000'000'000;  // 1,000 s after 1970
constexpr uint64_t kFirstId = 1'000'000'001;

std::vector<uint64_t> ReadIds(EventLog::Follower& follower) {
  std::vector<uint64_t> ids;
  while (const LoggedEvent* event = follower.Next()) ids.push_back(event->id);
  return ids;
}

TEST(EventLogTest, FollowerReadsWhatIsPublishedFromThenOn) {
  EventLog log(kStartNs);
  log.Publish("reload", Json::object());
  int news = 0;
  const auto follower = log.Follow(std::nullopt, [&news] { ++news; });
  EXPECT_EQ(follower->Next(), nullptr);
  log.Publish("path_up", {{"path", "lte"}}, 5'000'000);
  EXPECT_EQ(news, 1);
  const LoggedEvent* event = follower->Next();
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(event->id, kFirstId + 1);
  EXPECT_EQ(event->time_ms, 5u);
  EXPECT_EQ(event->type, "path_up");
  EXPECT_EQ(event->data, R"({"path":"lte"})");
  EXPECT_EQ(follower->Next(), nullptr);
  EXPECT_FALSE(follower->has_missed());
}

TEST(EventLogTest, HistoryBehindAnEventComesFirst) {
  EventLog log(kStartNs);
  for (int i = 0; i < 4; ++i) log.Publish("stop", Json::object());
  const auto follower = log.Follow(kFirstId + 1, [] {});
  EXPECT_EQ(ReadIds(*follower), (std::vector<uint64_t>{kFirstId + 2, kFirstId + 3}));
  EXPECT_FALSE(follower->has_missed());
  const auto newest = log.Follow(kFirstId + 3, [] {});
  EXPECT_EQ(ReadIds(*newest), std::vector<uint64_t>{});
  EXPECT_FALSE(newest->has_missed());
}

TEST(EventLogTest, FollowerThatAsksForWhatIsNotThereIsToldAndGetsAllThatIs) {
  EventLog log(kStartNs, {.events = 2, .bytes = 1000});
  for (int i = 0; i < 4; ++i) log.Publish("stop", Json::object());
  const std::vector<uint64_t> kept = {kFirstId + 2, kFirstId + 3};
  // Forgotten, of an earlier daemon's, of a later one's.
  for (const uint64_t after : {kFirstId, uint64_t{7}, kFirstId + 100, UINT64_MAX}) {
    const auto follower = log.Follow(after, [] {});
    EXPECT_TRUE(follower->has_missed()) << after;
    EXPECT_EQ(ReadIds(*follower), kept) << after;
    EXPECT_FALSE(follower->has_lost()) << after;
  }
  EXPECT_FALSE(log.Follow(kFirstId + 1, [] {})->has_missed());
}

TEST(EventLogTest, SlowFollowerLosesItsPlaceAndOthersDoNot) {
  EventLog log(kStartNs, {.events = 3, .bytes = 1000});
  const auto slow = log.Follow(std::nullopt, [] {});
  const auto quick = log.Follow(std::nullopt, [] {});
  std::vector<uint64_t> read;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(slow->has_lost(), i > 3) << i;
    log.Publish("stop", Json::object());
    for (const uint64_t id : ReadIds(*quick)) read.push_back(id);
  }
  EXPECT_EQ(read.size(), 10u);
  EXPECT_FALSE(quick->has_lost());
  EXPECT_EQ(slow->Next(), nullptr);
}

TEST(EventLogTest, BytesAreBoundedButTheNewestEventStays) {
  EventLog log(kStartNs, {.events = 100, .bytes = 1000});
  const auto follow_all = [&log] {
    const auto follower = log.Follow(0, [] {});
    return ReadIds(*follower).size();
  };
  for (int i = 0; i < 10; ++i) log.Publish("stop", {{"text", std::string(300, 'x')}});
  EXPECT_EQ(follow_all(), 3u);
  log.Publish("stop", {{"text", std::string(5000, 'x')}});
  EXPECT_EQ(follow_all(), 1u);
}

TEST(EventLogTest, FollowersLeave) {
  EventLog log(kStartNs);
  int news = 0;
  auto follower = log.Follow(std::nullopt, [&news] { ++news; });
  EXPECT_EQ(log.followers(), 1u);
  follower.reset();
  EXPECT_EQ(log.followers(), 0u);
  log.Publish("stop", Json::object());
  EXPECT_EQ(news, 0);
}

TEST(EventLogTest, LaterDaemonsIdsAreHigher) {
  EventLog first(kStartNs);
  for (int i = 0; i < 1000; ++i) first.Publish("stop", Json::object());
  const EventLog second(kStartNs + kSecondNs);
  EXPECT_GT(second.last_id(), first.last_id());
}

}  // namespace
}  // namespace braid::event_log_test
