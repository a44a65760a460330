// A pair that measures short TCP flows: connect, one request, one answer, close, over and over.
//
//   short_flows serve --port PORT [--seconds S]
//   short_flows ask --to ADDRESS --port PORT [--seconds S] [--at-once N] [--keep]
//
// The asking side keeps N flows going and prints one line of JSON: how many were finished a second,
// how long each took, and how many came to nothing. With --keep it opens N flows, asks each again
// every second, and counts those that answered to the end. The serving side answers each request
// with one of its size, says "listening" on its standard error when it can be reached, and ends
// after its seconds.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

constexpr size_t kRequestBytes = 64;
constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kGiveUpNs = 5 * kSecondNs;  // on one flow

struct Options {
  bool serve = false;
  bool keep = false;
  std::string address;
  uint16_t port = 0;
  double seconds = 3;
  int at_once = 32;
};

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "short_flows: %s\n", what.c_str());
  exit(1);
}

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecondNs + now.tv_nsec;
}

Options Parse(int argc, char** argv) {
  Options options;
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode != "serve" && mode != "ask") Die("the first argument is serve or ask");
  options.serve = mode == "serve";
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--keep") {
      options.keep = true;
      continue;
    }
    if (++i == argc) Die(name + " lacks its value");
    if (name == "--to") {
      options.address = argv[i];
    } else if (name == "--port") {
      options.port = static_cast<uint16_t>(atoi(argv[i]));
    } else if (name == "--seconds") {
      options.seconds = atof(argv[i]);
    } else if (name == "--at-once") {
      options.at_once = atoi(argv[i]);
    } else {
      Die("unknown option " + name);
    }
  }
  if (options.port == 0) Die("--port is missing");
  if (!options.serve && options.address.empty()) Die("--to is missing");
  return options;
}

sockaddr_in AddressOf(const Options& options) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.port);
  if (!options.address.empty() &&
      inet_pton(AF_INET, options.address.c_str(), &address.sin_addr) != 1) {
    Die("no address: " + options.address);
  }
  return address;
}

void AllowManyFiles() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void Watch(int epoll, int fd, uint32_t events, uint64_t tag) {
  epoll_event event{events, {}};
  event.data.u64 = tag;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int Serve(const Options& options) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in address = AddressOf(options);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, 4096) != 0) {
    Die(std::string("listen: ") + strerror(errno));
  }
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  Watch(epoll, listener, EPOLLIN, static_cast<uint64_t>(listener));
  fprintf(stderr, "listening\n");
  const int64_t end_ns = NowNs() + static_cast<int64_t>(options.seconds * 1e9);
  std::vector<epoll_event> events(1024);
  char request[kRequestBytes];
  while (NowNs() < end_ns) {
    const int count = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 100);
    for (int i = 0; i < count; ++i) {
      const int fd = static_cast<int>(events[static_cast<size_t>(i)].data.u64);
      if (fd == listener) {
        int accepted;
        while ((accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
          Watch(epoll, accepted, EPOLLIN, static_cast<uint64_t>(accepted));
        continue;
      }
      const ssize_t got = recv(fd, request, sizeof(request), 0);
      if (got > 0) {
        (void)!send(fd, request, static_cast<size_t>(got), MSG_NOSIGNAL);
      } else if (got == 0 || errno != EAGAIN) {
        close(fd);
      }
    }
  }
  return 0;
}

struct Flow {
  int fd = -1;
  bool asked = false;
  int64_t begun_ns = 0;
};

class Asker {
 public:
  explicit Asker(const Options& options)
      : options_(options),
        address_(AddressOf(options)),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        flows_(static_cast<size_t>(options.at_once)) {}

  int Run() {
    const int64_t begin_ns = NowNs();
    const int64_t end_ns = begin_ns + static_cast<int64_t>(options_.seconds * 1e9);
    for (size_t i = 0; i < flows_.size(); ++i) Begin(i);
    std::vector<epoll_event> events(1024);
    int64_t now_ns = begin_ns;
    int64_t next_ns = begin_ns + kSecondNs;
    while (now_ns < end_ns) {
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 100);
      now_ns = NowNs();
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        OnEvent(event.data.u64, event.events, now_ns);
      }
      if (now_ns < next_ns) continue;
      next_ns += kSecondNs;
      for (size_t i = 0; i < flows_.size(); ++i) EachSecond(i, now_ns);
    }
    Report(static_cast<double>(now_ns - begin_ns) / 1e9);
    return 0;
  }

 private:
  void Begin(size_t i) {
    Flow& flow = flows_[i];
    flow.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (flow.fd < 0) Die(std::string("socket: ") + strerror(errno));
    flow.asked = false;
    flow.begun_ns = NowNs();
    const int on = 1;
    setsockopt(flow.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)!connect(flow.fd, reinterpret_cast<const sockaddr*>(&address_), sizeof(address_));
    Watch(epoll_, flow.fd, EPOLLIN | EPOLLOUT | EPOLLET, i);
  }

  void Fail(size_t i) {
    ++failed_;
    close(flows_[i].fd);
    flows_[i].fd = -1;
    if (!options_.keep) Begin(i);
  }

  void Ask(size_t i) {
    const char request[kRequestBytes] = {};
    flows_[i].asked = true;
    if (send(flows_[i].fd, request, sizeof(request), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(sizeof(request))) {
      Fail(i);
    }
  }

  void OnEvent(size_t i, uint32_t events, int64_t now_ns) {
    Flow& flow = flows_[i];
    if (flow.fd < 0) return;
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) return Fail(i);
    if (!flow.asked && (events & EPOLLOUT) != 0) {
      Ask(i);
      return;
    }
    if ((events & EPOLLIN) == 0) return;
    char answer[kRequestBytes];
    const ssize_t got = recv(flow.fd, answer, sizeof(answer), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return Fail(i);
    took_ns_.push_back(now_ns - flow.begun_ns);
    if (options_.keep) {
      flow.begun_ns = 0;
      return;
    }
    close(flow.fd);
    Begin(i);
  }

  void EachSecond(size_t i, int64_t now_ns) {
    Flow& flow = flows_[i];
    if (flow.fd < 0) return;
    if (flow.begun_ns != 0) {
      if (now_ns - flow.begun_ns > kGiveUpNs) Fail(i);
      return;
    }
    flow.begun_ns = now_ns;
    Ask(i);
  }

  double PercentileMs(double share) {
    if (took_ns_.empty()) return 0;
    const auto at = static_cast<size_t>(share * static_cast<double>(took_ns_.size() - 1));
    std::nth_element(took_ns_.begin(), took_ns_.begin() + static_cast<ptrdiff_t>(at),
                     took_ns_.end());
    return static_cast<double>(took_ns_[at]) / 1e6;
  }

  void Report(double seconds) {
    const auto alive =
        std::count_if(flows_.begin(), flows_.end(), [](const Flow& flow) { return flow.fd >= 0; });
    printf(
        "{\"finished\": %zu, \"per_second\": %.1f, \"failed\": %llu, \"alive\": %lld, "
        "\"p50_ms\": %.4f, \"p99_ms\": %.4f}\n",
        took_ns_.size(), static_cast<double>(took_ns_.size()) / seconds,
        static_cast<unsigned long long>(failed_), static_cast<long long>(alive), PercentileMs(0.5),
        PercentileMs(0.99));
  }

  const Options options_;
  const sockaddr_in address_;
  const int epoll_;
  std::vector<Flow> flows_;
  std::vector<int64_t> took_ns_;
  uint64_t failed_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  AllowManyFiles();
  return options.serve ? Serve(options) : Asker(options).Run();
}
