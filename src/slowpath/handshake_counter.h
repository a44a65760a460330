// The strictly increasing number in every initiation that this end sends. It is the time of day, or
// one more than the last, whichever is greater, and is kept on disk, so that a machine whose clock
// begins at 1970 still connects.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/bytes.h"

namespace braid {

class HandshakeCounter {
 public:
  // The file lies in `state_dir`, which is made if it is missing, under a name of its own for each
  // public key.
  HandshakeCounter(const std::string& state_dir, const Key& public_key);

  // What is kept of it, for those who only look; nothing where there is none.
  static std::optional<uint64_t> Kept(const std::string& state_dir, const Key& public_key);

  // Reads what is kept. Not OK when nothing can be kept there, or read: the counter then goes by
  // the clock alone. A file that cannot be read now stays as it is, one that is damaged is set
  // aside.
  [[nodiscard]] absl::Status Load();

  // The next number, which is on disk before it is used. `wall_ns`: nanoseconds since 1970.
  uint64_t Next(uint64_t wall_ns);

 private:
  [[nodiscard]] absl::Status Save(uint64_t value);
  absl::Status OfFile(const absl::Status& status) const;

  std::string state_dir_;
  std::string path_;
  uint64_t last_ = 0;
  bool may_save_ = true;  // else there is a file that could not be read
};

}  // namespace braid
