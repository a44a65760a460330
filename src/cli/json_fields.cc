#include "cli/json_fields.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/text_layout.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

const Json& Field(const Json& object, const char* name) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::string Text(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  return value.is_string() ? Printable(value.get<std::string>()) : "";
}

std::optional<double> Number(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  if (!value.is_number()) return std::nullopt;
  const double number = value.get<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

bool IsTrue(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  return value.is_boolean() && value.get<bool>();
}

}  // namespace braid
