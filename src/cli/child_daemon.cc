#include "cli/child_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

namespace braid {
namespace {

constexpr int kStopWithinMs = 3000;
constexpr size_t kLastWordsBytes = 600;
constexpr int kExecFailed = 127;

// The pointers borrow the environment.
std::vector<char*> EnvironmentWithoutBraid() {
  std::vector<char*> kept;
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::string_view(*each).rfind("BRAID_", 0) != 0) kept.push_back(*each);
  }
  kept.push_back(nullptr);
  return kept;
}

// Behind the fork: only what a signal handler may do.
[[noreturn]] void BecomeDaemon(pid_t parent, int network, int log, char* const* arguments,
                               char* const* environment) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kExecFailed);  // it died before that
  setpgid(0, 0);  // Ctrl-C at the terminal is for the parent, which ends its children in order
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (setns(network, CLONE_NEWNET) != 0) _exit(kExecFailed);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execve("/proc/self/exe", arguments, environment);
  _exit(kExecFailed);
}

}  // namespace

absl::StatusOr<ChildDaemon> ChildDaemon::Start(const NetworkNamespace& in, const std::string& name,
                                               const std::string& config_file,
                                               const std::string& log_file) {
  const UniqueFd log(open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log) return absl::ErrnoToStatus(errno, "cannot write " + log_file);
  std::string words[] = {"braid", "run", "--config", config_file};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::vector<char*> environment = EnvironmentWithoutBraid();
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "cannot start a process");
  if (pid == 0) BecomeDaemon(parent, in.fd(), log.get(), arguments.data(), environment.data());
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const int error = errno;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return absl::ErrnoToStatus(error, "pidfd_open (Linux has it since 5.3)");
  }
  return ChildDaemon(pid, std::move(pidfd), name, log_file);
}

ChildDaemon::ChildDaemon(ChildDaemon&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      name_(std::move(other.name_)),
      log_file_(std::move(other.log_file_)) {}

ChildDaemon::~ChildDaemon() {
  if (pid_ < 0) return;
  kill(pid_, SIGTERM);
  if (!EndsWithin(kStopWithinMs)) kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

bool ChildDaemon::EndsWithin(int timeout_ms) const {
  pollfd polled{pidfd_.get(), POLLIN, 0};
  return poll(&polled, 1, timeout_ms) > 0;
}

std::string ChildDaemon::LastWords() const {
  std::ifstream log(log_file_);
  std::string text{std::istreambuf_iterator<char>(log), std::istreambuf_iterator<char>()};
  if (text.size() > kLastWordsBytes) text = "…" + text.substr(text.size() - kLastWordsBytes);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace braid
