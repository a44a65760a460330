// Both backends against real sockets and a real TUN device, in a network of the test's own:
//
//   sender ── UDP over lo (127.0.0.0/8, ::1) ──► backend ──► sink
//   a socket of the kernel's ── tun0 10.77.0.1/24 ──► backend ──► sink
//   backend ──► tun0 ──► a socket of the kernel's
//
// Needs root.
#include "io/backend.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <map>
#include <thread>

#include "base/limits.h"
#include "io/datagram_message.h"
#include "io/tun.h"
#include "io/udp.h"
#include "io/vnet_header.h"
#include "support/network.h"
#include "support/packets.h"

namespace braid::backend_test {
namespace {

using testing::Buffer;
using testing::BuildPacket;
using testing::PacketSpec;
using testing::Random;
using testing::RandomBytes;

constexpr DurationNs kLongNs = 2 * kSecondNs;
constexpr int kPoolBuffers = kReceiveBuffers + kTunReadBatch + 64;

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

UdpSocket OpenSocket(const char* address) {
  auto socket = OpenUdp({Address(address)});
  EXPECT_TRUE(socket.ok()) << socket.status();
  return socket.ok() ? std::move(*socket) : UdpSocket{};
}

// Notes everything that arrives, and lets go of the buffers at once.
class Recorder final : public Backend::Sink {
 public:
  struct Datagrams {
    Arrival arrival;
    Buffer bytes;
  };

  void OnTunPacket(PacketPtr packet) override {
    const MutableBytes bytes = packet->bytes();
    tun_packets.emplace_back(bytes.begin(), bytes.end());
  }
  void OnDatagrams(PacketPtr packet, const Arrival& arrival) override {
    const MutableBytes bytes = packet->bytes();
    datagrams.push_back({arrival, {bytes.begin(), bytes.end()}});
  }

  // Every datagram by itself, in order.
  std::vector<Buffer> Taken() const {
    std::vector<Buffer> taken;
    for (const Datagrams& read : datagrams) {
      const size_t stride = std::max<size_t>(read.arrival.datagram_bytes, 1);
      for (size_t at = 0; at < read.bytes.size(); at += stride) {
        const auto from = read.bytes.begin() + static_cast<ptrdiff_t>(at);
        taken.emplace_back(from,
                           from + static_cast<ptrdiff_t>(std::min(stride, read.bytes.size() - at)));
      }
    }
    return taken;
  }

  std::vector<Buffer> tun_packets;
  std::vector<Datagrams> datagrams;
};

class BackendTest : public ::testing::TestWithParam<BackendChoice> {
 protected:
  // A backend and its pool, on the thread that uses them.
  struct Bench {
    std::unique_ptr<PacketPool> pool;
    std::unique_ptr<Backend> backend;
    Recorder recorder;

    // Polls until `enough` or nothing more comes.
    template <typename Enough>
    void PollUntil(Enough&& enough) {
      const TimeNs end_ns = MonotonicNowNs() + kLongNs;
      while (!enough() && MonotonicNowNs() < end_ns) {
        backend->Poll(20 * kMillisecondNs, recorder);
      }
    }
    void PollForDatagrams(size_t count) {
      PollUntil([&] { return recorder.Taken().size() >= count; });
    }
  };

  static Bench MakeBench(int buffers = kPoolBuffers) {
    Bench bench;
    auto pool = PacketPool::Create(buffers);
    EXPECT_TRUE(pool.ok()) << pool.status();
    bench.pool = std::move(*pool);
    bench.pool->BindToThisThread();
    std::string reason;
    auto backend = MakeBackend(GetParam(), *bench.pool, reason);
    EXPECT_TRUE(backend.ok()) << backend.status();
    if (backend.ok()) bench.backend = std::move(*backend);
    return bench;
  }

  static void InNetwork(const std::function<void()>& body) { testing::InFreshNetwork(body); }

  static TunDevice OpenDevice(bool offloads = true) {
    auto tun = OpenTun("tun0", 1, offloads);
    EXPECT_TRUE(tun.ok()) << tun.status() << " (this test needs root)";
    EXPECT_TRUE(testing::AddIpv4("tun0", *IpPrefix::Parse("10.77.0.1/24"))) << strerror(errno);
    EXPECT_TRUE(testing::BringUp("tun0")) << strerror(errno);
    return tun.ok() ? std::move(*tun) : TunDevice{};
  }
};

SendRequest Request(const UdpSocket& socket, const Endpoint& to, const Buffer& payload,
                    size_t datagram_bytes) {
  SendRequest request;
  request.fd = socket.fd.get();
  request.to = to;
  request.payload = payload;
  request.datagram_bytes = static_cast<uint16_t>(datagram_bytes);
  return request;
}

std::vector<Buffer> Cut(const Buffer& payload, size_t datagram_bytes) {
  std::vector<Buffer> datagrams;
  for (size_t at = 0; at < payload.size(); at += datagram_bytes) {
    const size_t bytes = std::min(datagram_bytes, payload.size() - at);
    datagrams.emplace_back(payload.begin() + static_cast<ptrdiff_t>(at),
                           payload.begin() + static_cast<ptrdiff_t>(at + bytes));
  }
  return datagrams;
}

TEST_P(BackendTest, CarriesSegmentedSendsWhole) {
  InNetwork([] {
    Random random(1);
    for (const char* address : {"127.0.0.1", "::1"}) {
      Bench bench = MakeBench();
      const UdpSocket from = OpenSocket(address);
      const UdpSocket to = OpenSocket(address);
      ASSERT_TRUE(bench.backend->AddSocket(from.fd.get(), 3).ok());
      ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 4).ok());
      for (const auto& [bytes, datagram_bytes] :
           std::vector<std::pair<size_t, size_t>>{{1, 1},
                                                  {1000, 1000},
                                                  {1460 * 44, 1460},
                                                  {1460 * 20 + 1, 1460},
                                                  {100 * 64, 100},
                                                  {65000, 65000},
                                                  {9000, 8999}}) {
        const Buffer payload = RandomBytes(random, bytes);
        SendRequest request = Request(from, to.local, payload, datagram_bytes);
        bench.backend->Send(request);
        bench.backend->Flush();
        ASSERT_EQ(request.error, 0) << strerror(request.error) << " " << bytes;
        const auto expected = Cut(payload, datagram_bytes);
        bench.PollForDatagrams(expected.size());
        ASSERT_EQ(bench.recorder.Taken(), expected) << bytes << " by " << datagram_bytes;
        for (const auto& read : bench.recorder.datagrams) {
          EXPECT_EQ(read.arrival.socket_id, 4);
          EXPECT_EQ(read.arrival.source, from.local);
          EXPECT_EQ(read.arrival.local, to.local.address);
          EXPECT_NE(read.arrival.interface_index, 0u);
        }
        bench.recorder.datagrams.clear();
      }
    }
  });
}

TEST_P(BackendTest, TellsWhereDatagramsCameFromAndToOnAWildcardSocket) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket v4 = OpenSocket("0.0.0.0");
    const UdpSocket v6 = OpenSocket("::");
    ASSERT_TRUE(bench.backend->AddSocket(v4.fd.get(), 0).ok());
    ASSERT_TRUE(bench.backend->AddSocket(v6.fd.get(), 1).ok());
    const Buffer payload = {1, 2, 3};
    std::deque<UdpSocket> clients;
    for (const char* address : {"127.0.0.1", "127.5.6.7", "::1"}) {
      const UdpSocket& from = clients.emplace_back(OpenSocket(address));
      const UdpSocket& to = from.local.address.is_v6() ? v6 : v4;
      SendRequest request =
          Request(from, {from.local.address, to.local.port}, payload, payload.size());
      ASSERT_TRUE(bench.backend->AddSocket(from.fd.get(), 9).ok());
      bench.backend->Send(request);
      bench.backend->Flush();
      ASSERT_EQ(request.error, 0);
      bench.PollForDatagrams(1);
      ASSERT_EQ(bench.recorder.datagrams.size(), 1u) << address;
      const Arrival& arrival = bench.recorder.datagrams[0].arrival;
      EXPECT_EQ(arrival.local.ToString(), address);
      EXPECT_EQ(arrival.source, from.local);
      EXPECT_EQ(arrival.socket_id, from.local.address.is_v6() ? 1 : 0);
      EXPECT_EQ(arrival.datagram_bytes, 3);
      bench.recorder.datagrams.clear();

      // The answer leaves from the address that was spoken to, not the kernel's choice.
      SendRequest answer = Request(to, arrival.source, payload, payload.size());
      answer.from = arrival.local;
      bench.backend->Send(answer);
      bench.backend->Flush();
      ASSERT_EQ(answer.error, 0);
      bench.PollForDatagrams(1);
      ASSERT_EQ(bench.recorder.datagrams.size(), 1u);
      EXPECT_EQ(bench.recorder.datagrams[0].arrival.source.address, arrival.local);
      bench.recorder.datagrams.clear();
    }
  });
}

// What waits for a busy process came when it came.
TEST_P(BackendTest, TellsWhenTheKernelTookADatagramIn) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 0).ok());
    // The kernel begins with it some time after the first socket on the machine asks.
    for (const TimeNs end_ns = MonotonicNowNs() + kLongNs; MonotonicNowNs() < end_ns;) {
      bench.recorder.datagrams.clear();
      const uint64_t before_ns = WallNowNs();
      SendDatagram(from.fd.get(), to.local, {}, Buffer{1, 2, 3});
      const uint64_t after_ns = WallNowNs();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      bench.PollForDatagrams(1);
      ASSERT_EQ(bench.recorder.datagrams.size(), 1u);
      const uint64_t told_ns = bench.recorder.datagrams[0].arrival.wall_ns;
      ASSERT_GE(told_ns, before_ns);
      if (told_ns <= after_ns) return;
    }
    FAIL() << "it tells when it was read";
  });
}

TEST_P(BackendTest, WakesByEventfdAgainAndAgain) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ASSERT_TRUE(bench.backend->AddWake(wake.get()).ok());
    for (int i = 0; i < 5; ++i) {
      std::thread waker([&] {
        const uint64_t one = 1;
        EXPECT_EQ(write(wake.get(), &one, sizeof(one)), 8);
      });
      bench.backend->Poll(600 * kSecondNs, bench.recorder);  // a test that hangs here was not woken
      waker.join();
    }
    // Taken by the backend: nothing is left to read.
    bench.backend->Poll(0, bench.recorder);
    uint64_t count;
    EXPECT_EQ(read(wake.get(), &count, sizeof(count)), -1);
    EXPECT_TRUE(bench.recorder.datagrams.empty());
  });
}

TEST_P(BackendTest, ComesBackWhenTimeIsUp) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket socket = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(socket.fd.get(), 0).ok());
    for (const DurationNs timeout_ns : {DurationNs{0}, kMillisecondNs, 30 * kMillisecondNs}) {
      const TimeNs start_ns = MonotonicNowNs();
      bench.backend->Poll(timeout_ns, bench.recorder);
      EXPECT_GE(MonotonicNowNs() - start_ns, timeout_ns);
    }
    EXPECT_TRUE(bench.recorder.datagrams.empty());
  });
}

TEST_P(BackendTest, TellsWhyASendFailed) {
  InNetwork([] {
    ASSERT_TRUE(testing::SetMtu("lo", 1500));
    Bench bench = MakeBench();
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(from.fd.get(), 0).ok());
    ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 1).ok());
    const Buffer small(100, 1);
    const Buffer large(1473, 2);
    SendRequest requests[] = {Request(from, to.local, small, small.size()),
                              Request(from, to.local, large, large.size()),
                              Request(from, *Endpoint::Parse("10.1.2.3:9"), small, small.size()),
                              Request(from, to.local, small, small.size())};
    for (SendRequest& request : requests) bench.backend->Send(request);
    bench.backend->Flush();
    EXPECT_EQ(requests[0].error, 0);
    EXPECT_EQ(requests[1].error, EMSGSIZE);
    EXPECT_NE(requests[2].error, 0);
    EXPECT_EQ(requests[3].error, 0);
    bench.PollForDatagrams(2);
    EXPECT_EQ(bench.recorder.Taken(), (std::vector<Buffer>{small, small}));
  });
}

TEST_P(BackendTest, SendsOneByOneWhereSegmentationIsRefused) {
  InNetwork([] {
    Random random(2);
    Bench bench = MakeBench();
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(from.fd.get(), 0).ok());
    ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 1).ok());
    const Buffer payload = RandomBytes(random, 1000 * 5 + 1);
    SendRequest request = Request(from, to.local, payload, 1000);
    request.segmentation_refused = true;
    bench.backend->Send(request);
    bench.backend->Flush();
    EXPECT_EQ(request.error, 0);
    bench.PollForDatagrams(6);
    EXPECT_EQ(bench.recorder.Taken(), Cut(payload, 1000));
  });
}

TEST_P(BackendTest, TakesItsLimitOfSendsInOneFlushAndInOrder) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(from.fd.get(), 0).ok());
    ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 1).ok());
    for (int round = 0; round < 3; ++round) {
      std::vector<Buffer> payloads;
      std::deque<SendRequest> requests;
      for (int i = 0; i < Backend::kMaxSends; ++i) {
        payloads.push_back(Buffer(static_cast<size_t>(10 + i), static_cast<uint8_t>(round)));
      }
      for (const Buffer& payload : payloads) {
        bench.backend->Send(
            requests.emplace_back(Request(from, to.local, payload, payload.size())));
      }
      bench.backend->Flush();
      for (const SendRequest& request : requests) EXPECT_EQ(request.error, 0);
      bench.PollForDatagrams(payloads.size());
      EXPECT_EQ(bench.recorder.Taken(), payloads);
      bench.recorder.datagrams.clear();
    }
  });
}

// A client with many lanes and paths: hundreds of reads armed at once.
TEST_P(BackendTest, ServesManySockets) {
  InNetwork([] {
    constexpr size_t kSockets = 400;
    Bench bench = MakeBench();
    std::vector<UdpSocket> sockets;
    for (size_t i = 0; i < kSockets; ++i) {
      sockets.push_back(OpenSocket("127.0.0.1"));
      ASSERT_TRUE(bench.backend->AddSocket(sockets.back().fd.get(), static_cast<uint16_t>(i)).ok());
    }
    const Buffer payload = {1, 2, 3, 4};
    for (size_t first = 0; first < kSockets; first += Backend::kMaxSends) {
      std::deque<SendRequest> requests;
      for (size_t i = first; i < std::min(kSockets, first + Backend::kMaxSends); ++i) {
        bench.backend->Send(requests.emplace_back(
            Request(sockets[i], sockets[(i + 1) % kSockets].local, payload, payload.size())));
      }
      bench.backend->Flush();
      for (const SendRequest& request : requests) EXPECT_EQ(request.error, 0);
    }
    bench.PollForDatagrams(kSockets);
    std::map<int, int> by_socket;
    for (const auto& read : bench.recorder.datagrams) ++by_socket[read.arrival.socket_id];
    EXPECT_EQ(by_socket.size(), kSockets);
  });
}

// Every socket's read ends for want of a buffer, again and again, and goes on when there are some.
TEST_P(BackendTest, WaitsForBuffersAndLosesNothing) {
  InNetwork([] {
    constexpr size_t kSockets = 100;
    constexpr size_t kHeld = 16;
    Bench bench = MakeBench(kHeld);
    struct Hoarder final : Backend::Sink {
      void OnTunPacket(PacketPtr) override {}
      void OnDatagrams(PacketPtr packet, const Arrival&) override {
        held.push_back(std::move(packet));
      }
      std::vector<PacketPtr> held;
    } hoarder;
    std::vector<UdpSocket> sockets;
    const UdpSocket from = OpenSocket("127.0.0.1");
    for (size_t i = 0; i < kSockets; ++i) {
      sockets.push_back(OpenSocket("127.0.0.1"));
      ASSERT_TRUE(bench.backend->AddSocket(sockets.back().fd.get(), 0).ok());
      sockaddr_storage address;
      const socklen_t length = sockets.back().local.To(address);
      for (int n = 0; n < 3; ++n) {
        ASSERT_EQ(sendto(from.fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), length),
                  1);
      }
    }
    size_t received = 0;
    const TimeNs end_ns = MonotonicNowNs() + kLongNs;
    while (received < kSockets * 3 && MonotonicNowNs() < end_ns) {
      for (int i = 0; i < 4; ++i) bench.backend->Poll(kMillisecondNs, hoarder);
      EXPECT_LE(hoarder.held.size(), kHeld);
      received += hoarder.held.size();
      hoarder.held.clear();
    }
    EXPECT_EQ(received, kSockets * 3);
  });
}

// As the worker does: what arrives is answered, with a flush inside of the sink's call.
TEST_P(BackendTest, MayBeFlushedByItsSink) {
  InNetwork([] {
    constexpr size_t kDatagrams = 300;
    Bench bench = MakeBench();
    const UdpSocket echo = OpenSocket("127.0.0.1");
    const UdpSocket client = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(echo.fd.get(), 0).ok());
    ASSERT_TRUE(bench.backend->AddSocket(client.fd.get(), 1).ok());
    struct Echo final : Backend::Sink {
      void OnTunPacket(PacketPtr) override {}
      void OnDatagrams(PacketPtr packet, const Arrival& arrival) override {
        if (arrival.socket_id == 1) {
          answers += packet->length / arrival.datagram_bytes;
          return;
        }
        SendRequest request;
        request.fd = fd;
        request.to = arrival.source;
        request.payload = packet->bytes();
        request.datagram_bytes = arrival.datagram_bytes;
        backend->Send(request);
        backend->Flush();
        EXPECT_EQ(request.error, 0);
      }
      Backend* backend = nullptr;
      int fd = -1;
      size_t answers = 0;
    } sink;
    sink.backend = bench.backend.get();
    sink.fd = echo.fd.get();
    sockaddr_storage address;
    const socklen_t length = echo.local.To(address);
    for (size_t i = 0; i < kDatagrams; ++i) {
      ASSERT_EQ(
          sendto(client.fd.get(), "ping", 4, 0, reinterpret_cast<sockaddr*>(&address), length), 4);
    }
    const TimeNs end_ns = MonotonicNowNs() + kLongNs;
    while (sink.answers < kDatagrams && MonotonicNowNs() < end_ns) {
      bench.backend->Poll(20 * kMillisecondNs, sink);
    }
    EXPECT_EQ(sink.answers, kDatagrams);
  });
}

TEST_P(BackendTest, TakesAnEmptyDatagramForOne) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 0).ok());
    sockaddr_storage address;
    const socklen_t length = to.local.To(address);
    for (const size_t bytes : {0, 1}) {
      ASSERT_EQ(sendto(from.fd.get(), "x", bytes, 0, reinterpret_cast<sockaddr*>(&address), length),
                static_cast<ssize_t>(bytes));
    }
    bench.PollUntil([&] { return bench.recorder.datagrams.size() == 2; });
    ASSERT_EQ(bench.recorder.datagrams.size(), 2u);
    EXPECT_TRUE(bench.recorder.datagrams[0].bytes.empty());
    EXPECT_EQ(bench.recorder.datagrams[1].bytes, Buffer{'x'});
  });
}

// A UDP datagram as the kernel sends it into the device.
Buffer WaitForUdp(const std::vector<Buffer>& tun_packets, uint16_t port) {
  for (const Buffer& packet : tun_packets) {
    const Bytes ip = Bytes(packet).subspan(kVnetHeaderBytes);
    if (ip[0] >> 4 == 4 && ip[9] == 17 && LoadBe16(&ip[22]) == port) return packet;
  }
  return {};
}

TEST_P(BackendTest, ReadsPacketsFromTun) {
  InNetwork([] {
    Bench bench = MakeBench();
    const TunDevice tun = OpenDevice();
    ASSERT_TRUE(bench.backend->AddTun(tun.queues[0].get()).ok());
    const UdpSocket socket = OpenSocket("10.77.0.1");
    for (uint16_t port = 1; port <= 200; ++port) {
      sockaddr_storage address;
      const socklen_t length = Endpoint{Address("10.77.0.2"), port}.To(address);
      const Buffer payload(port, static_cast<uint8_t>(port));
      ASSERT_EQ(sendto(socket.fd.get(), payload.data(), payload.size(), 0,
                       reinterpret_cast<sockaddr*>(&address), length),
                static_cast<ssize_t>(payload.size()));
    }
    bench.PollUntil([&] { return !WaitForUdp(bench.recorder.tun_packets, 200).empty(); });
    for (uint16_t port = 1; port <= 200; ++port) {
      const Buffer packet = WaitForUdp(bench.recorder.tun_packets, port);
      ASSERT_EQ(packet.size(), kVnetHeaderBytes + 28 + port) << port;
      const auto vnet = LoadNative<VnetHeader>(packet.data());
      EXPECT_EQ(vnet.flags, tun.offloads.checksum ? VnetHeader::kNeedsChecksum : 0);
      EXPECT_EQ(vnet.gso_type, VnetHeader::kGsoNone);
      EXPECT_TRUE(std::all_of(packet.begin() + kVnetHeaderBytes + 28, packet.end(),
                              [&](uint8_t byte) { return byte == static_cast<uint8_t>(port); }));
    }
  });
}

// A segmented send into the device comes out as one super-packet, also the largest there is.
TEST_P(BackendTest, ReadsSuperPacketsFromTun) {
  InNetwork([] {
    Bench bench = MakeBench();
    const TunDevice tun = OpenDevice();
    if (!tun.offloads.uso) GTEST_SKIP() << "this kernel hands over no UDP super-packets";
    ASSERT_TRUE(bench.backend->AddTun(tun.queues[0].get()).ok());
    const UdpSocket socket = OpenSocket("10.77.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(socket.fd.get(), 0).ok());
    constexpr uint16_t kSegmentBytes = 1400;
    uint16_t port = 99;
    for (const size_t payload_bytes : {size_t{40} * kSegmentBytes, kMaxUdpPayloadBytes}) {
      ++port;
      const Buffer payload(payload_bytes, 7);
      SendRequest request = Request(socket, {Address("10.77.0.2"), port}, payload, kSegmentBytes);
      bench.backend->Send(request);
      bench.backend->Flush();
      ASSERT_EQ(request.error, 0);
      bench.PollUntil([&] { return !WaitForUdp(bench.recorder.tun_packets, port).empty(); });
      const Buffer packet = WaitForUdp(bench.recorder.tun_packets, port);
      ASSERT_EQ(packet.size(), kVnetHeaderBytes + 28 + payload_bytes);
      const auto vnet = LoadNative<VnetHeader>(packet.data());
      EXPECT_EQ(vnet.gso_type, VnetHeader::kGsoUdpL4);
      EXPECT_EQ(vnet.gso_bytes, kSegmentBytes);
    }
  });
}

PacketSpec ToKernel(uint16_t port, size_t payload_bytes) {
  PacketSpec spec;  // 10.77.0.2 to 10.77.0.1
  spec.protocol = testing::kUdp;
  spec.source_host = 2;
  spec.destination_host = 1;
  spec.destination_port = port;
  spec.payload.resize(payload_bytes, 0x42);
  return spec;
}

TEST_P(BackendTest, WritesGatheredPacketsToTunInOrder) {
  InNetwork([] {
    Bench bench = MakeBench();
    const TunDevice tun = OpenDevice();
    ASSERT_TRUE(bench.backend->AddTun(tun.queues[0].get()).ok());
    const UdpSocket socket = OpenSocket("10.77.0.1");
    for (int round = 0; round < 2; ++round) {
      std::vector<Buffer> writes;
      for (int i = 0; i < Backend::kMaxWrites; ++i) {
        writes.push_back(testing::BehindVnetHeader(
            {}, BuildPacket(ToKernel(socket.local.port, static_cast<size_t>(i + 1)))));
      }
      std::deque<std::array<iovec, 3>> parts;
      std::deque<WriteRequest> requests;
      for (Buffer& write : writes) {
        auto& [head, middle, tail] = parts.emplace_back();
        head = {write.data(), kVnetHeaderBytes + 28};
        middle = {write.data() + head.iov_len, (write.size() - head.iov_len) / 2};
        tail = {write.data() + head.iov_len + middle.iov_len,
                write.size() - head.iov_len - middle.iov_len};
        requests.push_back({tun.queues[0].get(), parts.back(), -1});
        bench.backend->Write(requests.back());
      }
      bench.backend->Flush();
      for (const WriteRequest& request : requests) {
        ASSERT_EQ(request.error, 0) << strerror(request.error);
      }
      for (int i = 0; i < Backend::kMaxWrites; ++i) {
        uint8_t bytes[2048];
        ASSERT_EQ(recv(socket.fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT), i + 1);
      }
    }
  });
}

TEST_P(BackendTest, TellsWhichWriteTheKernelRefused) {
  InNetwork([] {
    Bench bench = MakeBench();
    const TunDevice tun = OpenDevice();
    ASSERT_TRUE(bench.backend->AddTun(tun.queues[0].get()).ok());
    const UdpSocket socket = OpenSocket("10.77.0.1");
    Buffer good = testing::BehindVnetHeader({}, BuildPacket(ToKernel(socket.local.port, 10)));
    VnetHeader senseless{};
    senseless.gso_type = 77;
    Buffer bad = testing::BehindVnetHeader(senseless, BuildPacket(ToKernel(1, 10)));
    iovec good_part{good.data(), good.size()};
    iovec bad_part{bad.data(), bad.size()};
    WriteRequest requests[] = {{tun.queues[0].get(), {&good_part, 1}, -1},
                               {tun.queues[0].get(), {&bad_part, 1}, -1},
                               {tun.queues[0].get(), {&good_part, 1}, -1}};
    for (WriteRequest& request : requests) bench.backend->Write(request);
    bench.backend->Flush();
    EXPECT_EQ(requests[0].error, 0);
    EXPECT_EQ(requests[1].error, EINVAL);
    EXPECT_EQ(requests[2].error, 0);
  });
}

// The kernel answers an echo that was written to it: in and out through one device.
TEST_P(BackendTest, CarriesAPingToTheKernelAndItsAnswerBack) {
  InNetwork([] {
    Bench bench = MakeBench();
    const TunDevice tun = OpenDevice(false);
    ASSERT_TRUE(bench.backend->AddTun(tun.queues[0].get()).ok());
    PacketSpec echo = ToKernel(0, 0);
    echo.protocol = 1;
    echo.payload = {8, 0, 0, 0, 0x12, 0x34, 0, 1, 'p', 'i', 'n', 'g'};
    StoreBe16(&echo.payload[2], static_cast<uint16_t>(~testing::OnesComplementSum(echo.payload)));
    Buffer write = testing::BehindVnetHeader({}, BuildPacket(echo));
    const iovec part{write.data(), write.size()};
    WriteRequest request{tun.queues[0].get(), {&part, 1}, -1};
    bench.backend->Write(request);
    bench.backend->Flush();
    ASSERT_EQ(request.error, 0);
    const auto answered = [&] {
      return std::any_of(bench.recorder.tun_packets.begin(), bench.recorder.tun_packets.end(),
                         [](const Buffer& packet) {
                           const Bytes ip = Bytes(packet).subspan(kVnetHeaderBytes);
                           return ip[0] == 0x45 && ip[9] == 1 && ip[20] == 0 &&
                                  LoadBe16(&ip[24]) == 0x1234;
                         });
    };
    bench.PollUntil(answered);
    EXPECT_TRUE(answered());
  });
}

// Sends without the help of a backend.
void SendPlain(const UdpSocket& from, const Endpoint& to, const Buffer& payload) {
  sockaddr_storage address;
  const socklen_t length = to.To(address);
  EXPECT_EQ(sendto(from.fd.get(), payload.data(), payload.size(), 0,
                   reinterpret_cast<sockaddr*>(&address), length),
            static_cast<ssize_t>(payload.size()));
}

// More often than a backend has places for sockets, and each time the next one gets the number of
// the one before while datagrams of that are still on their way.
TEST_P(BackendTest, ARemovedSocketIsNotTakenForTheNextOfItsNumber) {
  InNetwork([] {
    constexpr int kRounds = 2500;
    Bench bench = MakeBench();
    const UdpSocket from = OpenSocket("127.0.0.1");
    int number = -1;
    for (int round = 0; round < kRounds; ++round) {
      UdpSocket socket = OpenSocket("127.0.0.1");
      if (number < 0) number = socket.fd.get();
      ASSERT_EQ(socket.fd.get(), number);
      const auto id = static_cast<uint16_t>(round % 7);
      ASSERT_TRUE(bench.backend->AddSocket(number, id).ok()) << "round " << round;
      const Buffer payload = {static_cast<uint8_t>(round), static_cast<uint8_t>(round >> 8)};
      SendPlain(from, socket.local, payload);
      bench.PollForDatagrams(1);
      ASSERT_EQ(bench.recorder.datagrams.size(), 1u) << "round " << round;
      EXPECT_EQ(bench.recorder.datagrams[0].bytes, payload);
      EXPECT_EQ(bench.recorder.datagrams[0].arrival.socket_id, id);
      bench.recorder.datagrams.clear();
      // This one arrives, but nobody may see it any more.
      SendPlain(from, socket.local, {0xde, 0xad});
      bench.backend->RemoveSocket(number);
    }
    bench.backend->Poll(kMillisecondNs, bench.recorder);
    EXPECT_TRUE(bench.recorder.datagrams.empty());
    EXPECT_EQ(
        bench.pool->available(),
        kPoolBuffers - (GetParam() == BackendChoice::kUring ? kReceiveBuffers + kTunReadBatch : 0))
        << "a buffer was lost";
  });
}

// By the sink, in the middle of what one Poll brought of it and of another.
TEST_P(BackendTest, ASocketMayBeRemovedByTheSink) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket one = OpenSocket("127.0.0.1");
    const UdpSocket other = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(one.fd.get(), 1).ok());
    ASSERT_TRUE(bench.backend->AddSocket(other.fd.get(), 2).ok());
    struct Remover final : Backend::Sink {
      void OnTunPacket(PacketPtr) override {}
      void OnDatagrams(PacketPtr, const Arrival& arrival) override {
        ++arrived[arrival.socket_id];
        // The first to come ends the other one, and itself.
        if (arrived.size() > 1 || arrived.begin()->second > 1) return;
        for (const int fd : fds) backend->RemoveSocket(fd);
      }
      std::map<int, int> arrived;
      std::vector<int> fds;
      Backend* backend = nullptr;
    } remover;
    remover.backend = bench.backend.get();
    remover.fds = {one.fd.get(), other.fd.get()};
    bench.backend->Poll(0, remover);  // arms the reads
    for (int i = 0; i < 10; ++i) {
      const UdpSocket from = OpenSocket("127.0.0.1");  // each another, so that none are joined
      SendPlain(from, one.local, {1});
      SendPlain(from, other.local, {2});
    }
    for (int i = 0; i < 10; ++i) bench.backend->Poll(kMillisecondNs, remover);
    EXPECT_EQ(remover.arrived.size(), 1u);
    EXPECT_EQ(remover.arrived.begin()->second, 1);
  });
}

TEST_P(BackendTest, ARemovedSocketsPortIsFreeOnceItIsClosed) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket other = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(other.fd.get(), 1).ok());
    UdpSocket socket = OpenSocket("127.0.0.1");
    const Endpoint at = socket.local;
    ASSERT_TRUE(bench.backend->AddSocket(socket.fd.get(), 0).ok());
    bench.backend->Poll(0, bench.recorder);
    bench.backend->RemoveSocket(socket.fd.get());
    bench.backend->RemoveSocket(socket.fd.get());  // nothing more to do
    socket = {};
    bool is_free = false;
    bench.PollUntil([&] { return is_free = is_free || OpenUdp({at.address, at.port}).ok(); });
    EXPECT_TRUE(is_free);
    // The one that stayed is still served.
    SendPlain(OpenSocket("127.0.0.1"), other.local, {7});
    bench.PollForDatagrams(1);
    EXPECT_EQ(bench.recorder.Taken(), std::vector<Buffer>{{7}});
  });
}

TEST_P(BackendTest, ARequestThroughADescriptorThatIsNotThereFails) {
  InNetwork([] {
    Bench bench = MakeBench();
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 0).ok());
    ASSERT_TRUE(bench.backend->AddSocket(from.fd.get(), 0).ok());
    bench.backend->RemoveSocket(from.fd.get());
    const Buffer payload(10, 1);
    SendRequest removed = Request(from, to.local, payload, payload.size());
    SendRequest never = Request(from, to.local, payload, payload.size());
    never.fd = -1;
    iovec part{};
    WriteRequest write{from.fd.get(), {&part, 1}, 0};
    bench.backend->Send(removed);
    bench.backend->Send(never);
    bench.backend->Write(write);
    bench.backend->Flush();
    EXPECT_EQ(removed.error, EBADF);
    EXPECT_EQ(never.error, EBADF);
    EXPECT_EQ(write.error, EBADF);
    bench.backend->Poll(kMillisecondNs, bench.recorder);
    EXPECT_TRUE(bench.recorder.datagrams.empty());
  });
}

TEST_P(BackendTest, LetsGoOfItsBuffersWhenItGoes) {
  InNetwork([] {
    Bench bench = MakeBench();
    const TunDevice tun = OpenDevice();
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    for (int round = 0; round < 5; ++round) {
      std::string reason;
      if (round != 0) bench.backend = std::move(*MakeBackend(GetParam(), *bench.pool, reason));
      ASSERT_TRUE(bench.backend->AddTun(tun.queues[0].get()).ok());
      ASSERT_TRUE(bench.backend->AddSocket(to.fd.get(), 0).ok());
      bench.backend->Poll(0, bench.recorder);  // arms the reads
      bench.backend.reset();
      EXPECT_EQ(bench.pool->available(), kPoolBuffers);

      // What arrives now must reach none of the buffers that were lent.
      std::vector<PacketPtr> all;
      while (PacketPtr packet = bench.pool->Take()) {
        std::memset(packet->buffer, 0xa5, kPacketBufferBytes);
        all.push_back(std::move(packet));
      }
      const Buffer payload(1000, 0x42);
      sockaddr_storage address;
      const socklen_t length = to.local.To(address);
      for (int i = 0; i < 50; ++i) {
        ASSERT_EQ(sendto(from.fd.get(), payload.data(), payload.size(), 0,
                         reinterpret_cast<sockaddr*>(&address), length),
                  1000);
      }
      for (const PacketPtr& packet : all) {
        ASSERT_TRUE(std::all_of(packet->buffer, packet->buffer + kPacketBufferBytes,
                                [](uint8_t byte) { return byte == 0xa5; }));
      }
      // And it is all still there for whoever reads next.
      uint8_t bytes[2048];
      int left = 0;
      while (recv(to.fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT) > 0) ++left;
      EXPECT_EQ(left, 50);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(, BackendTest,
                         ::testing::Values(BackendChoice::kUring, BackendChoice::kEpoll),
                         [](const auto& choice) {
                           return choice.param == BackendChoice::kUring ? "Uring" : "Epoll";
                         });

// Which refusals mean that a device can't segment, and that every datagram is sent nevertheless.
TEST(FinishSend, SendsOneByOneWhatTheKernelRefusedToSegment) {
  testing::InFreshNetwork([] {
    Random random(3);
    const UdpSocket from = OpenSocket("127.0.0.1");
    const UdpSocket to = OpenSocket("127.0.0.1");
    const Buffer payload = RandomBytes(random, 1000 * 4 + 1);
    for (const int error : {0, EIO, EOPNOTSUPP, EMSGSIZE, EAGAIN, EINVAL}) {
      const bool refused = error == EIO || error == EOPNOTSUPP;
      SendRequest request = Request(from, to.local, payload, 1000);
      FinishSend(request, error);
      EXPECT_EQ(request.segmentation_refused, refused) << error;
      EXPECT_EQ(request.error, refused ? 0 : error);
      SendRequest single = Request(from, to.local, payload, payload.size());
      FinishSend(single, error);
      EXPECT_FALSE(single.segmentation_refused);
      EXPECT_EQ(single.error, error);
      for (const Buffer& datagram : refused ? Cut(payload, 1000) : std::vector<Buffer>{}) {
        Buffer received(2000);
        const ssize_t bytes = recv(to.fd.get(), received.data(), received.size(), MSG_DONTWAIT);
        ASSERT_GE(bytes, 0);
        received.resize(static_cast<size_t>(bytes));
        EXPECT_EQ(received, datagram);
      }
      uint8_t byte;
      EXPECT_EQ(recv(to.fd.get(), &byte, 1, MSG_DONTWAIT), -1);
    }
  });
}

TEST(MakeBackend, TakesTheOneThatWasAskedForAndSaysWhyItFellBack) {
  auto pool = PacketPool::Create(kPoolBuffers);
  ASSERT_TRUE(pool.ok());
  (*pool)->BindToThisThread();
  std::string reason;
  EXPECT_EQ((*MakeBackend(BackendChoice::kEpoll, **pool, reason))->name(), "epoll");
  EXPECT_EQ(reason, "");
  const auto chosen = MakeBackend(BackendChoice::kAuto, **pool, reason);
  ASSERT_TRUE(chosen.ok());
  EXPECT_EQ((*chosen)->name() == "epoll", !reason.empty());
}

}  // namespace
}  // namespace braid::backend_test
