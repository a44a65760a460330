#include "cli/tune_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/text_layout.h"
#include "cli/tint.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;
using ChangeOutcome = ChangeResult::Outcome;
using FindingVerdict = Finding::Verdict;

constexpr size_t kStatusColumns = 8;
constexpr size_t kSettingColumns = 22;
constexpr size_t kShownValue = 24;  // of a change; a table of buckets may be very long

std::string_view NameOf(FindingVerdict verdict) {
  switch (verdict) {
    case FindingVerdict::kOk:
      return "ok";
    case FindingVerdict::kCosts:
      return "costs";
    default:
      return "cannot tell";
  }
}

std::string_view NameOf(ChangeOutcome outcome) {
  constexpr std::string_view kNames[] = {"done", "already", "gone", "left", "failed"};
  return kNames[static_cast<size_t>(outcome)];
}

std::string_view NameOf(TuneGroup group) { return kTuneGroups[static_cast<size_t>(group)]; }

// "  costs   tx-udp-segmentation   off → on", and why, wrapped behind these columns.
std::string Row(bool colour, Tint tint, std::string_view status, const std::string& name,
                const std::string& value, const std::string& why) {
  const std::string indent(2 + kStatusColumns + kSettingColumns, ' ');
  std::string first = "  " + PadRight(std::string(status), kStatusColumns);
  first += PadRight(Fit(Printable(name), kSettingColumns - 1), kSettingColumns);
  std::string text = Wrap(first, indent, Printable(value));
  if (colour) {
    text.replace(2, status.size(), Tinted(colour, tint, std::string(status)));
  }
  if (!why.empty()) text += Tinted(colour, Tint::kDim, Wrap(indent, indent, Printable(why)));
  return text;
}

std::string RowOf(const Finding& finding, bool colour) {
  switch (finding.verdict) {
    case FindingVerdict::kOk:
      return Row(colour, Tint::kGood, "ok", finding.name,
                 finding.why.empty() ? finding.now : finding.now + "; " + finding.why, "");
    case FindingVerdict::kCosts:
      return Row(colour, Tint::kBad, "costs", finding.name, finding.now + " → " + finding.better,
                 (finding.seen_here ? "seen here: " : "as a rule: ") + finding.why);
    default:
      return Row(colour, Tint::kDim, "?", finding.name, finding.why, "");
  }
}

std::string HeadOf(const Finding& finding, const TuneReport& report) {
  const std::string group(NameOf(finding.group));
  if (finding.device.empty()) return group;
  for (const TunnelLink& link : report.links) {
    if (link.device == finding.device) return group + " " + link.device + " (" + link.why + ")";
  }
  return group + " " + finding.device;
}

std::string WorkersLine(const WorkerLayout& layout) {
  std::string cpus;
  for (const int cpu : layout.cpus) {
    if (cpu >= 0) cpus += " " + std::to_string(cpu);
  }
  if (!cpus.empty()) cpus.insert(0, layout.workers() == 1 ? ", on CPU" : ", on CPUs");
  return absl::StrFormat("%d%s: %s", layout.workers(), cpus, layout.reason);
}

// What to do next.
std::string Summary(const std::vector<Finding>& findings) {
  int costs = 0, settable = 0, power = 0, unseen = 0;
  for (const Finding& finding : findings) {
    unseen += finding.verdict == FindingVerdict::kUnknown;
    if (finding.verdict != FindingVerdict::kCosts) continue;
    ++costs;
    if (finding.changes.empty()) continue;
    ++(finding.group == TuneGroup::kPower ? power : settable);
  }
  std::string text =
      costs == 0 ? "nothing costs throughput"
                 : absl::StrFormat("%d %s throughput", costs, costs == 1 ? "costs" : "cost");
  if (settable > 0) text += absl::StrFormat("; %d can be set: braid tune --apply", settable);
  if (power > 0) text += absl::StrFormat("; %d about power with --apply --power", power);
  if (unseen > 0) text += absl::StrFormat("; %d cannot be told", unseen);
  return text;
}

std::string Shortened(const std::string& value) {
  return value.empty() ? "-" : Fit(value, kShownValue);
}

Json ToJson(const Setting& setting) {
  Json json = {{"setting", setting.Describe()}, {"kind", std::string(KindName(setting.kind))}};
  if (!setting.device.empty()) json["device"] = setting.device;
  json["name"] = setting.name;
  return json;
}

Json ToJson(const Finding& finding) {
  Json json = {{"group", std::string(NameOf(finding.group))}};
  if (!finding.device.empty()) json["device"] = finding.device;
  json["name"] = finding.name;
  json["status"] = std::string(NameOf(finding.verdict));
  json["now"] = finding.verdict == FindingVerdict::kUnknown ? Json() : Json(finding.now);
  json["why"] = finding.why;
  if (finding.verdict != FindingVerdict::kCosts) return json;
  json["better"] = finding.better;
  json["sure"] = finding.seen_here ? "seen here" : "as a rule";
  json["changes"] = Json::array();
  for (const Change& change : finding.changes) {
    Json one = ToJson(change.setting);
    one["value"] = change.value;
    json["changes"].push_back(std::move(one));
  }
  return json;
}

}  // namespace

std::string RenderTuneReport(const TuneReport& report, bool colour) {
  const std::string indent(12, ' ');
  std::string text = Wrap(PadRight("workers", 12), indent, WorkersLine(report.layout));
  std::vector<std::string> links;
  for (const TunnelLink& link : report.links) links.push_back(link.device + " (" + link.why + ")");
  text += Wrap(PadRight("interfaces", 12), indent,
               links.empty() ? "none: no default route; name some with --interface"
                             : Printable(absl::StrJoin(links, ", ")));
  std::string head;
  for (const Finding& finding : report.findings) {
    std::string next = HeadOf(finding, report);
    if (next != head) text += "\n" + Tinted(colour, Tint::kBold, Printable(next)) + "\n";
    head = std::move(next);
    text += RowOf(finding, colour);
  }
  return text + "\n" + Wrap("", "", Summary(report.findings));
}

std::string RenderChanges(const std::vector<ChangeResult>& results, bool colour) {
  std::string text;
  int done = 0, failed = 0;
  for (const ChangeResult& result : results) {
    done += result.outcome == ChangeOutcome::kDone;
    failed += result.outcome == ChangeOutcome::kFailed;
    const bool good =
        result.outcome == ChangeOutcome::kDone || result.outcome == ChangeOutcome::kAlready;
    std::string why = result.why;
    if (result.outcome == ChangeOutcome::kForeign) {
      why = "somebody else has set it since; it is left as it is";
    }
    text += "  " + Tinted(colour, good ? Tint::kGood : Tint::kBad,
                          PadRight(std::string(NameOf(result.outcome)), kStatusColumns));
    text += Printable(result.setting.Describe()) + "  " + Printable(Shortened(result.from)) +
            " → " + Printable(Shortened(result.to)) + "\n";
    const std::string indent(2 + kStatusColumns, ' ');
    if (!why.empty()) text += Tinted(colour, Tint::kDim, Wrap(indent, indent, Printable(why)));
  }
  text += absl::StrFormat("%d changed", done);
  if (failed > 0) text += absl::StrFormat(", %d failed", failed);
  return text + "\n";
}

Json DescribeTuneReport(const TuneReport& report) {
  Json json = {{"workers",
                {{"count", report.layout.workers()},
                 {"cpus", report.layout.cpus},
                 {"reason", report.layout.reason}}},
               {"interfaces", Json::array()},
               {"findings", Json::array()}};
  for (const TunnelLink& link : report.links) {
    json["interfaces"].push_back({{"name", link.device}, {"why", link.why}});
  }
  for (const Finding& finding : report.findings) json["findings"].push_back(ToJson(finding));
  return json;
}

Json DescribeChanges(const std::vector<ChangeResult>& results) {
  Json json = Json::array();
  for (const ChangeResult& result : results) {
    Json one = ToJson(result.setting);
    one["outcome"] = std::string(NameOf(result.outcome));
    one["from"] = result.from;
    one["to"] = result.to;
    if (!result.why.empty()) one["why"] = result.why;
    json.push_back(std::move(one));
  }
  return json;
}

}  // namespace braid
