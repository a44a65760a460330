// Runs a program to which the kernel refuses the named system calls with EPERM, as hardened
// machines and containers do.
//
//   refuse_syscalls io_uring_setup,bpf COMMAND [ARGUMENT…]
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sstream>
#include <string>
#include <vector>

namespace {

int NumberOf(const std::string& name) {
  if (name == "io_uring_setup") return SYS_io_uring_setup;
  if (name == "bpf") return SYS_bpf;
  return -1;
}

bool Refuse(const std::vector<int>& calls) {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const int call : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: refuse_syscalls NAME[,NAME…] COMMAND [ARGUMENT…]\n");
    return 2;
  }
  std::vector<int> calls;
  std::istringstream names(argv[1]);
  for (std::string name; std::getline(names, name, ',');) {
    calls.push_back(NumberOf(name));
    if (calls.back() >= 0) continue;
    fprintf(stderr, "refuse_syscalls: does not know \"%s\"\n", name.c_str());
    return 2;
  }
  if (!Refuse(calls)) {
    perror("refuse_syscalls: seccomp");
    return 2;
  }
  execvp(argv[2], argv + 2);
  perror(argv[2]);
  return 127;
}
