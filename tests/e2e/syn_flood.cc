// Begins TCP connections that nobody will go on with: SYNs of ever other ports and addresses, by a
// raw socket, which needs CAP_NET_RAW.
//
//   syn_flood --from ADDRESS --to ADDRESS --port PORT [--count N] [--rate PER_SECOND]
//
// The source port counts up; each time that all were used the source address does too. Prints one
// line of JSON when it has sent so many. Meant for a namespace of a test's own.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

namespace {

constexpr int kBatch = 64;
constexpr uint32_t kFirstPort = 1024;
constexpr uint32_t kPorts = 65536 - kFirstPort;
constexpr double kPauseS = 0.0005;

struct Options {
  in_addr from{};
  in_addr to{};
  uint16_t port = 0;
  int64_t count = 100'000;
  double rate = 100'000;
};

struct Syn {
  iphdr ip;
  tcphdr tcp;
};

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "syn_flood: %s\n", what.c_str());
  exit(1);
}

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

in_addr ParseAddress(const char* text) {
  in_addr address;
  if (inet_pton(AF_INET, text, &address) != 1) Die(std::string("no IPv4 address: ") + text);
  return address;
}

Options Parse(int argc, char** argv) {
  Options options;
  if (argc % 2 == 0) Die("an option lacks its value");
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--from") {
      options.from = ParseAddress(value);
    } else if (name == "--to") {
      options.to = ParseAddress(value);
    } else if (name == "--port") {
      options.port = static_cast<uint16_t>(atoi(value));
    } else if (name == "--count") {
      options.count = atoll(value);
    } else if (name == "--rate") {
      options.rate = atof(value);
    } else {
      Die("unknown option " + name);
    }
  }
  if (options.from.s_addr == 0 || options.to.s_addr == 0) Die("--from and --to are missing");
  if (options.port == 0 || options.rate <= 0) Die("--port and --rate are more than 0");
  return options;
}

uint16_t TcpChecksum(const Syn& syn) {
  std::array<uint16_t, (12 + sizeof(tcphdr)) / 2> words{};
  memcpy(&words[0], &syn.ip.saddr, 4);
  memcpy(&words[2], &syn.ip.daddr, 4);
  words[4] = htons(IPPROTO_TCP);
  words[5] = htons(sizeof(tcphdr));
  memcpy(&words[6], &syn.tcp, sizeof(syn.tcp));
  uint32_t sum = 0;
  for (const uint16_t word : words) sum += word;
  while (sum > UINT16_MAX) sum = (sum & UINT16_MAX) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

Syn SynOf(const Options& options, int64_t number) {
  Syn syn{};
  syn.ip.version = 4;
  syn.ip.ihl = 5;
  syn.ip.tot_len = htons(sizeof(syn));  // its checksum is the kernel's to fill in
  syn.ip.ttl = 64;
  syn.ip.protocol = IPPROTO_TCP;
  syn.ip.saddr = htonl(ntohl(options.from.s_addr) + static_cast<uint32_t>(number / kPorts));
  syn.ip.daddr = options.to.s_addr;
  syn.tcp.source = htons(static_cast<uint16_t>(kFirstPort + number % kPorts));
  syn.tcp.dest = htons(options.port);
  syn.tcp.seq = htonl(static_cast<uint32_t>(number));
  syn.tcp.doff = sizeof(tcphdr) / 4;
  syn.tcp.syn = 1;
  syn.tcp.window = htons(UINT16_MAX);
  syn.tcp.check = TcpChecksum(syn);
  return syn;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  const int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  if (fd < 0) Die(std::string("a raw socket: ") + strerror(errno));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr = options.to;

  std::array<Syn, kBatch> syns;
  std::array<iovec, kBatch> parts;
  std::array<mmsghdr, kBatch> messages{};
  for (size_t i = 0; i < kBatch; ++i) {
    parts[i] = {&syns[i], sizeof(Syn)};
    messages[i].msg_hdr = {&to, sizeof(to), &parts[i], 1, nullptr, 0, 0};
  }
  const double begin = Now();
  int64_t sent = 0;
  while (sent < options.count) {
    const auto due = static_cast<int64_t>((Now() - begin) * options.rate);
    const auto batch = static_cast<int>(std::min(due, options.count) - sent);
    if (batch <= 0) {
      usleep(static_cast<useconds_t>(kPauseS * 1e6));
      continue;
    }
    const int wanted = std::min(batch, kBatch);
    for (int i = 0; i < wanted; ++i) syns[static_cast<size_t>(i)] = SynOf(options, sent + i);
    const int now = sendmmsg(fd, messages.data(), static_cast<unsigned>(wanted), 0);
    if (now < 0 && errno != ENOBUFS && errno != EINTR) Die(std::string("send: ") + strerror(errno));
    sent += std::max(now, 0);
  }
  printf("{\"sent\": %lld, \"seconds\": %.3f}\n", static_cast<long long>(sent), Now() - begin);
  return 0;
}
