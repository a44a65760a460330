// A temporary folder that only its owner may look into, and that goes away with its object. What a
// process left that was killed outright is taken away by the next one.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "io/unique_fd.h"

namespace braid {

class PrivateFolder {
 public:
  static absl::StatusOr<PrivateFolder> Create();
  PrivateFolder(PrivateFolder&& other) noexcept;
  PrivateFolder& operator=(PrivateFolder&&) = delete;
  ~PrivateFolder();

  std::string Path(const std::string& name) const { return path_ + "/" + name; }
  // Readable by its owner only.
  [[nodiscard]] absl::Status Write(const std::string& name, const std::string& text) const;

 private:
  PrivateFolder(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;  // empty: moved away
  UniqueFd lock_;     // held as long as the owner lives
};

}  // namespace braid
