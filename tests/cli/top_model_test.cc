#include "cli/top_model.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace braid::top_model_test {
namespace {

using Json = nlohmann::ordered_json;

// A daemon with one peer over two paths, of which the first has carried three times the second.
Json Status(double uptime_s, uint64_t rx_bytes, uint64_t drops = 0, int pid = 1) {
  const auto path = [](const char* name, uint64_t bytes) {
    return Json{
        {"name", name},  {"interface", "eth0"}, {"state", "up"}, {"rx_bytes", bytes},
        {"tx_bytes", 0}, {"rtt_ms", 10.5},      {"loss", 0.01},  {"sending", {{"queue_ms", 2.5}}}};
  };
  const Json peer = {
      {"name", "hub"},       {"public_key", "k"},
      {"established", true}, {"rx_bytes", rx_bytes},
      {"tx_bytes", 0},       {"paths", {path("a", rx_bytes / 4 * 3), path("b", rx_bytes / 4)}}};
  return {{"state", "running"},
          {"pid", pid},
          {"uptime_s", uptime_s},
          {"peers", Json::array({peer})},
          {"workers", Json::array({{{"cpu", 0}, {"rx_packets", rx_bytes / 1000}}})},
          {"drops", {{"no_route", drops}, {"too_big", 5}}},
          {"warnings", {"one"}}};
}

TEST(TopModel, RatesAreDifferencesOverTime) {
  TopModel model;
  model.Take(Status(1, 0), 10 * kSecondNs);
  EXPECT_FALSE(model.state().rates.rx_mbps);  // one status has no rate
  model.Take(Status(3, 1'000'000), 12 * kSecondNs);
  const TopState& state = model.state();
  EXPECT_DOUBLE_EQ(*state.rates.rx_mbps, 4);
  EXPECT_DOUBLE_EQ(*state.rates.tx_mbps, 0);
  const TopPeer& peer = state.peers.front();
  EXPECT_DOUBLE_EQ(*peer.rates.rx_mbps, 4);
  EXPECT_DOUBLE_EQ(*peer.paths[0].rates.rx_mbps, 3);
  EXPECT_DOUBLE_EQ(peer.paths[0].share, 0.75);
  EXPECT_DOUBLE_EQ(peer.paths[1].share, 0.25);
  EXPECT_DOUBLE_EQ(*peer.paths[0].queue_ms, 2.5);
  EXPECT_DOUBLE_EQ(*state.workers.front().rx_packets_per_s, 500);
  EXPECT_EQ(state.warnings, std::vector<std::string>{"one"});
  ASSERT_EQ(state.history.size(), 2u);
  EXPECT_DOUBLE_EQ(*state.history.back().rx_mbps, 4);
}

TEST(TopModel, ARestartIsNoRate) {
  for (const bool same_pid : {true, false}) {  // in a container every daemon is the first process
    TopModel model;
    model.Take(Status(100, 1'000'000), 10 * kSecondNs);
    // The new one has carried more already, so that its counters do not give it away.
    model.Take(Status(1, 9'000'000, 7, same_pid ? 1 : 2), 11 * kSecondNs);
    EXPECT_FALSE(model.state().rates.rx_mbps);
    EXPECT_TRUE(model.state().drops.empty());
    model.Take(Status(2, 9'125'000, 7, same_pid ? 1 : 2), 12 * kSecondNs);
    EXPECT_DOUBLE_EQ(*model.state().rates.rx_mbps, 1);
  }
}

TEST(TopModel, ACounterThatBeganAnewHasNoRate) {
  TopModel model;
  model.Take(Status(1, 1'000'000), 1 * kSecondNs);
  model.Take(Status(2, 1'000), 2 * kSecondNs);
  EXPECT_FALSE(model.state().peers.front().rates.rx_mbps);
  EXPECT_DOUBLE_EQ(*model.state().peers.front().rates.tx_mbps, 0);
  model.Take(Status(3, 126'000), 3 * kSecondNs);
  EXPECT_DOUBLE_EQ(*model.state().peers.front().rates.rx_mbps, 1);
}

TEST(TopModel, ADaemonThatGoesAndComesBackIsGoneMeanwhile) {
  TopModel model;
  model.Take(Status(1, 0), 1 * kSecondNs);
  model.Miss("no daemon\nanswers");
  EXPECT_EQ(model.state().problem, "no daemon?answers");
  EXPECT_TRUE(model.state().peers.empty());
  EXPECT_FALSE(model.state().history.back().rx_mbps);
  // It was only busy: the rate is over all of the time.
  model.Take(Status(3, 1'000'000), 3 * kSecondNs);
  EXPECT_EQ(model.state().problem, "");
  EXPECT_DOUBLE_EQ(*model.state().rates.rx_mbps, 4);
  EXPECT_EQ(model.state().history.size(), 3u);
}

TEST(TopModel, DropsAreShownWhileTheyRiseAndAWhileAfter) {
  TopModel model;
  TimeNs now_ns = kSecondNs;
  model.Take(Status(1, 0, 3), now_ns);
  EXPECT_TRUE(model.state().drops.empty());
  model.Take(Status(2, 0, 13), now_ns += 2 * kSecondNs);
  ASSERT_EQ(model.state().drops.size(), 1u);
  EXPECT_EQ(model.state().drops.front().name, "no_route");
  EXPECT_DOUBLE_EQ(model.state().drops.front().per_s, 5);
  EXPECT_DOUBLE_EQ(model.state().drops.front().total, 13);
  model.Take(Status(3, 0, 13), now_ns += kTopDropsShownFor);
  ASSERT_EQ(model.state().drops.size(), 1u);
  EXPECT_DOUBLE_EQ(model.state().drops.front().per_s, 0);
  model.Take(Status(4, 0, 13), now_ns += kSecondNs);
  EXPECT_TRUE(model.state().drops.empty());
}

TEST(TopModel, HistoryIsBounded) {
  TopModel model;
  for (size_t i = 0; i < kTopHistory + 10; ++i) model.Miss("none");
  EXPECT_EQ(model.state().history.size(), kTopHistory);
}

TEST(TopModel, AnyFieldMayBeMissingOrOfAnotherType) {
  const Json flat = Status(1, 1000).flatten();
  for (const auto& [pointer, value] : flat.items()) {
    for (const Json& other : {Json(nullptr), Json(-1), Json("x"), Json::array({1}), Json(1e300)}) {
      Json changed = Status(1, 1000);
      changed[Json::json_pointer(pointer)] = other;
      TopModel model;
      model.Take(changed, kSecondNs);
      model.Take(changed, 2 * kSecondNs);
      EXPECT_LE(model.state().peers.size(), 1u);
    }
  }
  TopModel model;
  model.Take(Json("no object"), kSecondNs);
  EXPECT_TRUE(model.state().peers.empty());
}

TEST(TopModel, PeersAreSortedByWhatIsAskedFor) {
  std::vector<TopPeer> peers(3);
  peers[0] = {.name = "b", .rates = {1, 1}, .rx_bytes = 10};
  peers[1] = {.name = "c", .rates = {5, 0}, .rx_bytes = 30};
  peers[2] = {.name = "a", .rates = {1, 1}, .rx_bytes = 20};
  const auto sorted = [&](TopSort sort) {
    SortPeers(peers, sort);
    return peers[0].name + peers[1].name + peers[2].name;
  };
  EXPECT_EQ(sorted(TopSort::kRate), "cab");
  EXPECT_EQ(sorted(TopSort::kBytes), "cab");
  EXPECT_EQ(sorted(TopSort::kName), "abc");
}

}  // namespace
}  // namespace braid::top_model_test
