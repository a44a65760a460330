#include "cli/probe_view.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "cli/text_layout.h"
#include "cli/tint.h"
#include "cli/units.h"
#include "slowpath/path_commands.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;
using ProbeVerdict = Socks5ProbeStep::Verdict;
using ProbeWhat = Socks5ProbeStep::What;

constexpr size_t kOutcomeColumns = 6;
constexpr size_t kStepColumns = 15;
constexpr size_t kTookColumns = 8;

struct StepName {
  const char* text;
  const char* json;
};

StepName NameOf(ProbeWhat what) {
  constexpr std::array<StepName, 8> kNames = {{{"name", "name"},
                                               {"reachable", "reachable"},
                                               {"greeting", "greeting"},
                                               {"authentication", "authentication"},
                                               {"CONNECT", "connect"},
                                               {"pipelined", "pipelined"},
                                               {"UDP ASSOCIATE", "udp_associate"},
                                               {"UDP", "udp"}}};
  return kNames[static_cast<size_t>(what)];
}

struct ShownOutcome {
  const char* text;
  const char* json;
  Tint tint;
};

// A proxy may do without what comes behind CONNECT.
ShownOutcome ShownOf(const Socks5ProbeStep& step) {
  switch (step.verdict) {
    case ProbeVerdict::kOk:
      return {"ok", "ok", Tint::kGood};
    case ProbeVerdict::kFailed:
      if (step.what > ProbeWhat::kConnect) return {"no", "failed", Tint::kFair};
      return {"FAIL", "failed", Tint::kBad};
    default:
      return {"-", "not tried", Tint::kDim};
  }
}

std::optional<double> TookMs(const Socks5ProbeStep& step) {
  if (step.took_ns == 0) return std::nullopt;
  return static_cast<double>(step.took_ns) / static_cast<double>(kMillisecondNs);
}

std::string Row(const Socks5ProbeStep& step, bool colour) {
  const ShownOutcome shown = ShownOf(step);
  const bool is_tried = step.verdict != ProbeVerdict::kNotTried;
  const std::string first = "  " + PadRight(shown.text, kOutcomeColumns) +
                            PadRight(NameOf(step.what).text, kStepColumns) +
                            PadLeft(ShowMilliseconds(TookMs(step)), kTookColumns) + "  ";
  const std::string indent(Width(first), ' ');
  std::string text = Wrap(first, indent, is_tried ? Printable(step.found) : "not tried");
  text.replace(2, std::string_view(shown.text).size(), Tinted(colour, shown.tint, shown.text));
  if (step.advice.empty()) return text;
  return text +
         Tinted(colour, Tint::kBold, Wrap(indent + "→ ", indent + "  ", Printable(step.advice)));
}

bool CarriesDatagrams(const std::vector<Socks5ProbeStep>& steps) {
  return std::all_of(steps.begin(), steps.end(), [](const Socks5ProbeStep& step) {
    return step.what < ProbeWhat::kAssociate || step.verdict == ProbeVerdict::kOk;
  });
}

std::string Summary(const std::vector<Socks5ProbeStep>& steps) {
  if (!CanConnect(steps)) return "it cannot be used";
  return CarriesDatagrams(steps) ? "it carries TCP and UDP" : "it carries TCP";
}

Json TextOrNull(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

std::string RenderProbe(const std::vector<Socks5ProbeStep>& steps, bool colour) {
  std::string text;
  for (const Socks5ProbeStep& step : steps) text += Row(step, colour);
  return text + "\n" + Summary(steps) + "\n";
}

Json DescribeProbe(const Socks5ProbeOptions& options, const std::vector<Socks5ProbeStep>& steps) {
  Json json = {{"server", DescribeEndpoint(options.server)},
               {"username", TextOrNull(options.credentials ? options.credentials->username : "")},
               {"works", CanConnect(steps)},
               {"steps", Json::array()}};
  for (const Socks5ProbeStep& step : steps) {
    const auto ms = TookMs(step);
    json["steps"].push_back({{"name", NameOf(step.what).json},
                             {"status", ShownOf(step).json},
                             {"ms", ms ? Json(*ms) : Json()},
                             {"found", TextOrNull(step.found)},
                             {"advice", TextOrNull(step.advice)},
                             {"reply", step.reply ? Json(*step.reply) : Json()}});
  }
  return json;
}

}  // namespace braid
