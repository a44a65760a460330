// Owns malloc and its kin in a test run: loaded ahead of a program, it ends the program at once
// when a thread allocates or frees after that thread has said that it never will.
//
// glibc keeps its own allocator reachable under __libc_ names, so nothing has to be looked up and
// the first call, long before main(), works as every other.
#include <errno.h>
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern "C" {

void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* block, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* block);

}  // extern "C"

namespace {

// The initial-exec model takes its room at program start: reading it never allocates.
__attribute__((tls_model("initial-exec"))) thread_local bool forbidden = false;

void Refuse(const char* function, size_t bytes) {
  forbidden = false;  // what reports may allocate
  char thread[16] = "";
  prctl(PR_GET_NAME, thread);
  char line[160];
  const int length =
      snprintf(line, sizeof(line), "alloc guard: thread \"%s\" called %s(%zu) on the packet path\n",
               thread, function, bytes);
  if (write(STDERR_FILENO, line, static_cast<size_t>(length)) < 0) _exit(134);
  void* frames[32];
  backtrace_symbols_fd(frames, backtrace(frames, 32), STDERR_FILENO);
  abort();
}

void* AlignedOrNull(const char* function, size_t alignment, size_t bytes) {
  if (forbidden) Refuse(function, bytes);
  return __libc_memalign(alignment, bytes);
}

}  // namespace

extern "C" {

// From here on this thread may not (or may again) allocate.
void braid_forbid_allocation(int forbid) { forbidden = forbid != 0; }

void* malloc(size_t bytes) {
  if (forbidden) Refuse("malloc", bytes);
  return __libc_malloc(bytes);
}

void* calloc(size_t count, size_t bytes) {
  if (forbidden) Refuse("calloc", count * bytes);
  return __libc_calloc(count, bytes);
}

void* realloc(void* block, size_t bytes) {
  if (forbidden) Refuse("realloc", bytes);
  return __libc_realloc(block, bytes);
}

void* reallocarray(void* block, size_t count, size_t bytes) {
  size_t total = 0;
  if (__builtin_mul_overflow(count, bytes, &total)) {
    errno = ENOMEM;
    return nullptr;
  }
  if (forbidden) Refuse("reallocarray", total);
  return __libc_realloc(block, total);
}

void free(void* block) {
  if (forbidden && block != nullptr) Refuse("free", 0);
  __libc_free(block);
}

void* memalign(size_t alignment, size_t bytes) {
  return AlignedOrNull("memalign", alignment, bytes);
}

void* aligned_alloc(size_t alignment, size_t bytes) {
  return AlignedOrNull("aligned_alloc", alignment, bytes);
}

void* valloc(size_t bytes) {
  return AlignedOrNull("valloc", static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes);
}

int posix_memalign(void** block, size_t alignment, size_t bytes) {
  const bool power_of_two = alignment != 0 && (alignment & (alignment - 1)) == 0;
  if (!power_of_two || alignment % sizeof(void*) != 0) return EINVAL;
  void* made = AlignedOrNull("posix_memalign", alignment, bytes);
  if (made == nullptr) return ENOMEM;
  *block = made;
  return 0;
}

}  // extern "C"
