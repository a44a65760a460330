// What bring-up has changed of this machine, on disk, so that any end is followed by what was there
// before: each change is noted, durably, before it is made, and struck out after it was taken back.
// A crash in between leaves at most an entry whose change never happened.
//
// The journal knows the boot and the network namespace that it was written in. What belongs to a
// kernel that no longer runs, or to a namespace that nobody is in any more, needs no undoing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "io/unique_fd.h"
#include "slowpath/host_change.h"

namespace braid {

inline constexpr size_t kMaxJournalBytes = 16 << 20;

// Where a change was made.
struct Whereabouts {
  std::string boot;               // /proc/sys/kernel/random/boot_id
  std::string network_namespace;  // "net:[4026531840]"
  // When the first process that is seen was started: a container that is started anew is for those
  // in it what a boot is for a machine. Empty: not known.
  std::string init = {};

  bool operator==(const Whereabouts&) const = default;
};
Whereabouts WhereaboutsOfThisProcess();
// Whether the network namespace of `where` is still there, as far as can be seen from `here`: a
// process is in it, or it has a name of its own. A process that may not be looked at, as an
// ordinary user may not at most, could be in it, unless all that are seen began later than what was
// done there.
bool IsNetworkAlive(const Whereabouts& where, const Whereabouts& here);

struct JournalText {
  Whereabouts where;
  std::vector<HostChange> changes;  // in the order in which they were made

  bool operator==(const JournalText&) const = default;
};
// Errors do not name the file.
absl::StatusOr<JournalText> ParseJournal(std::string_view text);
std::string RenderJournal(const JournalText& journal);

// A user of this machine.
struct JournalWriter {
  uint32_t user = 0;
  uint32_t group = 0;
};

class Journal {
 public:
  // Reads the journal if there is one, and keeps others out until this object goes: AlreadyExists
  // where somebody has it open. The folder must exist.
  static absl::StatusOr<Journal> Open(const std::string& path);

  const std::vector<HostChange>& changes() const { return journal_.changes; }
  // Written in another boot, or in another namespace.
  const Whereabouts& where() const { return journal_.where; }

  // What follows is done here and now. For a journal without changes.
  void BeginHere() {
    journal_.where = WhereaboutsOfThisProcess();
    writer_.reset();
  }
  // Who has written what was found in it, where that is another one than root, and this is root:
  // who may do more for it than for its writer would lend that one its rights.
  const std::optional<JournalWriter>& writer() const { return writer_; }
  // In their order, as one step.
  [[nodiscard]] absl::Status Note(const std::vector<HostChange>& changes);
  // Of each the newest that is equal.
  [[nodiscard]] absl::Status StrikeOut(const std::vector<HostChange>& changes);
  // Another one in the place of the newest that is equal to `before`.
  [[nodiscard]] absl::Status Exchange(const HostChange& before, HostChange now);

 private:
  Journal(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  absl::Status Load();
  // A journal without changes is no file.
  absl::Status Save() const;

  std::string path_;
  UniqueFd lock_;
  JournalText journal_;
  std::optional<JournalWriter> writer_;
};

}  // namespace braid
