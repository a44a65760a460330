#include "slowpath/handshake_counter.h"

#include <sodium.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "absl/status/statusor.h"
#include "slowpath/damaged_file.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

constexpr size_t kMaxCounterBytes = 64;

// DataLoss: it is no number.
absl::StatusOr<uint64_t> ReadCounter(const std::string& path) {
  const auto text = ReadSmallFile(path, kMaxCounterBytes, FilePrivacy::kAny);
  if (!text.ok()) return text.status();
  uint64_t value = 0;
  if (std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc()) {
    return absl::DataLossError("is damaged");
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
  const auto kept = ReadCounter(HandshakeCounter(state_dir, public_key).path_);
  return kept.ok() ? std::optional<uint64_t>(*kept) : std::nullopt;
}

absl::Status HandshakeCounter::Load() {
  std::error_code error;
  std::filesystem::create_directories(state_dir_, error);
  const auto kept = ReadCounter(path_);
  const bool is_damaged = absl::IsDataLoss(kept.status());
  may_save_ = kept.ok() || is_damaged || absl::IsNotFound(kept.status());
  if (!may_save_) return OfFile(kept.status());
  const absl::Status damage =
      is_damaged ? OfFile(absl::DataLossError(SetAsideDamaged(path_))) : absl::OkStatus();
  last_ = kept.value_or(last_);
  const absl::Status saved = Save(last_);
  return saved.ok() ? damage : saved;
}

uint64_t HandshakeCounter::Next(uint64_t wall_ns) {
  last_ = std::max(last_ + 1, wall_ns);
  // Where nothing can be kept, Load() has said so.
  Save(last_).IgnoreError();
  return last_;
}

absl::Status HandshakeCounter::Save(uint64_t value) {
  if (!may_save_) return absl::OkStatus();
  return OfFile(ReplaceSmallFile(path_, std::to_string(value) + "\n"));
}

absl::Status HandshakeCounter::OfFile(const absl::Status& status) const {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      "security.state_dir: \"" + path_ + "\" " + std::string(status.message()));
}

}  // namespace braid
