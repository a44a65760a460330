#include "slowpath/handshake_counter.h"

#include <fcntl.h>
#include <sodium.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "io/unique_fd.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

std::optional<uint64_t> Read(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[32];
  const ssize_t bytes = file ? read(file.get(), text, sizeof(text)) : 0;
  uint64_t value = 0;
  if (bytes <= 0 || std::from_chars(text, text + bytes, value).ec != std::errc()) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

HandshakeCounter::HandshakeCounter(const std::string& state_dir, const Key& public_key)
    : state_dir_(state_dir) {
  char name[17];
  sodium_bin2hex(name, sizeof(name), public_key.data(), 8);
  path_ = state_dir + "/handshake-counter-" + name;
}

std::optional<uint64_t> HandshakeCounter::Kept(const std::string& state_dir,
                                               const Key& public_key) {
  return Read(HandshakeCounter(state_dir, public_key).path_);
}

absl::Status HandshakeCounter::Load() {
  std::error_code error;
  std::filesystem::create_directories(state_dir_, error);
  last_ = Read(path_).value_or(last_);
  return Save(last_);
}

uint64_t HandshakeCounter::Next(uint64_t wall_ns) {
  last_ = std::max(last_ + 1, wall_ns);
  // Where nothing can be kept, Load() has said so.
  Save(last_).IgnoreError();
  return last_;
}

absl::Status HandshakeCounter::Save(uint64_t value) {
  const absl::Status status = ReplaceSmallFile(path_, std::to_string(value) + "\n");
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      "security.state_dir: \"" + path_ + "\" " + std::string(status.message()));
}

}  // namespace braid
