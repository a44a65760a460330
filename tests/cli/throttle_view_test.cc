#include "cli/throttle_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace braid::throttle_view_test {
namespace {

using Json = nlohmann::ordered_json;

TEST(RenderThrottle, TellsTheLimitsAndWhatCameOfThem) {
  const Json throttle = Json::parse(R"({
    "total": {"send": null, "receive": {"rate_mbps": 400.5, "burst_kb": 1000.0}},
    "peers": [
      {"name": "off\u001bice", "send": {"rate_mbps": 50.0, "burst_kb": 125.0}, "receive": null,
       "sending": {"waiting_bytes": 9, "delayed": 12, "dropped": 3, "marked": 0},
       "receiving": {"waiting_bytes": 0, "delayed": 7, "dropped": 0, "marked": 1, "refused": 2}},
      {"name": "shop", "send": {"rate_mbps": 20.0, "burst_kb": 50.0},
       "receive": {"rate_mbps": 20.0, "burst_kb": 50.0},
       "sending": {"waiting_bytes": 0, "delayed": 0, "dropped": 0, "marked": 0},
       "receiving": {"waiting_bytes": 0, "delayed": 0, "dropped": 0, "marked": 0,
                     "refused": 0}}]})");
  const std::string text = RenderThrottle(throttle);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.substr(0, text.find("peer off")),
            "all together\n"
            "  send     not limited\n"
            "  receive  400.5 Mbit/s, burst 1000 kB\n");
  EXPECT_NE(text.find("\n  send     50 Mbit/s, burst 125 kB; 12 packets waited, 3 dropped\n"
                      "  receive  not limited; 7 packets waited, 1 marked (ECN), 2 not opened\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("peer shop\n"
                      "  send     20 Mbit/s, burst 50 kB\n"
                      "  receive  20 Mbit/s, burst 50 kB\n"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace braid::throttle_view_test
