// Networks that exist only for a measurement: namespaces without a name, and a pair of devices
// between two of them. The kernel takes all of it away with the process, however that ends.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "io/unique_fd.h"

namespace braid {

class NetworkNamespace {
 public:
  // With its loopback up. PermissionDenied where root's rights are missing.
  static absl::StatusOr<NetworkNamespace> Create();

  // The calling thread is in it from now on; sockets that it opens stay there.
  [[nodiscard]] absl::Status Enter() const;
  // Runs `body` on a thread of its own in there, and waits for it.
  [[nodiscard]] absl::Status Run(const std::function<absl::Status()>& body) const;

  int fd() const { return fd_.get(); }

 private:
  explicit NetworkNamespace(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

struct VethEnd {
  const NetworkNamespace& in;
  std::string name;
  IpPrefix address;
};

// Joins two namespaces: both ends have their address and are up.
[[nodiscard]] absl::Status JoinByVeth(const VethEnd& a, const VethEnd& b, int mtu);

// For a device in the calling thread's namespace.
[[nodiscard]] absl::Status BringUpDevice(const std::string& name, const IpPrefix& address);

}  // namespace braid
