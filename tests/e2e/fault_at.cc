// A library to load in front of braid that lets one of its steps of bring-up fail, or be the last.
//
//   BRAID_TEST_FAULT=fail:N   the Nth of these fails: a change through rtnetlink or nftables, a
//                             setting in /proc/sys/net, and each step of writing the journal and
//                             resolv.conf (write, fdatasync, rename, fsync of the folder, unlink)
//   BRAID_TEST_FAULT=kill:N   the process is killed ahead of the Nth change through rtnetlink or
//                             nftables, setting, or file, whichever, that is replaced or taken away
//   BRAID_TEST_FAULT=count    all go through
//
// How many there were is in the file BRAID_TEST_FAULT_COUNT.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <utility>

struct nft_ctx;

namespace {

constexpr int kNetlinkError = -1;  // NLE_FAILURE

std::atomic<int> calls{0};
thread_local bool folder_is_next = false;  // the file in it was renamed

void Tell(int count) {
  const char* path = getenv("BRAID_TEST_FAULT_COUNT");
  if (path == nullptr) return;
  const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  char text[16];
  snprintf(text, sizeof(text), "%8d\n", count);  // of one length, so that it is never half there
  (void)!pwrite(fd, text, strlen(text), 0);
  close(fd);
}

enum class Ends : uint8_t { kByFailing = 1, kByKilling = 2, kBoth = 3 };

// Whether this call is to fail.
bool Fault(Ends how) {
  const char* wanted = getenv("BRAID_TEST_FAULT");
  if (wanted == nullptr) return false;
  const bool kills = strncmp(wanted, "kill:", 5) == 0;
  if ((static_cast<int>(how) & static_cast<int>(kills ? Ends::kByKilling : Ends::kByFailing)) ==
      0) {
    return false;
  }
  const int count = ++calls;
  Tell(count);
  if (strchr(wanted, ':') == nullptr || count != atoi(strchr(wanted, ':') + 1)) return false;
  if (kills) {
    kill(getpid(), SIGKILL);
    pause();
  }
  return true;
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Looking at something changes nothing, and how often that is done depends on time.
bool IsChange(nl_msg* message) {
  switch (Next<nlmsghdr*(nl_msg*)>("nlmsg_hdr")(message)->nlmsg_type) {
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
    case RTM_NEWRULE:
    case RTM_DELRULE:
      return true;
    default:
      return false;
  }
}

bool IsSetting(const char* path) { return strstr(path, "/proc/sys/net/") == path; }

bool IsFollowed(const char* path) {
  return IsSetting(path) || strstr(path, "/bring-up-") != nullptr ||
         strstr(path, "/resolv.conf") != nullptr;
}

struct Path {
  char text[512] = "";
};

Path PathOf(int fd) {
  char link[32];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  Path path;
  (void)!readlink(link, path.text, sizeof(path.text) - 1);
  return path;
}

bool IsSetting(int fd) { return IsSetting(PathOf(fd).text); }
bool IsFollowed(int fd) { return IsFollowed(PathOf(fd).text); }

int Refuse() {
  errno = EIO;
  return -1;
}

}  // namespace

extern "C" {

int nl_send_auto(nl_sock* socket, nl_msg* message) {
  if (IsChange(message) && Fault(Ends::kBoth)) return kNetlinkError;
  return Next<int(nl_sock*, nl_msg*)>("nl_send_auto")(socket, message);
}

int nft_run_cmd_from_buffer(nft_ctx* context, const char* text) {
  if (strstr(text, "\"list\"") == nullptr && Fault(Ends::kBoth)) return -1;
  return Next<int(nft_ctx*, const char*)>("nft_run_cmd_from_buffer")(context, text);
}

int rename(const char* from, const char* to) {
  if (Fault(IsFollowed(to) ? Ends::kBoth : Ends::kByKilling)) return Refuse();
  folder_is_next = IsFollowed(to);
  return Next<int(const char*, const char*)>("rename")(from, to);
}

// A file that is not there is no step.
int unlink(const char* path) {
  const Ends how = IsFollowed(path) ? Ends::kBoth : Ends::kByKilling;
  if (access(path, F_OK) == 0 && Fault(how)) return Refuse();
  folder_is_next = IsFollowed(path);
  return Next<int(const char*)>("unlink")(path);
}

// Nobody sees what was written before its name is there.
ssize_t write(int fd, const void* bytes, size_t count) {
  const Ends how = IsSetting(fd) ? Ends::kBoth : Ends::kByFailing;
  if (IsFollowed(fd) && Fault(how)) return Refuse();
  return Next<ssize_t(int, const void*, size_t)>("write")(fd, bytes, count);
}

int fdatasync(int fd) {
  if (IsFollowed(fd) && Fault(Ends::kByFailing)) return Refuse();
  return Next<int(int)>("fdatasync")(fd);
}

int fsync(int fd) {
  if (std::exchange(folder_is_next, false) && Fault(Ends::kByFailing)) return Refuse();
  return Next<int(int)>("fsync")(fd);
}

}  // extern "C"
