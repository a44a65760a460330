// A pair that measures echoes of datagrams: so many are always under way, there or back.
//
//   udp_echo serve --port PORT [--seconds S]
//   udp_echo ask --to ADDRESS --port PORT [--seconds S] [--bytes N] [--window N] [--flows N]
//                [--uso DATAGRAMS]
//
// The asking side keeps a window of datagrams under way, shared out to its flows, and prints one
// line of JSON: echoes a second, how many were lost, and how long the others took. One that has not
// come back within 200 ms is lost, and another takes its place; should it come later, it is counted
// as late as well. Each send is up to so many datagrams, which the kernel cuts apart (UDP_SEGMENT);
// with --uso 1 each goes by itself (sendmmsg). Both sides take what the kernel has joined
// (UDP_GRO).
//
// The serving side sends back what comes, joined as it came, from the address that it came to. It
// says "listening" on its standard error when it can be reached, and ends after its seconds.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <vector>

namespace {

constexpr int64_t kMillisecondNs = 1'000'000;
constexpr int64_t kSecondNs = 1000 * kMillisecondNs;
constexpr int64_t kLostAfterNs = 200 * kMillisecondNs;
constexpr int kPollMs = 10;

constexpr size_t kBatch = 64;  // messages of one call
constexpr size_t kSlotBytes = 1 << 16;
constexpr size_t kMaxUso = 64;  // UDP_MAX_SEGMENTS of older kernels
constexpr size_t kMaxSendBytes = 65'000;
constexpr size_t kMaxFlows = 256;
constexpr size_t kMaxWindow = 1 << 16;
constexpr size_t kNumbers = 1 << 20;  // that are remembered, of all flows
constexpr int kSocketBufferBytes = 8 << 20;
constexpr uint32_t kMagic = 0x75656368;  // "uech"

struct DatagramHead {
  uint32_t magic;
  uint32_t flow;
  uint64_t number;  // from 0, of this flow
  int64_t sent_ns;
};

struct Options {
  bool serve = false;
  std::string address;
  uint16_t port = 0;
  double seconds = 3;
  size_t bytes = 64;
  size_t window = 256;
  size_t flows = 1;
  size_t uso = kMaxUso;  // datagrams of one send, at most
};

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "udp_echo: %s\n", what.c_str());
  exit(1);
}

[[noreturn]] void DieOfErrno(const std::string& what) { Die(what + ": " + strerror(errno)); }

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecondNs + now.tv_nsec;
}

size_t Number(const std::string& name, const char* text, size_t least, size_t most) {
  const size_t number = strtoul(text, nullptr, 10);
  if (number < least || number > most) Die(name + " is out of range");
  return number;
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
    } else if (name == "--bytes") {
      options.bytes = Number(name, value, sizeof(DatagramHead), kMaxSendBytes);
    } else if (name == "--window") {
      options.window = Number(name, value, 1, kMaxWindow);
    } else if (name == "--flows") {
      options.flows = Number(name, value, 1, kMaxFlows);
    } else if (name == "--uso") {
      options.uso = Number(name, value, 1, kMaxUso);
    } else {
      Die("unknown option " + name);
    }
  }
  if (argc % 2 != 0) Die("an option lacks its value");
  if (options.port == 0) Die("--port is missing");
  if (!options.serve && options.address.empty()) Die("--to is missing");
  if (options.window < options.flows) Die("--window is less than --flows");
  return options;
}

sockaddr_in AddressOf(const Options& options) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.port);
  if (!options.address.empty() &&
      inet_pton(AF_INET, options.address.c_str(), &address.sin_addr) != 1) {
    Die("not an IPv4 address: " + options.address);
  }
  return address;
}

int OpenSocket() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) DieOfErrno("socket");
  const int on = 1;
  if (setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) != 0) DieOfErrno("UDP_GRO");
  for (const auto& [forced, plain] :
       {std::array{SO_RCVBUFFORCE, SO_RCVBUF}, std::array{SO_SNDBUFFORCE, SO_SNDBUF}}) {
    const int bytes = kSocketBufferBytes;
    if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) != 0) {
      setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
    }
  }
  return fd;
}

// Room for what is said about a message beside its bytes.
struct Control {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(in_pktinfo))];
};

template <typename T>
void Say(msghdr& message, Control& control, int level, int type, const T& what) {
  char* at = control.bytes + message.msg_controllen;
  message.msg_control = control.bytes;
  message.msg_controllen += CMSG_SPACE(sizeof(what));
  cmsghdr head{};
  head.cmsg_level = level;
  head.cmsg_type = type;
  head.cmsg_len = CMSG_LEN(sizeof(what));
  memcpy(at, &head, sizeof(head));
  memcpy(at + CMSG_LEN(0), &what, sizeof(what));
}

// What has come to a socket in one call.
class Incoming {
 public:
  struct Message {
    char* data;
    size_t bytes;
    size_t segment_bytes;  // of each datagram but the last, which may have fewer
    sockaddr_in* from;
    in_addr to;  // unset where nobody has asked for it
  };

  Incoming() : payloads_(kBatch * kSlotBytes) {
    for (size_t i = 0; i < kBatch; ++i) {
      parts_[i] = {payloads_.data() + i * kSlotBytes, kSlotBytes};
    }
  }

  size_t Receive(int fd) {
    for (size_t i = 0; i < kBatch; ++i) {
      msghdr& message = headers_[i].msg_hdr;
      message = {};
      message.msg_name = &from_[i];
      message.msg_namelen = sizeof(from_[i]);
      message.msg_iov = &parts_[i];
      message.msg_iovlen = 1;
      message.msg_control = controls_[i].bytes;
      message.msg_controllen = sizeof(controls_[i].bytes);
    }
    const int count = recvmmsg(fd, headers_.data(), kBatch, MSG_DONTWAIT, nullptr);
    return count < 0 ? 0 : static_cast<size_t>(count);
  }

  Message Get(size_t i) {
    Message got{static_cast<char*>(parts_[i].iov_base),
                headers_[i].msg_len,
                headers_[i].msg_len,
                &from_[i],
                {}};
    msghdr& message = headers_[i].msg_hdr;
    for (cmsghdr* each = CMSG_FIRSTHDR(&message); each != nullptr;
         each = CMSG_NXTHDR(&message, each)) {
      if (each->cmsg_level == SOL_UDP && each->cmsg_type == UDP_GRO) {
        int bytes = 0;
        memcpy(&bytes, CMSG_DATA(each), sizeof(bytes));
        got.segment_bytes = static_cast<size_t>(bytes);
      } else if (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_PKTINFO) {
        in_pktinfo info{};
        memcpy(&info, CMSG_DATA(each), sizeof(info));
        got.to = info.ipi_spec_dst;
      }
    }
    return got;
  }

 private:
  std::vector<char> payloads_;
  std::array<iovec, kBatch> parts_;
  std::array<sockaddr_in, kBatch> from_;
  std::array<Control, kBatch> controls_;
  std::array<mmsghdr, kBatch> headers_;
};

class Server {
 public:
  explicit Server(const Options& options) : options_(options), fd_(OpenSocket()) {
    const int on = 1;
    setsockopt(fd_, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
    const sockaddr_in address = AddressOf(options);
    if (bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      DieOfErrno("bind");
    }
  }

  int Run() {
    fprintf(stderr, "listening\n");
    const int64_t end_ns = NowNs() + static_cast<int64_t>(options_.seconds * 1e9);
    while (NowNs() < end_ns) {
      const size_t count = incoming_.Receive(fd_);
      if (count > 0) {
        Echo(count);
      } else {
        pollfd wait{fd_, POLLIN, 0};
        poll(&wait, 1, kPollMs);
      }
    }
    return 0;
  }

 private:
  void Echo(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const Incoming::Message got = incoming_.Get(i);
      parts_[i] = {got.data, got.bytes};
      segment_bytes_[i] = got.segment_bytes;
      msghdr& message = headers_[i].msg_hdr;
      message = {};
      message.msg_name = got.from;
      message.msg_namelen = sizeof(*got.from);
      message.msg_iov = &parts_[i];
      message.msg_iovlen = 1;
      in_pktinfo info{};
      info.ipi_spec_dst = got.to;
      Say(message, controls_[i], IPPROTO_IP, IP_PKTINFO, info);
      if (got.bytes > got.segment_bytes) {
        Say(message, controls_[i], SOL_UDP, UDP_SEGMENT, static_cast<uint16_t>(got.segment_bytes));
      }
    }
    for (size_t done = 0; done < count;) {
      const int sent = sendmmsg(fd_, &headers_[done], static_cast<unsigned>(count - done), 0);
      if (sent > 0) {
        done += static_cast<size_t>(sent);
      } else {
        if (parts_[done].iov_len > segment_bytes_[done] && errno != EAGAIN) SendSingly(done);
        ++done;  // or it is lost
      }
    }
  }

  // Where the way does not take segments.
  void SendSingly(size_t i) {
    msghdr& message = headers_[i].msg_hdr;
    message.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo));
    const iovec all = parts_[i];
    for (size_t at = 0; at < all.iov_len; at += segment_bytes_[i]) {
      parts_[i] = {static_cast<char*>(all.iov_base) + at,
                   std::min(segment_bytes_[i], all.iov_len - at)};
      (void)!sendmsg(fd_, &message, 0);
    }
  }

  const Options options_;
  const int fd_;
  Incoming incoming_;
  std::array<iovec, kBatch> parts_;
  std::array<size_t, kBatch> segment_bytes_;
  std::array<Control, kBatch> controls_;
  std::array<mmsghdr, kBatch> headers_;
};

class Asker {
 public:
  explicit Asker(const Options& options)
      : options_(options),
        uses_uso_(options.uso > 1),
        window_(options.window / options.flows),
        numbers_(std::bit_floor(kNumbers / options.flows)),
        flows_(options.flows),
        polls_(options.flows),
        payloads_(kBatch * options.bytes) {
    const sockaddr_in address = AddressOf(options);
    for (size_t i = 0; i < flows_.size(); ++i) {
      const int fd = OpenSocket();
      if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        DieOfErrno("connect to " + options.address);
      }
      flows_[i].fd = fd;
      flows_[i].sent_ns.resize(numbers_);
      polls_[i] = {fd, POLLIN, 0};
    }
    for (size_t i = 0; i < kBatch; ++i) {
      parts_[i] = {payloads_.data() + i * options.bytes, options.bytes};
    }
  }

  int Run() {
    const int64_t begin_ns = NowNs();
    const int64_t end_ns = begin_ns + static_cast<int64_t>(options_.seconds * 1e9);
    int64_t now_ns = begin_ns;
    while (now_ns < end_ns) {
      for (size_t i = 0; i < flows_.size(); ++i) Fill(i);
      now_ns = Turn();
    }
    const double seconds = static_cast<double>(now_ns - begin_ns) / 1e9;
    const size_t echoes = took_ns_.size();
    // What is under way is lost only if it does not come.
    while (AnyUnderWay()) Turn();
    Report(echoes, seconds);
    return 0;
  }

 private:
  struct Flow {
    int fd = -1;
    uint64_t oldest = 0;  // number that may be under way
    uint64_t next = 0;    // number
    size_t under_way = 0;
    std::vector<int64_t> sent_ns;  // by number; 0 once it has come or is lost
  };

  int64_t Turn() {
    poll(polls_.data(), polls_.size(), kPollMs);
    for (size_t i = 0; i < flows_.size(); ++i) {
      if (polls_[i].revents != 0) Receive(i);
    }
    const int64_t now_ns = NowNs();
    for (Flow& flow : flows_) GiveUp(flow, now_ns);
    return now_ns;
  }

  bool AnyUnderWay() const {
    return std::any_of(flows_.begin(), flows_.end(),
                       [](const Flow& flow) { return flow.under_way > 0; });
  }

  int64_t& SentNs(Flow& flow, uint64_t number) const {
    return flow.sent_ns[number & (numbers_ - 1)];
  }

  // Sends what the window has room for.
  void Fill(size_t i) {
    Flow& flow = flows_[i];
    while (flow.under_way < window_) {
      const size_t at_once =
          uses_uso_ ? std::min(options_.uso, kMaxSendBytes / options_.bytes) : kBatch;
      const size_t count =
          std::min({at_once, window_ - flow.under_way, numbers_ - (flow.next - flow.oldest)});
      if (count == 0) return;  // since what is lost is not given up yet
      const int64_t now_ns = NowNs();
      for (size_t each = 0; each < count; ++each) {
        const DatagramHead head{kMagic, static_cast<uint32_t>(i), flow.next + each, now_ns};
        memcpy(payloads_.data() + each * options_.bytes, &head, sizeof(head));
      }
      const bool used_uso = uses_uso_;
      const size_t sent = used_uso ? SendJoined(flow.fd, count) : SendBatch(flow.fd, count);
      for (size_t each = 0; each < sent; ++each) SentNs(flow, flow.next++) = now_ns;
      flow.under_way += sent;
      if (sent == 0 && used_uso == uses_uso_) return;
    }
  }

  size_t SendJoined(int fd, size_t count) {
    iovec part{payloads_.data(), count * options_.bytes};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    Control control;
    if (count > 1)
      Say(message, control, SOL_UDP, UDP_SEGMENT, static_cast<uint16_t>(options_.bytes));
    if (sendmsg(fd, &message, 0) >= 0) return count;
    if (count > 1 && (errno == EIO || errno == EINVAL || errno == EMSGSIZE)) {
      uses_uso_ = false;  // the way does not take it
    }
    return 0;
  }

  size_t SendBatch(int fd, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      headers_[i] = {};
      headers_[i].msg_hdr.msg_iov = &parts_[i];
      headers_[i].msg_hdr.msg_iovlen = 1;
    }
    const int sent = sendmmsg(fd, headers_.data(), static_cast<unsigned>(count), 0);
    return sent < 0 ? 0 : static_cast<size_t>(sent);
  }

  void Receive(size_t i) {
    size_t count;
    do {
      count = incoming_.Receive(flows_[i].fd);
      const int64_t now_ns = NowNs();
      for (size_t each = 0; each < count; ++each) {
        const Incoming::Message got = incoming_.Get(each);
        for (size_t at = 0; at < got.bytes; at += got.segment_bytes) {
          Take(i, got.data + at, std::min(got.segment_bytes, got.bytes - at), now_ns);
        }
      }
    } while (count == kBatch);
  }

  void Take(size_t i, const char* data, size_t bytes, int64_t now_ns) {
    Flow& flow = flows_[i];
    DatagramHead head{};
    if (bytes == options_.bytes) memcpy(&head, data, sizeof(head));
    if (head.magic != kMagic || head.flow != i || head.number >= flow.next) {
      ++damaged_;
      return;
    }
    int64_t& sent_ns = SentNs(flow, head.number);
    if (sent_ns != head.sent_ns || head.number < flow.oldest) {
      ++late_;  // or doubled
      return;
    }
    sent_ns = 0;
    --flow.under_way;
    took_ns_.push_back(static_cast<uint32_t>(std::min<int64_t>(now_ns - head.sent_ns, UINT32_MAX)));
  }

  void GiveUp(Flow& flow, int64_t now_ns) {
    for (; flow.oldest < flow.next; ++flow.oldest) {
      int64_t& sent_ns = SentNs(flow, flow.oldest);
      if (sent_ns == 0) continue;
      if (now_ns - sent_ns < kLostAfterNs) return;
      sent_ns = 0;
      --flow.under_way;
      ++lost_;
    }
  }

  double PercentileMs(double share) {
    if (took_ns_.empty()) return 0;
    const auto at = static_cast<size_t>(share * static_cast<double>(took_ns_.size() - 1));
    std::nth_element(took_ns_.begin(), took_ns_.begin() + static_cast<ptrdiff_t>(at),
                     took_ns_.end());
    return static_cast<double>(took_ns_[at]) / 1e6;
  }

  void Report(size_t echoes, double seconds) {
    printf(
        "{\"per_second\": %.0f, \"echoes\": %zu, \"lost\": %zu, \"late\": %zu, \"damaged\": %zu, "
        "\"p50_ms\": %.4f, \"p99_ms\": %.4f}\n",
        static_cast<double>(echoes) / seconds, echoes, lost_, late_, damaged_, PercentileMs(0.5),
        PercentileMs(0.99));
  }

  const Options options_;
  bool uses_uso_;
  const size_t window_;   // of each flow
  const size_t numbers_;  // of each flow, a power of two
  std::vector<Flow> flows_;
  std::vector<pollfd> polls_;
  std::vector<char> payloads_;
  std::array<iovec, kBatch> parts_;
  std::array<mmsghdr, kBatch> headers_;
  Incoming incoming_;
  std::vector<uint32_t> took_ns_;
  size_t lost_ = 0;
  size_t late_ = 0;
  size_t damaged_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  return options.serve ? Server(options).Run() : Asker(options).Run();
}
