// Loaded ahead of braid: once the file that BRAID_TEST_KILL_WORKER names is there, the next wait of
// a worker's thread ends with an exception, and the file is removed.
#include <dlfcn.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace {

bool IsWorker() {
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return strncmp(name, "braid-worker", 12) == 0;
}

}  // namespace

extern "C" int epoll_pwait2(int fd, epoll_event* events, int most, const timespec* timeout,
                            const sigset_t* signals) {
  static const auto real = reinterpret_cast<decltype(&epoll_pwait2)>(
      dlsym(RTLD_NEXT, "epoll_pwait2"));
  const char* file = getenv("BRAID_TEST_KILL_WORKER");
  const int result = real(fd, events, most, timeout, signals);
  if (file != nullptr && IsWorker() && unlink(file) == 0) throw std::runtime_error("as was asked");
  return result;
}
