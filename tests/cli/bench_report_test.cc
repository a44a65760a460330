#include "cli/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

namespace braid::bench_report_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string LineWith(const std::string& text, const std::string& part) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(part) != line.npos) return line;
  }
  return "";
}

CryptoReport Crypto() {
  CryptoReport report;
  report.cpus = 2;
  report.choices = {{"aes-256-gcm", "ipsec-mb", "first of those that pass the self-test"}};
  report.figures = {{"aes-256-gcm", "ipsec-mb", 1420, 1, 100, 125, 14.2e9, 11.36e9},
                    {"aes-256-gcm", "ipsec-mb", 1420, 2, 100, 125, 28.4e9, 22.72e9}};
  return report;
}

TEST(BenchReportTest, CryptoShowsOneCoreBesideAll) {
  const std::string text = RenderReport(Crypto());
  EXPECT_THAT(LineWith(text, "1420"),
              AllOf(HasSubstr("100"), HasSubstr("14.20"), HasSubstr("125"), HasSubstr("11.36"),
                    HasSubstr("28.40"), HasSubstr("22.72"), HasSubstr("2.00")));
  EXPECT_THAT(text, HasSubstr("ipsec-mb: first of those that pass the self-test"));
  const auto json = DescribeReport(Crypto());
  EXPECT_EQ(json["figures"].size(), 2u);
  EXPECT_EQ(json["figures"][1]["threads"], 2);
  EXPECT_EQ(json["auto"][0]["backend"], "ipsec-mb");
}

TEST(BenchReportTest, AMachineOfOneCoreHasNothingToCompare) {
  CryptoReport report = Crypto();
  report.cpus = 1;
  report.figures.resize(1);
  EXPECT_THAT(RenderReport(report), AllOf(HasSubstr("seal ns"), Not(HasSubstr("cores:"))));
}

TEST(BenchReportTest, DeviceSaysWhatIsRefusedAndShowsNoFigureForIt) {
  DeviceReport report;
  report.kernel = "6.1.0";
  report.notes = {"TUN refuses USO, which Linux has since 6.2"};
  report.tun = {{"read", "TSO", "io_uring", 60760, 250000, 15.19e9, ""},
                {"read", "USO", "epoll", 0, 0, 0, "this kernel's TUN does not have it"}};
  report.udp = {{"veth", "GSO", "epoll", 2000000, 1999999, 2.92e9, ""},
                {"veth", "GSO, GRO", "epoll", 0, 0, 0, "no UDP_GRO"}};
  const std::string text = RenderReport(report);
  EXPECT_THAT(text, HasSubstr("6.1.0\n  TUN refuses USO"));
  EXPECT_THAT(LineWith(text, "TSO"), AllOf(HasSubstr("250,000"), HasSubstr("15.19")));
  const std::string refused = LineWith(text, "USO  ");
  EXPECT_THAT(refused, HasSubstr("-  refused: this kernel's TUN does not have it"));
  // What is told there moves no figure.
  EXPECT_EQ(refused.find("  refused"), LineWith(text, "TSO").size());
  EXPECT_THAT(LineWith(text, "1,999,999"), HasSubstr("2,000,000"));
  const auto json = DescribeReport(report);
  EXPECT_EQ(json["tun"][0]["packets_per_s"], 250000);
  EXPECT_FALSE(json["tun"][1].contains("packets_per_s"));
  EXPECT_EQ(json["udp"][1]["refused"], "no UDP_GRO");
}

TEST(BenchReportTest, SpreadIsOfSortedSamples) {
  EXPECT_EQ(SpreadOf({}).median, 0);
  const Spread odd = SpreadOf({3, 1, 2});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.least, 1);
  EXPECT_EQ(odd.most, 3);
  EXPECT_EQ(SpreadOf({4, 1, 2, 3}).median, 2.5);
}

TEST(BenchReportTest, RatiosAreTakenRoundByRound) {
  // The machine was twice as fast in the second round; the tunnel's share was the same.
  const Spread ratio = RatioOf({"tcp", "Mbit/s", {500, 1000}, {1000, 2000}});
  EXPECT_EQ(ratio.least, 0.5);
  EXPECT_EQ(ratio.most, 0.5);
  EXPECT_EQ(RatioOf({"tcp", "Mbit/s", {500, 3}, {0, 6}}).median, 0.5);
  EXPECT_EQ(RatioOf({"tcp", "Mbit/s", {}, {}}).median, 0);
}

TEST(BenchReportTest, TunnelShowsUnitsAndRatio) {
  TunnelReport report;
  report.cipher = "aes-256-gcm";
  report.rounds = 3;
  report.figures = {{"tcp up", "Mbit/s", {6000, 5000, 7000}, {10000, 10000, 10000}},
                    {"udp", "/s", {123456}, {234567}},
                    {"ping idle", "ms", {0.15}, {0.03}}};
  const std::string text = RenderReport(report);
  EXPECT_THAT(text, AllOf(HasSubstr("medians of 3 rounds"), HasSubstr("least-most")));
  EXPECT_THAT(LineWith(text, "tcp up"), AllOf(HasSubstr("6.00 Gbit/s"), HasSubstr("10.0 Gbit/s"),
                                              HasSubstr("0.60"), HasSubstr("0.50-0.70")));
  EXPECT_THAT(LineWith(text, "udp"), HasSubstr("123,456 /s"));
  EXPECT_THAT(LineWith(text, "ping"), HasSubstr("0.150 ms"));
  const auto json = DescribeReport(report);
  EXPECT_EQ(json["figures"][0]["tunnel"]["samples"].size(), 3u);
  EXPECT_EQ(json["figures"][0]["ratio"]["median"], 0.6);
  report.rounds = 1;
  EXPECT_THAT(RenderReport(report), AllOf(HasSubstr("once"), Not(HasSubstr("least-most"))));
}

PeerMeasurement Udp() {
  MeasureResult result;
  result.plan = {LoadKind::kUdp, true, true, 5, 1, 1200, 100};
  result.up = {99.5, 100000, 99999, 1, 0, 0, 10000};
  result.down = {50, 1000, 500, 500, 7, 0, 100};
  result.latency = {1000, 750, 0.1, 0.2, 12.34, 123};
  return {"udp both", result};
}

TEST(BenchReportTest, PeerNeverRoundsLossToNothing) {
  PeerReport report{"hub", "10.77.0.1", "braid0", {Udp()}};
  const std::string line = LineWith(RenderReport(report), "udp both");
  EXPECT_THAT(line, AllOf(HasSubstr("<0.01 %"), HasSubstr("50.00 %"), HasSubstr("25.00 %"),
                          HasSubstr("99.5 Mbit/s"), HasSubstr("0.200 ms"), HasSubstr("12.3 ms"),
                          HasSubstr("123 ms")));
  const auto json = DescribeReport(report);
  EXPECT_EQ(json["measurements"][0]["down"]["loss"], 0.5);
  EXPECT_EQ(json["measurements"][0]["up"]["datagrams_lost"], 1);
  EXPECT_EQ(json["measurements"][0]["probe_loss"], 0.25);
}

TEST(BenchReportTest, WhatWasNotMeasuredIsNotShownAsZero) {
  PeerMeasurement idle;
  idle.name = "idle";
  idle.result.latency.probes_sent = 10;
  PeerReport report{"hub", "10.77.0.1", "braid0", {idle}};
  EXPECT_THAT(LineWith(RenderReport(report), "idle"),
              AllOf(HasSubstr("100.00 %"), Not(HasSubstr(" 0.0")), Not(HasSubstr("ms"))));
  const auto json = DescribeReport(report)["measurements"][0];
  EXPECT_TRUE(json["up"].is_null());
  EXPECT_TRUE(json["rtt_p50_ms"].is_null());
  const std::string progress = RenderProgress("idle", idle.result.plan, {.second = 3});
  EXPECT_THAT(progress, AllOf(HasSubstr("  3 s"), Not(HasSubstr("Mbit/s")), Not(HasSubstr("ms"))));
}

TEST(BenchReportTest, WhatWasInterruptedSaysHowLongItLasted) {
  PeerReport report{"hub", "10.77.0.1", "braid0", {Udp(), Udp()}};
  report.measurements[1].interrupted = true;
  report.measurements[1].result.plan.seconds = 1.2345;
  EXPECT_THAT(RenderReport(report), AllOf(HasSubstr("udp both  "), HasSubstr("udp both, 1.2 s")));
  const auto json = DescribeReport(report)["measurements"];
  EXPECT_EQ(json[0]["interrupted"], false);
  EXPECT_EQ(json[1]["interrupted"], true);
  EXPECT_EQ(json[1]["name"], "udp both");
  EXPECT_EQ(json[1]["seconds"], 1.235);
}

TEST(BenchReportTest, WhyAMeasurementEndedEarlyIsInItsJson) {
  PeerReport report{"hub", "10.77.0.1", "braid0", {Udp()}};
  EXPECT_TRUE(DescribeReport(report)["error"].is_null());
  report.error = "ended by Interrupt";
  EXPECT_EQ(DescribeReport(report)["error"], "ended by Interrupt");
}

}  // namespace
}  // namespace braid::bench_report_test
