// A bond's messages as bytes, and what is no such message.
#include "fastpath/bond_wire.h"

#include <gtest/gtest.h>

#include <vector>

namespace braid::bond_wire_test {
namespace {

template <typename Message>
std::vector<uint8_t> BytesOf(const Message& message) {
  BondMessageBytes bytes;
  const size_t size = WriteBondMessage(message, bytes);
  return {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)};
}

BondProbe Probe(size_t lanes) {
  BondProbe probe{.sent_us = 0x01020304, .report_every_ms = 25, .hold_ms = 300, .repair_ms = 70};
  for (; probe.lanes_used < lanes; ++probe.lanes_used) {
    probe.lanes[probe.lanes_used] = {static_cast<uint8_t>(128 + probe.lanes_used),
                                     uint64_t{0x0102030405060708} + probe.lanes_used};
  }
  return probe;
}

BondReport Report(size_t paths) {
  BondReport report{.made_us = 0xfffffffe};
  for (; report.paths_used < paths; ++report.paths_used) {
    report.paths[report.paths_used] = {.path = report.paths_used,
                                       .has_probe = report.paths_used % 2 == 0,
                                       .datagrams = 1000,
                                       .expected = 1010,
                                       .bytes = 1'400'000,
                                       .probe_sent_us = 5,
                                       .probe_arrived_us = 0x80000000};
  }
  return report;
}

MissingReport Missing(size_t ranges) {
  MissingReport missing;
  for (; missing.ranges_used < ranges; ++missing.ranges_used) {
    missing.ranges[missing.ranges_used] = {130, 7, 300, 0xffffffff};
  }
  return missing;
}

TEST(BondWire, AProbeComesBackAsItWas) {
  for (const size_t lanes : {size_t{0}, size_t{1}, BondProbe::kMaxLanes}) {
    BondMessage message;
    ASSERT_EQ(ReadBondMessage(BytesOf(Probe(lanes)), message), ControlVerdict::kOk);
    ASSERT_EQ(message.type, BondMessageType::kProbe);
    EXPECT_EQ(message.probe.sent_us, 0x01020304u);
    EXPECT_EQ(message.probe.report_every_ms, 25);
    EXPECT_EQ(message.probe.hold_ms, 300);
    EXPECT_EQ(message.probe.repair_ms, 70);
    ASSERT_EQ(message.probe.lanes_used, lanes);
    for (size_t i = 0; i < lanes; ++i) {
      EXPECT_EQ(message.probe.lanes[i].lane, 128 + i);
      EXPECT_EQ(message.probe.lanes[i].next_sequence, 0x0102030405060708 + i);
    }
  }
}

TEST(BondWire, AReportComesBackAsItWas) {
  for (const size_t paths : {0, 1, kMaxPaths}) {
    BondMessage message;
    ASSERT_EQ(ReadBondMessage(BytesOf(Report(paths)), message), ControlVerdict::kOk);
    ASSERT_EQ(message.type, BondMessageType::kReport);
    EXPECT_EQ(message.report.made_us, 0xfffffffe);
    ASSERT_EQ(message.report.paths_used, paths);
    for (size_t i = 0; i < paths; ++i) {
      const PathReport& path = message.report.paths[i];
      EXPECT_EQ(path.path, i);
      EXPECT_EQ(path.has_probe, i % 2 == 0);
      EXPECT_EQ(path.datagrams, 1000u);
      EXPECT_EQ(path.expected, 1010u);
      EXPECT_EQ(path.bytes, 1'400'000u);
      EXPECT_EQ(path.probe_sent_us, 5u);
      EXPECT_EQ(path.probe_arrived_us, 0x80000000u);
    }
  }
}

TEST(BondWire, WhatIsMissingComesBackAsItWas) {
  for (const size_t ranges : {size_t{0}, size_t{1}, MissingReport::kMaxRanges}) {
    BondMessage message;
    ASSERT_EQ(ReadBondMessage(BytesOf(Missing(ranges)), message), ControlVerdict::kOk);
    ASSERT_EQ(message.type, BondMessageType::kMissing);
    ASSERT_EQ(message.missing.ranges_used, ranges);
    for (size_t i = 0; i < ranges; ++i) {
      EXPECT_EQ(message.missing.ranges[i].lane, 130);
      EXPECT_EQ(message.missing.ranges[i].path, 7);
      EXPECT_EQ(message.missing.ranges[i].count, 300);
      EXPECT_EQ(message.missing.ranges[i].first_path_seq, 0xffffffff);
    }
  }
}

TEST(BondWire, OtherLengthsAreMalformed) {
  for (std::vector<uint8_t> bytes : {BytesOf(Probe(2)), BytesOf(Report(2)), BytesOf(Missing(2))}) {
    BondMessage message;
    for (size_t size = 1; size < bytes.size(); ++size) {
      EXPECT_EQ(ReadBondMessage(Bytes(bytes).first(size), message), ControlVerdict::kMalformed);
    }
    bytes.push_back(0);
    EXPECT_EQ(ReadBondMessage(bytes, message), ControlVerdict::kMalformed);
  }
}

TEST(BondWire, MoreThanThereMayBeIsMalformed) {
  BondMessage message;
  std::vector<uint8_t> probe(12 + 9 * (BondProbe::kMaxLanes + 1));
  probe[0] = 16;
  probe[1] = BondProbe::kMaxLanes + 1;
  EXPECT_EQ(ReadBondMessage(probe, message), ControlVerdict::kMalformed);
  std::vector<uint8_t> report(6 + 22 * (kMaxPaths + 1));
  report[0] = 17;
  report[1] = kMaxPaths + 1;
  EXPECT_EQ(ReadBondMessage(report, message), ControlVerdict::kMalformed);
  std::vector<uint8_t> missing(2 + 8 * (MissingReport::kMaxRanges + 1));
  missing[0] = 18;
  missing[1] = MissingReport::kMaxRanges + 1;
  EXPECT_EQ(ReadBondMessage(missing, message), ControlVerdict::kMalformed);
}

TEST(BondWire, APathThatCannotBeIsMalformed) {
  BondMessage message;
  std::vector<uint8_t> report = BytesOf(Report(1));
  report[6] = kMaxPaths;
  EXPECT_EQ(ReadBondMessage(report, message), ControlVerdict::kMalformed);
  report = BytesOf(Report(1));
  report[7] = 2;
  EXPECT_EQ(ReadBondMessage(report, message), ControlVerdict::kMalformed) << "neither yes nor no";
  std::vector<uint8_t> missing = BytesOf(Missing(1));
  missing[3] = kMaxPaths;
  EXPECT_EQ(ReadBondMessage(missing, message), ControlVerdict::kMalformed);
}

TEST(BondWire, OtherMessagesAreNotItsOwn) {
  BondMessage message;
  EXPECT_EQ(ReadBondMessage({}, message), ControlVerdict::kMalformed);
  EXPECT_EQ(ReadBondMessage(std::vector<uint8_t>{0}, message), ControlVerdict::kMalformed);
  for (const uint8_t type : {1, 15, 19, 255}) {
    EXPECT_EQ(ReadBondMessage(std::vector<uint8_t>{type}, message), ControlVerdict::kUnknownType);
  }
}

}  // namespace
}  // namespace braid::bond_wire_test
