// A SOCKS5 server (RFC 1928, RFC 1929): well-behaved and fast, or misbehaving as a script says.
//
//   socks5_server --port PORT [--address ADDRESS] [--threads N] [--seconds S]
//                 [--user USER --password PASSWORD] [--name NAME=ADDRESS]…
//                 [--no-udp] [--udp-port own|shared] [--udp-domain-replies] [--behave SCRIPT]
//                 [--forward HOST:PORT]
//
// It says "listening" on its standard error when it can be reached. SIGUSR1 makes it print one line
// of JSON: what it has counted; so do SIGTERM, SIGINT and the end of its seconds, which end it.
//
// Each thread serves the connections that it has accepted. Names that --name does not give are
// looked up in place, once each, and the thread waits meanwhile. With --udp-port shared the
// datagrams of all associations come to the port that the connections come to, which only a single
// thread may do. With --udp-domain-replies each datagram to a client names its source: as --name
// does, or as the client did, or with the address as text. With --forward no SOCKS is spoken: each
// connection goes to that place.
//
// SCRIPT is a list, separated by commas. The connections take its entries by turns:
//
//   good                  the default
//   refuse:CODE           this reply to the request
//   unknown-reply         refuse:0x5b
//   stall-greeting        answers nothing
//   stall-auth            nothing after the choice of method
//   stall-reply           no request
//   stall-at:N            sends the client N bytes and no more, replies and what follows them
//   close-at:N, reset-at:N  closes or resets the connection once it has sent so many
//   bytewise              each byte of a reply by itself, a millisecond apart
//   wrong-version         chooses a method in version 4
//   method-ff             accepts no method
//   method-unoffered      chooses one that was not offered
//   atyp-domain, atyp-v6  the bound address as text, or as an IPv6 address
//   atyp-bad              or of a type that there is not
//   bnd-zero, bnd-other   the bound address is 0.0.0.0, or one where nothing is
//   coalesce-banner:TEXT  sends TEXT together with the reply to CONNECT, then relays
//   flood                 after CONNECT sends zeros without end
//   drop-udp              datagrams of the client go nowhere
//   udp-frag              datagrams to the client say that they are fragments
//   udp-close-control:MS  closes the connection of an association after that time
//   no-pipelining         closes if more than the greeting comes at first
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr int64_t kMillisecondNs = 1'000'000;
constexpr int64_t kSecondNs = 1000 * kMillisecondNs;
constexpr int64_t kBytePauseNs = kMillisecondNs;
constexpr int64_t kLingerNs = kSecondNs;  // for a client to take a refusal and close

constexpr int kBacklog = 4096;
constexpr int kAcceptsPerEvent = 64;
constexpr int kEventsPerWait = 256;
constexpr rlim_t kWantedFiles = 262'144;
constexpr useconds_t kWithoutFilesUs = 1000;

// One copy through a large buffer: splice() through a pipe of 1 MiB relays a fifth less over
// loopback, since it passes single pages.
constexpr size_t kScratchBytes = 512 << 10;
constexpr size_t kLeastReadBytes = 16 << 10;
constexpr size_t kTurnBytes = 2 << 20;  // before others have their turn
// No message of the handshake is longer than 513 bytes.
constexpr size_t kReadAheadBytes = 4096;

constexpr int kBatch = 64;  // messages of one call
constexpr int kBatchesPerTurn = 16;
constexpr int kUdpBufferBytes = 8 << 20;
constexpr size_t kSlotBytes = 65'600;  // of one message; an odd number of cache lines
constexpr size_t kMaxSegments = 64;    // UDP_MAX_SEGMENTS of older kernels
constexpr size_t kMaxJoinedBytes = 65'000;
constexpr size_t kMaxParts = 1024;  // UIO_MAXIOV

constexpr size_t kNoLimit = SIZE_MAX;
constexpr size_t kNowhere = SIZE_MAX;

constexpr uint8_t kVersion = 5;
constexpr uint8_t kAuthVersion = 1;
constexpr uint8_t kMethodNone = 0;
constexpr uint8_t kMethodPassword = 2;
constexpr uint8_t kMethodPrivate = 0x80;
constexpr uint8_t kMethodRefused = 0xff;
constexpr uint8_t kCommandConnect = 1;
constexpr uint8_t kCommandAssociate = 3;
constexpr uint8_t kTypeV4 = 1;
constexpr uint8_t kTypeName = 3;
constexpr uint8_t kTypeV6 = 4;
constexpr uint8_t kTypeUnknown = 9;

enum Code : uint8_t {
  kSucceeded = 0,
  kGeneralFailure = 1,
  kNotAllowed = 2,
  kNetworkUnreachable = 3,
  kHostUnreachable = 4,
  kConnectionRefused = 5,
  kTtlExpired = 6,
  kCommandNotSupported = 7,
  kTypeNotSupported = 8,
};

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "socks5_server: %s\n", what.c_str());
  exit(1);
}

[[noreturn]] void DieOfErrno(const std::string& what) { Die(what + ": " + strerror(errno)); }

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecondNs + now.tv_nsec;
}

// --- Addresses ---

struct Address {
  union {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6 = {};
  };

  static Address V4(const uint8_t* four_bytes, uint16_t port) {
    Address made;
    made.v4.sin_family = AF_INET;
    made.v4.sin_port = htons(port);
    memcpy(&made.v4.sin_addr, four_bytes, 4);
    return made;
  }
  static Address V6(const uint8_t* sixteen_bytes, uint16_t port) {
    Address made;
    made.v6.sin6_family = AF_INET6;
    made.v6.sin6_port = htons(port);
    memcpy(&made.v6.sin6_addr, sixteen_bytes, 16);
    return made;
  }
  // Unset where it is not one.
  static Address Parse(const std::string& text, uint16_t port) {
    std::array<uint8_t, 16> bytes;
    if (inet_pton(AF_INET, text.c_str(), bytes.data()) == 1) return V4(bytes.data(), port);
    if (inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1) return V6(bytes.data(), port);
    return {};
  }

  bool is_set() const { return any.sa_family != AF_UNSPEC; }
  bool is_v4() const { return any.sa_family == AF_INET; }
  socklen_t length() const { return is_v4() ? sizeof(v4) : sizeof(v6); }
  uint16_t port() const { return ntohs(is_v4() ? v4.sin_port : v6.sin6_port); }
  std::string_view ip() const {
    return is_v4() ? std::string_view(reinterpret_cast<const char*>(&v4.sin_addr), 4)
                   : std::string_view(reinterpret_cast<const char*>(&v6.sin6_addr), 16);
  }
  std::string Text() const {
    std::array<char, INET6_ADDRSTRLEN> text = {};
    inet_ntop(any.sa_family, ip().data(), text.data(), text.size());
    return text.data();
  }
  Address WithPort(uint16_t wanted) const {
    Address made = *this;
    (is_v4() ? made.v4.sin_port : made.v6.sin6_port) = htons(wanted);
    return made;
  }
  // A socket of both families shows IPv4 addresses as IPv6 ones.
  Address Unmapped() const {
    if (is_v4() || !IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) return *this;
    return V4(v6.sin6_addr.s6_addr + 12, port());
  }

  bool operator==(const Address& other) const {
    return any.sa_family == other.any.sa_family && port() == other.port() && ip() == other.ip();
  }
  struct Hash {
    size_t operator()(const Address& address) const {
      return std::hash<std::string_view>()(address.ip()) ^ (size_t{address.port()} << 16);
    }
  };
};

Address LocalOf(int fd) {
  Address address;
  socklen_t length = sizeof(address.v6);
  getsockname(fd, &address.any, &length);
  return address.Unmapped();
}

// --- Options ---

enum class Misbehaviour : uint8_t {
  kNone,
  kRefuse,
  kStallGreeting,
  kStallAuth,
  kStallReply,
  kStallAt,
  kCloseAt,
  kResetAt,
  kBytewise,
  kWrongVersion,
  kMethodFf,
  kMethodUnoffered,
  kBoundName,
  kBoundV6,
  kBoundUnknown,
  kBoundZero,
  kBoundOther,
  kBanner,
  kFlood,
  kDropUdp,
  kUdpFragments,
  kUdpCloseControl,
  kNoPipelining,
};

struct Behaviour {
  Misbehaviour kind = Misbehaviour::kNone;
  size_t number = 0;
  std::string text;
};

struct Options {
  Address address;  // unset: any, of both families if there are
  uint16_t port = 0;
  size_t threads = 1;
  double seconds = 0;  // 0: without end
  bool wants_password = false;
  std::string user;
  std::string password;
  bool udp = true;
  bool shared_udp_port = false;
  bool udp_domain_replies = false;
  std::vector<Behaviour> behaviours;
  std::map<std::string, std::vector<Address>, std::less<>> names;  // their ports are 0
  std::string forward_host;
  uint16_t forward_port = 0;
};

size_t ParseNumber(const std::string& text, size_t most) {
  char* end = nullptr;
  errno = 0;
  const unsigned long number = strtoul(text.c_str(), &end, 0);
  if (text.empty() || *end != '\0' || errno != 0 || text[0] == '-' || number > most) {
    Die("not a number in range: " + text);
  }
  return number;
}

Behaviour ParseBehaviour(const std::string& entry) {
  enum class Value { kNone, kNumber, kText };
  struct Known {
    const char* name;
    Misbehaviour kind;
    Value value = Value::kNone;
  };
  static constexpr Known kKnown[] = {
      {"good", Misbehaviour::kNone},
      {"refuse", Misbehaviour::kRefuse, Value::kNumber},
      {"stall-greeting", Misbehaviour::kStallGreeting},
      {"stall-auth", Misbehaviour::kStallAuth},
      {"stall-reply", Misbehaviour::kStallReply},
      {"stall-at", Misbehaviour::kStallAt, Value::kNumber},
      {"close-at", Misbehaviour::kCloseAt, Value::kNumber},
      {"reset-at", Misbehaviour::kResetAt, Value::kNumber},
      {"bytewise", Misbehaviour::kBytewise},
      {"wrong-version", Misbehaviour::kWrongVersion},
      {"method-ff", Misbehaviour::kMethodFf},
      {"method-unoffered", Misbehaviour::kMethodUnoffered},
      {"atyp-domain", Misbehaviour::kBoundName},
      {"atyp-v6", Misbehaviour::kBoundV6},
      {"atyp-bad", Misbehaviour::kBoundUnknown},
      {"bnd-zero", Misbehaviour::kBoundZero},
      {"bnd-other", Misbehaviour::kBoundOther},
      {"coalesce-banner", Misbehaviour::kBanner, Value::kText},
      {"flood", Misbehaviour::kFlood},
      {"drop-udp", Misbehaviour::kDropUdp},
      {"udp-frag", Misbehaviour::kUdpFragments},
      {"udp-close-control", Misbehaviour::kUdpCloseControl, Value::kNumber},
      {"no-pipelining", Misbehaviour::kNoPipelining},
  };
  if (entry == "unknown-reply") return {Misbehaviour::kRefuse, 0x5b, ""};
  const size_t colon = entry.find(':');
  const std::string name = entry.substr(0, colon);
  const std::string value = colon == std::string::npos ? "" : entry.substr(colon + 1);
  for (const Known& known : kKnown) {
    if (name != known.name) continue;
    if ((known.value == Value::kNone) != (colon == std::string::npos)) break;
    Behaviour behaviour{known.kind, 0, value};
    if (known.value == Value::kNumber) {
      behaviour.number =
          ParseNumber(value, known.kind == Misbehaviour::kRefuse ? UINT8_MAX : INT32_MAX);
    }
    return behaviour;
  }
  Die("not in a script: " + entry);
}

std::vector<Behaviour> ParseScript(const std::string& script) {
  std::vector<Behaviour> behaviours;
  for (size_t at = 0; at <= script.size();) {
    const size_t comma = std::min(script.find(',', at), script.size());
    behaviours.push_back(ParseBehaviour(script.substr(at, comma - at)));
    at = comma + 1;
  }
  return behaviours;
}

void ParseName(const std::string& value, Options& options) {
  const size_t equals = value.find('=');
  if (equals == std::string::npos || equals > UINT8_MAX) Die("not NAME=ADDRESS: " + value);
  const Address address = Address::Parse(value.substr(equals + 1), 0);
  if (!address.is_set()) Die("not an address: " + value);
  options.names[value.substr(0, equals)].push_back(address);
}

void ParseForward(const std::string& value, Options& options) {
  const size_t colon = value.rfind(':');
  if (colon == std::string::npos) Die("not HOST:PORT: " + value);
  options.forward_host = value.substr(0, colon);
  if (options.forward_host.starts_with('[') && options.forward_host.ends_with(']')) {
    options.forward_host = options.forward_host.substr(1, colon - 2);
  }
  options.forward_port = static_cast<uint16_t>(ParseNumber(value.substr(colon + 1), UINT16_MAX));
}

Options Parse(int argc, char** argv) {
  Options options;
  options.behaviours.emplace_back();
  std::string address;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--no-udp") {
      options.udp = false;
      continue;
    }
    if (name == "--udp-domain-replies") {
      options.udp_domain_replies = true;
      continue;
    }
    if (++i == argc) Die(name + " lacks its value");
    const std::string value = argv[i];
    if (name == "--port") {
      options.port = static_cast<uint16_t>(ParseNumber(value, UINT16_MAX));
    } else if (name == "--address") {
      address = value;
    } else if (name == "--threads") {
      options.threads = ParseNumber(value, 64);
    } else if (name == "--seconds") {
      options.seconds = atof(value.c_str());
    } else if (name == "--user") {
      options.user = value;
      options.wants_password = true;
    } else if (name == "--password") {
      options.password = value;
    } else if (name == "--name") {
      ParseName(value, options);
    } else if (name == "--udp-port") {
      if (value != "own" && value != "shared") Die("--udp-port is own or shared");
      options.shared_udp_port = value == "shared";
    } else if (name == "--behave") {
      options.behaviours = ParseScript(value);
    } else if (name == "--forward") {
      ParseForward(value, options);
    } else {
      Die("unknown option " + name);
    }
  }
  if (options.port == 0) Die("--port is missing");
  if (options.threads == 0) Die("--threads is out of range");
  if (options.shared_udp_port && options.threads > 1) Die("--udp-port shared is for one thread");
  if (!address.empty()) {
    options.address = Address::Parse(address, options.port);
    if (!options.address.is_set()) Die("not an address: " + address);
  }
  return options;
}

// --- What is counted, by each worker, and read by the main thread ---

using Counter = std::atomic<uint64_t>;

void Add(Counter& counter, uint64_t count) { counter.fetch_add(count, std::memory_order_relaxed); }

struct alignas(64) Counters {
  Counter connections = 0;
  Counter connects = 0;  // that got there
  Counter associations = 0;
  Counter udp_datagrams_up = 0;  // relayed, from a client
  Counter udp_datagrams_down = 0;
  Counter udp_dropped = 0;  // malformed, of a stranger, or not taken by the kernel
  Counter auth_failures = 0;
  Counter bytes = 0;  // of TCP, relayed either way
  Counter fragments_seen = 0;
  Counter now_open = 0;  // connections of clients
};

// --- Messages ---

// A destination as requests and datagrams have it: its type, address and port.
struct Target {
  size_t bytes = 0;  // it takes so many; 0: not all of it is there
  bool known_type = true;
  Address address;  // unset where it is a name
  std::string_view name;
  uint16_t port = 0;
};

Target ParseTarget(std::string_view from) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(from.data());
  Target target;
  if (from.size() < 2) return target;
  target.known_type = bytes[0] == kTypeV4 || bytes[0] == kTypeV6 || bytes[0] == kTypeName;
  if (!target.known_type) return target;
  const size_t head = bytes[0] == kTypeName ? 2 : 1;
  const size_t length = bytes[0] == kTypeV4 ? 4 : bytes[0] == kTypeV6 ? 16 : bytes[1];
  if (from.size() < head + length + 2) return target;
  target.bytes = head + length + 2;
  const uint8_t* port = bytes + head + length;
  target.port = static_cast<uint16_t>(port[0] << 8 | port[1]);
  if (bytes[0] == kTypeV4) {
    target.address = Address::V4(bytes + head, target.port);
  } else if (bytes[0] == kTypeV6) {
    target.address = Address::V6(bytes + head, target.port);
  } else {
    target.name = from.substr(head, length);
  }
  return target;
}

void AppendPort(std::string& to, uint16_t port) {
  to.push_back(static_cast<char>(port >> 8));
  to.push_back(static_cast<char>(port & 0xff));
}

void AppendAddress(std::string& to, const Address& address) {
  to.push_back(static_cast<char>(address.is_v4() ? kTypeV4 : kTypeV6));
  to.append(address.ip());
  AppendPort(to, address.port());
}

void AppendName(std::string& to, std::string_view name, uint16_t port) {
  to.push_back(kTypeName);
  to.push_back(static_cast<char>(name.size()));
  to.append(name);
  AppendPort(to, port);
}

std::string MakeReply(const Behaviour& behaviour, uint8_t code, Address bound) {
  std::string reply = {kVersion, static_cast<char>(code), 0};
  const uint16_t port = bound.port();
  if (behaviour.kind == Misbehaviour::kBoundZero) {
    bound = Address::Parse("0.0.0.0", port);
  } else if (behaviour.kind == Misbehaviour::kBoundOther) {
    bound = Address::Parse(bound.is_v4() ? "192.0.2.1" : "2001:db8::1", port);
  } else if (behaviour.kind == Misbehaviour::kBoundV6 && bound.is_v4()) {
    bound = Address::Parse("::ffff:" + bound.Text(), port);
  }
  if (behaviour.kind == Misbehaviour::kBoundName) {
    AppendName(reply, bound.Text(), port);
    return reply;
  }
  AppendAddress(reply, bound);
  if (behaviour.kind == Misbehaviour::kBoundUnknown) reply[3] = kTypeUnknown;
  return reply;
}

Address AnyV4() { return Address::Parse("0.0.0.0", 0); }

uint8_t CodeOf(int error) {
  switch (error) {
    case ECONNREFUSED:
      return kConnectionRefused;
    case EHOSTUNREACH:
      return kHostUnreachable;
    case ENETUNREACH:
    case EAFNOSUPPORT:
      return kNetworkUnreachable;
    case ETIMEDOUT:
      return kTtlExpired;
    case EACCES:
    case EPERM:
      return kNotAllowed;
    default:
      return kGeneralFailure;
  }
}

// --- Datagrams in batches ---

// What has come to a socket in one call. The kernel may have joined datagrams of one source
// (UDP_GRO) in a message.
class Incoming {
 public:
  Incoming() : payloads_(kBatch * kSlotBytes) {
    for (size_t i = 0; i < kBatch; ++i) {
      parts_[i] = {payloads_.data() + i * kSlotBytes, kSlotBytes};
    }
  }

  // How many messages.
  size_t Receive(int fd) {
    for (size_t i = 0; i < kBatch; ++i) {
      msghdr& message = messages_[i].msg_hdr;
      message = {};
      message.msg_name = &from_[i].any;
      message.msg_namelen = sizeof(from_[i].v6);
      message.msg_iov = &parts_[i];
      message.msg_iovlen = 1;
      message.msg_control = controls_[i].bytes;
      message.msg_controllen = sizeof(controls_[i].bytes);
    }
    const int count = recvmmsg(fd, messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
    return count < 0 ? 0 : static_cast<size_t>(count);
  }

  const Address& From(size_t message) const { return from_[message]; }

  template <typename Take>  // (std::string_view datagram)
  void ForEachDatagram(size_t message, const Take& take) {
    std::string_view left(static_cast<const char*>(parts_[message].iov_base),
                          messages_[message].msg_len);
    const size_t joined = SegmentBytes(messages_[message].msg_hdr);
    const size_t segment = joined == 0 ? left.size() : joined;
    do {  // an empty datagram is one as well
      take(left.substr(0, segment));
      left.remove_prefix(std::min(segment, left.size()));
    } while (!left.empty());
  }

 private:
  struct Control {
    alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int))];
  };

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

  std::vector<uint8_t> payloads_;
  std::array<iovec, kBatch> parts_;
  std::array<Address, kBatch> from_;
  std::array<Control, kBatch> controls_;
  std::array<mmsghdr, kBatch> messages_;
};

// Datagrams to be sent in one call. Such that follow each other to one place and have one size go
// as one message, which the kernel cuts apart (UDP_SEGMENT). Borrows what it is given until
// Flush().
class Outgoing {
 public:
  explicit Outgoing(Counter& dropped) : dropped_(dropped) {}

  // `head` may be empty. `sent` counts it once it is.
  void Append(int fd, const Address& to, Counter& sent, std::string_view head,
              std::string_view body) {
    if (fd != fd_ || parts_used_ + 2 > kMaxParts) Flush();
    fd_ = fd;
    sent_ = &sent;
    const size_t bytes = head.size() + body.size();
    if (count_ == 0 || !MayJoin(jobs_[count_ - 1], to, bytes)) {
      if (count_ == kBatch) Flush();
      Begin(to, bytes);
    }
    Job& job = jobs_[count_ - 1];
    job.datagrams += 1;
    job.bytes += bytes;
    job.last_bytes = bytes;
    msghdr& message = messages_[count_ - 1].msg_hdr;
    for (const std::string_view part : {head, body}) {
      parts_[parts_used_++] = {const_cast<char*>(part.data()), part.size()};
      ++message.msg_iovlen;
    }
  }

  void Flush() {
    for (size_t i = 0; i < count_; ++i) {
      if (jobs_[i].datagrams > 1) AskToSegment(i);
    }
    for (size_t done = 0; done < count_;) {
      const int sent =
          sendmmsg(fd_, &messages_[done], static_cast<unsigned>(count_ - done), MSG_NOSIGNAL);
      for (int i = 0; i < sent; ++i) Add(*sent_, jobs_[done++].datagrams);
      if (sent > 0) continue;
      // Segments may be too large for a path that fragments would be sent along.
      if (jobs_[done].datagrams > 1 && errno != EAGAIN) {
        SendSingly(done);
      } else {
        Add(dropped_, jobs_[done].datagrams);
      }
      ++done;
    }
    count_ = 0;
    parts_used_ = 0;
  }

 private:
  struct Job {
    Address to;
    size_t datagrams = 0;
    size_t bytes = 0;
    size_t segment_bytes = 0;
    size_t last_bytes = 0;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))];
  };

  static bool MayJoin(const Job& job, const Address& to, size_t bytes) {
    return job.last_bytes == job.segment_bytes && bytes <= job.segment_bytes && bytes > 0 &&
           job.datagrams < kMaxSegments && job.bytes + bytes <= kMaxJoinedBytes && job.to == to;
  }

  void Begin(const Address& to, size_t bytes) {
    Job& job = jobs_[count_];
    job.to = to;
    job.datagrams = 0;
    job.bytes = 0;
    job.segment_bytes = bytes;
    msghdr& message = messages_[count_].msg_hdr;
    message = {};
    message.msg_name = &job.to.any;
    message.msg_namelen = job.to.length();
    message.msg_iov = &parts_[parts_used_];
    ++count_;
  }

  void AskToSegment(size_t i) {
    msghdr& message = messages_[i].msg_hdr;
    message.msg_control = jobs_[i].control;
    message.msg_controllen = sizeof(jobs_[i].control);
    cmsghdr* segment = CMSG_FIRSTHDR(&message);
    segment->cmsg_level = SOL_UDP;
    segment->cmsg_type = UDP_SEGMENT;
    segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    const auto bytes = static_cast<uint16_t>(jobs_[i].segment_bytes);
    memcpy(CMSG_DATA(segment), &bytes, sizeof(bytes));
  }

  void SendSingly(size_t i) {
    msghdr message = messages_[i].msg_hdr;
    message.msg_control = nullptr;
    message.msg_controllen = 0;
    message.msg_iovlen /= jobs_[i].datagrams;
    for (size_t each = 0; each < jobs_[i].datagrams; ++each) {
      Add(sendmsg(fd_, &message, MSG_NOSIGNAL) < 0 ? dropped_ : *sent_, 1);
      message.msg_iov += message.msg_iovlen;
    }
  }

  Counter& dropped_;
  Counter* sent_ = nullptr;
  int fd_ = -1;
  size_t count_ = 0;
  size_t parts_used_ = 0;
  std::array<Job, kBatch> jobs_;
  std::array<mmsghdr, kBatch> messages_;
  std::array<iovec, kMaxParts> parts_;
};

// --- Connections ---

constexpr size_t kClient = 0;
constexpr size_t kFar = 1;

// Of one client, from its accept() on. A direction is named by the end that it comes from.
struct Connection {
  enum class Stage : uint8_t {
    kFree,
    kGreeting,
    kAuth,
    kRequest,
    kConnecting,
    kRelaying,
    kFlooding,
    kAssociated,
    kDiscarding,  // what the client sends
  };

  struct Direction {
    std::string kept;      // read of the client or made as reply, and not used or sent yet
    size_t kept_from = 0;  // where what is left of it begins
    size_t read_bytes = kScratchBytes;  // at once, as much as is likely taken
    bool readable = false;              // as far as known
    bool ended = false;                 // nothing more comes
    bool passed_end = false;
  };

  // Of datagrams. Ends with the connection.
  struct Association {
    int client_fd = -1;  // towards the client; that of a shared port is not its own
    size_t shared_port = kNowhere;
    uint16_t declared_port = 0;             // that the client said it would send from; 0: any
    Address client;                         // known from its first datagram on
    std::array<int, 2> far_fds = {-1, -1};  // of IPv4, of IPv6
  };

  uint32_t generation = 0;  // counts the connections that had this place
  Stage stage = Stage::kFree;
  bool finishes = false;  // is closed when the replies are sent
  bool bytewise = false;
  const Behaviour* behaviour = nullptr;
  Address peer;
  std::array<int, 2> fds = {-1, -1};
  std::array<Direction, 2> from;
  size_t allowance = kNoLimit;        // bytes that the client may still be sent
  std::vector<Address> destinations;  // not tried yet, the next one last
  std::unique_ptr<Association> association;
  int64_t next_byte_ns = 0;
  int64_t ends_at_ns = 0;  // 0: never
};

using Stage = Connection::Stage;
using Association = Connection::Association;

// The bytes of the message of that stage at the front of what has come; 0 where not all of it has.
// What cannot be understood is a message as a whole.
size_t MessageBytes(Stage stage, std::string_view come) {
  const auto at = [come](size_t i) { return size_t{static_cast<uint8_t>(come[i])}; };
  if (come.size() < 2) return 0;
  if (at(0) != (stage == Stage::kAuth ? kAuthVersion : kVersion)) return come.size();
  size_t bytes = 2 + at(1);  // a greeting, or a user
  if (stage == Stage::kAuth) {
    if (come.size() <= bytes) return 0;
    bytes += 1 + at(bytes);
  } else if (stage == Stage::kRequest) {
    if (come.size() < 5) return 0;
    const Target target = ParseTarget(come.substr(3));
    if (!target.known_type) return come.size();
    if (target.bytes == 0) return 0;
    bytes = 3 + target.bytes;
  }
  return bytes <= come.size() ? bytes : 0;
}

void CloseSocket(int& fd, bool reset) {
  if (fd < 0) return;
  const linger now{1, 0};
  if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(std::exchange(fd, -1));
}

void SetNoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// Bound to an address; -1 where it cannot be.
int OpenUdp(const Address& at) {
  int fd = socket(at.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  if (!at.is_v4()) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  for (const int option : {SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE}) {
    setsockopt(fd, SOL_SOCKET, option, &kUdpBufferBytes, sizeof(kUdpBufferBytes));
  }
  setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on));
  if (bind(fd, &at.any, at.length()) != 0) CloseSocket(fd, false);
  return fd;
}

// What an event is of: the lowest bits of its tag. Above them are the place of the connection or
// shared port, and the connection's generation.
enum class Role : uint8_t {
  kClientEnd = kClient,
  kFarEnd = kFar,
  kUdpClient,
  kUdpFarV4,
  kUdpFarV6,
  kSharedPort,
  kListener,
  kStop,
};
constexpr int kRoleBits = 3;

uint64_t TagOf(Role role, size_t place, uint32_t generation) {
  return uint64_t{generation} << 32 | place << kRoleBits | static_cast<uint64_t>(role);
}

// --- A thread ---

class Worker {
 public:
  // The descriptors are shared by the workers, and outlive them.
  Worker(const Options& options, int listener, int stop, Counter& next_number)
      : options_(options),
        listener_(listener),
        next_number_(next_number),
        names_(options.names),
        scratch_(new char[kScratchBytes]) {
    for (const auto& name : names_) NoteNames(name.first, name.second);
    Watch(stop, TagOf(Role::kStop, 0, 0), EPOLLIN);
    Watch(listener, TagOf(Role::kListener, 0, 0), EPOLLIN | EPOLLEXCLUSIVE);
  }

  const Counters& counters() const { return counters_; }

  void Run() {
    std::array<epoll_event, kEventsPerWait> events;
    std::set<uint64_t> turn;
    while (!stopping_) {
      const int count = epoll_wait(epoll_, events.data(), kEventsPerWait, WaitMs());
      now_ns_ = NowNs();
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        OnEvent(event.data.u64, event.events);
      }
      turn.swap(again_);
      for (const uint64_t tag : turn) OnEvent(tag, EPOLLIN);
      turn.clear();
      while (!timers_.empty() && timers_.begin()->first <= now_ns_) {
        const uint64_t tag = timers_.begin()->second;
        timers_.erase(timers_.begin());
        OnTimer(tag);
      }
    }
  }

 private:
  // One UDP port for the clients of all associations at a local address.
  struct SharedPort {
    Address local;
    int fd = -1;
    std::unordered_map<Address, size_t, Address::Hash> places;  // of connections, by their clients
    std::vector<size_t> waiting;  // places whose clients have not sent anything, the oldest first
  };

  void Watch(int fd, uint64_t tag, uint32_t events) {
    epoll_event event{events, {}};
    event.data.u64 = tag;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) DieOfErrno("epoll_ctl");
  }

  void Watch(size_t place, Role role, int fd) {
    const bool tcp = role == Role::kClientEnd || role == Role::kFarEnd;
    const uint32_t events = tcp ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN | EPOLLET;
    Watch(fd, TagOf(role, place, connections_[place].generation), events);
  }

  int WaitMs() const {
    if (!again_.empty()) return 0;
    if (timers_.empty()) return -1;
    const int64_t wait_ns = std::max<int64_t>(timers_.begin()->first - NowNs(), 0);
    return static_cast<int>((wait_ns + kMillisecondNs - 1) / kMillisecondNs);
  }

  void OnEvent(uint64_t tag, uint32_t events) {
    const auto role = static_cast<Role>(tag & ((1 << kRoleBits) - 1));
    const size_t place = (tag & UINT32_MAX) >> kRoleBits;
    if (role == Role::kStop) {
      stopping_ = true;
    } else if (role == Role::kListener) {
      Accept();
    } else if (role == Role::kSharedPort) {
      SharedPort& port = shared_ports_[place];
      OnDatagrams(tag, [this, &port] { return RelayUp(port.fd, &port, kNowhere); });
    } else if (connections_[place].generation != tag >> 32) {
      return;  // it is over
    } else if (role == Role::kClientEnd || role == Role::kFarEnd) {
      OnEnd(place, static_cast<size_t>(role), events);
    } else if (role == Role::kUdpClient) {
      const int fd = connections_[place].association->client_fd;
      OnDatagrams(tag, [this, fd, place] { return RelayUp(fd, nullptr, place); });
    } else {
      const size_t family = role == Role::kUdpFarV6;
      OnDatagrams(tag, [this, place, family] { return RelayDown(connections_[place], family); });
    }
  }

  void OnTimer(uint64_t tag) {
    const size_t place = (tag & UINT32_MAX) >> kRoleBits;
    Connection& connection = connections_[place];
    if (connection.generation != tag >> 32) return;
    if (connection.ends_at_ns != 0 && connection.ends_at_ns <= now_ns_) return End(place, false);
    Move(place, kFar);
  }

  void WakeAt(size_t place, int64_t due_ns) {
    timers_.emplace(due_ns, TagOf(Role::kClientEnd, place, connections_[place].generation));
  }

  void EndAt(size_t place, int64_t due_ns) {
    connections_[place].ends_at_ns = due_ns;
    WakeAt(place, due_ns);
  }

  // --- The beginning and the end of a connection ---

  void Accept() {
    for (int i = 0; i < kAcceptsPerEvent; ++i) {
      Address peer;
      socklen_t length = sizeof(peer.v6);
      const int fd = accept4(listener_, &peer.any, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) {
        Begin(fd, peer.Unmapped());
      } else if (errno == EMFILE || errno == ENFILE) {
        usleep(kWithoutFilesUs);  // they wait until others have ended
        return;
      } else if (errno == EAGAIN) {
        return;
      }
    }
  }

  void Begin(int fd, const Address& peer) {
    if (free_.empty()) {
      free_.push_back(connections_.size());
      connections_.emplace_back();
    }
    const size_t place = free_.back();
    free_.pop_back();
    Connection& connection = connections_[place];
    const uint64_t number = next_number_.fetch_add(1, std::memory_order_relaxed);
    const Behaviour& behaviour = options_.behaviours[number % options_.behaviours.size()];
    connection.stage = Stage::kGreeting;
    connection.behaviour = &behaviour;
    connection.bytewise = behaviour.kind == Misbehaviour::kBytewise;
    if (behaviour.kind == Misbehaviour::kStallAt || behaviour.kind == Misbehaviour::kCloseAt ||
        behaviour.kind == Misbehaviour::kResetAt) {
      connection.allowance = behaviour.number;
    }
    connection.peer = peer;
    connection.fds[kClient] = fd;
    SetNoDelay(fd);
    Add(counters_.connections, 1);
    Add(counters_.now_open, 1);
    Watch(place, Role::kClientEnd, fd);
    if (!options_.forward_host.empty()) {
      Connect(place, Resolve(options_.forward_host), options_.forward_port);
    }
  }

  void End(size_t place, bool reset) {
    Connection& connection = connections_[place];
    for (int& fd : connection.fds) CloseSocket(fd, reset);
    if (connection.association != nullptr) EndAssociation(place, *connection.association);
    const uint32_t generation = connection.generation + 1;
    connection = Connection();
    connection.generation = generation;
    free_.push_back(place);
    counters_.now_open.fetch_sub(1, std::memory_order_relaxed);
  }

  void EndAssociation(size_t place, Association& association) {
    for (int& fd : association.far_fds) CloseSocket(fd, false);
    if (association.shared_port == kNowhere) return CloseSocket(association.client_fd, false);
    SharedPort& port = shared_ports_[association.shared_port];
    if (association.client.is_set()) {
      port.places.erase(association.client);
    } else {
      std::erase(port.waiting, place);
    }
  }

  // --- What an end has, and what it takes ---

  void OnEnd(size_t place, size_t end, uint32_t events) {
    Connection& connection = connections_[place];
    const uint32_t generation = connection.generation;
    bool& readable = connection.from[end].readable;
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) != 0) readable = true;
    if (connection.stage == Stage::kConnecting && end == kFar) return OnConnect(place, events);
    if ((events & EPOLLERR) != 0) return End(place, true);
    if ((events & EPOLLOUT) != 0) Move(place, 1 - end);
    if (connection.generation == generation && readable) Read(place, end);
  }

  void Read(size_t place, size_t end) {
    const Connection& connection = connections_[place];
    if (end == kFar || connection.stage == Stage::kRelaying) {
      Move(place, end);
    } else if (IsHandshake(connection)) {
      ReadHandshake(place);
    } else if (connection.stage != Stage::kConnecting) {
      Discard(place);
    }
  }

  // Sends what the script allows; `taken` is how much was. False when the connection is over.
  bool Deliver(size_t place, size_t to, const char* data, size_t bytes, size_t& taken) {
    Connection& connection = connections_[place];
    if (to == kClient) bytes = std::min(bytes, connection.allowance);
    taken = 0;
    if (bytes > 0) {
      const ssize_t sent = send(connection.fds[to], data, bytes, MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN) {
        End(place, true);
        return false;
      }
      taken = sent < 0 ? 0 : static_cast<size_t>(sent);
    }
    if (to == kFar) return true;
    connection.allowance -= taken;
    const Misbehaviour kind = connection.behaviour->kind;
    if (connection.allowance > 0 || kind == Misbehaviour::kStallAt) return true;
    // What is not read would make a reset of the close.
    if (kind == Misbehaviour::kCloseAt) {
      (void)!recv(connection.fds[kClient], nullptr, INT32_MAX, MSG_TRUNC);
    }
    End(place, kind == Misbehaviour::kResetAt);
    return false;
  }

  // True when all of it is taken.
  bool FlushKept(size_t place, size_t from) {
    Connection& connection = connections_[place];
    Connection::Direction& direction = connection.from[from];
    const bool bytewise = from == kFar && connection.bytewise;
    while (direction.kept_from < direction.kept.size()) {
      if (bytewise && now_ns_ < connection.next_byte_ns) return false;
      const size_t bytes = bytewise ? 1 : direction.kept.size() - direction.kept_from;
      size_t taken;
      if (!Deliver(place, 1 - from, &direction.kept[direction.kept_from], bytes, taken) ||
          taken == 0) {
        return false;
      }
      direction.kept_from += taken;
      if (!bytewise) continue;
      connection.next_byte_ns = now_ns_ + kBytePauseNs;
      WakeAt(place, connection.next_byte_ns);
    }
    direction.kept = {};
    direction.kept_from = 0;
    if (from == kFar && connection.stage == Stage::kRelaying) connection.bytewise = false;
    return true;
  }

  // Replies are the first of what goes from the far end to the client.
  void Move(size_t place, size_t from) {
    Connection& connection = connections_[place];
    if (from == kClient && connection.stage != Stage::kRelaying) return;
    if (!FlushKept(place, from)) return;
    if (connection.stage == Stage::kRelaying) {
      Relay(place, from);
    } else if (connection.stage == Stage::kFlooding) {
      Flood(place);
    } else if (std::exchange(connection.finishes, false)) {
      shutdown(connection.fds[kClient], SHUT_WR);
      EndAt(place, now_ns_ + kLingerNs);
    }
  }

  void Relay(size_t place, size_t from) {
    Connection& connection = connections_[place];
    Connection::Direction& direction = connection.from[from];
    const int from_fd = connection.fds[from];
    const int to_fd = connection.fds[1 - from];
    for (size_t moved = 0; direction.readable && !direction.ended;) {
      if (moved >= kTurnBytes) {
        again_.insert(TagOf(static_cast<Role>(from), place, connection.generation));
        return;
      }
      const ssize_t got = recv(from_fd, scratch_.get(), direction.read_bytes, 0);
      if (got < 0 && errno != EAGAIN) return End(place, true);
      direction.readable = got >= 0;
      direction.ended = got == 0;
      if (got <= 0) break;
      const auto bytes = static_cast<size_t>(got);
      Add(counters_.bytes, bytes);
      moved += bytes;
      size_t taken;
      if (!Deliver(place, 1 - from, scratch_.get(), bytes, taken)) return;
      if (taken == bytes) {
        direction.read_bytes = std::min(direction.read_bytes + kLeastReadBytes, kScratchBytes);
        continue;
      }
      // So much is likely taken the next time; the rest waits here.
      direction.read_bytes = std::max(taken, kLeastReadBytes);
      direction.kept.assign(scratch_.get() + taken, bytes - taken);
      break;
    }
    // A client that is sent nothing more cannot be told of the far end's end.
    const bool stalled = connection.allowance == 0;
    if (from == kClient && direction.ended && stalled) return End(place, false);
    if (!direction.ended || !direction.kept.empty()) return;
    if (!std::exchange(direction.passed_end, true)) shutdown(to_fd, SHUT_WR);
    if (connection.from[1 - from].passed_end) End(place, false);
  }

  void Flood(size_t place) {
    static constexpr std::array<char, 64 << 10> kZeros = {};
    size_t taken;
    for (size_t sent = 0; sent < kTurnBytes; sent += taken) {
      if (!Deliver(place, kClient, kZeros.data(), kZeros.size(), taken) || taken == 0) return;
    }
    again_.insert(TagOf(Role::kFarEnd, place, connections_[place].generation));
  }

  void Discard(size_t place) {
    Connection& connection = connections_[place];
    for (size_t discarded = 0; discarded < kTurnBytes;) {
      const ssize_t got = recv(connection.fds[kClient], nullptr, kTurnBytes, MSG_TRUNC);
      if (got == 0 || (got < 0 && errno != EAGAIN)) return End(place, false);
      connection.from[kClient].readable = got > 0;
      if (got < 0) return;
      discarded += static_cast<size_t>(got);
    }
    again_.insert(TagOf(Role::kClientEnd, place, connection.generation));
  }

  // --- The handshake ---

  static bool IsHandshake(const Connection& connection) {
    return connection.stage == Stage::kGreeting || connection.stage == Stage::kAuth ||
           connection.stage == Stage::kRequest;
  }

  void ReadHandshake(size_t place) {
    Connection& connection = connections_[place];
    Connection::Direction& up = connection.from[kClient];
    while (IsHandshake(connection)) {
      const ssize_t got = recv(connection.fds[kClient], scratch_.get(), kReadAheadBytes, 0);
      if (got == 0 || (got < 0 && errno != EAGAIN)) return End(place, false);
      up.readable = got > 0;
      if (got < 0) return;
      up.kept.append(scratch_.get(), static_cast<size_t>(got));
      TakeMessages(place);
    }
    if (connection.stage == Stage::kAssociated || connection.stage == Stage::kDiscarding) {
      Discard(place);
    }
  }

  void TakeMessages(size_t place) {
    Connection& connection = connections_[place];
    Connection::Direction& up = connection.from[kClient];
    while (IsHandshake(connection)) {
      const size_t bytes =
          MessageBytes(connection.stage, std::string_view(up.kept).substr(up.kept_from));
      if (bytes == 0) return;
      const std::string message = up.kept.substr(up.kept_from, bytes);
      up.kept_from += bytes;
      if (connection.stage == Stage::kGreeting) {
        TakeGreeting(place, message);
      } else if (connection.stage == Stage::kAuth) {
        TakeAuth(place, message);
      } else {
        TakeRequest(place, message);
      }
    }
  }

  void Reply(size_t place, std::string_view reply) {
    connections_[place].from[kFar].kept.append(reply);
    Move(place, kFar);
  }

  void ReplyAndFinish(size_t place, std::string_view reply) {
    Connection& connection = connections_[place];
    connection.stage = Stage::kDiscarding;
    connection.finishes = true;
    Reply(place, reply);
  }

  void TakeGreeting(size_t place, std::string_view message) {
    Connection& connection = connections_[place];
    const Connection::Direction& up = connection.from[kClient];
    const Misbehaviour kind = connection.behaviour->kind;
    if (message[0] != kVersion ||
        (kind == Misbehaviour::kNoPipelining && up.kept_from < up.kept.size())) {
      return End(place, false);
    }
    connection.stage = Stage::kDiscarding;
    if (kind == Misbehaviour::kStallGreeting) return;
    const auto offers = [message](uint8_t method) {
      return message.find(static_cast<char>(method), 2) != std::string_view::npos;
    };
    uint8_t method = options_.wants_password ? kMethodPassword : kMethodNone;
    if (!offers(method)) {
      method = kMethodRefused;
      Add(counters_.auth_failures, 1);
    }
    if (kind == Misbehaviour::kMethodFf) method = kMethodRefused;
    if (kind == Misbehaviour::kMethodUnoffered) {
      method = !offers(kMethodPassword) ? kMethodPassword
               : !offers(kMethodNone)   ? kMethodNone
                                        : kMethodPrivate;
    }
    const uint8_t version = kind == Misbehaviour::kWrongVersion ? 4 : kVersion;
    const std::string answer = {static_cast<char>(version), static_cast<char>(method)};
    if (method == kMethodRefused) return ReplyAndFinish(place, answer);
    if (kind != Misbehaviour::kStallAuth) {
      if (method == kMethodPassword) connection.stage = Stage::kAuth;
      if (method == kMethodNone) connection.stage = Stage::kRequest;
    }
    Reply(place, answer);
  }

  void TakeAuth(size_t place, std::string_view message) {
    if (message[0] != kAuthVersion) return End(place, false);
    const size_t user_bytes = static_cast<uint8_t>(message[1]);
    const bool right = message.substr(2, user_bytes) == options_.user &&
                       message.substr(3 + user_bytes) == options_.password;
    if (options_.wants_password && !right) {
      Add(counters_.auth_failures, 1);
      return ReplyAndFinish(place, {"\1\1", 2});
    }
    connections_[place].stage = Stage::kRequest;
    Reply(place, {"\1\0", 2});
  }

  void TakeRequest(size_t place, std::string_view message) {
    Connection& connection = connections_[place];
    const Behaviour& behaviour = *connection.behaviour;
    if (message[0] != kVersion) return End(place, false);
    const auto command = static_cast<uint8_t>(message[1]);
    const Target target = ParseTarget(message.substr(3));
    connection.stage = Stage::kDiscarding;
    if (behaviour.kind == Misbehaviour::kStallReply) return;
    if (behaviour.kind == Misbehaviour::kRefuse) {
      Refuse(place, static_cast<uint8_t>(behaviour.number));
    } else if (command != kCommandConnect && (command != kCommandAssociate || !options_.udp)) {
      Refuse(place, kCommandNotSupported);
    } else if (!target.known_type) {
      Refuse(place, kTypeNotSupported);
    } else if (message[2] != 0) {
      Refuse(place, kGeneralFailure);
    } else if (command == kCommandAssociate) {
      Associate(place, target.port);
    } else if (target.address.is_set()) {
      Connect(place, {target.address}, target.port);
    } else {
      Connect(place, Resolve(target.name), target.port);
    }
  }

  void Refuse(size_t place, uint8_t code) {
    ReplyAndFinish(place, MakeReply(*connections_[place].behaviour, code, AnyV4()));
  }

  // Of a name that was not given, what the system says; none where it knows nothing.
  const std::vector<Address>& Resolve(std::string_view name) {
    const auto known = names_.find(name);
    if (known != names_.end()) return known->second;
    const auto made = names_.emplace(name, std::vector<Address>()).first;
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(made->first.c_str(), nullptr, &hints, &found) != 0) return made->second;
    for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
      Address& address = made->second.emplace_back();
      memcpy(&address.any, each->ai_addr, std::min<size_t>(each->ai_addrlen, sizeof(address)));
    }
    freeaddrinfo(found);
    NoteNames(made->first, made->second);
    return made->second;
  }

  void NoteNames(const std::string& name, const std::vector<Address>& addresses) {
    for (const Address& address : addresses) names_by_ip_.emplace(address.ip(), name);
  }

  // --- CONNECT ---

  void Connect(size_t place, const std::vector<Address>& addresses, uint16_t port) {
    Connection& connection = connections_[place];
    connection.stage = Stage::kConnecting;
    for (auto each = addresses.rbegin(); each != addresses.rend(); ++each) {
      connection.destinations.push_back(each->WithPort(port));
    }
    ConnectNext(place, kHostUnreachable);
  }

  // `code` says why the one before did not do.
  void ConnectNext(size_t place, uint8_t code) {
    Connection& connection = connections_[place];
    while (!connection.destinations.empty()) {
      const Address to = connection.destinations.back();
      connection.destinations.pop_back();
      int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (fd >= 0 && (connect(fd, &to.any, to.length()) == 0 || errno == EINPROGRESS)) {
        SetNoDelay(fd);
        connection.fds[kFar] = fd;
        return Watch(place, Role::kFarEnd, fd);
      }
      code = CodeOf(errno);
      CloseSocket(fd, false);
    }
    if (!options_.forward_host.empty()) return End(place, true);
    Refuse(place, code);
  }

  void OnConnect(size_t place, uint32_t events) {
    Connection& connection = connections_[place];
    int& fd = connection.fds[kFar];
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
      CloseSocket(fd, false);
      return ConnectNext(place, CodeOf(error));
    }
    if ((events & EPOLLOUT) == 0) return;
    Add(counters_.connects, 1);
    const Connection::Direction& up = connection.from[kClient];
    Add(counters_.bytes, up.kept.size() - up.kept_from);
    const Behaviour& behaviour = *connection.behaviour;
    const bool floods = behaviour.kind == Misbehaviour::kFlood;
    connection.stage = floods ? Stage::kFlooding : Stage::kRelaying;
    const uint32_t generation = connection.generation;
    std::string reply;
    if (options_.forward_host.empty()) reply = MakeReply(behaviour, kSucceeded, LocalOf(fd));
    if (behaviour.kind == Misbehaviour::kBanner) reply += behaviour.text;
    Reply(place, reply);
    // What the client has sent meanwhile.
    if (connection.generation == generation) Read(place, kClient);
  }

  // --- UDP ASSOCIATE ---

  void Associate(size_t place, uint16_t declared_port) {
    Connection& connection = connections_[place];
    const Address local = LocalOf(connection.fds[kClient]);
    auto made = std::make_unique<Association>();
    made->declared_port = declared_port;
    if (options_.shared_udp_port) {
      made->shared_port = SharedPortAt(local);
      made->client_fd = shared_ports_[made->shared_port].fd;
    } else {
      made->client_fd = OpenUdp(local.WithPort(0));
    }
    if (made->client_fd < 0) return Refuse(place, kGeneralFailure);
    if (options_.shared_udp_port) {
      shared_ports_[made->shared_port].waiting.push_back(place);
    } else {
      Watch(place, Role::kUdpClient, made->client_fd);
    }
    connection.stage = Stage::kAssociated;
    connection.association = std::move(made);
    Add(counters_.associations, 1);
    if (connection.behaviour->kind == Misbehaviour::kUdpCloseControl) {
      EndAt(place, now_ns_ + static_cast<int64_t>(connection.behaviour->number) * kMillisecondNs);
    }
    const Address bound = LocalOf(connection.association->client_fd);
    Reply(place, MakeReply(*connection.behaviour, kSucceeded, bound));
  }

  size_t SharedPortAt(const Address& local) {
    for (size_t i = 0; i < shared_ports_.size(); ++i) {
      if (shared_ports_[i].local == local) return i;
    }
    const size_t place = shared_ports_.size();
    SharedPort& port = shared_ports_.emplace_back();
    port.local = local;
    port.fd = OpenUdp(local);
    if (port.fd < 0) DieOfErrno("the UDP port that is shared");
    Watch(port.fd, TagOf(Role::kSharedPort, place, 0), EPOLLIN | EPOLLET);
    return place;
  }

  template <typename RelayBatch>  // returns how many messages there were
  void OnDatagrams(uint64_t tag, const RelayBatch& relay_batch) {
    for (int i = 0; i < kBatchesPerTurn; ++i) {
      if (relay_batch() < kBatch) return;
    }
    again_.insert(tag);
  }

  // A client is whoever sends first from where the connection came from.
  bool Admits(size_t place, const Address& from) const {
    const Connection& connection = connections_[place];
    const Association& association = *connection.association;
    if (association.client.is_set()) return association.client == from;
    return from.ip() == connection.peer.ip() &&
           (association.declared_port == 0 || association.declared_port == from.port());
  }

  size_t FindClient(SharedPort& port, const Address& from) {
    const auto known = port.places.find(from);
    if (known != port.places.end()) return known->second;
    const auto found = std::find_if(port.waiting.begin(), port.waiting.end(),
                                    [&](size_t place) { return Admits(place, from); });
    if (found == port.waiting.end()) return kNowhere;
    const size_t place = *found;
    port.waiting.erase(found);
    port.places.emplace(from, place);
    return place;
  }

  // How many messages it took of the clients of a shared port, or of the client of one connection.
  size_t RelayUp(int fd, SharedPort* port, size_t own_place) {
    const size_t count = incoming_.Receive(fd);
    for (size_t i = 0; i < count; ++i) {
      const Address& from = incoming_.From(i);
      const size_t place = port != nullptr           ? FindClient(*port, from)
                           : Admits(own_place, from) ? own_place
                                                     : kNowhere;
      if (place != kNowhere) connections_[place].association->client = from;
      incoming_.ForEachDatagram(i, [this, place](std::string_view datagram) {
        if (place == kNowhere || !RelayOneUp(place, datagram)) Add(counters_.udp_dropped, 1);
      });
    }
    outgoing_.Flush();
    return count;
  }

  bool RelayOneUp(size_t place, std::string_view datagram) {
    constexpr size_t kPrefixBytes = 3;  // two that are reserved, and the fragment's number
    if (datagram.size() < kPrefixBytes || datagram[0] != 0 || datagram[1] != 0) return false;
    if (datagram[2] != 0) {
      Add(counters_.fragments_seen, 1);
      return false;
    }
    const Target target = ParseTarget(datagram.substr(kPrefixBytes));
    if (target.bytes == 0) return false;
    if (connections_[place].behaviour->kind == Misbehaviour::kDropUdp) return false;
    Address to = target.address;
    if (!to.is_set()) {
      const std::vector<Address>& addresses = Resolve(target.name);
      if (addresses.empty()) return false;
      to = addresses[0].WithPort(target.port);
    }
    const int fd = FarUdp(place, to.is_v4());
    if (fd < 0) return false;
    outgoing_.Append(fd, to, counters_.udp_datagrams_up, {},
                     datagram.substr(kPrefixBytes + target.bytes));
    return true;
  }

  // One port for all destinations of a family: whoever answers to it is relayed.
  int FarUdp(size_t place, bool v4) {
    int& fd = connections_[place].association->far_fds[v4 ? 0 : 1];
    if (fd >= 0) return fd;
    fd = OpenUdp(v4 ? AnyV4() : Address::V6(in6addr_any.s6_addr, 0));
    if (fd >= 0) Watch(place, v4 ? Role::kUdpFarV4 : Role::kUdpFarV6, fd);
    return fd;
  }

  size_t RelayDown(const Connection& connection, size_t family) {
    const Association& association = *connection.association;
    const bool fragments = connection.behaviour->kind == Misbehaviour::kUdpFragments;
    const size_t count = incoming_.Receive(association.far_fds[family]);
    for (size_t i = 0; i < count; ++i) {
      const Address& from = incoming_.From(i);
      std::string& head = heads_[i];
      head.assign({0, 0, fragments ? char{1} : char{0}});
      if (options_.udp_domain_replies) {
        const auto named = names_by_ip_.find(from.ip());
        AppendName(head, named == names_by_ip_.end() ? from.Text() : named->second, from.port());
      } else {
        AppendAddress(head, from);
      }
      incoming_.ForEachDatagram(i, [&](std::string_view datagram) {
        outgoing_.Append(association.client_fd, association.client, counters_.udp_datagrams_down,
                         head, datagram);
      });
    }
    outgoing_.Flush();
    return count;
  }

  const Options& options_;
  const int listener_;
  Counter& next_number_;  // of connections
  const int epoll_ = epoll_create1(EPOLL_CLOEXEC);
  bool stopping_ = false;
  int64_t now_ns_ = 0;
  std::deque<Connection> connections_;  // in place: a reference stays good
  std::vector<size_t> free_;            // places
  std::vector<SharedPort> shared_ports_;
  std::multimap<int64_t, uint64_t> timers_;  // tags, by when they are due
  std::set<uint64_t> again_;                 // tags of what has had its turn and is not done
  std::map<std::string, std::vector<Address>, std::less<>> names_;
  std::map<std::string, std::string, std::less<>> names_by_ip_;
  const std::unique_ptr<char[]> scratch_;
  Counters counters_;
  Incoming incoming_;
  Outgoing outgoing_{counters_.udp_dropped};
  std::array<std::string, kBatch> heads_;  // of the datagrams that outgoing_ has
};

int Listen(const Options& options) {
  Address address = options.address;
  if (!address.is_set()) address = Address::V6(in6addr_any.s6_addr, options.port);
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 && !options.address.is_set()) {
    address = AnyV4().WithPort(options.port);  // of a kernel without IPv6
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  }
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, &address.any, address.length()) != 0 || listen(fd, kBacklog) != 0) {
    DieOfErrno("listen");
  }
  return fd;
}

// Each flow takes two descriptors or more, so that the usual hard limit may not do.
void AllowManyFiles() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit raised = {std::max(limit.rlim_max, kWantedFiles),
                         std::max(limit.rlim_max, kWantedFiles)};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void Report(const std::vector<std::unique_ptr<Worker>>& workers) {
  struct Shown {
    const char* name;
    Counter Counters::*counter;
  };
  static constexpr Shown kShown[] = {
      {"connections", &Counters::connections},
      {"connects", &Counters::connects},
      {"associations", &Counters::associations},
      {"udp_datagrams_up", &Counters::udp_datagrams_up},
      {"udp_datagrams_down", &Counters::udp_datagrams_down},
      {"udp_dropped", &Counters::udp_dropped},
      {"auth_failures", &Counters::auth_failures},
      {"bytes", &Counters::bytes},
      {"fragments_seen", &Counters::fragments_seen},
      {"now_open", &Counters::now_open},
  };
  const char* before = "{";
  for (const Shown& shown : kShown) {
    uint64_t sum = 0;
    for (const auto& worker : workers) sum += worker->counters().*shown.counter;
    printf("%s\"%s\": %lu", std::exchange(before, ", "), shown.name, sum);
  }
  printf("}\n");
  fflush(stdout);
}

// Until the seconds are over or a signal ends it.
void WaitForEnd(double seconds, const std::vector<std::unique_ptr<Worker>>& workers,
                const sigset_t& signals) {
  const int64_t end_ns = NowNs() + static_cast<int64_t>(seconds * 1e9);
  for (;;) {
    const int64_t left_ns = seconds > 0 ? std::max<int64_t>(end_ns - NowNs(), 0) : kSecondNs;
    const timespec wait{left_ns / kSecondNs, left_ns % kSecondNs};
    const int signal = sigtimedwait(&signals, nullptr, &wait);
    if (signal == SIGUSR1) {
      Report(workers);
    } else if (signal > 0 || (seconds > 0 && NowNs() >= end_ns)) {
      return;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  AllowManyFiles();
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // also of the threads
  const int listener = Listen(options);
  const int stop = eventfd(0, EFD_CLOEXEC);
  Counter next_number = 0;
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < options.threads; ++i) {
    workers.push_back(std::make_unique<Worker>(options, listener, stop, next_number));
    threads.emplace_back([worker = workers.back().get()] { worker->Run(); });
  }
  fprintf(stderr, "listening\n");
  WaitForEnd(options.seconds, workers, signals);
  Report(workers);
  eventfd_write(stop, 1);
  for (std::thread& thread : threads) thread.join();
}
