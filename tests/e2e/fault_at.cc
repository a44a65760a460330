// A library to load in front of braid that lets one of its steps of bring-up fail, or be the last.
//
//   BRAID_TEST_FAULT=fail:N   the Nth change through rtnetlink or nftables fails
//   BRAID_TEST_FAULT=kill:N   the process is killed ahead of the Nth of those, or of a file that is
//                             replaced or taken away
//   BRAID_TEST_FAULT=count    all go through
//
// How many there were is in the file BRAID_TEST_FAULT_COUNT.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>

struct nft_ctx;

namespace {

constexpr int kNetlinkError = -1;  // NLE_FAILURE

std::atomic<int> calls{0};

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

// Whether this call is to fail.
bool Fault(bool may_fail) {
  const char* wanted = getenv("BRAID_TEST_FAULT");
  if (wanted == nullptr) return false;
  const bool kills = strncmp(wanted, "kill:", 5) == 0;
  if (!kills && !may_fail) return false;
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

}  // namespace

extern "C" {

int nl_send_auto(nl_sock* socket, nl_msg* message) {
  if (IsChange(message) && Fault(true)) return kNetlinkError;
  return Next<int(nl_sock*, nl_msg*)>("nl_send_auto")(socket, message);
}

int nft_run_cmd_from_buffer(nft_ctx* context, const char* text) {
  if (strstr(text, "\"list\"") == nullptr && Fault(true)) return -1;
  return Next<int(nft_ctx*, const char*)>("nft_run_cmd_from_buffer")(context, text);
}

int rename(const char* from, const char* to) {
  Fault(false);
  return Next<int(const char*, const char*)>("rename")(from, to);
}

int unlink(const char* path) {
  Fault(false);
  return Next<int(const char*)>("unlink")(path);
}

}  // extern "C"
