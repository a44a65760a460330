// What becomes of a file of braid's own that is not what braid writes.
#pragma once

#include <filesystem>
#include <string>

namespace braid {

// Gives it another name, since it may still tell somebody something, so that a new one can be
// begun. What was done, for a message behind the file's name.
inline std::string SetAsideDamaged(const std::string& path) {
  std::error_code error;
  std::filesystem::rename(path, path + ".damaged", error);
  return error ? "is damaged" : "was damaged, and is now \"" + path + ".damaged\"";
}

}  // namespace braid
