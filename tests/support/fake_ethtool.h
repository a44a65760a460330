// Network devices in memory, as ethtool would show them.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "slowpath/ethtool.h"

namespace braid::testing {

// What a device does not have is Unimplemented.
class FakeEthtool : public Ethtool {
 public:
  struct Device {
    std::string driver = "fake";
    std::vector<DeviceFeature> features;
    absl::StatusOr<DeviceChannels> channels = absl::UnimplementedError("no channels");
    absl::StatusOr<DeviceRings> rings = absl::UnimplementedError("no rings");
    absl::StatusOr<DeviceCoalescing> coalescing = absl::UnimplementedError("no coalescing");
    absl::StatusOr<DeviceIndirection> indirection = absl::UnimplementedError("no indirection");
    absl::StatusOr<uint32_t> udp4_hash = absl::UnimplementedError("no hash");
    absl::StatusOr<uint32_t> udp6_hash = absl::UnimplementedError("no hash");
    // Called when channels were set, as a driver makes its queues anew.
    std::function<void(const DeviceChannels&)> on_channels = [](const DeviceChannels&) {};
  };
  std::map<std::string, Device> devices;

  static std::vector<DeviceFeature> GoodFeatures() {
    std::vector<DeviceFeature> features;
    for (const char* name : {"rx-gro", "tx-generic-segmentation", "tx-checksum-ip-generic",
                             "rx-checksum", "tx-udp-segmentation", "tx-tcp-segmentation",
                             "tx-tcp6-segmentation", "rx-udp-gro-forwarding"}) {
      features.push_back({name, true, true});
    }
    for (const char* name : {"rx-lro", "rx-gro-list"}) features.push_back({name, false, true});
    features.push_back({"tx-checksum-ipv4", false, false});
    features.push_back({"tx-checksum-ipv6", false, false});
    return features;
  }

  DeviceFeature& FeatureOf(const std::string& device, const std::string& name) {
    auto& features = devices.at(device).features;
    for (DeviceFeature& feature : features) {
      if (feature.name == name) return feature;
    }
    return features.emplace_back(DeviceFeature{name, false, true});
  }

  absl::StatusOr<std::string> Driver(const std::string& device) override {
    if (auto known = Check(device); !known.ok()) return known;
    return devices[device].driver;
  }
  absl::StatusOr<std::vector<DeviceFeature>> Features(const std::string& device) override {
    if (auto known = Check(device); !known.ok()) return known;
    return devices[device].features;
  }
  absl::StatusOr<DeviceChannels> Channels(const std::string& device) override {
    if (auto known = Check(device); !known.ok()) return known;
    return devices[device].channels;
  }
  absl::StatusOr<DeviceRings> Rings(const std::string& device) override {
    if (auto known = Check(device); !known.ok()) return known;
    return devices[device].rings;
  }
  absl::StatusOr<DeviceCoalescing> Coalescing(const std::string& device) override {
    if (auto known = Check(device); !known.ok()) return known;
    return devices[device].coalescing;
  }
  absl::StatusOr<DeviceIndirection> Indirection(const std::string& device) override {
    if (auto known = Check(device); !known.ok()) return known;
    return devices[device].indirection;
  }
  absl::StatusOr<uint32_t> HashFields(const std::string& device, HashedFlows flows) override {
    if (auto known = Check(device); !known.ok()) return known;
    return flows == HashedFlows::kUdp4 ? devices[device].udp4_hash : devices[device].udp6_hash;
  }
  absl::Status SetFeature(const std::string& device, const std::string& name, bool on) override {
    DeviceFeature& feature = FeatureOf(device, name);
    if (!feature.changeable) return absl::UnimplementedError("fixed");
    feature.on = on;
    return absl::OkStatus();
  }
  absl::Status SetChannels(const std::string& device, const DeviceChannels& channels) override {
    devices[device].channels = channels;
    devices[device].on_channels(channels);
    return absl::OkStatus();
  }
  absl::Status SetRings(const std::string& device, const DeviceRings& rings) override {
    devices[device].rings = rings;
    return absl::OkStatus();
  }
  absl::Status SetIndirection(const std::string& device,
                              const std::vector<uint32_t>& queues) override {
    devices[device].indirection->queues = queues;
    return absl::OkStatus();
  }
  absl::Status SetHashFields(const std::string& device, HashedFlows flows,
                             uint32_t fields) override {
    (flows == HashedFlows::kUdp4 ? devices[device].udp4_hash : devices[device].udp6_hash) = fields;
    return absl::OkStatus();
  }

 private:
  absl::Status Check(const std::string& device) const {
    return devices.count(device) > 0 ? absl::OkStatus() : absl::NotFoundError("no " + device);
  }
};

}  // namespace braid::testing
