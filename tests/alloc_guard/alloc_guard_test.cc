// Shows that the allocation guard catches every way to allocate, and nothing else. It is run with
// the guard loaded ahead of it; each case has a process of its own, since a case may end it.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

extern "C" __attribute__((weak)) void braid_forbid_allocation(int forbid);

namespace {

// Through it every block escapes, so that the compiler drops no allocation.
void* volatile sink;
void* volatile old_block;

void PosixMemalign() {
  void* block = nullptr;
  if (posix_memalign(&block, 64, 128) == 0) sink = block;
}

struct Case {
  const char* name;
  void (*act)();
  bool aborts;
};

constexpr Case kCases[] = {
    {"malloc", [] { sink = malloc(7); }, true},
    {"calloc", [] { sink = calloc(7, 7); }, true},
    {"realloc", [] { sink = realloc(old_block, 70000); }, true},
    {"reallocarray", [] { sink = reallocarray(old_block, 700, 100); }, true},
    {"free", [] { free(old_block); }, true},
    {"aligned_alloc", [] { sink = aligned_alloc(64, 128); }, true},
    {"posix_memalign", PosixMemalign, true},
    {"operator new", [] { sink = new int; }, true},
    {"operator delete", [] { delete static_cast<char*>(old_block); }, true},
    {"operator new, aligned", [] { sink = new (std::align_val_t(64)) int; }, true},
    {"std::string", [] { sink = std::string(100, 'x').data(); }, true},
    {"std::vector", [] { sink = std::vector<int>(100).data(); }, true},
    {"strdup, in libc", [] { sink = strdup("text"); }, true},
    {"nothing", [] {}, false},
    {"free of null", [] { free(nullptr); }, false},
    {"allowed again",
     [] {
       braid_forbid_allocation(0);
       sink = malloc(7);
     },
     false},
};

// What a child does until it ends: the case, with its complaint sent to nowhere.
[[noreturn]] void Act(const Case& c) {
  if (c.aborts && freopen("/dev/null", "w", stderr) == nullptr) _exit(3);
  old_block = malloc(7);
  braid_forbid_allocation(1);
  c.act();
  _exit(0);
}

bool EndsAsItShould(const Case& c) {
  const pid_t child = fork();
  if (child == 0) Act(c);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return false;
  if (c.aborts) return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// A promise binds the thread that made it only.
bool OtherThreadsMayAllocate() {
  const pid_t child = fork();
  if (child == 0) {
    std::thread other([] {
      usleep(20000);
      sink = malloc(7);
    });
    braid_forbid_allocation(1);
    usleep(60000);
    braid_forbid_allocation(0);
    other.join();
    _exit(0);
  }
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

}  // namespace

int main() {
  if (braid_forbid_allocation == nullptr) {
    fprintf(stderr, "the guard is not loaded: LD_PRELOAD=liballoc_guard.so alloc_guard_test\n");
    return 1;
  }
  int failed = 0;
  for (const Case& c : kCases) {
    if (EndsAsItShould(c)) continue;
    ++failed;
    printf("FAILED: %s %s\n", c.name, c.aborts ? "goes unnoticed" : "is refused");
  }
  if (!OtherThreadsMayAllocate()) {
    ++failed;
    printf("FAILED: another thread is refused\n");
  }
  printf("%zu cases, %d failed\n", std::size(kCases) + 1, failed);
  return failed == 0 ? 0 : 1;
}
