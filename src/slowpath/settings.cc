#include "slowpath/settings.h"

#include <linux/ethtool.h>

#include <algorithm>
#include <charconv>
#include <regex>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "slowpath/cpu_list.h"

namespace braid {
namespace {

using SettingKind = Setting::Kind;

constexpr std::pair<SettingKind, std::string_view> kSettingKinds[] = {
    {SettingKind::kFile, "file"},         {SettingKind::kFeature, "offload"},
    {SettingKind::kChannels, "channels"}, {SettingKind::kRing, "ring"},
    {SettingKind::kHash, "receive-hash"}, {SettingKind::kSpread, "receive-spread"},
};

constexpr std::string_view kFeatures[] = {
    "rx-gro",
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "rx-checksum",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
    "rx-lro",
    "rx-gro-list",
    "rx-udp-gro-forwarding",
};

constexpr std::string_view kFiles[] = {
    "/proc/sys/net/core/rmem_max",
    "/proc/sys/net/core/wmem_max",
    "/proc/sys/net/core/optmem_max",
    "/proc/sys/net/core/netdev_max_backlog",
    "/proc/sys/net/core/bpf_jit_enable",
    "/sys/devices/system/cpu/cpufreq/boost",
    "/sys/devices/system/cpu/intel_pstate/no_turbo",
};

constexpr std::pair<uint32_t, char> kHashLetters[] = {
    {RXH_L2DA, 'm'},   {RXH_VLAN, 'v'},     {RXH_L3_PROTO, 't'}, {RXH_IP_SRC, 's'},
    {RXH_IP_DST, 'd'}, {RXH_L4_B_0_1, 'f'}, {RXH_L4_B_2_3, 'n'}, {RXH_DISCARD, 'r'},
};

template <typename List>
bool Has(const List& list, std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

bool EndsIn(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Nothing that could lead to another folder, or be more than one name.
bool IsDeviceName(const std::string& name) {
  static const std::regex kName("[A-Za-z0-9_.:@-]{1,15}");
  return std::regex_match(name, kName) && name != "." && name != "..";
}

bool IsTunableFile(const Setting& setting) {
  static const std::regex kOfMachine(
      "/sys/devices/system/cpu/cpufreq/policy[0-9]{1,5}/scaling_governor|"
      "/proc/irq/[0-9]{1,6}/smp_affinity_list");
  static const std::regex kOfDevice("queues/(rx-[0-9]{1,5}/rps_cpus|tx-[0-9]{1,5}/xps_cpus)");
  if (setting.device.empty()) {
    return Has(kFiles, setting.name) || std::regex_match(setting.name, kOfMachine);
  }
  const std::string folder = "/sys/class/net/" + setting.device + "/";
  return setting.name.rfind(folder, 0) == 0 &&
         std::regex_match(setting.name.substr(folder.size()), kOfDevice);
}

std::optional<uint32_t> ParseCount(std::string_view text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole ? std::optional(number) : std::nullopt;
}

std::optional<std::vector<uint32_t>> ParseCounts(std::string_view text) {
  std::vector<uint32_t> numbers;
  for (;;) {
    const size_t comma = text.find(',');
    const auto number = ParseCount(text.substr(0, comma));
    if (!number) return std::nullopt;
    numbers.push_back(*number);
    if (comma == text.npos) return numbers;
    text.remove_prefix(comma + 1);
  }
}

HashedFlows FlowsOf(const Setting& setting) {
  return setting.name == "udp6" ? HashedFlows::kUdp6 : HashedFlows::kUdp4;
}

uint32_t& MemberOf(DeviceChannels& channels, const std::string& name) {
  if (name == "rx") return channels.rx;
  return name == "tx" ? channels.tx : channels.combined;
}

uint32_t& MemberOf(DeviceRings& rings, const std::string& name) {
  return name == "rx" ? rings.rx : rings.tx;
}

absl::Status NoSuchValue(const Setting& setting, const std::string& value) {
  return absl::InvalidArgumentError(setting.Describe() + " cannot be \"" + value + "\"");
}

}  // namespace

std::string Setting::Describe() const {
  if (kind == SettingKind::kFile) {
    constexpr std::string_view kSysctls = "/proc/sys/";
    if (name.rfind(kSysctls, 0) != 0) return name;
    std::string text = name.substr(kSysctls.size());
    std::replace(text.begin(), text.end(), '/', '.');
    return text;
  }
  if (kind == SettingKind::kFeature) return device + " " + name;
  return device + " " + std::string(KindName(kind)) + " " + name;
}

std::string_view KindName(SettingKind kind) {
  for (const auto& [one, name] : kSettingKinds) {
    if (one == kind) return name;
  }
  return "";
}

std::optional<SettingKind> KindNamed(std::string_view name) {
  for (const auto& [kind, one] : kSettingKinds) {
    if (one == name) return kind;
  }
  return std::nullopt;
}

Setting FileSetting(const std::string& path) { return {SettingKind::kFile, "", path}; }

Setting DeviceFileSetting(const std::string& device, const std::string& name) {
  return {SettingKind::kFile, device, "/sys/class/net/" + device + "/" + name};
}

bool IsTunable(const Setting& setting) {
  if (!setting.device.empty() && !IsDeviceName(setting.device)) return false;
  if (setting.kind == SettingKind::kFile) return IsTunableFile(setting);
  if (setting.device.empty()) return false;
  switch (setting.kind) {
    case SettingKind::kFeature:
      return Has(kFeatures, setting.name);
    case SettingKind::kChannels:
      return setting.name == "rx" || setting.name == "tx" || setting.name == "combined";
    case SettingKind::kRing:
      return setting.name == "rx" || setting.name == "tx";
    case SettingKind::kHash:
      return setting.name == "udp4" || setting.name == "udp6";
    default:
      return setting.kind == SettingKind::kSpread && setting.name == "rx";
  }
}

bool SameValue(const Setting& setting, const std::string& a, const std::string& b) {
  if (a == b) return true;
  if (setting.kind == SettingKind::kHash) {
    const auto first = ParseHashFields(a);
    return first && first == ParseHashFields(b);
  }
  if (setting.kind != SettingKind::kFile) return false;
  if (EndsIn(setting.name, "_cpus")) {
    const auto first = ParseCpuMask(a);
    return first && first == ParseCpuMask(b);
  }
  if (EndsIn(setting.name, "_list")) {
    const auto first = ParseCpuList(a);
    return first && first == ParseCpuList(b);
  }
  return false;
}

std::optional<std::string> FormatHashFields(uint32_t fields) {
  std::string letters;
  for (const auto& [bit, letter] : kHashLetters) {
    if ((fields & bit) != 0) letters += letter;
    fields &= ~bit;
  }
  return fields == 0 ? std::optional(letters) : std::nullopt;
}

std::optional<uint32_t> ParseHashFields(std::string_view letters) {
  uint32_t fields = 0;
  for (const char letter : letters) {
    const auto* found =
        std::find_if(std::begin(kHashLetters), std::end(kHashLetters),
                     [letter](const auto& known) { return known.second == letter; });
    if (found == std::end(kHashLetters)) return std::nullopt;
    fields |= found->first;
  }
  return fields;
}

absl::StatusOr<std::string> HostSettings::Read(const Setting& setting) {
  switch (setting.kind) {
    case SettingKind::kFile:
      return files_.Read(setting.name);
    case SettingKind::kFeature: {
      const auto features = ethtool_.Features(setting.device);
      if (!features.ok()) return features.status();
      for (const DeviceFeature& feature : *features) {
        if (feature.name == setting.name) return feature.on ? "on" : "off";
      }
      return absl::UnimplementedError("this kernel knows no offload called " + setting.name);
    }
    case SettingKind::kChannels: {
      auto channels = ethtool_.Channels(setting.device);
      if (!channels.ok()) return channels.status();
      return std::to_string(MemberOf(*channels, setting.name));
    }
    case SettingKind::kRing: {
      auto rings = ethtool_.Rings(setting.device);
      if (!rings.ok()) return rings.status();
      return std::to_string(MemberOf(*rings, setting.name));
    }
    case SettingKind::kHash: {
      const auto fields = ethtool_.HashFields(setting.device, FlowsOf(setting));
      if (!fields.ok()) return fields.status();
      auto letters = FormatHashFields(*fields);
      if (!letters) return absl::DataLossError(setting.Describe() + " has unknown fields");
      return *std::move(letters);
    }
    case SettingKind::kSpread: {
      const auto table = ethtool_.Indirection(setting.device);
      if (!table.ok()) return table.status();
      return absl::StrJoin(table->queues, ",");
    }
  }
  return absl::InternalError("a setting of no kind");
}

absl::Status HostSettings::Write(const Setting& setting, const std::string& value) {
  if (!IsTunable(setting)) {
    return absl::PermissionDeniedError(setting.Describe() + " is not among what tuning changes");
  }
  switch (setting.kind) {
    case SettingKind::kFile:
      if (value.find('\n') != value.npos) return NoSuchValue(setting, value);
      return files_.Write(setting.name, value);
    case SettingKind::kFeature:
      if (value != "on" && value != "off") return NoSuchValue(setting, value);
      return ethtool_.SetFeature(setting.device, setting.name, value == "on");
    case SettingKind::kHash: {
      const auto fields = ParseHashFields(value);
      if (!fields) return NoSuchValue(setting, value);
      return ethtool_.SetHashFields(setting.device, FlowsOf(setting), *fields);
    }
    case SettingKind::kSpread: {
      const auto queues = ParseCounts(value);
      if (!queues) return NoSuchValue(setting, value);
      return ethtool_.SetIndirection(setting.device, *queues);
    }
    case SettingKind::kChannels: {
      const auto count = ParseCount(value);
      if (!count) return NoSuchValue(setting, value);
      auto channels = ethtool_.Channels(setting.device);
      if (!channels.ok()) return channels.status();
      MemberOf(*channels, setting.name) = *count;
      return ethtool_.SetChannels(setting.device, *channels);
    }
    case SettingKind::kRing: {
      const auto count = ParseCount(value);
      if (!count) return NoSuchValue(setting, value);
      auto rings = ethtool_.Rings(setting.device);
      if (!rings.ok()) return rings.status();
      MemberOf(*rings, setting.name) = *count;
      return ethtool_.SetRings(setting.device, *rings);
    }
  }
  return absl::InternalError("a setting of no kind");
}

}  // namespace braid
