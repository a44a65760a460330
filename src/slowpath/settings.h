// One value of this machine that `braid tune` may change: where it is, and how it is read and
// written as text. Nothing outside of IsTunable() is ever written, whoever asks for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "slowpath/ethtool.h"
#include "slowpath/host_files.h"

namespace braid {

struct Setting {
  enum class Kind : uint8_t {
    kFile,      // `name` is its path
    kFeature,   // the kernel's name of an offload: "on" or "off"
    kChannels,  // "rx", "tx" or "combined"
    kRing,      // "rx" or "tx"
    kHash,      // "udp4" or "udp6": letters as ethtool -N takes them, such as "sdfn"
    kSpread,    // "rx": the queue of each bucket of the receive hash, with commas
  };
  Kind kind = Kind::kFile;
  std::string device;  // empty for what is the whole machine's
  std::string name;

  // "net.core.rmem_max", "eth0 tx-udp-segmentation", "eth0 channels combined".
  std::string Describe() const;
  auto operator<=>(const Setting&) const = default;
};

std::string_view KindName(Setting::Kind kind);
std::optional<Setting::Kind> KindNamed(std::string_view name);

Setting FileSetting(const std::string& path);
// A file below /sys/class/net/DEVICE.
Setting DeviceFileSetting(const std::string& device, const std::string& name);

// Whether this is one of those that tuning ever changes.
bool IsTunable(const Setting& setting);

// Whether both texts mean the same value: "00000000,00000003" and "3", "0-1" and "0,1".
bool SameValue(const Setting& setting, const std::string& a, const std::string& b);

// Letters of the receive hash's fields; nothing when there is one that has no letter.
std::optional<std::string> FormatHashFields(uint32_t fields);
std::optional<uint32_t> ParseHashFields(std::string_view letters);

class SettingStore {
 public:
  virtual ~SettingStore() = default;
  // NotFound and Unimplemented: this machine has no such setting, or no longer.
  virtual absl::StatusOr<std::string> Read(const Setting& setting) = 0;
  virtual absl::Status Write(const Setting& setting, const std::string& value) = 0;
};

// This machine's. Refuses to write what is not tunable. Both outlive it.
class HostSettings final : public SettingStore {
 public:
  HostSettings(const HostFiles& files, Ethtool& ethtool) : files_(files), ethtool_(ethtool) {}

  absl::StatusOr<std::string> Read(const Setting& setting) override;
  absl::Status Write(const Setting& setting, const std::string& value) override;

 private:
  const HostFiles& files_;
  Ethtool& ethtool_;
};

}  // namespace braid
