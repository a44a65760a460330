#include "slowpath/measure_protocol.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace braid::measure_protocol_test {
namespace {

using nlohmann::json;

MeasureRequest Request() {
  MeasureRequest request;
  request.plan = {LoadKind::kUdp, true, false, 7, 3, 1400, 12.5};
  request.udp_port = 40000;
  return request;
}

json AsJson(const MeasureLine& line) { return json::parse(RenderMeasureLine(line)); }

TEST(MeasureProtocolTest, EveryLineComesBackAsItWas) {
  EndReport report;
  report.elapsed_ns = 1;
  report.tcp_rx_bytes = 2;
  report.tcp_rx_ns = 3;
  report.datagrams_sent = 4;
  report.datagrams_received = 5;
  report.datagrams_lost = UINT64_MAX;
  report.datagrams_reordered = 7;
  report.datagrams_doubled = 8;
  report.datagrams_rx_ns = 9;
  EndReport result = report;
  result.is_last = true;
  const std::vector<MeasureLine> lines = {
      Request(),
      MeasureAccepted{"0123abcd", 7799, "TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI="},
      MeasureRefused{"busy", "another measurement runs [for {long}]"},
      MeasureStream{"0123abcd", 31},
      MeasureGo{},
      MeasureSent{12345},
      report,
      result};
  for (const MeasureLine& line : lines) {
    const std::string text = RenderMeasureLine(line);
    ASSERT_EQ(text.find('\n'), text.size() - 1) << text;
    EXPECT_LE(text.size(), kMaxMeasureLineBytes);
    const auto read = ParseMeasureLine(std::string_view(text).substr(0, text.size() - 1));
    ASSERT_TRUE(read.ok()) << read.status() << " " << text;
    EXPECT_TRUE(*read == line) << text;
  }
}

TEST(MeasureProtocolTest, GarbageIsRefused) {
  for (const std::string& text :
       {std::string(""), std::string("hello"), std::string("[]"), std::string("null"),
        std::string("{\"v\":1"), std::string("{\"v\":1}"), std::string("{\"v\":2,\"type\":\"go\"}"),
        std::string("{\"v\":\"1\",\"type\":\"go\"}"), std::string("{\"v\":1,\"type\":7}"),
        std::string("{\"v\":1,\"type\":\"explode\"}"), std::string("\0\xff\xfe", 3),
        std::string(2000, '['), std::string(kMaxMeasureLineBytes + 1, ' ')}) {
    EXPECT_FALSE(ParseMeasureLine(text).ok()) << text.substr(0, 60);
  }
}

TEST(MeasureProtocolTest, ARequestIsBounded) {
  struct Case {
    const char* name;
    json value;
    bool good;
  };
  const Case cases[] = {
      {"seconds", 1, true},
      {"seconds", 60, true},
      {"seconds", 0, false},
      {"seconds", 61, false},
      {"seconds", -1, false},
      {"seconds", 1.5, true},
      {"seconds", 0.01, true},
      {"seconds", 0.009, false},
      {"seconds", "5", false},
      {"seconds", nullptr, false},
      {"flows", 16, true},
      {"flows", 17, false},
      {"flows", 0, false},
      {"datagram_bytes", 24, true},
      {"datagram_bytes", 23, false},
      {"datagram_bytes", 16384, true},
      {"datagram_bytes", 16385, false},
      {"rate_mbps", 0, true},
      {"rate_mbps", 1e6, true},
      {"rate_mbps", 1.1e6, false},
      {"rate_mbps", -1, false},
      {"rate_mbps", "much", false},
      {"udp_port", 0, false},
      {"udp_port", 65535, true},
      {"udp_port", 65536, false},
      {"up", 1, false},
      {"load", "tcp", true},
      {"load", "icmp", false},
      {"load", json::object(), false},
  };
  for (const Case& each : cases) {
    json line = AsJson(Request());
    line[each.name] = each.value;
    EXPECT_EQ(ParseMeasureLine(line.dump()).ok(), each.good) << line;
  }
  for (const char* name :
       {"load", "up", "down", "seconds", "flows", "datagram_bytes", "udp_port"}) {
    json line = AsJson(Request());
    line.erase(name);
    const auto read = ParseMeasureLine(line.dump());
    ASSERT_FALSE(read.ok()) << name;
    EXPECT_NE(read.status().message().find(name), absl::string_view::npos) << read.status();
  }
}

TEST(MeasureProtocolTest, LoadGoesSomewhere) {
  MeasureRequest request = Request();
  request.plan.up = request.plan.down = false;
  EXPECT_FALSE(ParseMeasureLine(AsJson(request).dump()).ok());
  request.plan.load = LoadKind::kIdle;
  EXPECT_TRUE(ParseMeasureLine(AsJson(request).dump()).ok());
}

TEST(MeasureProtocolTest, StreamsBelongToTcp) {
  MeasurePlan plan{LoadKind::kTcp, true, true, 1, 4};
  EXPECT_EQ(plan.streams_up(), 4);
  EXPECT_EQ(plan.streams(), 8);
  plan.up = false;
  EXPECT_EQ(plan.streams_up(), 0);
  EXPECT_EQ(plan.streams(), 4);
  plan.load = LoadKind::kUdp;
  EXPECT_EQ(plan.streams(), 0);
}

TEST(MeasureProtocolTest, DatagramsComeBackAsTheyWere) {
  for (const auto kind : {MeasureDatagram::Kind::kLoad, MeasureDatagram::Kind::kProbe,
                          MeasureDatagram::Kind::kEcho}) {
    const MeasureDatagram datagram{kind, 0x0123456789abcdef, UINT64_MAX};
    std::array<uint8_t, kMeasureDatagramBytes> bytes{};
    WriteMeasureDatagram(datagram, bytes.data());
    EXPECT_EQ(ReadMeasureDatagram(bytes), datagram);
  }
}

TEST(MeasureProtocolTest, OtherDatagramsAreNone) {
  std::array<uint8_t, kMeasureDatagramBytes> bytes{};
  EXPECT_FALSE(ReadMeasureDatagram(bytes));
  WriteMeasureDatagram({MeasureDatagram::Kind::kProbe, 1, 2}, bytes.data());
  EXPECT_FALSE(ReadMeasureDatagram(Bytes(bytes).first(kMeasureDatagramBytes - 1)));
  EXPECT_FALSE(ReadMeasureDatagram({}));
  bytes[7] = 4;
  EXPECT_FALSE(ReadMeasureDatagram(bytes));
  bytes[7] = 0;
  EXPECT_FALSE(ReadMeasureDatagram(bytes));
}

}  // namespace
}  // namespace braid::measure_protocol_test
