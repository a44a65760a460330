// The files in which the kernel shows and takes settings (/proc, /sys), below a root of their own
// where a test brings its own tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace braid {

inline constexpr size_t kMaxHostFileBytes = 16 << 20;  // /proc/interrupts of a very large machine

class HostFiles {
 public:
  explicit HostFiles(std::string root = "") : root_(std::move(root)) {}

  // Without the white space at its end. Errors are named by errno and carry `path`.
  [[nodiscard]] absl::StatusOr<std::string> Read(const std::string& path) const;
  [[nodiscard]] absl::StatusOr<int64_t> ReadInteger(const std::string& path) const;
  // "4096" for a plain file; of "always [madvise] never" it is "madvise".
  [[nodiscard]] absl::StatusOr<std::string> ReadSelected(const std::string& path) const;
  // What a list or a mask of CPUs holds.
  [[nodiscard]] absl::StatusOr<std::vector<int>> ReadCpuList(const std::string& path) const;
  [[nodiscard]] absl::StatusOr<std::vector<int>> ReadCpuMask(const std::string& path) const;

  // Names in a folder, numbers within them in their order (rx-2 before rx-10); none when it cannot
  // be read.
  std::vector<std::string> List(const std::string& folder) const;
  bool Exists(const std::string& path) const;
  // The last part of where a symbolic link leads, such as a device's driver.
  std::optional<std::string> LinkName(const std::string& path) const;

  // In one write, to a file that exists already.
  [[nodiscard]] absl::Status Write(const std::string& path, const std::string& value) const;

 private:
  std::string root_;
};

// Whether the device of this network namespace may have IPv6 addresses.
bool MayHaveIpv6(const std::string& device);

}  // namespace braid
