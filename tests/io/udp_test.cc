// UDP sockets: what opening one grants, what it refuses, and how lanes are steered among sockets
// that share a port.
#include "io/udp.h"

#include <gtest/gtest.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <vector>

#include "base/limits.h"
#include "support/network.h"

namespace braid::udp_test {
namespace {

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

UdpSocket Open(const UdpSocketOptions& options) {
  auto socket = OpenUdp(options);
  EXPECT_TRUE(socket.ok()) << socket.status();
  return socket.ok() ? std::move(*socket) : UdpSocket{};
}

ssize_t SendTo(const UdpSocket& socket, const Endpoint& to, const std::vector<uint8_t>& bytes) {
  sockaddr_storage address;
  const socklen_t length = to.To(address);
  return sendto(socket.fd.get(), bytes.data(), bytes.size(), 0,
                reinterpret_cast<sockaddr*>(&address), length);
}

// Which of `sockets` has something to read, -1 if none; takes it.
int WhoReceived(const std::vector<UdpSocket>& sockets) {
  std::vector<pollfd> waiting;
  for (const UdpSocket& socket : sockets) waiting.push_back({socket.fd.get(), POLLIN, 0});
  if (poll(waiting.data(), waiting.size(), 2000) != 1) return -1;
  for (size_t i = 0; i < waiting.size(); ++i) {
    if (waiting[i].revents == 0) continue;
    uint8_t bytes[64];
    EXPECT_GE(recv(waiting[i].fd, bytes, sizeof(bytes), 0), 0);
    return static_cast<int>(i);
  }
  return -1;
}

TEST(Udp, TellsTheEndpointThatItIsBoundTo) {
  testing::InFreshNetwork([] {
    for (const char* text : {"127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"}) {
      const UdpSocket socket = Open({Address(text)});
      EXPECT_EQ(socket.local.address, Address(text));
      EXPECT_NE(socket.local.port, 0);
    }
    EXPECT_EQ(Open({Address("127.0.0.1"), 7700}).local.port, 7700);
  });
}

TEST(Udp, SegmentsAndCoalescesOnThisKernel) {
  testing::InFreshNetwork([] {
    for (const char* text : {"127.0.0.1", "::1"}) {
      const UdpSocket socket = Open({Address(text)});
      EXPECT_TRUE(socket.gso);
      EXPECT_TRUE(socket.gro);
    }
  });
}

TEST(Udp, LeavesRoomForBothFamiliesOnOnePort) {
  testing::InFreshNetwork([] {
    const UdpSocket v4 = Open({Address("0.0.0.0"), 7700});
    const UdpSocket v6 = Open({Address("::"), 7700});
    EXPECT_TRUE(v4.fd);
    EXPECT_TRUE(v6.fd);
  });
}

TEST(Udp, SaysWhatIsWrong) {
  testing::InFreshNetwork([] {
    const UdpSocket first = Open({Address("127.0.0.1"), 7700});
    EXPECT_TRUE(absl::IsAlreadyExists(OpenUdp({Address("127.0.0.1"), 7700}).status()));
    EXPECT_TRUE(absl::IsNotFound(OpenUdp({Address("10.1.2.3")}).status()));
    EXPECT_TRUE(absl::IsNotFound(OpenUdp({Address("fd00::1")}).status()));
    const auto no_interface = OpenUdp({Address("0.0.0.0"), 0, "nowhere0"});
    EXPECT_TRUE(absl::IsNotFound(no_interface.status()));
    EXPECT_NE(no_interface.status().message().find("nowhere0"), std::string_view::npos);
  });
}

TEST(Udp, MayBeBoundToAnInterface) {
  testing::InFreshNetwork([] {
    const UdpSocket receiver = Open({Address("127.0.0.1")});
    const UdpSocket bound = Open({Address("0.0.0.0"), 0, "lo"});
    EXPECT_EQ(SendTo(bound, receiver.local, {1}), 1);
  });
}

TEST(Udp, SendsNoFragments) {
  testing::InFreshNetwork([] {
    ASSERT_TRUE(testing::SetMtu("lo", 1500));
    for (const char* text : {"127.0.0.1", "::1"}) {
      const UdpSocket socket = Open({Address(text)});
      const size_t largest = 1500 - (socket.local.address.is_v6() ? 48 : 28);
      EXPECT_EQ(SendTo(socket, socket.local, std::vector<uint8_t>(largest)),
                static_cast<ssize_t>(largest));
      EXPECT_EQ(SendTo(socket, socket.local, std::vector<uint8_t>(largest + 1)), -1);
      EXPECT_EQ(errno, EMSGSIZE);
    }
  });
}

TEST(Udp, ProbesHowManyDatagramsOneSendMayHold) {
  testing::InFreshNetwork([] {
    const int most = ProbeMaxGsoDatagrams();
    EXPECT_TRUE(most == 64 || most == 128) << most;
    const UdpSocket socket = Open({Address("127.0.0.1")});
    const int segment_bytes = 1;
    ASSERT_EQ(setsockopt(socket.fd.get(), SOL_UDP, 103, &segment_bytes, sizeof(segment_bytes)), 0);
    EXPECT_EQ(SendTo(socket, socket.local, std::vector<uint8_t>(static_cast<size_t>(most))), most);
    EXPECT_EQ(SendTo(socket, socket.local, std::vector<uint8_t>(static_cast<size_t>(most) + 1)),
              -1);
  });
}

TEST(Udp, CountsWhatTheReceiveQueueHadNoRoomFor) {
  testing::InFreshNetwork([] {
    for (const char* text : {"127.0.0.1", "::1"}) {
      const UdpSocket receiver = Open({Address(text)});
      const UdpSocket sender = Open({Address(text)});
      constexpr uint32_t kSent = 1000;
      const auto received_of = [&](uint32_t sent) {
        for (uint32_t i = 0; i < sent; ++i) EXPECT_EQ(SendTo(sender, receiver.local, {1}), 1);
        uint32_t received = 0;
        uint8_t byte;
        while (recv(receiver.fd.get(), &byte, 1, MSG_DONTWAIT) == 1) ++received;
        return received;
      };
      EXPECT_EQ(received_of(kSent), kSent);
      EXPECT_EQ(ReceiveQueueDrops(receiver.fd.get()), 0u);
      const int small_bytes = 16 << 10;
      ASSERT_EQ(
          setsockopt(receiver.fd.get(), SOL_SOCKET, SO_RCVBUF, &small_bytes, sizeof(small_bytes)),
          0);
      const uint32_t received = received_of(kSent);
      EXPECT_GT(received, 0u);
      EXPECT_LT(received, kSent);
      EXPECT_EQ(ReceiveQueueDrops(receiver.fd.get()), kSent - received);
      EXPECT_EQ(ReceiveQueueDrops(sender.fd.get()), 0u);
    }
    EXPECT_EQ(ReceiveQueueDrops(-1), 0u);
  });
}

TEST(Udp, SteersLanesToTheirWorkersABondToItsOwnAndTheSlowLaneToTheLastSocket) {
  testing::InFreshNetwork([] {
    for (const char* text : {"127.0.0.1", "0.0.0.0", "::1", "::"}) {
      for (const int workers : {1, 2, 3, 7}) {
        std::vector<UdpSocket> sockets;
        uint16_t port = 0;
        for (int i = 0; i <= workers; ++i) {
          sockets.push_back(Open({Address(text), port, "", true}));
          port = sockets.front().local.port;
        }
        const absl::Status attached = AttachLaneSteering(sockets[0], workers);
        ASSERT_TRUE(attached.ok()) << attached;
        Endpoint to = sockets.front().local;
        if (to.address.is_unspecified())
          to.address = Address(to.address.is_v6() ? "::1" : "127.0.0.1");
        for (int lane = 0; lane < 256; ++lane) {
          // Each from a port of its own, so that the kernel's hash of ports would show.
          const UdpSocket client = Open({Address(to.address.is_v6() ? "::1" : "127.0.0.1")});
          std::vector<uint8_t> datagram(kHeaderBytes);
          const uint32_t session = 0x80000001u * static_cast<uint32_t>(lane);
          StoreBe32(&datagram[4], session);
          datagram[8] = static_cast<uint8_t>(lane);
          const int owner = lane >= kFirstBondLane
                                ? static_cast<int>(session % static_cast<uint32_t>(workers))
                                : lane % workers;
          ASSERT_EQ(SendTo(client, to, datagram), static_cast<ssize_t>(datagram.size()));
          ASSERT_EQ(WhoReceived(sockets), lane == kSlowLane ? workers : owner)
              << text << " lane " << lane;
          for (const size_t bytes : {0, 1, 8}) {
            if (lane % 32 != 0) continue;
            datagram.assign(bytes, 0xff);
            ASSERT_EQ(SendTo(client, to, datagram), static_cast<ssize_t>(bytes));
            ASSERT_EQ(WhoReceived(sockets), 0) << "too short to have a lane: " << bytes;
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace braid::udp_test
