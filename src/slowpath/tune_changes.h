// Makes the changes that tuning found, and takes them back.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "slowpath/settings.h"
#include "slowpath/undo_file.h"

namespace braid {

struct Change {
  Setting setting;
  std::string value;

  bool operator==(const Change&) const = default;
};

struct ChangeResult {
  enum class Outcome : uint8_t {
    kDone,     // read back, and so it is
    kAlready,  // it had that value
    kGone,     // of an undo: there is no such setting any more
    kForeign,  // of an undo: somebody else has changed it since, so it was left alone
    kFailed,
  };
  Setting setting;
  std::string from;  // before this change; empty when it could not be read
  std::string to;    // what was wanted
  Outcome outcome = Outcome::kDone;
  std::string why;  // of kFailed
};

// Makes what `find_changes` wants: the numbers of queues first, since other settings are each
// queue's; then it is asked again. Each setting is tried once. A refused change does not keep the
// others from being made, but none is made that the undo file does not know of.
std::vector<ChangeResult> ApplyChanges(const std::function<std::vector<Change>()>& find_changes,
                                       SettingStore& store, UndoFile& undo);

// Brings back what the undo file knows, the last change first. What could not be brought back stays
// in the file, and nothing else. `force`: also what somebody else has changed since. Not OK when
// the file could not be brought up to date.
absl::StatusOr<std::vector<ChangeResult>> UndoChanges(SettingStore& store, UndoFile& undo,
                                                      bool force);

}  // namespace braid
