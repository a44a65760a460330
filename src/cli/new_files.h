// Files that are made together: all of them or, after an error, none, and none that exists is
// touched.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace braid {

struct NewFile {
  std::string path;  // folders that are missing are made, for their owner alone
  std::string contents;
  uint32_t mode = 0600;
  std::optional<uint32_t> owner = {};  // nothing: this process's
  std::optional<uint32_t> group = {};
};

class NewFiles {
 public:
  // Each is whole and on disk before it has its name. AlreadyExists names the one that is there.
  static absl::StatusOr<NewFiles> Create(const std::vector<NewFile>& files);
  NewFiles(NewFiles&& other) noexcept;
  NewFiles& operator=(NewFiles&&) = delete;
  // Takes them away again, unless they were kept.
  ~NewFiles();

  void Keep() { made_.clear(); }

 private:
  NewFiles() = default;
  absl::Status MakeFolders(const std::string& path);
  absl::Status Make(const NewFile& file);

  std::vector<std::string> made_;  // files and folders, in this order
};

}  // namespace braid
