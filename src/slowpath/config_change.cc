#include "slowpath/config_change.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "slowpath/config_json.h"
#include "slowpath/control_protocol.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 12> kLive = {
    "/network/routes", "/network/nat",  "/network/dns",    "/network/kill_switch",
    "/tunnel/paths",   "/tunnel/peers", "/tunnel/bonding", "/log",
    "/throttle",       "/proxy/rules",  "/proxy/groups",   "/proxy/dns",
};

bool IsLive(std::string_view pointer) {
  return std::any_of(kLive.begin(), kLive.end(), [&](std::string_view live) {
    return pointer.starts_with(live) &&
           (pointer.size() == live.size() || pointer[live.size()] == '/');
  });
}

// By name, in their order: of an object, or of a list of things that have names.
using NamedJson = std::vector<std::pair<std::string_view, const Json*>>;

std::optional<NamedJson> MembersByName(std::string_view pointer, const Json* json) {
  if (json == nullptr) return std::nullopt;
  const bool lists_names = pointer == "/tunnel/peers" || pointer == "/tunnel/paths";
  if (!json->is_object() && !(lists_names && json->is_array())) return std::nullopt;
  NamedJson members;
  members.reserve(json->size());
  for (const auto& [key, value] : json->items()) {
    members.emplace_back(
        json->is_object() ? std::string_view(key) : value.at("name").get_ref<const std::string&>(),
        &value);
  }
  return members;
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

// There may be very many peers: no search goes through all of them.
void Compare(const std::string& pointer, const Json* before, const Json* after,
             std::vector<ConfigDifference>& to) {
  if (before != nullptr && after != nullptr && *before == *after) return;
  const auto old_members = MembersByName(pointer, before);
  const auto new_members = MembersByName(pointer, after);
  if (!old_members || !new_members) {
    to.push_back({pointer, before == nullptr ? "" : ToJsonText(*before),
                  after == nullptr ? "" : ToJsonText(*after), IsLive(pointer)});
    return;
  }
  const auto compare_member = [&](std::string_view name, const Json* was, const Json* is) {
    Compare(pointer + "/" + Escaped(std::string(name)), was, is, to);
  };
  std::unordered_map<std::string_view, const Json*> added(new_members->begin(), new_members->end());
  for (const auto& [name, value] : *old_members) {
    const auto other = added.extract(name);
    compare_member(name, value, other ? other.mapped() : nullptr);
  }
  for (const auto& [name, value] : *new_members) {
    if (added.contains(name)) compare_member(name, nullptr, value);
  }
}

Json Parsed(const std::string& text) { return text.empty() ? Json() : Json::parse(text); }

}  // namespace

std::vector<ConfigDifference> CompareConfigs(const Config& before, const Config& after) {
  std::vector<ConfigDifference> differences;
  if (before == after) return differences;
  const Json old_json = ToJson(before);
  const Json new_json = ToJson(after);
  Compare("", &old_json, &new_json, differences);
  return differences;
}

ConfigDifference OtherPresharedKey(const PeerConfig& peer) {
  const std::string& file = peer.preshared_key_file;
  return {"/tunnel/peers/" + Escaped(peer.name) + "/preshared_key_file", ToJsonText(Json(file)),
          ToJsonText(Json(file + " (with another key in it)")), true};
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
