// A pair that measures request and response: one byte there, one byte back, over TCP.
//
//   ping_pong serve --port PORT [--seconds S]
//   ping_pong ask --to ADDRESS --port PORT [--seconds S]
//
// The asking side prints one line of JSON. The serving side takes one connection, says "listening"
// on its standard error when it can be reached, and ends with the connection or after its seconds.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace {

constexpr int kWaitSeconds = 5;          // for one answer
constexpr size_t kMaxSamples = 1 << 24;  // 128 MB; minutes even without a tunnel

struct Options {
  bool serve = false;
  std::string address;
  uint16_t port = 0;
  double seconds = 3;
};

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "ping_pong: %s\n", what.c_str());
  exit(1);
}

[[noreturn]] void DieOfErrno(const std::string& what) { Die(what + ": " + strerror(errno)); }

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

Options Parse(int argc, char** argv) {
  Options options;
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode != "serve" && mode != "ask") Die("the first argument is serve or ask");
  options.serve = mode == "serve";
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--to") {
      options.address = value;
    } else if (name == "--port") {
      options.port = static_cast<uint16_t>(atoi(value));
    } else if (name == "--seconds") {
      options.seconds = atof(value);
    } else {
      Die("unknown option " + name);
    }
  }
  if (argc % 2 != 0) Die("an option lacks its value");
  if (options.port == 0) Die("--port is missing");
  if (!options.serve && options.address.empty()) Die("--to is missing");
  return options;
}

int OpenSocket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) DieOfErrno("socket");
  return fd;
}

// One byte is one packet, and neither side waits for ever.
void SetUp(int fd, int wait_seconds) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const timeval wait{wait_seconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
}

void Serve(const Options& options) {
  const int listener = OpenSocket();
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.port);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    DieOfErrno("bind");
  }
  if (listen(listener, 1) != 0) DieOfErrno("listen");
  const timeval wait{static_cast<time_t>(options.seconds) + 1, 0};
  setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));  // accept() heeds it
  fprintf(stderr, "listening\n");
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) DieOfErrno("nobody came: accept");
  SetUp(fd, kWaitSeconds);
  char byte;
  while (recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1) {
  }
}

double Percentile(const std::vector<int64_t>& sorted_ns, double percent) {
  const auto at = static_cast<size_t>(static_cast<double>(sorted_ns.size() - 1) * percent / 100);
  return static_cast<double>(sorted_ns[at]) / 1e3;
}

void Ask(const Options& options) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.port);
  if (inet_pton(AF_INET, options.address.c_str(), &address.sin_addr) != 1) {
    Die("not an IPv4 address: " + options.address);
  }
  const int fd = OpenSocket();
  SetUp(fd, kWaitSeconds);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    DieOfErrno("connect to " + options.address);
  }
  std::vector<int64_t> times_ns;
  times_ns.reserve(1 << 20);
  const int64_t start = NowNs();
  const int64_t end = start + static_cast<int64_t>(options.seconds * 1e9);
  int64_t now = start;
  char byte = 1;
  while (now < end && times_ns.size() < kMaxSamples) {
    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1) DieOfErrno("send");
    const ssize_t got = recv(fd, &byte, 1, 0);
    if (got == 0) Die("the other side has ended");
    if (got < 0) DieOfErrno("no answer: recv");
    const int64_t after = NowNs();
    times_ns.push_back(after - now);
    now = after;
  }
  std::sort(times_ns.begin(), times_ns.end());
  const double took_s = static_cast<double>(now - start) / 1e9;
  printf("{\"answers\": %zu, \"per_second\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
         times_ns.size(), static_cast<double>(times_ns.size()) / took_s, Percentile(times_ns, 50),
         Percentile(times_ns, 99));
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  if (options.serve) {
    Serve(options);
  } else {
    Ask(options);
  }
}
