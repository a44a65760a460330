#include "cli/top_layout.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/text_layout.h"

namespace braid::top_layout_test {
namespace {

TopPath Path(const std::string& name, double mbps, double share) {
  return {.name = name,
          .interface = "eth0",
          .state = "up",
          .rtt_ms = 10.24,
          .loss = 0.0132,
          .queue_ms = 1.5,
          .rates = {mbps, 0.5},
          .share = share};
}

TopPeer Peer(const std::string& name, double mbps) {
  return {.name = name,
          .key = "key of " + name,
          .established = true,
          .rates = {mbps, 1},
          .rx_bytes = 1299227607.0,
          .tx_bytes = 1000.0,
          .paths = {Path("fibre", mbps * 0.75, 0.75), Path("lte", mbps * 0.25, 0.25)}};
}

TopState Client() {
  TopState state{.state = "running",
                 .mode = "client",
                 .device = "braid0",
                 .version = "1.2.0",
                 .uptime_s = 11532,
                 .rates = {62.9, 1.2},
                 .peers = {Peer("hub", 62.9)},
                 .workers = {{0, 12000, 900, 0}, {1, 5.5, std::nullopt, 0}},
                 .drops = {{"no_route", 12, 1234567}},
                 .warnings = {"path lte: no route through wwan0"}};
  for (int i = 0; i <= 8; ++i) state.history.push_back({i * 10.0, std::nullopt});
  return state;
}

std::string Render(const TopState& state, const TopView& view, size_t width, size_t height) {
  std::string text;
  for (const TopLine& line : LayOutTop(state, view, width, height)) {
    absl::StrAppend(&text, RenderLine(line, false), "\n");
  }
  return text;
}

TEST(TopLayout, OnEightyColumnsAllIsSeen) {
  EXPECT_EQ(Render(Client(), {}, 80, 24),
            R"(braid running  client  braid0  up 3h 12m  version 1.2.0                every 1 s
  in   62.9 Mbit/s                                 ▁▁▂▃▄▅▆▇█  peak 80.0 Mbit/s
  out   1.2 Mbit/s                                            peak 0.0 Mbit/s

paths of hub
  path      device   state   in Mbit/s out Mbit/s  rtt ms loss % queue ms share
  fibre     eth0     up           47.2        0.5    10.2    1.3     1.50 ████▌
  lte       eth0     up           15.7        0.5    10.2    1.3     1.50 █▌

peers 1, 1 up
  peer                    state paths in Mbit/s out Mbit/s   received       sent
  hub                     up        2      62.9        1.0    1.2 GiB     1000 B

workers
  worker cpu in packets/s out packets/s handed over/s
       0   0       12,000           900             0
       1   1          5.5             -             0

drops
  reason                  a second        in all
  no_route                      12     1,234,567 no peer owns the inner destina…
warnings
  path lte: no route through wwan0
q quit  p pause  s sort: rate  ↑↓ choose  ? help
)");
}

TEST(TopLayout, WhereThereIsLittleRoomTheMostImportantStays) {
  EXPECT_EQ(Render(Client(), {}, 40, 10), R"(braid running  client  braid0  up 3h 12m
  in   62.9 Mbit/s             ▁▁▂▃▄▅▆▇█
  out   1.2 Mbit/s
paths of hub
  path      state   in Mbit/s out Mbit/s
  fibre     up           47.2        0.5
  lte       up           15.7        0.5
warnings
  path lte: no route through wwan0
q quit  p pause  s sort: rate  ↑↓ choos…
)");
}

TEST(TopLayout, EverySizeIsKept) {
  TopState state = Client();
  for (int i = 0; i < 60; ++i) state.peers.push_back(Peer(absl::StrCat("peer-", i), i));
  state.warnings.assign(20, std::string(200, 'w'));
  state.peers.front().paths.front().problem = std::string(300, 'p');
  for (const bool help : {false, true}) {
    for (const std::string problem : {"", "no daemon answers on that socket"}) {
      state.problem = problem;
      for (size_t width = 1; width <= 220; width += 3) {
        for (size_t height = 1; height <= 70; height += 3) {
          const auto lines = LayOutTop(state, {.help = help}, width, height);
          EXPECT_LE(lines.size(), height);
          for (const TopLine& line : lines) EXPECT_LE(Width(RenderLine(line, false)), width);
        }
      }
    }
  }
}

TEST(TopLayout, ThousandsOfPeersScrollWithTheChosenOne) {
  TopState state = Client();
  state.workers.clear();
  state.drops.clear();
  state.warnings.clear();
  state.peers.clear();
  for (int i = 0; i < 3000; ++i) state.peers.push_back(Peer(absl::StrCat("peer-", i), i));
  TopView view;
  EXPECT_NE(Render(state, view, 80, 24).find("\n> peer-2999"), std::string::npos);
  view.peer = MovePeer(state, view, 1000);
  EXPECT_EQ(view.peer, "key of peer-1999");
  const std::string shown = Render(state, view, 80, 24);
  EXPECT_NE(shown.find("\n> peer-1999"), std::string::npos) << shown;
  EXPECT_NE(shown.find("paths of peer-1999\n"), std::string::npos);
  EXPECT_NE(shown.find("peers 3,000, 3,000 up, "), std::string::npos);
  view.peer = MovePeer(state, view, 1 << 30);
  EXPECT_EQ(view.peer, "key of peer-0");
  EXPECT_NE(Render(state, view, 80, 24).find("\n> peer-0 "), std::string::npos);
  EXPECT_EQ(MovePeer(state, view, -1 << 30), "key of peer-2999");
  // Another order has the same one chosen.
  view.sort = TopSort::kName;
  EXPECT_NE(Render(state, view, 80, 24).find("\n> peer-0 "), std::string::npos);
}

TEST(TopLayout, NoAnswerIsToldAndTheHistoryStays) {
  TopState state{.problem = "no daemon answers"};
  state.history = Client().history;
  const std::string shown = Render(state, {.paused = true}, 60, 10);
  EXPECT_NE(shown.find("braid no answer, trying again"), std::string::npos);
  EXPECT_NE(shown.find("paused\n"), std::string::npos);
  EXPECT_NE(shown.find("\n  no daemon answers\n"), std::string::npos);
  EXPECT_NE(shown.find("▇█"), std::string::npos);
}

TEST(TopLayout, WithoutALimitThereIsAllOfItAndNoKeys) {
  TopState state = Client();
  for (int i = 0; i < 100; ++i) state.peers.push_back(Peer(absl::StrCat("peer-", i), i));
  const std::string shown = Render(state, {}, 80, kTopUnlimited);
  for (int i = 0; i < 100; ++i) {
    EXPECT_NE(shown.find(absl::StrCat(" peer-", i, " ")), std::string::npos);
  }
  EXPECT_EQ(shown.find("q quit"), std::string::npos);
}

}  // namespace
}  // namespace braid::top_layout_test
