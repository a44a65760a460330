// A pair that measures datagrams a second and notices every one that is lost, doubled or damaged.
//
//   udp_flood send --to ADDRESS --port PORT [--size BYTES | --size FROM-TO] [--seconds S]
//                  [--rate PER_SECOND] [--flows N] [--uso DATAGRAMS]
//   udp_flood receive --port PORT [--address ADDRESS] [--seconds S] [--gro 1]
//
// Each prints one line of JSON. The receiver's seconds begin with the first datagram; SIGTERM and
// SIGINT end either early. A datagram holds its flow, its number, and a pattern that follows from
// them. Without --rate the sender goes as fast as it can.
//
// As QUIC stacks do: with --uso each send is up to so many datagrams of one size, which the kernel
// cuts apart (UDP_SEGMENT), and the sizes differ from send to send; with --gro the receiver takes
// what the kernel has joined (UDP_GRO).
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <signal.h>
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
#include <utility>
#include <vector>

namespace {

constexpr int kBatch = 64;
constexpr int kMaxFlows = 256;
constexpr int kMaxUso = 64;  // UDP_MAX_SEGMENTS of older kernels
constexpr size_t kMaxDatagramBytes = 65507;
constexpr uint32_t kMagic = 0x75666c64;  // "ufld"
constexpr int kSocketBufferBytes = 8 << 20;
constexpr int kWaitMs = 100;  // how late a signal or the end may be noticed while nothing comes

struct DatagramHead {
  uint32_t magic;
  uint32_t flow;
  uint64_t number;  // from 0, of this flow
};

struct Options {
  bool send = false;
  std::string address;
  uint16_t port = 0;
  size_t min_bytes = 64;
  size_t max_bytes = 64;
  double seconds = 3;
  double rate = 0;  // datagrams a second; 0 is no limit
  int flows = 1;
  int uso = 1;  // datagrams of one send, at most
  bool gro = false;
};

volatile sig_atomic_t stopped = 0;

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "udp_flood: %s\n", what.c_str());
  exit(1);
}

[[noreturn]] void DieOfErrno(const std::string& what) { Die(what + ": " + strerror(errno)); }

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// The bytes behind the head: a ramp that begins elsewhere for each number.
class Pattern {
 public:
  Pattern() {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<uint8_t>(i * 167 + 13);
  }
  const uint8_t* Of(const DatagramHead& head) const {
    return bytes_.data() + (head.number * 31 + head.flow) % 256;
  }

 private:
  std::array<uint8_t, kMaxDatagramBytes + 256> bytes_;
};

Options Parse(int argc, char** argv) {
  Options options;
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode != "send" && mode != "receive") Die("the first argument is send or receive");
  options.send = mode == "send";
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--to" || name == "--address") {
      options.address = value;
    } else if (name == "--port") {
      options.port = static_cast<uint16_t>(atoi(value));
    } else if (name == "--size") {
      const char* dash = strchr(value, '-');
      options.min_bytes = strtoul(value, nullptr, 10);
      options.max_bytes = dash == nullptr ? options.min_bytes : strtoul(dash + 1, nullptr, 10);
    } else if (name == "--seconds") {
      options.seconds = atof(value);
    } else if (name == "--rate") {
      options.rate = atof(value);
    } else if (name == "--flows") {
      options.flows = atoi(value);
    } else if (name == "--uso") {
      options.uso = atoi(value);
    } else if (name == "--gro") {
      options.gro = atoi(value) != 0;
    } else {
      Die("unknown option " + name);
    }
  }
  if (argc % 2 != 0) Die("an option lacks its value");
  if (options.port == 0) Die("--port is missing");
  if (options.send && options.address.empty()) Die("--to is missing");
  if (options.min_bytes < sizeof(DatagramHead) || options.max_bytes > kMaxDatagramBytes ||
      options.min_bytes > options.max_bytes) {
    Die("--size is out of range");
  }
  if (options.flows < 1 || options.flows > kMaxFlows) Die("--flows is out of range");
  if (options.uso < 1 || options.uso > kMaxUso) Die("--uso is out of range");
  return options;
}

socklen_t FillAddress(const std::string& text, uint16_t port, sockaddr_storage& address) {
  memset(&address, 0, sizeof(address));
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    return sizeof(sockaddr_in);
  }
  if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) != 1) Die("not an address: " + text);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  return sizeof(sockaddr_in6);
}

int OpenSocket(int family) {
  const int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) DieOfErrno("socket");
  for (const int option : {SO_SNDBUFFORCE, SO_RCVBUFFORCE}) {
    setsockopt(fd, SOL_SOCKET, option, &kSocketBufferBytes, sizeof(kSocketBufferBytes));
  }
  return fd;
}

class Sender {
 public:
  explicit Sender(const Options& options) : options_(options) {
    sockaddr_storage address;
    const socklen_t length = FillAddress(options.address, options.port, address);
    for (int i = 0; i < options.flows; ++i) {
      const int fd = OpenSocket(address.ss_family);
      if (connect(fd, reinterpret_cast<sockaddr*>(&address), length) != 0) DieOfErrno("connect");
      sockets_.push_back(fd);
    }
    next_.resize(sockets_.size());
    payloads_.resize(kBatch * options.max_bytes);
    for (int i = 0; i < kBatch; ++i) {
      parts_[i].iov_base = payloads_.data() + static_cast<size_t>(i) * options.max_bytes;
      messages_[i] = {};
      messages_[i].msg_hdr.msg_iov = &parts_[i];
      messages_[i].msg_hdr.msg_iovlen = 1;
    }
  }

  void Run() {
    const double start = Now();
    double now = start;
    for (size_t flow = 0; !stopped && now < start + options_.seconds;
         flow = (flow + 1) % sockets_.size(), now = Now()) {
      const int batch = MaySend(now);
      if (batch == 0) {
        usleep(200);
      } else if (options_.uso > 1) {
        SendSuper(flow, batch);
      } else {
        SendBatch(flow, batch);
      }
    }
    const double took = Now() - start;
    printf(
        "{\"sent\": %lu, \"bytes\": %lu, \"refused\": %lu, \"seconds\": %.3f, "
        "\"per_second\": %.0f}\n",
        sent_, bytes_, refused_, took, static_cast<double>(sent_) / took);
  }

 private:
  // A bucket of one batch: a sender that was held up does not make up for it, since the burst would
  // measure some queue instead.
  int MaySend(double now) {
    if (options_.rate == 0) return kBatch;
    const double since = std::exchange(bucket_filled_at_, now);
    if (since != 0) {
      bucket_ = std::min(bucket_ + (now - since) * options_.rate, static_cast<double>(kBatch));
    }
    const int batch = static_cast<int>(bucket_);
    bucket_ -= batch;
    return batch;
  }

  void SendBatch(size_t flow, int batch) {
    for (int i = 0; i < batch; ++i) Fill(flow, next_[flow] + static_cast<uint64_t>(i), i);
    const int done = sendmmsg(sockets_[flow], messages_.data(), static_cast<unsigned>(batch), 0);
    if (done < 0) {
      NoteRefusal("sendmmsg");
      return;
    }
    for (int i = 0; i < done; ++i) bytes_ += parts_[i].iov_len;
    Count(flow, static_cast<uint64_t>(done));
  }

  // One send of datagrams that have one size, behind each other.
  void SendSuper(size_t flow, int batch) {
    const size_t bytes = SizeOf(next_[flow]);
    const size_t count = std::min(
        {static_cast<size_t>(batch), static_cast<size_t>(options_.uso), kMaxDatagramBytes / bytes});
    for (size_t i = 0; i < count; ++i) {
      FillOne(flow, next_[flow] + i, payloads_.data() + i * bytes, bytes);
    }
    iovec part = {payloads_.data(), count * bytes};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(uint16_t))> control = {};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* segment = CMSG_FIRSTHDR(&message);
    segment->cmsg_level = SOL_UDP;
    segment->cmsg_type = UDP_SEGMENT;
    segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    const auto segment_bytes = static_cast<uint16_t>(bytes);
    memcpy(CMSG_DATA(segment), &segment_bytes, sizeof(segment_bytes));
    if (sendmsg(sockets_[flow], &message, 0) < 0) {
      NoteRefusal("sendmsg with UDP_SEGMENT");
      return;
    }
    bytes_ += part.iov_len;
    Count(flow, count);
  }

  void NoteRefusal(const char* call) {
    // What no buffer had room for is as lost as on a wire, but is not given a number.
    if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR) DieOfErrno(call);
    ++refused_;
  }

  void Count(size_t flow, uint64_t datagrams) {
    next_[flow] += datagrams;
    sent_ += datagrams;
  }

  size_t SizeOf(uint64_t number) const {
    return options_.min_bytes + (number * 7919) % (options_.max_bytes - options_.min_bytes + 1);
  }

  void Fill(size_t flow, uint64_t number, int slot) {
    const size_t bytes = SizeOf(number);
    FillOne(flow, number, static_cast<uint8_t*>(parts_[slot].iov_base), bytes);
    parts_[slot].iov_len = bytes;
  }

  void FillOne(size_t flow, uint64_t number, uint8_t* to, size_t bytes) {
    const DatagramHead head{kMagic, static_cast<uint32_t>(flow), number};
    memcpy(to, &head, sizeof(head));
    memcpy(to + sizeof(head), pattern_.Of(head), bytes - sizeof(head));
  }

  const Options options_;
  const Pattern pattern_;
  std::vector<int> sockets_;
  std::vector<uint64_t> next_;  // number, of each flow
  std::vector<uint8_t> payloads_;
  std::array<iovec, kBatch> parts_;
  std::array<mmsghdr, kBatch> messages_;
  uint64_t sent_ = 0;
  uint64_t bytes_ = 0;
  uint64_t refused_ = 0;
  double bucket_ = 0;  // datagrams
  double bucket_filled_at_ = 0;
};

class Receiver {
 public:
  explicit Receiver(const Options& options)
      : options_(options), payloads_(kBatch * kMaxDatagramBytes) {
    sockaddr_storage address;
    const std::string any = options.address.empty() ? "::" : options.address;
    const socklen_t length = FillAddress(any, options.port, address);
    fd_ = OpenSocket(address.ss_family);
    if (bind(fd_, reinterpret_cast<sockaddr*>(&address), length) != 0) DieOfErrno("bind");
    const timeval wait{0, kWaitMs * 1000};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    for (int i = 0; i < kBatch; ++i) {
      parts_[i] = {payloads_.data() + static_cast<size_t>(i) * kMaxDatagramBytes,
                   kMaxDatagramBytes};
      messages_[i] = {};
      messages_[i].msg_hdr.msg_iov = &parts_[i];
      messages_[i].msg_hdr.msg_iovlen = 1;
    }
    const int on = 1;
    if (options.gro && setsockopt(fd_, SOL_UDP, UDP_GRO, &on, sizeof(on)) != 0) {
      DieOfErrno("UDP_GRO");
    }
  }

  void Run() {
    fprintf(stderr, "listening\n");
    double first = 0;
    double last = 0;
    while (!stopped && (first == 0 || Now() < first + options_.seconds)) {
      if (options_.gro) OfferControl();
      const int count = recvmmsg(fd_, messages_.data(), kBatch, MSG_WAITFORONE, nullptr);
      if (count <= 0) continue;
      last = Now();
      if (first == 0) first = last;
      for (int i = 0; i < count; ++i) TakeMessage(i);
    }
    Report(last - first);
  }

 private:
  struct Flow {
    uint64_t next = 0;       // above the highest number seen
    uint64_t received = 0;   // different ones
    std::vector<bool> seen;  // by number
  };

  // Each call of recvmmsg() uses up what it was given.
  void OfferControl() {
    for (int i = 0; i < kBatch; ++i) {
      messages_[i].msg_hdr.msg_control = controls_[i].bytes;
      messages_[i].msg_hdr.msg_controllen = sizeof(controls_[i].bytes);
    }
  }

  void TakeMessage(int slot) {
    const auto* from = static_cast<const uint8_t*>(parts_[slot].iov_base);
    const size_t bytes = messages_[slot].msg_len;
    const size_t segment = options_.gro ? SegmentBytes(messages_[slot].msg_hdr) : 0;
    if (segment == 0) return Take(from, bytes);
    for (size_t at = 0; at < bytes; at += segment) {
      Take(from + at, std::min(segment, bytes - at));
    }
  }

  // 0 where nothing was joined.
  static size_t SegmentBytes(msghdr& message) {
    for (cmsghdr* each = CMSG_FIRSTHDR(&message); each != nullptr;
         each = CMSG_NXTHDR(&message, each)) {
      if (each->cmsg_level != SOL_UDP || each->cmsg_type != UDP_GRO) continue;
      int bytes = 0;
      memcpy(&bytes, CMSG_DATA(each), sizeof(bytes));
      return static_cast<size_t>(bytes);
    }
    return 0;
  }

  void Take(const uint8_t* from, size_t bytes) {
    DatagramHead head{};
    if (bytes >= sizeof(head)) memcpy(&head, from, sizeof(head));
    if (head.magic != kMagic || head.flow >= kMaxFlows ||
        memcmp(from + sizeof(head), pattern_.Of(head), bytes - sizeof(head)) != 0) {
      ++damaged_;
      return;
    }
    Flow& flow = flows_[head.flow];
    if (head.number >= flow.seen.size()) flow.seen.resize(head.number * 2 + 1024);
    if (flow.seen[head.number]) {
      ++doubled_;
      return;
    }
    flow.seen[head.number] = true;
    if (head.number < flow.next) ++late_;
    flow.next = std::max(flow.next, head.number + 1);
    ++flow.received;
    bytes_ += bytes;
  }

  void Report(double took) const {
    uint64_t received = 0;
    uint64_t lost = 0;
    for (const Flow& flow : flows_) {
      received += flow.received;
      lost += flow.next - flow.received;
    }
    const double per_second = took > 0 ? static_cast<double>(received) / took : 0;
    printf(
        "{\"received\": %lu, \"bytes\": %lu, \"lost\": %lu, \"late\": %lu, \"doubled\": %lu, "
        "\"damaged\": %lu, \"seconds\": %.3f, \"per_second\": %.0f}\n",
        received, bytes_, lost, late_, doubled_, damaged_, took, per_second);
  }

  struct Control {
    alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int))];
  };

  const Options options_;
  const Pattern pattern_;
  int fd_ = -1;
  std::vector<uint8_t> payloads_;
  std::array<iovec, kBatch> parts_;
  std::array<mmsghdr, kBatch> messages_;
  std::array<Control, kBatch> controls_ = {};
  std::array<Flow, kMaxFlows> flows_;
  uint64_t bytes_ = 0;
  uint64_t late_ = 0;
  uint64_t doubled_ = 0;
  uint64_t damaged_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  struct sigaction action = {};
  action.sa_handler = [](int) { stopped = 1; };  // without SA_RESTART: calls return
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  if (options.send) {
    Sender(options).Run();
  } else {
    Receiver(options).Run();
  }
}
