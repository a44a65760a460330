#include "cli/probe_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "cli/text_layout.h"

namespace braid::probe_view_test {
namespace {

using Step = Socks5ProbeStep;
using Verdict = Step::Verdict;
using What = Step::What;

std::vector<Step> Some() {
  return {{What::kResolve, Verdict::kOk, "192.0.2.7, 2001:db8::7", "", 3'100'000, {}},
          {What::kReach, Verdict::kOk, "192.0.2.7:1080", "", 420'000, {}},
          {What::kGreet, Verdict::kOk, "no authentication is wanted", "", 300'000, {}},
          {What::kLogIn, Verdict::kOk, "none", "", 0, {}},
          {What::kConnect, Verdict::kOk, "to example.org:443", "", 1'234'000'000, 0},
          {What::kPipeline,
           Verdict::kFailed,
           "the server closed the connection",
           "do without",
           700'000,
           {}},
          {What::kAssociate, Verdict::kFailed, "command not supported (7)", "", 800'000, 7},
          {What::kDatagram, Verdict::kNotTried, "", "", 0, {}}};
}

TEST(ProbeView, IsReadAtAGlance) {
  EXPECT_EQ(RenderProbe(Some(), false),
            R"(  ok    name            3.10 ms  192.0.2.7, 2001:db8::7
  ok    reachable       0.42 ms  192.0.2.7:1080
  ok    greeting        0.30 ms  no authentication is wanted
  ok    authentication        -  none
  ok    CONNECT         1234 ms  to example.org:443
  no    pipelined       0.70 ms  the server closed the connection
                                 → do without
  no    UDP ASSOCIATE   0.80 ms  command not supported (7)
  -     UDP                   -  not tried

it carries TCP
)");
}

TEST(ProbeView, SaysWhatTheProxyCarries) {
  std::vector<Step> steps = Some();
  const auto summary = [&] {
    const std::string text = RenderProbe(steps, false);
    return text.substr(text.find("\n\n") + 2);
  };
  steps[6].verdict = Verdict::kOk;
  EXPECT_EQ(summary(), "it carries TCP\n");  // the relay was not seen to work
  steps[7].verdict = Verdict::kOk;
  EXPECT_EQ(summary(), "it carries TCP and UDP\n");
  steps.pop_back();  // nobody was to be asked through it
  EXPECT_EQ(summary(), "it carries TCP and UDP\n");
  steps[4].verdict = Verdict::kFailed;
  EXPECT_EQ(summary(), "it cannot be used\n");
}

TEST(ProbeView, WhatIsNeededStandsOutAlsoWithoutColours) {
  const std::string text = RenderProbe(
      {{What::kReach, Verdict::kFailed, "192.0.2.7:1080: Connection refused", "", 50'000, {}},
       {What::kGreet},
       {What::kConnect}},
      false);
  EXPECT_EQ(text, R"(  FAIL  reachable       0.05 ms  192.0.2.7:1080: Connection refused
  -     greeting              -  not tried
  -     CONNECT               -  not tried

it cannot be used
)");
}

TEST(ProbeView, ColoursChangeNoWord) {
  const std::string coloured = RenderProbe(Some(), true);
  std::string plain;
  for (size_t at = 0; at < coloured.size(); ++at) {
    if (coloured[at] == '\x1b') {
      at = coloured.find('m', at);
    } else {
      plain += coloured[at];
    }
  }
  EXPECT_NE(coloured, plain);
  EXPECT_EQ(plain, RenderProbe(Some(), false));
}

TEST(ProbeView, NothingFromElsewhereSteersTheTerminalOrOverflowsIt) {
  const std::string text = RenderProbe(
      {{What::kAssociate, Verdict::kOk, "relays at 192.0.2.7:9; it says \"\x1b[2J\n\"", "", 1, 0},
       {What::kReach,
        Verdict::kFailed,
        std::string(200, 'x') + " " + std::string(60, 'y'),
        std::string(90, 'z'),
        9'999'999'999'999,
        {}}},
      false);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_EQ(line.find('\x1b'), std::string::npos) << line;
    EXPECT_LE(Width(line), kColumns) << line;
  }
}

TEST(ProbeView, ProgramsGetAllOfItButThePassword) {
  Socks5ProbeOptions options;
  options.server = {"proxy.example.net", 1080, {}};
  options.credentials = {"me", "secret"};
  const auto json = DescribeProbe(options, Some());
  EXPECT_EQ(json["server"], "proxy.example.net:1080");
  EXPECT_EQ(json["username"], "me");
  EXPECT_EQ(json["works"], true);
  ASSERT_EQ(json["steps"].size(), 8u);
  EXPECT_EQ(json["steps"][4],
            nlohmann::ordered_json::parse(
                R"({"name": "connect", "status": "ok", "ms": 1234.0, "found": "to example.org:443",
                    "advice": null, "reply": 0})"));
  EXPECT_EQ(json["steps"][5]["status"], "failed");
  EXPECT_EQ(json["steps"][5]["advice"], "do without");
  EXPECT_EQ(json["steps"][6]["name"], "udp_associate");
  EXPECT_EQ(json["steps"][6]["reply"], 7);
  EXPECT_EQ(json["steps"][7],
            nlohmann::ordered_json::parse(
                R"({"name": "udp", "status": "not tried", "ms": null, "found": null,
                    "advice": null, "reply": null})"));
  EXPECT_EQ(json.dump().find("secret"), std::string::npos);
  options.credentials.reset();
  EXPECT_EQ(DescribeProbe(options, {})["username"], nullptr);
}

}  // namespace
}  // namespace braid::probe_view_test
