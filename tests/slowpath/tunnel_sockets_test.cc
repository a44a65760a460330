// The tunnel's sockets: how many, whose, and which of them gets a datagram of which lane.
#include "slowpath/tunnel_sockets.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <map>
#include <set>

#include "support/network.h"

namespace braid::tunnel_sockets_test {
namespace {

using testing::InFreshNetwork;

Endpoint At(const std::string& text) { return Endpoint::Parse(text).value(); }
IpAddress Address(const char* text) { return IpAddress::Parse(text).value(); }

Config Server(std::vector<Endpoint> listen) {
  Config config;
  config.role = Role::kServer;
  config.tunnel.listen = std::move(listen);
  return config;
}

PathBinding From(const char* address) { return {"", 0, Address(address)}; }
PathBinding By(const char* device) { return {device, 0, {}}; }

TunnelSockets Client(int workers, int lanes = 16) {
  Config config;
  config.role = Role::kClient;
  config.tunnel.lanes = lanes;
  return TunnelSockets::Open(config, workers).value();
}

Endpoint BoundTo(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  return Endpoint::From(address);
}

bool Readable(int fd) {
  pollfd wait{fd, POLLIN, 0};
  return poll(&wait, 1, 0) == 1;
}

void Drain(int fd) {
  uint8_t buffer[2048];
  while (recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0) {
  }
}

// From another port each time.
void SendTo(const Endpoint& to, const std::vector<uint8_t>& datagram) {
  const UniqueFd fd(socket(to.address.is_v6() ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage address;
  const socklen_t length = to.To(address);
  ASSERT_EQ(sendto(fd.get(), datagram.data(), datagram.size(), 0,
                   reinterpret_cast<sockaddr*>(&address), length),
            static_cast<ssize_t>(datagram.size()));
}

// Which worker's socket holds something; the number of workers for the slow path's, -1 for none.
int WhoGotIt(const TunnelSockets& sockets, int workers, uint16_t group) {
  int found = -1;
  const auto look = [&](int fd, int who) {
    if (!Readable(fd)) return;
    EXPECT_EQ(found, -1) << "two sockets got it";
    found = who;
    Drain(fd);
  };
  for (int worker = 0; worker < workers; ++worker) {
    for (const WorkerSocket& socket : sockets.OfWorker(worker)) {
      if (socket.group == group) look(socket.fd, worker);
    }
  }
  look(sockets.slow()[group].fd, workers);
  return found;
}

TEST(TunnelSockets, AServersDatagramsGoToTheirLanesWorker) {
  InFreshNetwork([] {
    constexpr int kWorkers = 3;
    const auto sockets = TunnelSockets::Open(Server({At("127.0.0.1:7700")}), kWorkers);
    ASSERT_TRUE(sockets.ok()) << sockets.status();
    EXPECT_TRUE(sockets->steered());
    EXPECT_TRUE(sockets->warnings().empty());
    std::vector<uint8_t> datagram(64);
    for (int lane = 0; lane < 256; ++lane) {
      datagram[8] = static_cast<uint8_t>(lane);
      for (uint32_t session : {3u, 4u, 5u}) {
        StoreBe32(&datagram[4], session);
        const uint32_t owner = lane < kFirstBondLane ? static_cast<uint32_t>(lane) : session;
        SendTo(At("127.0.0.1:7700"), datagram);
        EXPECT_EQ(WhoGotIt(*sockets, kWorkers, 0),
                  lane == 255 ? kWorkers : static_cast<int>(owner % kWorkers));
      }
    }
    SendTo(At("127.0.0.1:7700"), {1, 2, 3});  // too short to have a lane
    EXPECT_NE(WhoGotIt(*sockets, kWorkers, 0), -1);
  });
}

TEST(TunnelSockets, WhatAnyOfThemHadNoRoomForIsCounted) {
  InFreshNetwork([] {
    constexpr int kWorkers = 2;
    const auto sockets = TunnelSockets::Open(Server({At("127.0.0.1:7700")}), kWorkers);
    ASSERT_TRUE(sockets.ok()) << sockets.status();
    const int small_bytes = 1;  // the kernel takes its least instead
    const auto make_small = [&](int fd) {
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small_bytes, sizeof(small_bytes));
    };
    for (int worker = 0; worker < kWorkers; ++worker) {
      for (const WorkerSocket& socket : sockets->OfWorker(worker)) make_small(socket.fd);
    }
    make_small(sockets->slow()[0].fd);
    EXPECT_EQ(sockets->ReceiveQueueDrops(), 0u);
    std::vector<uint8_t> datagram(64);
    for (const uint8_t lane : {0, 1, 255}) {
      const uint64_t before = sockets->ReceiveQueueDrops();
      datagram[8] = lane;
      for (int i = 0; i < 100; ++i) SendTo(At("127.0.0.1:7700"), datagram);
      EXPECT_GT(sockets->ReceiveQueueDrops(), before) << "lane " << int{lane};
      EXPECT_LT(sockets->ReceiveQueueDrops(), before + 100) << "lane " << int{lane};
    }
  });
}

TEST(TunnelSockets, EachListeningAddressIsAGroupOfItsOwn) {
  InFreshNetwork([] {
    const auto sockets =
        TunnelSockets::Open(Server({At("0.0.0.0:7700"), At("[::]:7700"), At("127.0.0.1:7701")}), 2);
    ASSERT_TRUE(sockets.ok()) << sockets.status();
    EXPECT_EQ(sockets->slow()[3].fd, -1);
    EXPECT_TRUE(sockets->slow()[0].answers_from_local);
    EXPECT_TRUE(sockets->slow()[1].answers_from_local);
    EXPECT_FALSE(sockets->slow()[2].answers_from_local);
    for (int worker = 0; worker < 2; ++worker) {
      const auto of_worker = sockets->OfWorker(worker);
      ASSERT_EQ(of_worker.size(), 3u);
      for (size_t group = 0; group < 3; ++group) {
        EXPECT_EQ(of_worker[group].group, group);
        EXPECT_EQ(of_worker[group].lane, Incoming::kAnyLane);
        EXPECT_EQ(of_worker[group].answers_from_local, group != 2);
      }
    }
    std::vector<uint8_t> datagram(64);
    datagram[8] = 5;
    SendTo(At("127.0.0.1:7700"), datagram);
    EXPECT_EQ(WhoGotIt(*sockets, 2, 0), 1);
    SendTo(At("[::1]:7700"), datagram);
    EXPECT_EQ(WhoGotIt(*sockets, 2, 1), 1);
    SendTo(At("127.0.0.1:7701"), datagram);
    EXPECT_EQ(WhoGotIt(*sockets, 2, 2), 1);
    EXPECT_EQ(WhoGotIt(*sockets, 2, 0), -1);
  });
}

TEST(TunnelSockets, APortIsNotSharedWithAnotherProgram) {
  InFreshNetwork([] {
    const auto first = TunnelSockets::Open(Server({At("127.0.0.1:7700")}), 2);
    ASSERT_TRUE(first.ok());
    const auto second =
        TunnelSockets::Open(Server({At("127.0.0.1:7701"), At("127.0.0.1:7700")}), 2);
    EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_NE(second.status().message().find("/tunnel/listen/1"), std::string::npos)
        << second.status();
  });
}

TEST(TunnelSockets, AnAddressThatTheMachineLacksIsNamed) {
  InFreshNetwork([] {
    const auto server = TunnelSockets::Open(Server({At("203.0.113.1:7700")}), 1);
    EXPECT_NE(server.status().message().find("/tunnel/listen/0"), std::string::npos);
    TunnelSockets client = Client(1);
    const auto lacking = client.AddPath(1, From("203.0.113.1"));
    EXPECT_NE(lacking.status().message().find("203.0.113.1"), std::string::npos);
    const auto unknown = client.AddPath(1, By("wwan9"));
    EXPECT_NE(unknown.status().message().find("wwan9"), std::string::npos) << unknown.status();
  });
}

TEST(TunnelSockets, EachLaneOfAClientHasAPortOfItsOwn) {
  InFreshNetwork([] {
    constexpr int kLanes = 7;
    constexpr int kWorkers = 3;
    TunnelSockets sockets = Client(kWorkers, kLanes);
    ASSERT_TRUE(sockets.AddPath(0, From("127.0.0.1")).ok());
    std::set<uint16_t> ports;
    std::set<int> lanes;
    std::set<int> for_bonds;
    for (int worker = 0; worker < kWorkers; ++worker) {
      for (const WorkerSocket& socket : sockets.OfWorker(worker)) {
        if (socket.lane == kFirstBondLane) {
          EXPECT_TRUE(for_bonds.insert(worker).second) << "one for each worker";
        } else {
          EXPECT_EQ(socket.lane % kWorkers, worker);
          EXPECT_TRUE(lanes.insert(socket.lane).second);
        }
        EXPECT_EQ(socket.group, TunnelSockets::ClientGroup(0, Address("127.0.0.1")));
        EXPECT_FALSE(socket.answers_from_local);
        EXPECT_EQ(BoundTo(socket.fd).address, Address("127.0.0.1"));
        EXPECT_TRUE(ports.insert(BoundTo(socket.fd).port).second);
      }
    }
    EXPECT_EQ(for_bonds.size(), static_cast<size_t>(kWorkers));
    EXPECT_EQ(lanes.size(), static_cast<size_t>(kLanes));
    const auto& slow = sockets.slow()[0];
    EXPECT_TRUE(ports.insert(BoundTo(slow.fd).port).second) << "the slow lane has one too";
    EXPECT_EQ(sockets.slow()[1].fd, -1) << "the path has an IPv4 address";
  });
}

TEST(TunnelSockets, APathWithoutAnAddressSpeaksBothFamilies) {
  InFreshNetwork([] {
    TunnelSockets sockets = Client(1, 2);
    ASSERT_TRUE(sockets.AddPath(0, From("127.0.0.1")).ok());
    EXPECT_EQ(sockets.AddPath(1, By("lo")).value(), (std::vector<uint16_t>{2, 3}));
    std::map<uint16_t, int> by_group;
    for (const WorkerSocket& socket : sockets.OfWorker(0)) ++by_group[socket.group];
    const std::map<uint16_t, int> expected = {{0, 3}, {2, 3}, {3, 3}};
    EXPECT_EQ(by_group, expected);
    EXPECT_GE(sockets.slow()[2].fd, 0);
    EXPECT_GE(sockets.slow()[3].fd, 0);
    EXPECT_TRUE(BoundTo(sockets.slow()[2].fd).address.is_v4());
    EXPECT_TRUE(BoundTo(sockets.slow()[3].fd).address.is_v6());
    char interface[32] = {};
    socklen_t length = sizeof(interface);
    ASSERT_EQ(getsockopt(sockets.slow()[2].fd, SOL_SOCKET, SO_BINDTODEVICE, interface, &length), 0);
    EXPECT_STREQ(interface, "lo");
  });
}

TEST(TunnelSockets, APathsSocketsAreClosedWhenTheirLastKeeperGoes) {
  InFreshNetwork([] {
    TunnelSockets sockets = Client(2, 4);
    ASSERT_TRUE(sockets.AddPath(0, From("127.0.0.1")).ok());
    ASSERT_TRUE(sockets.AddPath(1, From("127.0.0.1")).ok());
    const auto of_workers = sockets.OfGroup(2);
    ASSERT_EQ(of_workers->by_worker.size(), 2u);
    EXPECT_EQ(of_workers->group, 2);
    EXPECT_EQ(of_workers->by_worker[0].size(), 3u) << "two lanes, and the bonds";
    EXPECT_EQ(of_workers->by_worker[1].size(), 3u);
    const int fd = of_workers->by_worker[1][0].fd;
    TunnelSockets::Keeper keeper = sockets.Remove(2);
    EXPECT_EQ(sockets.slow()[2].fd, -1);
    EXPECT_EQ(sockets.OfGroup(2), nullptr);
    EXPECT_EQ(sockets.OfWorker(0).size(), 3u) << "the other path's";
    EXPECT_TRUE(BoundTo(fd).address.is_v4()) << "it is still open";
    // The next path of this id gets others, while the old ones are open.
    ASSERT_TRUE(sockets.AddPath(1, From("127.0.0.1")).ok());
    EXPECT_NE(sockets.OfGroup(2)->by_worker[1][0].fd, fd);
    keeper.reset();
    EXPECT_TRUE(BoundTo(fd).address.is_v4()) << "who asked for them holds them, too";
  });
}

TEST(TunnelSockets, WhatClosedSocketsHadDroppedStaysCounted) {
  InFreshNetwork([] {
    TunnelSockets sockets = Client(1, 1);
    ASSERT_TRUE(sockets.AddPath(0, From("127.0.0.1")).ok());
    const int fd = sockets.OfWorker(0)[0].fd;
    const int small_bytes = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small_bytes, sizeof(small_bytes));
    for (int i = 0; i < 100; ++i) SendTo(BoundTo(fd), std::vector<uint8_t>(64));
    const uint64_t drops = sockets.ReceiveQueueDrops();
    EXPECT_GT(drops, 0u);
    sockets.Remove(0);
    EXPECT_EQ(sockets.ReceiveQueueDrops(), drops);
  });
}

TEST(TunnelSockets, GroupsTellPathAndFamilyApart) {
  std::set<uint16_t> groups;
  for (int path = 0; path < kMaxPaths; ++path) {
    for (const char* remote : {"192.0.2.1", "2001:db8::1"}) {
      const uint16_t group = TunnelSockets::ClientGroup(path, Address(remote));
      EXPECT_TRUE(groups.insert(group).second);
      EXPECT_LT(group, kMaxSocketGroups);
      EXPECT_EQ(TunnelSockets::PathOfGroup(group), path);
    }
  }
}

}  // namespace
}  // namespace braid::tunnel_sockets_test
