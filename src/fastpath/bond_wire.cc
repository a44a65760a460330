#include "fastpath/bond_wire.h"

namespace braid {
namespace {

constexpr size_t kProbeBytes = 12;
constexpr size_t kProbeLaneBytes = 9;
constexpr size_t kReportBytes = 6;
constexpr size_t kReportPathBytes = 22;
constexpr size_t kMissingBytes = 2;
constexpr size_t kMissingRangeBytes = 8;

static_assert(kProbeBytes + BondProbe::kMaxLanes * kProbeLaneBytes <= kMaxBondMessageBytes);
static_assert(kReportBytes + kMaxPaths * kReportPathBytes <= kMaxBondMessageBytes);
static_assert(kMissingBytes + MissingReport::kMaxRanges * kMissingRangeBytes <=
              kMaxBondMessageBytes);

bool ReadProbe(Bytes from, BondProbe& probe) {
  if (from.size() < kProbeBytes) return false;
  probe.lanes_used = from[1];
  if (probe.lanes_used > BondProbe::kMaxLanes) return false;
  if (from.size() != kProbeBytes + probe.lanes_used * kProbeLaneBytes) return false;
  probe.sent_us = LoadBe32(&from[2]);
  probe.report_every_ms = LoadBe16(&from[6]);
  probe.hold_ms = LoadBe16(&from[8]);
  probe.repair_ms = LoadBe16(&from[10]);
  const uint8_t* at = &from[0] + kProbeBytes;
  for (size_t i = 0; i < probe.lanes_used; ++i, at += kProbeLaneBytes) {
    probe.lanes[i] = {at[0], LoadBe64(at + 1)};
  }
  return true;
}

bool ReadReport(Bytes from, BondReport& report) {
  if (from.size() < kReportBytes) return false;
  report.paths_used = from[1];
  if (report.paths_used > kMaxPaths) return false;
  if (from.size() != kReportBytes + report.paths_used * kReportPathBytes) return false;
  report.made_us = LoadBe32(&from[2]);
  const uint8_t* at = &from[0] + kReportBytes;
  for (size_t i = 0; i < report.paths_used; ++i, at += kReportPathBytes) {
    if (at[0] >= kMaxPaths || at[1] > 1) return false;
    report.paths[i] = {.path = at[0],
                       .has_probe = at[1] != 0,
                       .datagrams = LoadBe32(at + 2),
                       .expected = LoadBe32(at + 6),
                       .bytes = LoadBe32(at + 10),
                       .probe_sent_us = LoadBe32(at + 14),
                       .probe_arrived_us = LoadBe32(at + 18)};
  }
  return true;
}

bool ReadMissing(Bytes from, MissingReport& missing) {
  if (from.size() < kMissingBytes) return false;
  missing.ranges_used = from[1];
  if (missing.ranges_used > MissingReport::kMaxRanges) return false;
  if (from.size() != kMissingBytes + missing.ranges_used * kMissingRangeBytes) return false;
  const uint8_t* at = &from[0] + kMissingBytes;
  for (size_t i = 0; i < missing.ranges_used; ++i, at += kMissingRangeBytes) {
    if (at[1] >= kMaxPaths) return false;
    missing.ranges[i] = {at[0], at[1], LoadBe16(at + 2), LoadBe32(at + 4)};
  }
  return true;
}

}  // namespace

size_t WriteBondMessage(const BondProbe& probe, BondMessageBytes& to) {
  to[0] = static_cast<uint8_t>(BondMessageType::kProbe);
  to[1] = probe.lanes_used;
  StoreBe32(&to[2], probe.sent_us);
  StoreBe16(&to[6], probe.report_every_ms);
  StoreBe16(&to[8], probe.hold_ms);
  StoreBe16(&to[10], probe.repair_ms);
  uint8_t* at = to.data() + kProbeBytes;
  for (size_t i = 0; i < probe.lanes_used; ++i, at += kProbeLaneBytes) {
    at[0] = probe.lanes[i].lane;
    StoreBe64(at + 1, probe.lanes[i].next_sequence);
  }
  return static_cast<size_t>(at - to.data());
}

size_t WriteBondMessage(const BondReport& report, BondMessageBytes& to) {
  to[0] = static_cast<uint8_t>(BondMessageType::kReport);
  to[1] = report.paths_used;
  StoreBe32(&to[2], report.made_us);
  uint8_t* at = to.data() + kReportBytes;
  for (size_t i = 0; i < report.paths_used; ++i, at += kReportPathBytes) {
    const PathReport& path = report.paths[i];
    at[0] = path.path;
    at[1] = path.has_probe ? 1 : 0;
    StoreBe32(at + 2, path.datagrams);
    StoreBe32(at + 6, path.expected);
    StoreBe32(at + 10, path.bytes);
    StoreBe32(at + 14, path.probe_sent_us);
    StoreBe32(at + 18, path.probe_arrived_us);
  }
  return static_cast<size_t>(at - to.data());
}

size_t WriteBondMessage(const MissingReport& missing, BondMessageBytes& to) {
  to[0] = static_cast<uint8_t>(BondMessageType::kMissing);
  to[1] = missing.ranges_used;
  uint8_t* at = to.data() + kMissingBytes;
  for (size_t i = 0; i < missing.ranges_used; ++i, at += kMissingRangeBytes) {
    const MissingRange& range = missing.ranges[i];
    at[0] = range.lane;
    at[1] = range.path;
    StoreBe16(at + 2, range.count);
    StoreBe32(at + 4, range.first_path_seq);
  }
  return static_cast<size_t>(at - to.data());
}

ControlVerdict ReadBondMessage(Bytes from, BondMessage& message) {
  if (from.empty() || from[0] == 0) return ControlVerdict::kMalformed;
  message.type = static_cast<BondMessageType>(from[0]);
  bool whole = false;
  switch (message.type) {
    case BondMessageType::kProbe:
      whole = ReadProbe(from, message.probe);
      break;
    case BondMessageType::kReport:
      whole = ReadReport(from, message.report);
      break;
    case BondMessageType::kMissing:
      whole = ReadMissing(from, message.missing);
      break;
    default:
      return ControlVerdict::kUnknownType;
  }
  return whole ? ControlVerdict::kOk : ControlVerdict::kMalformed;
}

}  // namespace braid
