// Datagrams get through a relay both ways, straight out and through servers, and what is said of
// sessions is said once. The test is all that is around the relay: the device (one end of a socket
// pair keeps packets apart), the workers, the slow path, the servers, and whom programs speak with.
#include "egress/udp_relay.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "fastpath/socks5_udp.h"
#include "io/datagram_message.h"
#include "support/network.h"
#include "support/packets.h"

namespace braid::udp_relay_test {
namespace {

using testing::Buffer;

constexpr int kPatienceMs = 10'000;
constexpr int kShortPatienceMs = 50;  // for what is not to come

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }
IpAddress Loopback(bool v6) { return Address(v6 ? "::1" : "127.0.0.1"); }

// A program behind the device.
Endpoint Program(bool v6, uint16_t port = 40000) {
  return {Address(v6 ? "fd00::1" : "10.77.0.1"), port, 0};
}

EgressAction Direct() {
  EgressAction action;
  action.to = EgressAction::To::kDirect;
  return action;
}
EgressAction Group(uint16_t number = 1) {
  EgressAction action;
  action.to = EgressAction::To::kGroup;
  action.group = number;
  return action;
}

Buffer Text(const std::string& text) { return {text.begin(), text.end()}; }

template <typename Condition>
bool Await(Condition&& condition) {
  for (int i = 0; i < kPatienceMs; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

bool IsReadable(const UniqueFd& fd, int patience_ms) {
  pollfd wait{fd.get(), POLLIN, 0};
  return poll(&wait, 1, patience_ms) == 1;
}

// A UDP socket of the outside.
class Socket {
 public:
  explicit Socket(const IpAddress& address)
      : fd_(socket(address.socket_family(), SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage at;
    const socklen_t length = Endpoint{address, 0, 0}.To(at);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&at), length), 0);
    const int bytes = 4 << 20;
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
  }

  static Endpoint LocalOf(const UniqueFd& fd) {
    sockaddr_storage at;
    socklen_t length = sizeof(at);
    EXPECT_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &length), 0);
    return Endpoint::From(at);
  }
  Endpoint local() const { return LocalOf(fd_); }

  // With `datagram_bytes`: as several of them.
  void Send(const Endpoint& to, Bytes payload, int datagram_bytes = 0) {
    ASSERT_EQ(setsockopt(fd_.get(), SOL_UDP, UDP_SEGMENT, &datagram_bytes, sizeof(datagram_bytes)),
              0);
    sockaddr_storage at;
    const socklen_t length = to.To(at);
    EXPECT_EQ(sendto(fd_.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&at),
                     length),
              static_cast<ssize_t>(payload.size()))
        << strerror(errno);
  }

  struct Got {
    Buffer payload;
    Endpoint from;
  };
  std::optional<Got> Next(int patience_ms = kPatienceMs) {
    if (!IsReadable(fd_, patience_ms)) return std::nullopt;
    Got got;
    got.payload.resize(1 << 16);
    sockaddr_storage from;
    socklen_t length = sizeof(from);
    const ssize_t bytes = recvfrom(fd_.get(), got.payload.data(), got.payload.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &length);
    if (bytes < 0) return std::nullopt;
    got.payload.resize(static_cast<size_t>(bytes));
    got.from = Endpoint::From(from);
    return got;
  }

 private:
  UniqueFd fd_;
};

// As a server's relay sends and gets it.
Buffer BehindHeader(const Endpoint& of, Bytes payload) {
  Buffer datagram(kMaxSocks5UdpHeaderBytes);
  datagram.resize(WriteSocks5UdpHeader(of.address, of.port, datagram));
  datagram.insert(datagram.end(), payload.begin(), payload.end());
  return datagram;
}

// With a right checksum.
Buffer InnerPacketOf(const Endpoint& source, const Endpoint& destination, Bytes payload) {
  testing::PacketSpec spec = testing::SpecOf(source.address.is_v6(), testing::kUdp);
  spec.source_port = source.port;
  spec.destination_port = destination.port;
  spec.payload.assign(payload.begin(), payload.end());
  Buffer packet = BuildPacket(spec);
  const auto bytes = static_cast<size_t>(source.address.bytes_used());
  uint8_t* const addresses = &packet[spec.v6 ? 8 : 12];
  std::copy_n(source.address.bytes.begin(), bytes, addresses);
  std::copy_n(destination.address.bytes.begin(), bytes, addresses + bytes);
  if (!spec.v6) testing::SetIpv4Checksum(packet);
  testing::MakePartial(spec, packet);
  testing::FinishPartial(spec, packet);
  return packet;
}

// What the relay has written into the device at once: datagrams of one flow.
struct Written {
  Endpoint source;
  Endpoint destination;
  std::vector<Buffer> payloads;
};

// Checked as whoever takes it would, the checksum finished first.
Written Read(Buffer from_relay) {
  Written written;
  const auto vnet = LoadNative<VnetHeader>(from_relay.data());
  Buffer packet(from_relay.begin() + kVnetHeaderBytes, from_relay.end());
  const bool v6 = packet[0] >> 4 == 6;
  const size_t l4 = v6 ? 40 : 20;
  const size_t headers_bytes = l4 + 8;
  EXPECT_EQ(vnet.flags, VnetHeader::kNeedsChecksum);
  EXPECT_EQ(vnet.header_bytes, headers_bytes);
  EXPECT_EQ(vnet.checksum_start, l4);
  EXPECT_EQ(vnet.checksum_offset, 6);
  EXPECT_EQ(packet[0], v6 ? 0x60 : 0x45);
  EXPECT_EQ(LoadBe16(&packet[v6 ? 4 : 2]), v6 ? packet.size() - 40 : packet.size());
  EXPECT_EQ(packet[v6 ? 6 : 9], testing::kUdp);
  EXPECT_EQ(packet[v6 ? 7 : 8], 64);
  EXPECT_EQ(LoadBe16(&packet[l4 + 4]), packet.size() - l4);
  testing::FinishPartial(packet, vnet.checksum_start, l4 + vnet.checksum_offset);
  EXPECT_TRUE(testing::ChecksumsAreRight(packet, testing::kUdp, l4));

  const auto address = v6 ? IpAddress::V6 : IpAddress::V4;
  written.source = {address(&packet[v6 ? 8 : 12]), LoadBe16(&packet[l4]), 0};
  written.destination = {address(&packet[v6 ? 24 : 16]), LoadBe16(&packet[l4 + 2]), 0};
  const Bytes all = Bytes(packet).subspan(headers_bytes);
  const bool is_super = vnet.gso_type != VnetHeader::kGsoNone;
  if (is_super) {
    EXPECT_EQ(vnet.gso_type, VnetHeader::kGsoUdpL4);
    EXPECT_GT(vnet.gso_bytes, 0);
    EXPECT_GT(all.size(), vnet.gso_bytes) << "it is one datagram";
  }
  const size_t each =
      is_super ? std::max<size_t>(vnet.gso_bytes, 1) : std::max<size_t>(all.size(), 1);
  size_t at = 0;
  do {
    const Bytes payload = all.subspan(at, std::min(each, all.size() - at));
    written.payloads.emplace_back(payload.begin(), payload.end());
    at += each;
  } while (at < all.size());
  return written;
}

std::vector<size_t> Sizes(const std::vector<Buffer>& payloads) {
  std::vector<size_t> sizes;
  for (const Buffer& payload : payloads) sizes.push_back(payload.size());
  return sizes;
}

// Parametrized by the family of what is inside.
class UdpRelayTest : public ::testing::TestWithParam<bool> {
 protected:
  UdpRelayTest() {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    near_device_ = UniqueFd(pair[0]);
    device_ = UniqueFd(pair[1]);
    const int bytes = 8 << 20;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
  }
  ~UdpRelayTest() override {
    if (relay_) relay_->Stop();
  }

  bool v6() const { return GetParam(); }

  // It does not run yet: what is pushed until then is taken in one turn.
  void Make(UdpRelay::Options options = {}) {
    if (options.tun_fd < 0) options.tun_fd = near_device_.get();
    options.index = kIndex;
    options.calls.on_begin = [this](const UdpSessionId& id, const EgressAction& action) {
      const std::lock_guard lock(mutex_);
      if (refused_begins_ > 0) return --refused_begins_, false;
      begun_.emplace_back(id, action);
      return true;
    };
    options.calls.on_end = [this](const UdpSessionId& id) {
      const std::lock_guard lock(mutex_);
      if (refused_ends_ > 0) return --refused_ends_, false;
      ended_.push_back(id);
      return true;
    };
    relay_ = std::make_unique<UdpRelay>(std::move(options));
  }
  void Start(UdpRelay::Options options = {}) {
    Make(std::move(options));
    relay_->Start();
  }

  // --- The workers ---

  void Push(const EgressAction& action, const Buffer& packet, const VnetHeader& vnet = {},
            size_t worker = 0) {
    const auto* record = reinterpret_cast<const uint8_t*>(&action);
    const Buffer from_tun = testing::BehindVnetHeader(vnet, packet);
    ASSERT_TRUE(relay_->datagrams().packets[worker]->TryPush({record, sizeof(action)}, from_tun));
    relay_->datagrams().doorbell.Ring();
  }
  void Push(const EgressAction& action, const Endpoint& source, const Endpoint& destination,
            Bytes payload) {
    Push(action, InnerPacketOf(source, destination, payload));
  }
  // All of `payload` as one super-packet.
  void PushSuper(const EgressAction& action, const Endpoint& source, const Endpoint& destination,
                 Bytes payload, uint16_t datagram_bytes) {
    const testing::PacketSpec spec = testing::SpecOf(source.address.is_v6(), testing::kUdp);
    Buffer packet = InnerPacketOf(source, destination, payload);
    testing::MakePartial(spec, packet);
    Push(action, packet, testing::VnetFor(spec, datagram_bytes));
  }

  // --- The device ---

  std::optional<Written> NextFromDevice(int patience_ms = kPatienceMs) {
    if (!IsReadable(device_, patience_ms)) return std::nullopt;
    Buffer bytes(1 << 17);
    const ssize_t got = read(device_.get(), bytes.data(), bytes.size());
    if (got <= static_cast<ssize_t>(kVnetHeaderBytes)) return std::nullopt;
    bytes.resize(static_cast<size_t>(got));
    return Read(std::move(bytes));
  }
  void ExpectFromDevice(const Endpoint& source, const Endpoint& destination,
                        const std::vector<Buffer>& payloads) {
    const auto written = NextFromDevice();
    ASSERT_TRUE(written);
    EXPECT_EQ(written->source, source);
    EXPECT_EQ(written->destination, destination);
    EXPECT_EQ(Sizes(written->payloads), Sizes(payloads));
    EXPECT_TRUE(written->payloads == payloads);
  }
  void ExpectFromDevice(const Endpoint& source, const Endpoint& destination, Bytes payload) {
    ExpectFromDevice(source, destination,
                     std::vector<Buffer>{Buffer(payload.begin(), payload.end())});
  }

  // --- The slow path ---

  std::optional<UdpSessionId> NextBegun(const EgressAction& action = Group()) {
    std::optional<UdpSessionId> id;
    EXPECT_TRUE(Await([&] {
      const std::lock_guard lock(mutex_);
      if (begun_.size() == begun_seen_) return false;
      EXPECT_EQ(begun_[begun_seen_].second, action);
      id = begun_[begun_seen_++].first;
      return true;
    }));
    EXPECT_EQ(id.value_or(UdpSessionId()).relay, kIndex);
    return id;
  }
  size_t begun() {
    const std::lock_guard lock(mutex_);
    return begun_.size();
  }
  std::vector<UdpSessionId> ended() {
    const std::lock_guard lock(mutex_);
    return ended_;
  }
  bool AwaitEnds(size_t count) {
    return Await([&] { return ended().size() >= count; });
  }
  void RefuseCalls(int begins, int ends) {
    const std::lock_guard lock(mutex_);
    refused_begins_ = begins;
    refused_ends_ = ends;
  }

  static UniqueFd ConnectedTo(const Endpoint& server) {
    UniqueFd fd(socket(server.address.socket_family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    setsockopt(fd.get(), SOL_UDP, UDP_GRO, &on, sizeof(on));
    sockaddr_storage at;
    const socklen_t length = server.To(at);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&at), length), 0);
    return fd;
  }
  // Returns where the session's socket is.
  Endpoint Open(const UdpSessionId& id, const Socket& server,
                std::shared_ptr<void> hold = nullptr) {
    UniqueFd fd = ConnectedTo(server.local());
    const Endpoint local = Socket::LocalOf(fd);
    EXPECT_TRUE(relay_->Open(id, std::move(fd), std::move(hold)));
    return local;
  }
  // The session of a program's first datagram to `destination`, which the server gets.
  std::pair<UdpSessionId, Endpoint> Begin(const Endpoint& source, const Endpoint& destination,
                                          Socket& server, std::shared_ptr<void> hold = nullptr) {
    Push(Group(), source, destination, Text("first"));
    const auto id = NextBegun();
    if (!id) return {};
    const Endpoint local = Open(*id, server, std::move(hold));
    ExpectAt(server, BehindHeader(destination, Text("first")));
    return {*id, local};
  }

  // --- The outside ---

  static Endpoint ExpectAt(Socket& socket, Bytes payload) {
    const auto got = socket.Next();
    EXPECT_TRUE(got) << "nothing has come";
    if (!got) return {};
    EXPECT_EQ(got->payload.size(), payload.size());
    EXPECT_TRUE(
        std::equal(payload.begin(), payload.end(), got->payload.begin(), got->payload.end()));
    return got->from;
  }

  const UdpRelay::Totals& totals() const { return relay_->totals(); }

  static constexpr int kIndex = 3;
  const Endpoint anybody_{Address(GetParam() ? "2001:db8::9" : "192.0.2.9"), 9000, 0};
  UniqueFd near_device_;
  UniqueFd device_;
  std::mutex mutex_;
  std::vector<std::pair<UdpSessionId, EgressAction>> begun_;
  std::vector<UdpSessionId> ended_;
  int refused_begins_ = 0;
  int refused_ends_ = 0;
  size_t begun_seen_ = 0;
  std::unique_ptr<UdpRelay> relay_;
};
INSTANTIATE_TEST_SUITE_P(Families, UdpRelayTest, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "v6" : "v4"; });

// --- Straight out ---

TEST_P(UdpRelayTest, StraightOutAndBackWithTheOriginalAddresses) {
  Start();
  Socket far(Loopback(v6()));
  testing::Random random(1);
  uint64_t bytes = 0;
  for (const size_t size : {0, 1, 2, 333, 1300, 9000, 65'000}) {
    const Buffer payload = testing::RandomBytes(random, size);
    Push(Direct(), Program(v6()), far.local(), payload);
    const Endpoint from = ExpectAt(far, payload);
    const Buffer answer = testing::RandomBytes(random, size);
    far.Send(from, answer);
    ExpectFromDevice(far.local(), Program(v6()), answer);
    bytes += size;
  }
  ASSERT_TRUE(Await([&] { return totals().down_bytes.Get() == bytes; }));
  EXPECT_EQ(totals().down_packets.Get(), 7u);
  EXPECT_EQ(totals().up_packets.Get(), 7u);
  EXPECT_EQ(totals().up_bytes.Get(), bytes);
  EXPECT_EQ(totals().begun.Get(), 1u);
  EXPECT_EQ(totals().sessions.load(), 1u);
  EXPECT_EQ(begun(), 0u) << "the slow path has no part in it";
}

TEST_P(UdpRelayTest, ToEverybodyASourceIsTheSameAndWhoeverAnswersReachesIt) {
  Start({.workers = 3});
  Socket first(Loopback(v6())), second(Loopback(v6())), stranger(Loopback(v6()));
  Push(Direct(), InnerPacketOf(Program(v6()), first.local(), Text("a")), {}, 0);
  const Endpoint seen = ExpectAt(first, Text("a"));
  Push(Direct(), InnerPacketOf(Program(v6()), second.local(), Text("b")), {}, 2);
  EXPECT_EQ(ExpectAt(second, Text("b")), seen);
  stranger.Send(seen, Text("c"));
  ExpectFromDevice(stranger.local(), Program(v6()), Text("c"));
  // Another source is another one to them.
  Push(Direct(), InnerPacketOf(Program(v6(), 40001), first.local(), Text("d")), {}, 1);
  const Endpoint other = ExpectAt(first, Text("d"));
  EXPECT_NE(other, seen);
  first.Send(other, Text("e"));
  ExpectFromDevice(first.local(), Program(v6(), 40001), Text("e"));
  EXPECT_EQ(totals().sessions.load(), 2u);
}

TEST_P(UdpRelayTest, ASourceHasASessionForEachWayOut) {
  Start();
  Socket far(Loopback(v6())), server(Loopback(false));
  Push(Direct(), Program(v6()), far.local(), Text("a"));
  ExpectAt(far, Text("a"));
  Begin(Program(v6()), anybody_, server);
  Push(Group(2), Program(v6()), anybody_, Text("b"));
  EXPECT_TRUE(NextBegun(Group(2)));
  EXPECT_EQ(totals().sessions.load(), 3u);
}

// What the kernel says of its checksum counts, else the checksum itself, where there is one.
TEST_P(UdpRelayTest, WhatIsDamagedIsDroppedAndCounted) {
  Start();
  Socket far(Loopback(v6()));
  const testing::PacketSpec spec = testing::SpecOf(v6(), testing::kUdp);
  const size_t checksum_at = spec.l4_offset() + 6;
  Buffer packet = InnerPacketOf(Program(v6()), far.local(), Text("damaged"));
  packet.back() ^= 1;
  Push(Direct(), packet);
  ASSERT_TRUE(Await([&] { return totals().malformed.Get() == 1; }));
  EXPECT_EQ(totals().begun.Get(), 0u);

  packet = InnerPacketOf(Program(v6()), far.local(), Text("known to be right"));
  StoreBe16(&packet[checksum_at], 0x1234);
  Push(Direct(), packet, {.flags = VnetHeader::kDataValid});
  ExpectAt(far, Text("known to be right"));

  packet = InnerPacketOf(Program(v6()), far.local(), Text("partial"));
  testing::MakePartial(spec, packet);
  Push(Direct(), packet, testing::VnetFor(spec));
  ExpectAt(far, Text("partial"));

  // IPv4 need not have any (RFC 768), IPv6 has to (RFC 8200, section 8.1).
  packet = InnerPacketOf(Program(v6()), far.local(), Text("none"));
  StoreBe16(&packet[checksum_at], 0);
  Push(Direct(), packet);
  if (v6()) {
    EXPECT_TRUE(Await([&] { return totals().malformed.Get() == 2; }));
  } else {
    ExpectAt(far, Text("none"));
  }
}

TEST_P(UdpRelayTest, WhoIsOfTheOtherFamilyIsNotReachedAndDoesNotComeIn) {
  Start();
  Socket far(Loopback(v6())), other(Loopback(!v6()));
  Push(Direct(), Program(v6()), far.local(), Text("a"));
  const Endpoint seen = ExpectAt(far, Text("a"));
  other.Send({Loopback(!v6()), seen.port, 0}, Text("from the other family"));
  far.Send(seen, Text("b"));
  ExpectFromDevice(far.local(), Program(v6()), Text("b"));
  EXPECT_FALSE(NextFromDevice(kShortPatienceMs));
  if (!v6()) return;
  // IPv4 as an IPv6 address, which no rule for IPv4 knows of.
  Push(Direct(), Program(true), {Address("::ffff:127.0.0.1"), other.local().port, 0}, Text("c"));
  EXPECT_TRUE(Await([&] { return totals().unsent.Get() == 1; }));
  EXPECT_FALSE(other.Next(kShortPatienceMs));
}

// --- Many at once ---

class Trains : public UdpRelayTest {
 protected:
  // Datagrams of these sizes behind each other.
  static Buffer Join(const std::vector<Buffer>& payloads) {
    Buffer all;
    for (const Buffer& one : payloads) all.insert(all.end(), one.begin(), one.end());
    return all;
  }
  static std::vector<Buffer> Some(const std::vector<size_t>& sizes) {
    testing::Random random(sizes.size());
    std::vector<Buffer> payloads;
    for (const size_t size : sizes) payloads.push_back(testing::RandomBytes(random, size));
    return payloads;
  }
  static std::vector<size_t> Equal(size_t count, size_t bytes, size_t last_bytes) {
    std::vector<size_t> sizes(count, bytes);
    sizes.push_back(last_bytes);
    return sizes;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, Trains, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "v6" : "v4"; });

TEST_P(Trains, ASuperPacketLeavesAsItsDatagrams) {
  for (const int max_gso_datagrams : {1, 7, 64}) {
    Start({.max_gso_datagrams = max_gso_datagrams});
    Socket far(Loopback(v6())), server(Loopback(false));
    const auto payloads = Some(Equal(40, 1000, 300));
    PushSuper(Direct(), Program(v6()), far.local(), Join(payloads), 1000);
    for (const Buffer& payload : payloads) ExpectAt(far, payload);
    Begin(Program(v6()), anybody_, server);
    PushSuper(Group(), Program(v6()), anybody_, Join(payloads), 1000);
    for (const Buffer& payload : payloads) ExpectAt(server, BehindHeader(anybody_, payload));
    relay_->Stop();
    EXPECT_EQ(totals().up_packets.Get(), 2 * payloads.size() + 1);
    EXPECT_EQ(totals().up_bytes.Get(), 2 * Join(payloads).size() + 5) << "of the programs'";
  }
}

// Whatever their sizes, and those between them to others.
TEST_P(Trains, DatagramsOfOneTurnAllArriveInTheirOrder) {
  Make({.max_gso_datagrams = 64});
  std::vector<std::unique_ptr<Socket>> far;
  for (int i = 0; i < 12; ++i) far.push_back(std::make_unique<Socket>(Loopback(v6())));
  std::vector<std::vector<Buffer>> expected(far.size());
  testing::Random random(7);
  for (const size_t size : {0,   0,      5,      0,      0, 100,    100,    100, 50, 100, 0, 100,
                            101, 30'000, 30'000, 30'000, 5, 65'000, 65'000, 1,   1,  1,   0}) {
    for (size_t i = 0; i < far.size(); ++i) {
      if (testing::Below(random, 3) == 0) continue;
      const Buffer payload = testing::RandomBytes(random, size);
      Push(Direct(), Program(v6()), far[i]->local(), payload);
      expected[i].push_back(payload);
    }
  }
  relay_->Start();
  for (size_t i = 0; i < far.size(); ++i) {
    for (const Buffer& payload : expected[i]) ExpectAt(*far[i], payload);
    EXPECT_FALSE(far[i]->Next(0));
  }
  EXPECT_EQ(totals().unsent.Get(), 0u);
}

TEST_P(Trains, WhatComesAsATrainGoesIntoTheDeviceAsOneWhereThatTakesIt) {
  for (const bool uso : {true, false}) {
    Start({.uso = uso});
    Socket far(Loopback(v6()));
    Push(Direct(), Program(v6()), far.local(), Text("a"));
    const Endpoint seen = ExpectAt(far, Text("a"));
    const auto payloads = Some(Equal(30, 1000, 300));
    far.Send(seen, Join(payloads), 1000);
    if (uso) {
      ExpectFromDevice(far.local(), Program(v6()), payloads);
    } else {
      for (const Buffer& one : payloads) ExpectFromDevice(far.local(), Program(v6()), one);
    }
    ASSERT_TRUE(Await([&] { return totals().down_bytes.Get() == 30'300; }));
    EXPECT_EQ(totals().down_packets.Get(), payloads.size());
  }
}

// With its headers it would be longer than what the device is to get.
TEST_P(Trains, ATrainThatFitsNoSuperPacketGoesIntoTheDeviceAsTwo) {
  Start({.uso = true});
  Socket far(Loopback(v6()));
  Push(Direct(), Program(v6()), far.local(), Text("a"));
  const Endpoint seen = ExpectAt(far, Text("a"));
  auto payloads = Some(Equal(50, 1309, v6() ? 20 : 40));
  far.Send(seen, Join(payloads), 1309);
  const Buffer last = payloads.back();
  payloads.pop_back();
  ExpectFromDevice(far.local(), Program(v6()), payloads);
  ExpectFromDevice(far.local(), Program(v6()), last);
}

// Their headers are taken out between them; who has other addresses has another packet.
TEST_P(Trains, WhatAServerSendsAsATrainIsJoinedByWhomItIsOf) {
  Start({.uso = true});
  Socket server(Loopback(false));
  const auto [id, local] = Begin(Program(v6()), anybody_, server);
  const auto payloads = Some(Equal(20, 500, 100));
  Buffer train;
  for (const Buffer& payload : payloads) {
    const Buffer one = BehindHeader(anybody_, payload);
    train.insert(train.end(), one.begin(), one.end());
  }
  const int each = static_cast<int>(BehindHeader(anybody_, payloads[0]).size());
  server.Send(local, train, each);
  ExpectFromDevice(anybody_, Program(v6()), payloads);

  Endpoint other = anybody_;
  other.port = 9001;
  train.clear();
  for (const Endpoint& of : {anybody_, anybody_, other, anybody_}) {
    const Buffer one = BehindHeader(of, payloads[0]);
    train.insert(train.end(), one.begin(), one.end());
  }
  server.Send(local, train, each);
  ExpectFromDevice(anybody_, Program(v6()), {payloads[0], payloads[0]});
  ExpectFromDevice(other, Program(v6()), payloads[0]);
  ExpectFromDevice(anybody_, Program(v6()), payloads[0]);
}

// A path that is narrower than the datagrams: the kernel does not segment then, but it fragments.
TEST_P(Trains, WhatThePathCannotCarryWholeArrivesNevertheless) {
  testing::InFreshNetwork([this] {
    ASSERT_TRUE(testing::SetMtu("lo", 1500));
    Start({.max_gso_datagrams = 64});
    Socket far(Loopback(v6())), server(Loopback(false));
    const auto payloads = Some(Equal(10, 3000, 700));
    Begin(Program(v6()), anybody_, server);
    for (int i = 0; i < 3; ++i) {
      PushSuper(Direct(), Program(v6()), far.local(), Join(payloads), 3000);
      for (const Buffer& payload : payloads) ExpectAt(far, payload);
      PushSuper(Group(), Program(v6()), anybody_, Join(payloads), 3000);
      for (const Buffer& payload : payloads) ExpectAt(server, BehindHeader(anybody_, payload));
      Push(Direct(), Program(v6()), far.local(), {});
      ExpectAt(far, {});
    }
    relay_->Stop();
    EXPECT_EQ(totals().unsent.Get() + totals().too_big.Get(), 0u);
  });
}

TEST_P(UdpRelayTest, WhatFitsNoDatagramOrNoPacketIsDroppedAndCounted) {
  Start();
  Socket far(Loopback(v6())), server(Loopback(false));
  Begin(Program(v6()), anybody_, server);
  // As long as a packet can be; a server's header does not fit besides.
  const Buffer longest(v6() ? 65'487 : 65'507);
  Push(Direct(), Program(v6()), far.local(), longest);
  const Endpoint seen = ExpectAt(far, longest);
  Push(Group(), Program(v6()), anybody_, longest);
  ASSERT_TRUE(Await([&] { return totals().too_big.Get() == 1; }));
  far.Send(seen, longest);
  ExpectFromDevice(far.local(), Program(v6()), longest);
  if (!v6()) return;
  // A datagram of IPv6 can be longer than a packet may be here.
  far.Send(seen, Buffer(65'488));
  ASSERT_TRUE(Await([&] { return totals().too_big.Get() == 2; }));
  EXPECT_FALSE(NextFromDevice(0));
}

TEST_P(UdpRelayTest, WhatTheDeviceDoesNotTakeIsCountedAsThatAlone) {
  const UniqueFd nobody_reads(open("/dev/null", O_RDONLY | O_CLOEXEC));
  Start({.tun_fd = nobody_reads.get()});
  Socket far(Loopback(v6()));
  Push(Direct(), Program(v6()), far.local(), Text("a"));
  far.Send(ExpectAt(far, Text("a")), Text("b"));
  EXPECT_TRUE(Await([&] { return totals().unsent.Get() == 1; }));
  relay_->Stop();
  EXPECT_EQ(totals().down_packets.Get(), 0u);
}

// --- Through a server ---

TEST_P(UdpRelayTest, WhatComesBeforeTheSessionIsOpenWaitsForIt) {
  Start();
  Socket server(Loopback(false));
  for (const char* text : {"one", "two", "three"}) {
    Push(Group(), Program(v6()), anybody_, Text(text));
  }
  const auto id = NextBegun();
  ASSERT_TRUE(id);
  EXPECT_FALSE(server.Next(0));
  const Endpoint local = Open(*id, server);
  for (const char* text : {"one", "two", "three"}) {
    EXPECT_EQ(ExpectAt(server, BehindHeader(anybody_, Text(text))), local);
  }
  server.Send(local, BehindHeader(anybody_, Text("answer")));
  ExpectFromDevice(anybody_, Program(v6()), Text("answer"));
  // Whoever it is of: a program is spoken to by whom the server lets.
  const Endpoint other{Address(v6() ? "2001:db8::7" : "198.51.100.7"), 7, 0};
  server.Send(local, BehindHeader(other, {}));
  ExpectFromDevice(other, Program(v6()), Bytes{});
  Push(Group(), Program(v6()), other, Text("four"));
  EXPECT_EQ(ExpectAt(server, BehindHeader(other, Text("four"))), local);
  EXPECT_EQ(begun(), 1u);
}

TEST_P(UdpRelayTest, AServerMayBeOfEitherFamily) {
  Start();
  Socket server(Loopback(true));
  const auto [id, local] = Begin(Program(v6()), anybody_, server);
  server.Send(local, BehindHeader(anybody_, Text("answer")));
  ExpectFromDevice(anybody_, Program(v6()), Text("answer"));
}

TEST_P(UdpRelayTest, WhatWaitsIsBounded) {
  Make();
  Socket server(Loopback(false));
  constexpr uint16_t kCount = 100;
  for (uint16_t i = 0; i < kCount; ++i) {
    Buffer payload(1000);
    StoreBe16(payload.data(), i);
    Push(Group(), Program(v6()), anybody_, payload);
  }
  relay_->Start();
  const auto id = NextBegun();
  ASSERT_TRUE(id);
  ASSERT_TRUE(Await([&] { return relay_->datagrams().Empty(); }));
  const uint64_t lost = totals().not_waiting.Get();
  EXPECT_GE(lost, kCount - 65u);
  EXPECT_LT(lost, kCount - 50u);
  Open(*id, server);
  for (uint64_t i = 0; i < kCount - lost; ++i) {
    const auto got = server.Next();
    ASSERT_TRUE(got);
    EXPECT_EQ(LoadBe16(&got->payload[got->payload.size() - 1000]), i) << "the first ones";
  }
  EXPECT_FALSE(server.Next(kShortPatienceMs));
}

TEST_P(UdpRelayTest, WhatWaitsForAllSessionsIsBounded) {
  constexpr uint16_t kSessions = 300;
  constexpr uint64_t kOfEach = 50;
  Start({.max_sessions = kSessions});
  const Buffer payload(1200);
  const auto fill = [&] {
    for (uint16_t session = 0; session < kSessions; ++session) {
      for (uint64_t i = 0; i < kOfEach; ++i) {
        Push(Group(), Program(v6(), static_cast<uint16_t>(20000 + session)), anybody_, payload);
      }
      ASSERT_TRUE(Await([&] { return relay_->datagrams().Empty(); }));
    }
  };
  fill();
  const uint64_t lost = totals().not_waiting.Get();
  EXPECT_GT(lost, (kSessions * kOfEach * payload.size() - (16 << 20)) / payload.size());
  // There is room again once they are not waited for any more.
  for (uint16_t session = 0; session < kSessions; ++session) {
    const auto id = NextBegun();
    ASSERT_TRUE(id);
    EXPECT_TRUE(relay_->Refuse(*id));
  }
  ASSERT_TRUE(Await([&] { return totals().not_waiting.Get() == kSessions * kOfEach; }));
  Push(Group(), Program(v6(), 19999), anybody_, payload);
  const auto next = NextBegun();
  ASSERT_TRUE(next);
  Socket server(Loopback(false));
  Open(*next, server);
  EXPECT_TRUE(server.Next());
}

TEST_P(UdpRelayTest, AFragmentAndWhatIsNoDatagramOfAServerAreDroppedAndCounted) {
  Start();
  Socket server(Loopback(false));
  const auto [id, local] = Begin(Program(v6()), anybody_, server);
  Buffer fragment = BehindHeader(anybody_, Text("a part"));
  fragment[2] = 1;
  server.Send(local, fragment);
  fragment[2] = 0x80;
  server.Send(local, fragment);
  ASSERT_TRUE(Await([&] { return totals().fragments.Get() == 2; }));
  uint64_t malformed = 0;
  const auto is_malformed = [&, to = local](const Buffer& datagram) {
    server.Send(to, datagram);
    ++malformed;
    EXPECT_TRUE(Await([&] { return totals().malformed.Get() == malformed; })) << malformed;
  };
  is_malformed({});
  is_malformed({0, 0, 0, 1});
  is_malformed({0, 0, 0, 9, 1, 2, 3, 4, 0, 80, 'x'});
  Buffer cut = BehindHeader(anybody_, {});
  cut.pop_back();
  is_malformed(cut);
  is_malformed({0, 0, 0, kSocks5AddressDomain, 200, 'x', 0, 80});
  const Endpoint other_family{Address(v6() ? "192.0.2.9" : "2001:db8::9"), 9000, 0};
  is_malformed(BehindHeader(other_family, Text("x")));
  EXPECT_EQ(totals().down_packets.Get(), 0u);
  server.Send(local, BehindHeader(anybody_, Text("good")));
  ExpectFromDevice(anybody_, Program(v6()), Text("good"));
}

TEST_P(UdpRelayTest, WhoIsNamedInAReplyIsWhomThatSourceHasSpokenToLast) {
  Start();
  Socket server(Loopback(false));
  const auto [id, local] = Begin(Program(v6()), anybody_, server);
  Endpoint second{Address(v6() ? "2001:db8::7" : "198.51.100.7"), 53, 0};
  Push(Group(), Program(v6()), second, Text("question"));
  ExpectAt(server, BehindHeader(second, Text("question")));
  Buffer reply = {0, 0, 0, kSocks5AddressDomain, 3, 'f', 'a', 'r', 0, 99};
  reply.push_back('!');
  server.Send(local, reply);
  second.port = 99;
  ExpectFromDevice(second, Program(v6()), Text("!"));
}

TEST_P(UdpRelayTest, AStrangerDoesNotComeInThroughAServersSession) {
  Start();
  Socket server(Loopback(false)), stranger(Loopback(false));
  const auto [id, local] = Begin(Program(v6()), anybody_, server);
  stranger.Send(local, BehindHeader(anybody_, Text("forged")));
  server.Send(local, BehindHeader(anybody_, Text("true")));
  ExpectFromDevice(anybody_, Program(v6()), Text("true"));
  EXPECT_FALSE(NextFromDevice(kShortPatienceMs));
}

// --- Sessions begin and end ---

TEST_P(UdpRelayTest, WhatWaitsForASessionThatIsRefusedIsDroppedAndSoIsWhatComesNext) {
  Start();
  Push(Group(), Program(v6()), anybody_, Text("one"));
  const TimeNs begun_ns = MonotonicNowNs();
  const auto id = NextBegun();
  ASSERT_TRUE(id);
  Push(Group(), Program(v6()), anybody_, Text("two"));
  EXPECT_TRUE(Await([&] { return relay_->datagrams().Empty(); }));
  EXPECT_TRUE(relay_->Refuse(*id));
  EXPECT_TRUE(Await([&] { return totals().not_waiting.Get() == 2; }));
  Push(Group(), Program(v6()), anybody_, Text("three"));
  EXPECT_TRUE(Await([&] { return totals().not_waiting.Get() == 3; }));
  EXPECT_EQ(totals().refused.Get(), 1u);
  EXPECT_EQ(totals().sessions.load(), 1u);
  const bool is_soon = MonotonicNowNs() - begun_ns < kSecondNs;
  EXPECT_TRUE(begun() == 1 || !is_soon) << "it is not asked again";
  // What has been refused cannot be opened, nor refused again.
  Socket server(Loopback(false));
  Open(*id, server);
  EXPECT_TRUE(relay_->Refuse(*id));
  Push(Group(), Program(v6()), anybody_, Text("four"));
  EXPECT_TRUE(Await([&] { return totals().not_waiting.Get() == 4; }));
  EXPECT_EQ(totals().refused.Get(), 1u);
}

TEST_P(UdpRelayTest, AfterARefusedSessionItIsTriedAgain) {
  Start({.idle_ns = kMillisecondNs});
  Push(Group(), Program(v6()), anybody_, Text("one"));
  const auto refused = NextBegun();
  ASSERT_TRUE(refused);
  relay_->Refuse(*refused);
  ASSERT_TRUE(AwaitEnds(1));
  Push(Group(), Program(v6()), anybody_, Text("two"));
  const auto again = NextBegun();
  ASSERT_TRUE(again);
  EXPECT_FALSE(*again == *refused);
}

// It was never told of, and nobody has to know of its end.
TEST_P(UdpRelayTest, WhereNobodyHasRoomForASessionItIsRefused) {
  Start();
  RefuseCalls(1, 0);
  Push(Group(), Program(v6()), anybody_, Text("one"));
  ASSERT_TRUE(Await([&] { return totals().not_waiting.Get() == 1; }));
  EXPECT_EQ(totals().refused.Get(), 1u);
  EXPECT_EQ(begun(), 0u);
  Push(Group(2), Program(v6()), anybody_, Text("two"));
  const auto id = NextBegun(Group(2));
  ASSERT_TRUE(id);
  EXPECT_TRUE(relay_->EndAll());
  ASSERT_TRUE(Await([&] { return totals().sessions.load() == 0; }));
  ASSERT_TRUE(AwaitEnds(1));
  relay_->Stop();
  EXPECT_EQ(ended(), std::vector{*id});
}

TEST_P(UdpRelayTest, WhoeverIsToBeToldOfAnEndIsToldUntilItTakesIt) {
  Start();
  Socket server(Loopback(false));
  RefuseCalls(0, 5);
  std::set<uint32_t> places;
  for (uint16_t port = 1000; port < 1003; ++port) {
    places.insert(Begin(Program(v6(), port), anybody_, server).first.place);
  }
  EXPECT_TRUE(relay_->EndAll());
  ASSERT_TRUE(AwaitEnds(3));
  relay_->Stop();
  ASSERT_EQ(ended().size(), 3u);
  for (const UdpSessionId& id : ended()) EXPECT_EQ(places.erase(id.place), 1u);
}

// Else those who begin would take all the room that there is.
TEST_P(UdpRelayTest, NoneBeginsWhileAnEndCannotBeTold) {
  Start();
  Socket server(Loopback(false));
  Begin(Program(v6()), anybody_, server);
  RefuseCalls(0, 1'000'000);
  EXPECT_TRUE(relay_->EndAll());
  ASSERT_TRUE(Await([&] { return totals().sessions.load() == 0; }));
  Push(Group(), Program(v6(), 2000), anybody_, Text("one"));
  ASSERT_TRUE(Await([&] { return totals().refused.Get() == 1; }));
  EXPECT_EQ(begun(), 1u);
  RefuseCalls(0, 0);
  ASSERT_TRUE(AwaitEnds(1));
  Push(Group(), Program(v6(), 2001), anybody_, Text("two"));
  EXPECT_TRUE(NextBegun());
}

TEST_P(UdpRelayTest, AServerEndsItsSessionAndTheNextDatagramBeginsAnother) {
  Start();
  Socket server(Loopback(false));
  auto hold = std::make_shared<int>();
  const std::weak_ptr<int> held = hold;
  const auto [id, local] = Begin(Program(v6()), anybody_, server, std::move(hold));
  UdpSessionId earlier = id;
  --earlier.generation;
  EXPECT_TRUE(relay_->End(earlier));
  EXPECT_TRUE(relay_->End({kIndex, 1'000'000, 0}));
  EXPECT_FALSE(held.expired());
  EXPECT_TRUE(relay_->End(id));
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(ended(), std::vector{id});
  EXPECT_TRUE(held.expired());
  EXPECT_EQ(totals().sessions.load(), 0u);
  const auto [next, next_local] = Begin(Program(v6()), anybody_, server);
  EXPECT_FALSE(next == id);
  EXPECT_TRUE(relay_->End(id)) << "that has ended already";
  server.Send(next_local, BehindHeader(anybody_, Text("there")));
  ExpectFromDevice(anybody_, Program(v6()), Text("there"));
}

// Its server would keep what was made for it, else.
TEST_P(UdpRelayTest, OneThatIsOpenedTooLateIsToldOfAgain) {
  Start();
  Socket server(Loopback(false));
  Push(Group(), Program(v6()), anybody_, Text("waits"));
  const auto id = NextBegun();
  ASSERT_TRUE(id);
  EXPECT_TRUE(relay_->EndAll());
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(totals().not_waiting.Get(), 1u) << "what has waited is lost";
  auto hold = std::make_shared<int>();
  const std::weak_ptr<int> held = hold;
  Open(*id, server, std::move(hold));
  ASSERT_TRUE(AwaitEnds(2));
  EXPECT_EQ(ended(), (std::vector{*id, *id}));
  EXPECT_TRUE(Await([&] { return held.expired(); }));
  EXPECT_EQ(totals().sessions.load(), 0u);
}

TEST_P(UdpRelayTest, WhenAllPlacesAreTakenTheOneThatWasIdleLongestGoes) {
  Start({.max_sessions = 3});
  Socket far(Loopback(v6())), server(Loopback(false));
  Push(Direct(), Program(v6(), 1000), far.local(), Text("a"));
  const Endpoint first = ExpectAt(far, Text("a"));
  Push(Direct(), Program(v6(), 1001), far.local(), Text("b"));
  const Endpoint second = ExpectAt(far, Text("b"));
  const auto [id, local] = Begin(Program(v6(), 1002), anybody_, server);
  // Both of these are used again: one sends, the other gets.
  Push(Direct(), Program(v6(), 1000), far.local(), Text("c"));
  EXPECT_EQ(ExpectAt(far, Text("c")), first);
  far.Send(second, Text("d"));
  ExpectFromDevice(far.local(), Program(v6(), 1001), Text("d"));
  Push(Direct(), Program(v6(), 1003), far.local(), Text("e"));
  ExpectAt(far, Text("e"));
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(ended(), std::vector{id});
  EXPECT_EQ(totals().evicted.Get(), 1u);
  EXPECT_EQ(totals().sessions.load(), 3u);
  Push(Direct(), Program(v6(), 1000), far.local(), Text("f"));
  EXPECT_EQ(ExpectAt(far, Text("f")), first);
  Push(Direct(), Program(v6(), 1001), far.local(), Text("g"));
  EXPECT_EQ(ExpectAt(far, Text("g")), second);
}

TEST_P(UdpRelayTest, AnIdleSessionEnds) {
  Start({.idle_ns = 20 * kMillisecondNs});
  Socket far(Loopback(v6())), server(Loopback(false));
  auto hold = std::make_shared<int>();
  const std::weak_ptr<int> held = hold;
  Push(Direct(), Program(v6()), far.local(), Text("a"));
  ExpectAt(far, Text("a"));
  Push(Group(), Program(v6()), anybody_, Text("b"));
  const auto id = NextBegun();
  ASSERT_TRUE(id);
  Open(*id, server, std::move(hold));  // perhaps too late
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(ended()[0], *id);
  EXPECT_TRUE(Await([&] { return totals().sessions.load() == 0; }));
  EXPECT_EQ(totals().expired.Get(), 2u);
  EXPECT_TRUE(Await([&] { return held.expired(); }));
}

TEST_P(UdpRelayTest, AllEndAtOnceOrWithTheRelay) {
  Make();
  relay_->Stop();  // it does not run
  relay_->Start();
  Socket far(Loopback(v6())), server(Loopback(false));
  auto hold = std::make_shared<int>();
  const std::weak_ptr<int> held = hold;
  Push(Direct(), Program(v6()), far.local(), Text("a"));
  ExpectAt(far, Text("a"));
  Begin(Program(v6()), anybody_, server);
  EXPECT_TRUE(relay_->EndAll());
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(totals().sessions.load(), 0u);
  Push(Direct(), Program(v6()), far.local(), Text("b"));
  ExpectAt(far, Text("b"));
  Begin(Program(v6()), anybody_, server, std::move(hold));
  relay_->Stop();
  relay_->Stop();
  EXPECT_EQ(ended().size(), 1u) << "who stops it knows";
  relay_.reset();
  EXPECT_TRUE(held.expired());
}

// --- Name servers, and who answers in their place ---

TEST_P(UdpRelayTest, AnAnswerGoesIntoTheDeviceAsIfItHadComeFromThere) {
  Start();
  EXPECT_TRUE(relay_->Answer({anybody_.address, 53, 0}, Program(v6()), Text("answer")));
  ExpectFromDevice({anybody_.address, 53, 0}, Program(v6()), Text("answer"));
  EXPECT_TRUE(relay_->Answer(anybody_, Program(v6()), {}));
  ExpectFromDevice(anybody_, Program(v6()), Bytes{});
  EXPECT_EQ(totals().sessions.load(), 0u);
}

TEST_P(UdpRelayTest, QueriesGoToWhoWantsThem) {
  struct Query {
    FlowKey flow;
    EgressAction action;
    Buffer payload;
  };
  std::mutex mutex;
  std::vector<Query> queries;
  UdpRelay::Options options;
  options.calls.on_query = [&](const FlowKey& flow, const EgressAction& action, Bytes query) {
    const std::lock_guard lock(mutex);
    if (queries.size() == 3) return false;
    queries.push_back({flow, action, {query.begin(), query.end()}});
    return true;
  };
  Start(std::move(options));
  const Endpoint server{anybody_.address, 53, 0};
  // Of one question, by its header.
  const auto asking = [](const char* rest) {
    Buffer message = {0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
    const Buffer text = Text(rest);
    message.insert(message.end(), text.begin(), text.end());
    return message;
  };
  Push(Group(), Program(v6()), server, asking("one"));
  Buffer two = asking("two"), short_one = asking("2");
  two.insert(two.end(), short_one.begin(), short_one.end());
  PushSuper(Direct(), Program(v6()), server, two, asking("two").size());
  Push(Direct(), Program(v6()), server, asking("three"));
  ASSERT_TRUE(Await([&] { return totals().not_waiting.Get() == 1; }));
  const FlowKey flow{Program(v6()).address, server.address, 40000, 53, kProtocolUdp};
  const std::lock_guard lock(mutex);
  ASSERT_EQ(queries.size(), 3u);
  EXPECT_EQ(queries[0].payload, asking("one"));
  EXPECT_EQ(queries[0].action, Group());
  EXPECT_EQ(queries[1].payload, asking("two"));
  EXPECT_EQ(queries[2].payload, asking("2"));
  EXPECT_EQ(queries[2].action, Direct());
  for (const Query& query : queries) EXPECT_EQ(query.flow, flow);
  EXPECT_EQ(totals().begun.Get(), 0u);
  // What is none goes as all else does.
  Push(Direct(), Program(v6()), server, Text("an update"));
  EXPECT_TRUE(Await([&] { return totals().begun.Get() == 1; }));
}

// --- All at once ---

// Workers push, and the slow path opens, refuses and ends what it likes, or comes too late. Each
// session that it was told of is over for it in the end.
TEST_P(UdpRelayTest, WhateverIsDoneAtOnceEachSessionThatHasBegunEnds) {
  constexpr size_t kWorkers = 3;
  constexpr int kEach = 1500;
  Start({.workers = kWorkers, .uso = true, .max_gso_datagrams = 64, .max_sessions = 16});
  Socket far(Loopback(v6())), server(Loopback(false));
  std::atomic<bool> is_done{false};
  std::thread slow_path([&] {
    size_t seen = 0;
    while (!is_done) {
      std::optional<UdpSessionId> id;
      {
        const std::lock_guard lock(mutex_);
        if (seen < begun_.size()) id = begun_[seen++].first;
        if (seen % 7 == 0) refused_begins_ = 1;
        if (seen % 5 == 0) refused_ends_ = 1;
      }
      if (!id) {
        std::this_thread::yield();
        continue;
      }
      if (seen % 4 == 0) {
        relay_->Refuse(*id);
      } else if (seen % 4 != 1) {
        relay_->Open(*id, ConnectedTo(server.local()), std::make_shared<int>());
      }
      if (seen % 3 == 0) relay_->End(*id);
      if (seen % 100 == 0) relay_->EndAll();
    }
  });
  std::vector<std::thread> workers;
  for (size_t worker = 0; worker < kWorkers; ++worker) {
    workers.emplace_back([&, worker] {
      testing::Random random(worker);
      for (int i = 0; i < kEach; ++i) {
        const auto port = static_cast<uint16_t>(1000 + testing::Below(random, 40));
        const EgressAction action = testing::Below(random, 3) == 0 ? Direct() : Group();
        Push(action, InnerPacketOf(Program(v6(), port), far.local(), Buffer(100)), {}, worker);
        if (i % 16 == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_TRUE(Await([&] { return relay_->datagrams().Empty(); }));
  is_done = true;
  slow_path.join();
  RefuseCalls(0, 0);
  EXPECT_TRUE(relay_->EndAll());
  EXPECT_TRUE(Await([&] { return totals().sessions.load() == 0; }));
  const auto ids_of = [this] {
    const std::lock_guard lock(mutex_);
    std::set<std::tuple<uint32_t, uint32_t>> begun, ended;
    for (const auto& [id, action] : begun_) begun.emplace(id.place, id.generation);
    for (const auto& id : ended_) ended.emplace(id.place, id.generation);
    return std::pair(begun, ended);
  };
  EXPECT_TRUE(Await([&] {
    const auto [begun, ended] = ids_of();
    return begun == ended;
  }));
  EXPECT_GT(begun(), 16u);
  EXPECT_EQ(totals().malformed.Get(), 0u);
}

}  // namespace
}  // namespace braid::udp_relay_test
