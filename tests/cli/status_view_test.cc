#include "cli/status_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace braid::status_view_test {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFullStatus[] = R"({
  "state": "running", "version": "1.2.0", "mode": "client", "device": "braid0",
  "uptime_s": 11532, "pid": 4711, "io": "io_uring", "aead": "ipsec-mb",
  "offloads": {"vnet_hdr": true, "tso": true, "uso": true, "udp_gso": true, "udp_gro": false,
               "steering": "bpf"},
  "network": {"addresses": ["10.77.0.1/24", "fd77::1/64"], "mtu": 1420},
  "memory_rss_bytes": 35861299,
  "peers": [
    {"name": "hub", "public_key": "J1dZ8yBqGmVLwkM2e9dX3p7Qn0aTtHrYcUvWxSzAfE8=",
     "established": true, "cipher": "aes-256-gcm", "last_handshake_s": 92,
     "rx_bytes": 1299227607, "tx_bytes": 356515840,
     "paths": [
       {"name": "fibre", "interface": "eth0", "problem": null, "local": "10.20.1.1",
        "remote": "10.20.1.2:7700", "state": "up", "mtu": 1432,
        "rtt_ms": 10.24, "loss": 0.0, "rx_bytes": 1288490188, "tx_bytes": 340000000,
        "rate_mbps": 941.3},
       {"name": "lte", "local": "[2001:db8:1234:5678:9abc:def0:1234:5678]:40002",
        "remote": "[2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa]:7700", "state": "standby",
        "rtt_ms": 48.9, "loss": 0.0132,
        "quota": {"used_bytes": 1250000000, "limit_bytes": 50000000000, "resets": "2026-12-01"},
        "rx_bytes": 10737419, "tx_bytes": 1000,
        "rate_mbps": 22.5}]},
    {"name": "spare", "public_key": "", "established": false, "cipher": "",
     "last_handshake_s": null, "rx_bytes": 0, "tx_bytes": 0, "paths": []}],
  "workers": [
    {"cpu": 0, "rx_packets": 1234567, "tx_packets": 89, "handed_over": 0, "lanes": [0, 2, 4]},
    {"cpu": null, "rx_packets": 0, "tx_packets": 4294967296, "handed_over": 7, "lanes": []}],
  "drops": {"replay": 12, "bad_tag": 0, "no_route": 1234567, "too_big": 3},
  "warnings": ["path lte: the interface wwan0 has no default route, so that its packets leave by another link"]
})";

constexpr char kFullView[] =
    R"(braid running   client   braid0   up 3h 12m   version 1.2.0
  network   10.77.0.1/24, fd77::1/64, mtu 1420
  peers     2, 1 established

peer hub   established   handshake 1m 32s ago
  path         state           rtt    loss          rate    received        sent
  fibre        up          10.2 ms     0 %  941.3 Mbit/s     1.2 GiB   324.2 MiB
  lte          standby     48.9 ms   1.3 %   22.5 Mbit/s    10.2 MiB      1000 B
    quota 1.2 GB of 50.0 GB used, until 2026-12-01

peer spare   not established   no handshake yet

drops
  no_route  1,234,567
  replay           12
  too_big           3

warnings
  - path lte: the interface wwan0 has no default route, so that its packets
    leave by another link
)";

std::string Render(const std::string& status, bool colour = false) {
  return RenderStatus(Json::parse(status), {.colour = colour});
}

size_t WidestLine(const std::string& text) {
  std::istringstream lines(text);
  size_t widest = 0;
  for (std::string line; std::getline(lines, line);) {
    size_t width = 0;
    for (const char c : line) width += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    widest = std::max(widest, width);
  }
  return widest;
}

std::string WithoutColours(const std::string& text) {
  std::string plain;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\x1b') {
      at = text.find('m', at);
    } else {
      plain += text[at];
    }
  }
  return plain;
}

TEST(StatusViewTest, FullStatusReadsAtAGlance) { EXPECT_EQ(Render(kFullStatus), kFullView); }

TEST(StatusViewTest, VerboseTellsWhatThereIs) {
  constexpr char kVerboseView[] =
      R"(braid running   client   braid0   up 3h 12m   version 1.2.0
  network   10.77.0.1/24, fd77::1/64, mtu 1420
  engine    io_uring, ipsec-mb, 2 workers
  offloads  vnet_hdr tso uso udp_gso, steering bpf; without udp_gro
  process   pid 4711, 34.2 MiB of memory
  peers     2, 1 established

peer hub   established   handshake 1m 32s ago
  key J1dZ8yBqGmVLwkM2e9dX3p7Qn0aTtHrYcUvWxSzAfE8=
  cipher aes-256-gcm, received 1.2 GiB, sent 340.0 MiB
  path         state           rtt    loss          rate    received        sent
  fibre        up          10.2 ms     0 %  941.3 Mbit/s     1.2 GiB   324.2 MiB
    eth0  10.20.1.1 → 10.20.1.2:7700  mtu 1432
  lte          standby     48.9 ms   1.3 %   22.5 Mbit/s    10.2 MiB      1000 B
    quota 1.2 GB of 50.0 GB used, until 2026-12-01
    [2001:db8:1234:5678:9abc:def0:1234:5678]:40002
    → [2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa]:7700

peer spare   not established   no handshake yet
  cipher -, received 0 B, sent 0 B

  worker cpu    rx packets    tx packets  handed over  lanes
       0   0     1,234,567            89            0  3: 0 2 4
       1   -             0 4,294,967,296            7  -

drops
  no_route  1,234,567
    no peer owns the inner destination
  replay           12
  too_big           3
    does not fit the tunnel's MTU; answered with ICMP where allowed

warnings
  - path lte: the interface wwan0 has no default route, so that its packets
    leave by another link
)";
  EXPECT_EQ(RenderStatus(Json::parse(kFullStatus), {.verbose = true}), kVerboseView);
}

Json ManyPeers(size_t count) {
  Json peers = Json::array();
  for (size_t i = 0; i < count; ++i) {
    Json path = {{"name", "default"}, {"rate_mbps", static_cast<double>(i)}};
    peers.push_back({{"name", "client-" + std::to_string(i)},
                     {"established", i % 2 == 0},
                     {"rx_bytes", 1000 * i},
                     {"tx_bytes", 0},
                     {"paths", Json::array({path})}});
  }
  return {{"state", "running"}, {"peers", peers}};
}

TEST(StatusViewTest, ThreePeersWithFourPathsFitATerminal) {
  Json status = Json::parse(kFullStatus);
  Json& peers = status["peers"];
  const Json path = peers[0]["paths"][0];
  peers[0]["paths"] = Json::array({path, path, path, path});
  peers = Json::array({peers[0], peers[0], peers[0]});
  status["drops"] = Json::object();
  status["warnings"] = Json::array();
  const std::string view = RenderStatus(status, {});
  EXPECT_LE(std::count(view.begin(), view.end(), '\n'), 24) << view;
}

TEST(StatusViewTest, SeveralPeersHaveALineEach) {
  EXPECT_EQ(RenderStatus(ManyPeers(5), {}), R"(braid running
  peers     5, 3 established

  peer                 state           paths         rate   received       sent
  client-0             established         1   0.0 Mbit/s        0 B        0 B
  client-1             not established     1   1.0 Mbit/s     1000 B        0 B
  client-2             established         1   2.0 Mbit/s    2.0 KiB        0 B
  client-3             not established     1   3.0 Mbit/s    2.9 KiB        0 B
  client-4             established         1   4.0 Mbit/s    3.9 KiB        0 B
)");
}

TEST(StatusViewTest, OfThousandsTheBusiestAreShown) {
  const Json status = ManyPeers(3000);
  const std::string view = RenderStatus(status, {});
  EXPECT_LE(std::count(view.begin(), view.end(), '\n'), 24);
  EXPECT_NE(view.find("peers     3,000, 1,500 established\n"), std::string::npos) << view;
  EXPECT_NE(view.find("sent\n  client-2999"), std::string::npos) << view;
  EXPECT_EQ(view.find("client-2987"), std::string::npos) << view;
  EXPECT_NE(view.find("the busiest; 2,988 more with --all\n"), std::string::npos) << view;
  const std::string all = RenderStatus(status, {.all = true});
  EXPECT_NE(all.find("client-0 "), std::string::npos);
  EXPECT_EQ(all.find("--all"), std::string::npos);
}

TEST(StatusViewTest, WhereAPeerIsLookedForIsShownUntilItAnswers) {
  const Json path = {{"name", "default"}, {"state", "down"}, {"remote", "192.0.2.1:7700"}};
  Json peer = {{"name", "hub"}, {"established", false}, {"paths", Json::array({path})}};
  EXPECT_NE(RenderStatus({{"peers", Json::array({peer})}}, {}).find("→ 192.0.2.1:7700"),
            std::string::npos);
  peer["established"] = true;
  EXPECT_EQ(RenderStatus({{"peers", Json::array({peer})}}, {}).find("192.0.2.1"),
            std::string::npos);
}

TEST(StatusViewTest, ColoursChangeNothingElse) {
  const std::string coloured = Render(kFullStatus, true);
  EXPECT_NE(coloured, kFullView);
  EXPECT_EQ(WithoutColours(coloured), kFullView);
}

TEST(StatusViewTest, MissingFieldsAreTolerated) {
  EXPECT_EQ(Render("{}"), "braid -\n");
  EXPECT_EQ(Render("[]"), "braid -\n");
  EXPECT_EQ(Render(R"({"state":"starting","peers":[]})"), "braid starting\n\nno peers\n");
  EXPECT_EQ(Render(R"({"peers":[{"paths":[{}]}]})"), R"(braid -

peer -   not established   no handshake yet
  path         state           rtt    loss          rate    received        sent
  -            -                 -       -             -           -           -
)");
}

TEST(StatusViewTest, EveryFieldMayBeMissingOrOfAnotherType) {
  const Json flat = Json::parse(kFullStatus).flatten();
  for (const auto& [pointer, value] : flat.items()) {
    for (const Json& other : {Json(nullptr), Json(-1), Json("x"), Json::array({1}),
                              Json::object({{"a", Json::array()}}), Json(1e300), Json(true)}) {
      Json changed = Json::parse(kFullStatus);
      changed[Json::json_pointer(pointer)] = other;
      EXPECT_LE(WidestLine(RenderStatus(changed, {.verbose = true})), 80u)
          << pointer << " = " << other;
    }
  }
  const Json full = Json::parse(kFullStatus);
  for (const auto& [name, value] : full.items()) {
    Json changed = full;
    changed.erase(name);
    EXPECT_LE(WidestLine(RenderStatus(changed, {.verbose = true})), 80u) << name;
    changed[name] = 5;
    EXPECT_LE(WidestLine(RenderStatus(changed, {.verbose = true})), 80u) << name;
  }
}

TEST(StatusViewTest, LongTextsStayWithinEightyColumns) {
  const std::string full = Json::parse(kFullStatus).dump();
  for (const std::string& filler : {std::string(300, 'x'), std::string(300, ' ')}) {
    Json changed = Json::parse(full);
    const Json flat = changed.flatten();
    for (const auto& [pointer, value] : flat.items()) {
      if (value.is_string()) changed[Json::json_pointer(pointer)] = filler;
      if (value.is_number()) changed[Json::json_pointer(pointer)] = UINT64_MAX;
    }
    changed["drops"][filler] = UINT64_MAX;
    EXPECT_LE(WidestLine(RenderStatus(changed, {.verbose = true})), 80u)
        << RenderStatus(changed, {.verbose = true});
  }
}

TEST(StatusViewTest, NamesCannotSteerTheTerminal) {
  const std::string view = Render(
      R"({"state":"\u001b[2J","peers":[{"name":"a\nb","paths":[{"name":"\u0007"}]}],
          "drops":{"\u001b":1},"warnings":["\r\u001b[31m"],
          "offloads":{"\u001b":true,"\u0000":"\u001b"}})");
  for (const char c : view) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20);
  EXPECT_NE(view.find("peer a?b"), std::string::npos);
}

TEST(StatusViewTest, CutsAreMadeBetweenCodePoints) {
  std::string name;
  for (int i = 0; i < 40; ++i) name += "é";
  const std::string view = RenderStatus({{"peers", Json::array({{{"name", name}}})}}, {});
  std::string expected;
  for (int i = 0; i < 23; ++i) expected += "é";
  EXPECT_NE(view.find("peer " + expected + "…   not established"), std::string::npos) << view;
}

TEST(StatusViewTest, UnitsFitTheirNumbers) {
  struct Case {
    const char* field;
    double value;
    const char* shown;
  };
  const Case cases[] = {
      {"rx_bytes", 0, "0 B"},
      {"rx_bytes", 1023, "1023 B"},
      {"rx_bytes", 1024, "1.0 KiB"},
      {"rx_bytes", 1048575, "1.0 MiB"},
      {"rx_bytes", 1e19, "8.7 EiB"},
      {"rtt_ms", 0.05, "0.05 ms"},
      {"rtt_ms", 9.999, "10.0 ms"},
      {"rtt_ms", 1234.5, "1234 ms"},
      {"loss", 0, "0 %"},
      {"loss", 0.00001, "<0.1 %"},
      {"loss", 1, "100.0 %"},
      {"rate_mbps", 0, "0.0 Mbit/s"},
      {"rate_mbps", 999.96, "1.00 Gbit/s"},
      {"rate_mbps", 25000, "25.00 Gbit/s"},
  };
  for (const Case& c : cases) {
    const Json path = {{c.field, c.value}};
    const Json status = {{"peers", Json::array({{{"paths", Json::array({path})}}})}};
    const std::string view = RenderStatus(status, {});
    EXPECT_NE(view.find(std::string(" ") + c.shown), std::string::npos) << c.shown << view;
  }
  const std::pair<int, const char*> uptimes[] = {
      {0, "up 0s"},     {59, "up 59s"},      {60, "up 1m"},   {3661, "up 1h 1m"},
      {86400, "up 1d"}, {90061, "up 1d 1h"}, {86460, "up 1d"}};
  for (const auto& [seconds, shown] : uptimes) {
    EXPECT_EQ(RenderStatus({{"uptime_s", seconds}}, {}), std::string("braid -   ") + shown + "\n");
  }
}

}  // namespace
}  // namespace braid::status_view_test
