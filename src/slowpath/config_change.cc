#include "slowpath/config_change.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "slowpath/config_json.h"
#include "slowpath/control_protocol.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 9> kLive = {
    "/network/routes", "/network/nat",  "/network/dns",    "/network/kill_switch",
    "/tunnel/paths",   "/tunnel/peers", "/tunnel/bonding", "/log", "/throttle",
};

bool IsLive(std::string_view pointer) {
  return std::any_of(kLive.begin(), kLive.end(), [&](std::string_view live) {
    return pointer.starts_with(live) &&
           (pointer.size() == live.size() || pointer[live.size()] == '/');
  });
}

// Of a list of things that have names an object, so that each is compared with itself.
void NameMembers(Json& list) {
  if (!list.is_array()) return;
  Json named = Json::object();
  for (Json& one : list) {
    const std::string name = one.at("name").get<std::string>();
    named[name] = std::move(one);
  }
  list = std::move(named);
}

Json Comparable(const Config& config) {
  Json json = ToJson(config);
  Json& tunnel = json["tunnel"];
  NameMembers(tunnel["peers"]);
  if (tunnel.contains("paths")) NameMembers(tunnel["paths"]);
  return json;
}

std::string Escaped(const std::string& name) {
  std::string escaped;
  for (const char letter : name) {
    if (letter == '~') {
      escaped += "~0";
    } else if (letter == '/') {
      escaped += "~1";
    } else {
      escaped += letter;
    }
  }
  return escaped;
}

void Compare(const std::string& pointer, const Json* before, const Json* after,
             std::vector<ConfigDifference>& to) {
  if (before != nullptr && after != nullptr && *before == *after) return;
  const auto is_object = [](const Json* json) { return json != nullptr && json->is_object(); };
  if (!is_object(before) || !is_object(after)) {
    to.push_back({pointer, before == nullptr ? "" : ToJsonText(*before),
                  after == nullptr ? "" : ToJsonText(*after), IsLive(pointer)});
    return;
  }
  for (const auto& [name, value] : before->items()) {
    const auto other = after->find(name);
    Compare(pointer + "/" + Escaped(name), &value, other == after->end() ? nullptr : &*other, to);
  }
  for (const auto& [name, value] : after->items()) {
    if (!before->contains(name)) Compare(pointer + "/" + Escaped(name), nullptr, &value, to);
  }
}

Json Parsed(const std::string& text) { return text.empty() ? Json() : Json::parse(text); }

}  // namespace

std::vector<ConfigDifference> CompareConfigs(const Config& before, const Config& after) {
  std::vector<ConfigDifference> differences;
  const Json old_json = Comparable(before);
  const Json new_json = Comparable(after);
  Compare("", &old_json, &new_json, differences);
  return differences;
}

Json ToJson(const std::vector<ConfigDifference>& differences) {
  Json json = Json::array();
  for (const ConfigDifference& one : differences) {
    json.push_back({{"pointer", one.pointer},
                    {"before", Parsed(one.before)},
                    {"after", Parsed(one.after)},
                    {"needs_restart", !one.live}});
  }
  return json;
}

}  // namespace braid
