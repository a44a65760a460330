#include "cli/doctor_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "cli/text_layout.h"
#include "cli/tint.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;
using Verdict = Diagnosis::Verdict;

constexpr size_t kVerdictColumns = 6;
constexpr size_t kCheckColumns = 16;

struct Shown {
  const char* text;
  const char* json;
  Tint tint;
};

Shown ShownOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return {"ok", "ok", Tint::kGood};
    case Verdict::kWarn:
      return {"warn", "warn", Tint::kFair};
    case Verdict::kFail:
      return {"FAIL", "fail", Tint::kBad};
    default:
      return {"?", "unknown", Tint::kDim};
  }
}

size_t Count(const std::vector<Diagnosis>& diagnoses, Verdict verdict) {
  return static_cast<size_t>(
      std::count_if(diagnoses.begin(), diagnoses.end(),
                    [&](const Diagnosis& one) { return one.verdict == verdict; }));
}

std::string Row(const Diagnosis& one, bool colour) {
  const Shown shown = ShownOf(one.verdict);
  const std::string indent(2 + kVerdictColumns + kCheckColumns, ' ');
  const std::string name = Printable(one.name);
  // A long name has a line of its own.
  const bool is_long = Width(name) >= kCheckColumns;
  std::string first = "  " + PadRight(shown.text, kVerdictColumns);
  first += is_long ? Fit(name, kColumns - Width(first)) : PadRight(name, kCheckColumns);
  std::string text = is_long ? first + "\n" + Wrap(indent, indent, Printable(one.found))
                             : Wrap(first, indent, Printable(one.found));
  text.replace(2, std::string_view(shown.text).size(), Tinted(colour, shown.tint, shown.text));
  if (one.advice.empty()) return text;
  return text +
         Tinted(colour, Tint::kBold, Wrap(indent + "→ ", indent + "  ", Printable(one.advice)));
}

std::string Summary(const std::vector<Diagnosis>& diagnoses) {
  const size_t failed = CountFailed(diagnoses);
  const size_t warned = Count(diagnoses, Verdict::kWarn);
  const size_t unknown = Count(diagnoses, Verdict::kUnknown);
  std::string text =
      failed == 0 && warned == 0
          ? "nothing is wrong"
          : absl::StrCat(failed, " failed, ", warned, warned == 1 ? " warning" : " warnings");
  if (unknown > 0) absl::StrAppend(&text, "; ", unknown, " could not be looked at");
  return text;
}

}  // namespace

size_t CountFailed(const std::vector<Diagnosis>& diagnoses) {
  return Count(diagnoses, Verdict::kFail);
}

std::string RenderDiagnoses(const std::vector<Diagnosis>& diagnoses, bool colour) {
  std::string text;
  std::string_view group;
  for (const Diagnosis& one : diagnoses) {
    if (one.group != group) {
      if (!group.empty()) text += '\n';
      text += Tinted(colour, Tint::kBold, std::string(one.group)) + "\n";
      group = one.group;
    }
    text += Row(one, colour);
  }
  return text + "\n" + Summary(diagnoses) + "\n";
}

Json DescribeDiagnoses(const std::vector<Diagnosis>& diagnoses) {
  Json json = {{"checks", Json::array()}, {"failed", CountFailed(diagnoses)}};
  for (const Diagnosis& one : diagnoses) {
    json["checks"].push_back({{"group", std::string(one.group)},
                              {"name", one.name},
                              {"status", ShownOf(one.verdict).json},
                              {"found", one.found},
                              {"advice", one.advice.empty() ? Json() : Json(one.advice)}});
  }
  return json;
}

}  // namespace braid
