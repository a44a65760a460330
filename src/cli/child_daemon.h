// A `braid run` of this very program as a child, in a network namespace, for as long as the object
// lives. It dies with the thread that started it, however that ends.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "io/unique_fd.h"
#include "slowpath/throwaway_network.h"

namespace braid {

class ChildDaemon {
 public:
  // What the daemon says goes to `log_file`. The environment's BRAID_… variables are kept from it.
  static absl::StatusOr<ChildDaemon> Start(const NetworkNamespace& in, const std::string& name,
                                           const std::string& config_file,
                                           const std::string& log_file);
  ChildDaemon(ChildDaemon&& other) noexcept;
  ChildDaemon& operator=(ChildDaemon&&) = delete;
  // Stops it, kills it if it does not obey, and waits for its end.
  ~ChildDaemon();

  // Becomes readable when the daemon has ended.
  int fd() const { return pidfd_.get(); }
  const std::string& name() const { return name_; }
  // The end of what it has said.
  std::string LastWords() const;

 private:
  ChildDaemon(pid_t pid, UniqueFd pidfd, std::string name, std::string log_file)
      : pid_(pid),
        pidfd_(std::move(pidfd)),
        name_(std::move(name)),
        log_file_(std::move(log_file)) {}
  bool EndsWithin(int timeout_ms) const;

  pid_t pid_;  // -1: moved away
  UniqueFd pidfd_;
  std::string name_;
  std::string log_file_;
};

}  // namespace braid
