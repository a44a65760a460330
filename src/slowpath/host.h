// This machine, as far as bring-up changes it. An interface, so that tests can let any change fail.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "slowpath/host_change.h"

namespace braid {

class Host {
 public:
  virtual ~Host() = default;

  // What stands there now and `ours` would replace. NotFound: this kernel has no such sysctl.
  virtual absl::StatusOr<Sysctl> LookAtSysctl(const std::string& path, const std::string& ours) = 0;
  virtual absl::StatusOr<ReplacedFile> LookAtFile(const std::string& path,
                                                  const std::string& ours) = 0;

  virtual absl::Status Make(const HostChange& change) = 0;
  // In the place of the one of its name, without a gap.
  virtual absl::Status Replace(const NftTable& table) = 0;
  // OK also where nothing of it is there. What somebody else has put in its place since stays: an
  // error that IsChangedSince() tells from others, and the change is over as well.
  virtual absl::Status TakeBack(const HostChange& change) = 0;
  // Of a table: one of its name.
  virtual absl::StatusOr<bool> IsThere(const HostChange& change) = 0;
  // Those that are not there as they were made, in their order; of thousands of routes it takes no
  // longer than of one to ask.
  virtual absl::StatusOr<std::vector<HostChange>> Missing(
      const std::vector<HostChange>& changes) = 0;
};

// While it lives, this thread has another user's rights to files and no more; for root, whose other
// rights stay. Of no use where status() is not OK.
class FilesAs {
 public:
  FilesAs(uint32_t user, uint32_t group);
  ~FilesAs();
  FilesAs(const FilesAs&) = delete;
  FilesAs& operator=(const FilesAs&) = delete;

  const absl::Status& status() const { return status_; }

 private:
  std::vector<gid_t> groups_;  // those from before
  int user_before_ = 0;
  int group_before_ = 0;
  absl::Status status_;
};

absl::Status ChangedSince(const HostChange& change);
bool IsChangedSince(const absl::Status& status);

class ThisHost final : public Host {
 public:
  absl::StatusOr<Sysctl> LookAtSysctl(const std::string& path, const std::string& ours) override;
  absl::StatusOr<ReplacedFile> LookAtFile(const std::string& path,
                                          const std::string& ours) override;
  absl::Status Make(const HostChange& change) override;
  absl::Status Replace(const NftTable& table) override;
  absl::Status TakeBack(const HostChange& change) override;
  absl::StatusOr<bool> IsThere(const HostChange& change) override;
  absl::StatusOr<std::vector<HostChange>> Missing(const std::vector<HostChange>& changes) override;

 private:
  absl::StatusOr<bool> IsAsMade(const NftTable& table);
  absl::Status Remember(const NftTable& table);

  // Of each table that was made: what it was to be, and how nftables shows that.
  std::map<std::string, std::pair<NftTable, std::string>> tables_;
};

}  // namespace braid
