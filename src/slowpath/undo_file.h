// What tuning has changed, on disk, so that it can be brought back: for each setting the value that
// it had before anything was changed, and every value that tuning was about to give it.
//
// The file is written before the change that it tells of, durably, so a crash in between leaves at
// most an entry whose change never happened.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "io/unique_fd.h"
#include "slowpath/settings.h"

namespace braid {

inline constexpr char kDefaultUndoFile[] = "/var/lib/braid/tune-undo.json";
inline constexpr size_t kMaxUndoBytes = 8 << 20;

struct UndoEntry {
  Setting setting;
  std::string before;
  std::vector<std::string> ours;

  bool operator==(const UndoEntry&) const = default;
};

// The text of the file, and back. Errors do not name the file.
absl::StatusOr<std::vector<UndoEntry>> ParseUndoText(std::string_view text,
                                                     const std::string& network);
std::string RenderUndoText(const std::vector<UndoEntry>& entries, const std::string& network);

class UndoFile {
 public:
  // Reads the file if there is one, and keeps others out until this object goes; waits until they
  // have let go of it. Makes its folder if that is missing and `for_writing`. `network` names the
  // network namespace whose devices the entries are about; a file of another one is refused, as is
  // one that tells of settings that tuning never changes.
  static absl::StatusOr<UndoFile> Open(const std::string& path, const std::string& network,
                                       bool for_writing);

  // In the order in which they were changed first.
  const std::vector<UndoEntry>& entries() const { return entries_; }

  // Notes that `setting`, now `before`, is about to become `after`. The value from before the first
  // of such notes stays.
  [[nodiscard]] absl::Status Note(const Setting& setting, const std::string& before,
                                  const std::string& after);
  // A file that knows no setting any more is removed.
  [[nodiscard]] absl::Status Forget(const std::vector<Setting>& settings);

 private:
  UndoFile(std::string path, std::string network, UniqueFd lock)
      : path_(std::move(path)), network_(std::move(network)), lock_(std::move(lock)) {}
  absl::Status Load();
  absl::Status Save() const;

  std::string path_;
  std::string network_;
  UniqueFd lock_;
  std::vector<UndoEntry> entries_;
};

// "net:[4026531840]"; empty where it cannot be told.
std::string NetworkNamespaceOfThisProcess();

}  // namespace braid
