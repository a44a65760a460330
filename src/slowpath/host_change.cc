#include "slowpath/host_change.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "slowpath/config_file.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

// What stands between is the device.
constexpr std::pair<std::string_view, std::string_view> kOwnSysctls[] = {
    {"/proc/sys/net/ipv4/conf/", "/rp_filter"},
    {"/proc/sys/net/ipv4/conf/", "/forwarding"},
    {"/proc/sys/net/ipv6/conf/", "/forwarding"},
    {"/proc/sys/net/ipv6/conf/", "/accept_ra"}};

bool IsOwnSysctl(std::string_view path) {
  return std::any_of(std::begin(kOwnSysctls), std::end(kOwnSysctls), [path](const auto& own) {
    const auto& [before, after] = own;
    const bool fits = path.size() > before.size() + after.size() && path.starts_with(before) &&
                      path.ends_with(after);
    if (!fits) return false;
    const auto device = path.substr(before.size(), path.size() - before.size() - after.size());
    return device.find('/') == device.npos && device != "." && device != "..";
  });
}

// JSON is UTF-8, and names of devices and files may be any bytes: those that are none stand there
// by another name.
const std::string kEncoded = "_base64";

void PutText(Json& json, const std::string& name, const std::string& text) {
  if (IsUtf8(text)) {
    json[name] = text;
  } else {
    json[name + kEncoded] = absl::Base64Escape(text);
  }
}

bool HasText(const Json& json, const std::string& name) {
  return json.contains(name) || json.contains(name + kEncoded);
}

bool TakeText(const Json& json, const std::string& name, std::string& to) {
  const bool is_plain = json.contains(name);
  const auto found = json.find(is_plain ? name : name + kEncoded);
  if (found == json.end() || !found->is_string()) return false;
  const auto& text = found->get_ref<const std::string&>();
  if (!is_plain) return absl::Base64Unescape(text, &to);
  to = text;
  return true;
}

// A member of the wanted type; else the whole is no change of ours.
template <typename T>
bool Take(const Json& json, const char* name, T& to) {
  if constexpr (std::is_same_v<T, std::string>) {
    return TakeText(json, name, to);
  } else {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_number_unsigned()) return false;
    if (found->template get<uint64_t>() > std::numeric_limits<T>::max()) return false;
    to = found->template get<T>();
    return true;
  }
}

Json Write(const OwnRoute& route) {
  Json json = {{"to", route.to.Network().ToString()}, {"table", route.table}};
  if (route.type == OwnRoute::Type::kThroughDevice) PutText(json, "device", route.device);
  return json;
}

std::optional<HostChange> ReadRoute(const Json& json) {
  OwnRoute route;
  std::string to;
  if (!Take(json, "to", to) || !Take(json, "table", route.table)) return std::nullopt;
  const auto prefix = IpPrefix::Parse(to);
  if (!prefix) return std::nullopt;
  route.to = prefix->Network();
  route.type = HasText(json, "device") ? OwnRoute::Type::kThroughDevice : OwnRoute::Type::kThrow;
  if (HasText(json, "device") && !Take(json, "device", route.device)) return std::nullopt;
  return route;
}

Json Write(const OwnRule& rule) {
  return {{"family", rule.family == IpAddress::Family::kV4 ? 4U : 6U},
          {"priority", rule.priority},
          {"unless_mark", rule.unless_mark},
          {"table", rule.table}};
}

std::optional<HostChange> ReadRule(const Json& json) {
  OwnRule rule;
  uint8_t family = 0;
  const bool whole = Take(json, "family", family) && (family == 4 || family == 6) &&
                     Take(json, "priority", rule.priority) &&
                     Take(json, "unless_mark", rule.unless_mark) && Take(json, "table", rule.table);
  if (!whole) return std::nullopt;
  rule.family = family == 4 ? IpAddress::Family::kV4 : IpAddress::Family::kV6;
  return rule;
}

Json Write(const NftTable& table) {
  Json json = {{"family", table.family}};
  PutText(json, "name", table.name);
  PutText(json, "contents", table.contents);
  return json;
}

std::optional<HostChange> ReadTable(const Json& json) {
  NftTable table;
  const bool whole = Take(json, "family", table.family) && Take(json, "name", table.name) &&
                     Take(json, "contents", table.contents);
  if (!whole || !table.name.starts_with(kOwnTablePrefix)) return std::nullopt;
  return table;
}

Json Write(const Sysctl& sysctl) {
  Json json = Json::object();
  PutText(json, "path", sysctl.path);
  PutText(json, "before", sysctl.before);
  PutText(json, "ours", sysctl.ours);
  return json;
}

std::optional<HostChange> ReadSysctl(const Json& json) {
  Sysctl sysctl;
  const bool whole = Take(json, "path", sysctl.path) && Take(json, "before", sysctl.before) &&
                     Take(json, "ours", sysctl.ours);
  if (!whole || !IsOwnSysctl(sysctl.path)) return std::nullopt;
  return sysctl;
}

// The contents may be any bytes.
Json Write(const ReplacedFile& file) {
  Json json = {{"path", file.path}, {"ours", absl::Base64Escape(file.ours)}};
  if (!file.existed) return json;
  if (!file.link_target.empty()) {
    PutText(json, "link_target", file.link_target);
  } else {
    json["before"] = absl::Base64Escape(file.before);
    json["mode"] = file.mode;
  }
  json["owner"] = file.owner;
  json["group"] = file.group;
  for (const auto& [name, value] : file.xattrs) json["xattrs"][name] = absl::Base64Escape(value);
  return json;
}

bool TakeXattrs(const Json& json, Xattrs& to) {
  const auto found = json.find("xattrs");
  if (found == json.end()) return true;
  if (!found->is_object()) return false;
  for (const auto& [name, value] : found->items()) {
    const bool whole = IsKeptXattr(name) && value.is_string() &&
                       absl::Base64Unescape(value.get_ref<const std::string&>(), &to[name]);
    if (!whole) return false;
  }
  return true;
}

std::optional<HostChange> ReadFile(const Json& json) {
  ReplacedFile file;
  std::string ours, before;
  if (!Take(json, "path", file.path) || !Take(json, "ours", ours)) return std::nullopt;
  if (file.path != kResolvConf || !absl::Base64Unescape(ours, &file.ours)) return std::nullopt;
  file.existed = HasText(json, "link_target") || json.contains("before");
  if (!file.existed) return file;
  bool whole = Take(json, "owner", file.owner) && Take(json, "group", file.group) &&
               TakeXattrs(json, file.xattrs);
  if (HasText(json, "link_target")) {
    whole &= Take(json, "link_target", file.link_target) && !file.link_target.empty();
  } else {
    whole &= Take(json, "before", before) && Take(json, "mode", file.mode) &&
             (file.mode & ~kKeptModeBits) == 0 && absl::Base64Unescape(before, &file.before);
  }
  return whole ? std::optional<HostChange>(file) : std::nullopt;
}

// In the order of the variant's alternatives.
constexpr std::array<const char*, std::variant_size_v<HostChange>> kKinds = {
    "route", "rule", "nft_table", "sysctl", "file"};
constexpr std::array<std::optional<HostChange> (*)(const Json&), kKinds.size()> kReaders = {
    ReadRoute, ReadRule, ReadTable, ReadSysctl, ReadFile};

struct Describer {
  std::string operator()(const OwnRoute& route) const { return route.Describe(); }
  std::string operator()(const OwnRule& rule) const { return rule.Describe(); }
  std::string operator()(const NftTable& table) const {
    return absl::StrCat("nftables table ", table.family, " ", table.name);
  }
  std::string operator()(const Sysctl& sysctl) const {
    std::string name = sysctl.path.substr(std::string_view("/proc/sys/").size());
    std::replace(name.begin(), name.end(), '/', '.');
    return absl::StrCat("sysctl ", name, " = ", sysctl.ours);
  }
  std::string operator()(const ReplacedFile& file) const { return file.path; }
};

}  // namespace

std::string Describe(const HostChange& change) { return std::visit(Describer(), change); }

bool EndsWithBoot(const HostChange& change) {
  return !std::holds_alternative<ReplacedFile>(change);
}

Json ToJson(const HostChange& change) {
  return {{kKinds[change.index()], std::visit([](const auto& one) { return Write(one); }, change)}};
}

std::optional<HostChange> HostChangeFrom(const Json& json) {
  if (!json.is_object() || json.size() != 1) return std::nullopt;
  for (size_t i = 0; i < kKinds.size(); ++i) {
    const auto found = json.find(kKinds[i]);
    if (found != json.end()) return found->is_object() ? kReaders[i](*found) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace braid
