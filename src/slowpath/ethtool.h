// A network device's queues, rings and offloads, as ethtool(8) shows and sets them. A small
// interface, so that tests bring devices of their own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace braid {

struct DeviceFeature {
  std::string name;  // the kernel's: "rx-gro", "tx-udp-segmentation"
  bool on = false;
  bool changeable = false;
};

struct DeviceChannels {
  uint32_t rx = 0, tx = 0, combined = 0;
  uint32_t max_rx = 0, max_tx = 0, max_combined = 0;
};

struct DeviceRings {
  uint32_t rx = 0, tx = 0;
  uint32_t max_rx = 0, max_tx = 0;
};

struct DeviceCoalescing {
  uint32_t rx_usecs = 0, rx_frames = 0;
  bool adaptive_rx = false;
};

// Which queue each bucket of the receive hash leads to.
struct DeviceIndirection {
  std::vector<uint32_t> queues;
  uint32_t rx_queues = 0;  // that the device has
};

enum class HashedFlows : uint8_t { kUdp4, kUdp6 };

// Errors: NotFound when there is no such device, Unimplemented when it has no such thing,
// PermissionDenied.
class Ethtool {
 public:
  virtual ~Ethtool() = default;

  virtual absl::StatusOr<std::string> Driver(const std::string& device) = 0;
  virtual absl::StatusOr<std::vector<DeviceFeature>> Features(const std::string& device) = 0;
  virtual absl::StatusOr<DeviceChannels> Channels(const std::string& device) = 0;
  virtual absl::StatusOr<DeviceRings> Rings(const std::string& device) = 0;
  virtual absl::StatusOr<DeviceCoalescing> Coalescing(const std::string& device) = 0;
  virtual absl::StatusOr<DeviceIndirection> Indirection(const std::string& device) = 0;
  // The fields that the receive hash is made of, a bit (RXH_…) each.
  virtual absl::StatusOr<uint32_t> HashFields(const std::string& device, HashedFlows flows) = 0;

  virtual absl::Status SetFeature(const std::string& device, const std::string& name, bool on) = 0;
  // The maxima are not looked at.
  virtual absl::Status SetChannels(const std::string& device, const DeviceChannels& channels) = 0;
  virtual absl::Status SetRings(const std::string& device, const DeviceRings& rings) = 0;
  virtual absl::Status SetIndirection(const std::string& device,
                                      const std::vector<uint32_t>& queues) = 0;
  virtual absl::Status SetHashFields(const std::string& device, HashedFlows flows,
                                     uint32_t fields) = 0;
};

// Of this network namespace.
std::unique_ptr<Ethtool> OpenEthtool();

}  // namespace braid
