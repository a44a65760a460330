#include "cli/health_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/json_fields.h"
#include "cli/text_layout.h"
#include "cli/tint.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kComponentColumns = 15;
constexpr size_t kHealthColumns = 10;

std::string ShownStatus(const std::string& status) {
  if (status.empty()) return "-";
  return status == "failed" ? "FAILED" : status;
}

Tint TintOf(const std::string& status) {
  if (status == "ok") return Tint::kGood;
  return status == "degraded" ? Tint::kFair : Tint::kBad;
}

std::string Row(const std::string& name, const Json& component, bool colour) {
  const std::string status = Text(component, "status");
  const std::string shown = Fit(ShownStatus(status), kHealthColumns - 1);
  const std::string head = PadRight(Fit(Printable(name), kComponentColumns - 1), kComponentColumns);
  const std::string padding(kHealthColumns - Width(shown), ' ');
  const std::string why = Text(component, "why");
  std::string line = head + shown + '\n';
  if (!why.empty()) {
    line = Wrap(head + shown + padding, std::string(kComponentColumns + kHealthColumns, ' '), why);
  }
  // The status begins behind the name, whose bytes may be more than its columns.
  line.replace(head.size(), shown.size(), Tinted(colour, TintOf(status), shown));
  return line;
}

}  // namespace

std::string RenderHealth(const Json& health, bool colour) {
  std::string text = Row("braid", health, colour);
  const auto components = health.is_object() ? health.find("components") : health.end();
  if (!health.is_object() || components == health.end() || !components->is_object()) return text;
  for (const auto& [name, component] : components->items()) text += Row(name, component, colour);
  return text;
}

int ExitCodeOf(const Json& health) {
  constexpr std::string_view kStatuses[] = {"ok", "degraded", "failed"};
  const auto found = std::find(std::begin(kStatuses), std::end(kStatuses), Text(health, "status"));
  return static_cast<int>(found - std::begin(kStatuses));
}

}  // namespace braid
