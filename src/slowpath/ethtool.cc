#include "slowpath/ethtool.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "io/unique_fd.h"

namespace braid {
namespace {

constexpr uint32_t kMaxStrings = 4096;  // of a set, from the kernel
constexpr uint32_t kMaxBuckets = 65536;
constexpr uint32_t kBitsPerBlock = 32;

// A command of ethtool with an array behind it, in memory that is aligned for it.
template <typename Command>
class Sized {
 public:
  Sized(uint32_t command, size_t extra_bytes)
      : words_((sizeof(Command) + extra_bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t)) {
    (*this)->cmd = command;
  }
  Command* operator->() { return reinterpret_cast<Command*>(words_.data()); }
  void* data() { return words_.data(); }

 private:
  std::vector<uint64_t> words_;
};

class KernelEthtool final : public Ethtool {
 public:
  KernelEthtool() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}

  absl::StatusOr<std::string> Driver(const std::string& device) override;
  absl::StatusOr<std::vector<DeviceFeature>> Features(const std::string& device) override;
  absl::StatusOr<DeviceChannels> Channels(const std::string& device) override;
  absl::StatusOr<DeviceRings> Rings(const std::string& device) override;
  absl::StatusOr<DeviceCoalescing> Coalescing(const std::string& device) override;
  absl::StatusOr<DeviceIndirection> Indirection(const std::string& device) override;
  absl::StatusOr<uint32_t> HashFields(const std::string& device, HashedFlows flows) override;
  absl::Status SetFeature(const std::string& device, const std::string& name, bool on) override;
  absl::Status SetChannels(const std::string& device, const DeviceChannels& channels) override;
  absl::Status SetRings(const std::string& device, const DeviceRings& rings) override;
  absl::Status SetIndirection(const std::string& device,
                              const std::vector<uint32_t>& queues) override;
  absl::Status SetHashFields(const std::string& device, HashedFlows flows,
                             uint32_t fields) override;

 private:
  absl::Status Call(const std::string& device, const char* what, void* command,
                    int* result = nullptr);
  // What a command gives that needs nothing but its number.
  template <typename T>
  absl::StatusOr<T> Get(const std::string& device, const char* what, uint32_t number) {
    T command{};
    command.cmd = number;
    if (absl::Status status = Call(device, what, &command); !status.ok()) return status;
    return command;
  }
  absl::StatusOr<std::vector<std::string>> FeatureNames(const std::string& device);

  const UniqueFd fd_;
};

// `what` is named as the option of ethtool(8) that shows it.
absl::Status KernelEthtool::Call(const std::string& device, const char* what, void* command,
                                 int* result) {
  ifreq request{};
  if (device.empty() || device.size() >= IFNAMSIZ) {
    return absl::NotFoundError(device + " is no network device's name");
  }
  std::copy(device.begin(), device.end(), request.ifr_name);
  request.ifr_data = static_cast<char*>(command);
  const int answer = ioctl(fd_.get(), SIOCETHTOOL, &request);
  if (answer >= 0) {
    if (result != nullptr) *result = answer;
    return absl::OkStatus();
  }
  const std::string where = "ethtool " + std::string(what) + " " + device;
  switch (errno) {
    case ENODEV:
      return absl::NotFoundError(where + ": there is no such device");
    case EOPNOTSUPP:
      return absl::UnimplementedError(where + ": the device has no such thing");
    case EPERM:
    case EACCES:
      return absl::PermissionDeniedError(where + ": not permitted");
    default:
      return absl::ErrnoToStatus(errno, where);
  }
}

absl::StatusOr<std::string> KernelEthtool::Driver(const std::string& device) {
  const auto info = Get<ethtool_drvinfo>(device, "-i", ETHTOOL_GDRVINFO);
  if (!info.ok()) return info.status();
  return std::string(info->driver, strnlen(info->driver, sizeof(info->driver)));
}

// --- Offloads ---

absl::StatusOr<std::vector<std::string>> KernelEthtool::FeatureNames(const std::string& device) {
  Sized<ethtool_sset_info> info(ETHTOOL_GSSET_INFO, sizeof(uint32_t));
  info->sset_mask = uint64_t{1} << ETH_SS_FEATURES;
  if (absl::Status status = Call(device, "-k", info.data()); !status.ok()) return status;
  const uint32_t count = info->sset_mask == 0 ? 0 : std::min(info->data[0], kMaxStrings);
  Sized<ethtool_gstrings> strings(ETHTOOL_GSTRINGS, size_t{count} * ETH_GSTRING_LEN);
  strings->string_set = ETH_SS_FEATURES;
  strings->len = count;
  if (absl::Status status = Call(device, "-k", strings.data()); !status.ok()) return status;
  std::vector<std::string> names;
  for (uint32_t i = 0; i < std::min(strings->len, count); ++i) {
    const char* name = reinterpret_cast<const char*>(strings->data) + i * ETH_GSTRING_LEN;
    names.emplace_back(name, strnlen(name, ETH_GSTRING_LEN));
  }
  return names;
}

absl::StatusOr<std::vector<DeviceFeature>> KernelEthtool::Features(const std::string& device) {
  const auto names = FeatureNames(device);
  if (!names.ok()) return names.status();
  const auto blocks = static_cast<uint32_t>((names->size() + kBitsPerBlock - 1) / kBitsPerBlock);
  Sized<ethtool_gfeatures> all(ETHTOOL_GFEATURES, blocks * sizeof(ethtool_get_features_block));
  all->size = blocks;
  if (absl::Status status = Call(device, "-k", all.data()); !status.ok()) return status;
  std::vector<DeviceFeature> features;
  for (uint32_t i = 0; i < names->size(); ++i) {
    const ethtool_get_features_block& block = all->features[i / kBitsPerBlock];
    const uint32_t bit = uint32_t{1} << (i % kBitsPerBlock);
    features.push_back({(*names)[i], (block.active & bit) != 0,
                        (block.available & bit) != 0 && (block.never_changed & bit) == 0});
  }
  return features;
}

absl::Status KernelEthtool::SetFeature(const std::string& device, const std::string& name,
                                       bool on) {
  const auto names = FeatureNames(device);
  if (!names.ok()) return names.status();
  const auto found = std::find(names->begin(), names->end(), name);
  if (found == names->end()) {
    return absl::UnimplementedError("this kernel knows no offload called " + name);
  }
  const auto index = static_cast<uint32_t>(found - names->begin());
  const auto blocks = static_cast<uint32_t>((names->size() + kBitsPerBlock - 1) / kBitsPerBlock);
  Sized<ethtool_sfeatures> wanted(ETHTOOL_SFEATURES, blocks * sizeof(ethtool_set_features_block));
  wanted->size = blocks;
  ethtool_set_features_block& block = wanted->features[index / kBitsPerBlock];
  block.valid = uint32_t{1} << (index % kBitsPerBlock);
  block.requested = on ? block.valid : 0;
  int result = 0;
  if (absl::Status status = Call(device, "-K", wanted.data(), &result); !status.ok()) return status;
  if ((result & ETHTOOL_F_UNSUPPORTED) != 0) {
    return absl::UnimplementedError("the device does not let " + name + " be changed");
  }
  if ((result & ETHTOOL_F_WISH) != 0) {
    return absl::FailedPreconditionError("the device keeps " + name +
                                         " as it is, because of another offload of it");
  }
  return absl::OkStatus();
}

// --- Queues ---

absl::StatusOr<DeviceChannels> KernelEthtool::Channels(const std::string& device) {
  const auto channels = Get<ethtool_channels>(device, "-l", ETHTOOL_GCHANNELS);
  if (!channels.ok()) return channels.status();
  return DeviceChannels{channels->rx_count, channels->tx_count, channels->combined_count,
                        channels->max_rx,   channels->max_tx,   channels->max_combined};
}

absl::Status KernelEthtool::SetChannels(const std::string& device, const DeviceChannels& wanted) {
  auto channels = Get<ethtool_channels>(device, "-l", ETHTOOL_GCHANNELS);
  if (!channels.ok()) return channels.status();
  channels->cmd = ETHTOOL_SCHANNELS;
  channels->rx_count = wanted.rx;
  channels->tx_count = wanted.tx;
  channels->combined_count = wanted.combined;
  return Call(device, "-L", &*channels);
}

absl::StatusOr<DeviceRings> KernelEthtool::Rings(const std::string& device) {
  const auto rings = Get<ethtool_ringparam>(device, "-g", ETHTOOL_GRINGPARAM);
  if (!rings.ok()) return rings.status();
  return DeviceRings{rings->rx_pending, rings->tx_pending, rings->rx_max_pending,
                     rings->tx_max_pending};
}

absl::Status KernelEthtool::SetRings(const std::string& device, const DeviceRings& wanted) {
  auto rings = Get<ethtool_ringparam>(device, "-g", ETHTOOL_GRINGPARAM);
  if (!rings.ok()) return rings.status();
  rings->cmd = ETHTOOL_SRINGPARAM;
  rings->rx_pending = wanted.rx;
  rings->tx_pending = wanted.tx;
  return Call(device, "-G", &*rings);
}

absl::StatusOr<DeviceCoalescing> KernelEthtool::Coalescing(const std::string& device) {
  const auto coalesce = Get<ethtool_coalesce>(device, "-c", ETHTOOL_GCOALESCE);
  if (!coalesce.ok()) return coalesce.status();
  return DeviceCoalescing{coalesce->rx_coalesce_usecs, coalesce->rx_max_coalesced_frames,
                          coalesce->use_adaptive_rx_coalesce != 0};
}

// --- The receive hash ---

absl::StatusOr<DeviceIndirection> KernelEthtool::Indirection(const std::string& device) {
  ethtool_rxnfc rings{};
  rings.cmd = ETHTOOL_GRXRINGS;
  if (absl::Status status = Call(device, "-x", &rings); !status.ok()) return status;
  ethtool_rxfh_indir size{};
  size.cmd = ETHTOOL_GRXFHINDIR;
  if (absl::Status status = Call(device, "-x", &size); !status.ok()) return status;
  if (size.size == 0 || size.size > kMaxBuckets) {
    return absl::UnimplementedError("ethtool -x " + device + ": the device has no such thing");
  }
  Sized<ethtool_rxfh_indir> table(ETHTOOL_GRXFHINDIR, size.size * sizeof(uint32_t));
  table->size = size.size;
  if (absl::Status status = Call(device, "-x", table.data()); !status.ok()) return status;
  const uint32_t* first = table->ring_index;
  return DeviceIndirection{{first, first + std::min(table->size, size.size)},
                           static_cast<uint32_t>(rings.data)};
}

// A table that is the kernel's own is set as such: then the driver is again free to adapt it when
// the number of queues changes.
absl::Status KernelEthtool::SetIndirection(const std::string& device,
                                           const std::vector<uint32_t>& queues) {
  const auto now = Indirection(device);
  if (!now.ok()) return now.status();
  bool is_default = now->rx_queues > 0 && queues.size() == now->queues.size();
  for (uint32_t i = 0; is_default && i < queues.size(); ++i) {
    is_default = queues[i] == i % now->rx_queues;
  }
  Sized<ethtool_rxfh_indir> table(ETHTOOL_SRXFHINDIR, queues.size() * sizeof(uint32_t));
  if (!is_default) {
    table->size = static_cast<uint32_t>(queues.size());
    std::copy(queues.begin(), queues.end(), table->ring_index);
  }
  return Call(device, "-X", table.data());
}

uint32_t FlowTypeOf(HashedFlows flows) {
  return flows == HashedFlows::kUdp4 ? UDP_V4_FLOW : UDP_V6_FLOW;
}

absl::StatusOr<uint32_t> KernelEthtool::HashFields(const std::string& device, HashedFlows flows) {
  ethtool_rxnfc command{};
  command.cmd = ETHTOOL_GRXFH;
  command.flow_type = FlowTypeOf(flows);
  if (absl::Status status = Call(device, "-n", &command); !status.ok()) return status;
  return static_cast<uint32_t>(command.data);
}

absl::Status KernelEthtool::SetHashFields(const std::string& device, HashedFlows flows,
                                          uint32_t fields) {
  ethtool_rxnfc command{};
  command.cmd = ETHTOOL_SRXFH;
  command.flow_type = FlowTypeOf(flows);
  command.data = fields;
  return Call(device, "-N", &command);
}

}  // namespace

std::unique_ptr<Ethtool> OpenEthtool() { return std::make_unique<KernelEthtool>(); }

}  // namespace braid
