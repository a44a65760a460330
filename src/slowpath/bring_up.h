// Changes this machine for the tunnel, so that any end is followed by what was there before: each
// change is in the journal before it is made (journal.h), and all are taken back in reverse order.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "slowpath/host.h"
#include "slowpath/journal.h"

namespace braid {

// The journal of the daemon whose tunnel is on `device`.
std::string JournalPath(const std::string& state_dir, const std::string& device);
// All journals in a folder.
absl::StatusOr<std::vector<std::string>> JournalsIn(const std::string& state_dir);

class BringUp {
 public:
  // What an operator should know, a line each.
  using Report = std::function<void(const std::string& line)>;

  // The host outlives it.
  BringUp(Host& host, Journal journal, Report report)
      : host_(host), journal_(std::move(journal)), report_(std::move(report)) {}

  // Made, or nothing of it is left. AlreadyExists where somebody else has made one like it.
  [[nodiscard]] absl::Status Make(const HostChange& change);
  // The same, one after the other. After an error those before it stand.
  [[nodiscard]] absl::Status Make(const std::vector<HostChange>& changes);
  // One that was made, and that somebody has taken away or, a table, changed.
  [[nodiscard]] absl::Status MakeAgain(const HostChange& change);
  [[nodiscard]] absl::Status Replace(const NftTable& before, const NftTable& now);
  // Nothing to do where it has that value; where somebody has changed it since, what was before
  // comes back in the end all the same. NotFound: this machine has no such sysctl.
  [[nodiscard]] absl::Status SetSysctl(const std::string& path, const std::string& value);
  // What somebody has written since is what comes back in the end; what is but a part of what was
  // or of what is to be was left by a write that failed half-way, and does not count.
  [[nodiscard]] absl::Status ReplaceFile(const std::string& path, const std::string& contents);

  // Those that Make() made, in the order of the journal; the last comes first. One that fails does
  // not keep the others from being taken back, and stays in the journal; the first error is
  // returned.
  [[nodiscard]] absl::Status TakeBack(const std::vector<HostChange>& changes);
  // All that the journal names, as well.
  [[nodiscard]] absl::Status TakeBackAll();

  const std::vector<HostChange>& changes() const { return journal_.changes(); }
  // Those that are over without having been taken back, since somebody else has changed them.
  const std::vector<HostChange>& changed_since() const { return changed_since_; }

 private:
  using Step = absl::Status (Host::*)(const HostChange& change);
  // A file that another one's journal tells of is touched with that one's rights.
  absl::Status Do(Step step, const HostChange& change);

  Host& host_;
  Journal journal_;
  std::vector<HostChange> changed_since_;
  const Report report_;
};

}  // namespace braid
