#include "slowpath/handshake_counter.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "io/unique_fd.h"

namespace braid {

HandshakeCounter::HandshakeCounter(const std::string& state_dir, const Key& public_key)
    : state_dir_(state_dir) {
  char name[17];
  sodium_bin2hex(name, sizeof(name), public_key.data(), 8);
  path_ = state_dir + "/handshake-counter-" + name;
}

absl::Status HandshakeCounter::Load() {
  std::error_code error;
  std::filesystem::create_directories(state_dir_, error);
  const UniqueFd file(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  char text[32];
  const ssize_t bytes = file ? read(file.get(), text, sizeof(text)) : 0;
  if (bytes > 0) std::from_chars(text, text + bytes, last_);
  return Save(last_);
}

uint64_t HandshakeCounter::Next(uint64_t wall_ns) {
  last_ = std::max(last_ + 1, wall_ns);
  // Where nothing can be kept, Load() has said so.
  Save(last_).IgnoreError();
  return last_;
}

// Replaces the file in one step; a machine that loses power has the old number or the new one.
absl::Status HandshakeCounter::Save(uint64_t value) {
  const std::string temporary = path_ + ".new";
  const UniqueFd file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) {
    return absl::ErrnoToStatus(errno, "security.state_dir: cannot write to \"" + state_dir_ + "\"");
  }
  const std::string text = std::to_string(value) + "\n";
  const bool written =
      write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      fdatasync(file.get()) == 0;
  if (!written || rename(temporary.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, "security.state_dir: cannot replace \"" + path_ + "\"");
  }
  // The new name is on disk only when its directory is.
  const UniqueFd directory(open(state_dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) != 0) {
    return absl::ErrnoToStatus(errno, "security.state_dir: cannot write to \"" + state_dir_ + "\"");
  }
  return absl::OkStatus();
}

}  // namespace braid
