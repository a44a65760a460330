// Workers with real threads, sockets and rings: what goes in at one side comes out at the other,
// what may not is counted, and commands take effect while traffic flows.
#include "fastpath/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <atomic>
#include <set>

#include "support/network.h"
#include "support/worker_rig.h"

namespace braid::worker_test {
namespace {

using testing::Buffer;
using testing::BuildPacket;
using testing::KeypairOfBothEnds;
using testing::kRigLanes;
using testing::PacketSpec;
using testing::WorkerRig;

// From the machine's 10.77.0.1 to the peer's 10.77.0.2, by UDP.
PacketSpec ToPeer(uint16_t port, size_t payload_bytes = 100) {
  PacketSpec spec;
  spec.protocol = testing::kUdp;
  spec.source_port = port;
  spec.payload.assign(payload_bytes, static_cast<uint8_t>(port));
  return spec;
}

PacketSpec OfPeer(uint16_t port, size_t payload_bytes = 100) {
  PacketSpec spec = ToPeer(port, payload_bytes);
  std::swap(spec.source_host, spec.destination_host);
  return spec;
}

std::string Name(const ::testing::TestParamInfo<std::tuple<BackendChoice, int>>& info) {
  return std::string(std::get<0>(info.param) == BackendChoice::kEpoll ? "epoll" : "io_uring") +
         std::to_string(std::get<1>(info.param));
}

class WorkerTest : public ::testing::TestWithParam<std::tuple<BackendChoice, int>> {
 protected:
  WorkerTest() : rig_({.io = std::get<0>(GetParam()), .workers = std::get<1>(GetParam())}) {
    rig_.SetUpPeer();
  }

  size_t workers() const { return rig_.workers.size(); }
  size_t OwnerOf(uint8_t lane) const { return lane % workers(); }

  // A flow whose packets belong to this lane.
  uint16_t PortOf(uint8_t lane) const {
    uint16_t port = 20'000;
    while (WorkerRig::LaneOf(BuildPacket(ToPeer(port))) != lane) ++port;
    return port;
  }

  bool Counted(Drop reason, uint64_t times = 1) {
    const bool counted = WorkerRig::Await([&] { return rig_.Drops(reason) >= times; });
    return counted && rig_.Drops(reason) == times && rig_.AllDrops() == times;
  }

  void FromPeer(uint8_t lane, const Buffer& inner, uint8_t flags = 0) {
    rig_.ToSocket(OwnerOf(lane), rig_.Seal(rig_.first_keys(), lane, inner, Kind::kData, flags));
  }

  WorkerRig rig_;
};
INSTANTIATE_TEST_SUITE_P(Backends, WorkerTest,
                         ::testing::Combine(::testing::Values(BackendChoice::kEpoll,
                                                              BackendChoice::kUring),
                                            ::testing::Values(1, 2, 3)),
                         Name);

// --- From TUN to the network ---

TEST_P(WorkerTest, PacketsFromTunReachThePeerSealedInTheirLane) {
  std::set<uint8_t> lanes;
  for (uint16_t port = 1000; port < 1100; ++port) {
    const Buffer packet = BuildPacket(ToPeer(port));
    // Any queue may have it: the owner of its lane sends it.
    rig_.IntoTun(port % workers(), packet);
    const auto out = rig_.NextAtPeer();
    ASSERT_TRUE(out);
    EXPECT_EQ(out->header.kind, Kind::kData);
    EXPECT_EQ(out->header.lane, WorkerRig::LaneOf(packet));
    EXPECT_EQ(out->plain, packet);
    EXPECT_EQ(out->from, rig_.sockets[OwnerOf(out->header.lane)].local);
    lanes.insert(out->header.lane);
  }
  EXPECT_EQ(lanes.size(), static_cast<size_t>(kRigLanes));
  EXPECT_EQ(rig_.AllDrops(), 0u);
  EXPECT_EQ(rig_.HandedOver() > 0, workers() > 1);
  // What was sent is counted once the kernel has taken it.
  EXPECT_TRUE(WorkerRig::Await([&] {
    uint64_t packets = 0;
    uint64_t datagrams = 0;
    for (const auto& worker : rig_.workers) {
      packets += worker->state().sessions[0]->tx_packets.Get();
      datagrams += worker->state().sessions[0]->traffic[0].tx_datagrams.Get();
    }
    return packets == 100 && datagrams == 100;
  }));
}

TEST_P(WorkerTest, ASuperPacketLeavesAsItsSegments) {
  PacketSpec spec;
  spec.payload.resize(20 * 1000 + 77);
  for (size_t i = 0; i < spec.payload.size(); ++i) spec.payload[i] = static_cast<uint8_t>(i * 7);
  Buffer packet = BuildPacket(spec);
  testing::MakePartial(spec, packet);
  rig_.IntoTun(0, packet, testing::VnetFor(spec, 1000));
  Buffer payload;
  for (int i = 0; i < 21; ++i) {
    const auto out = rig_.NextAtPeer();
    ASSERT_TRUE(out) << i;
    EXPECT_EQ(out->header.flags, kFlagPartialChecksum);
    ASSERT_EQ(out->plain.size(), spec.headers_bytes() + (i < 20 ? 1000 : 77));
    payload.insert(payload.end(), out->plain.begin() + static_cast<ptrdiff_t>(spec.headers_bytes()),
                   out->plain.end());
  }
  EXPECT_EQ(payload, spec.payload);
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(WorkerTest, EveryLaneHasOneWorkerAndWhatIsHandedOverIsCountedBySegment) {
  PacketSpec spec;
  spec.payload.resize(2500);
  uint64_t handed_over = 0;
  for (uint8_t lane = 0; lane < kRigLanes; lane += 3) {
    while (WorkerRig::LaneOf(BuildPacket(spec)) != lane) ++spec.source_port;
    Buffer packet = BuildPacket(spec);
    testing::MakePartial(spec, packet);
    // Into the queue of its owner, then into another's.
    for (const size_t worker : {OwnerOf(lane), (OwnerOf(lane) + 1) % workers()}) {
      rig_.IntoTun(worker, packet, testing::VnetFor(spec, 1000));
      for (int i = 0; i < 3; ++i) ASSERT_TRUE(rig_.NextAtPeer());
      if (worker != OwnerOf(lane)) handed_over += 3;
    }
  }
  FromPeer(1, BuildPacket(OfPeer(1000)));
  ASSERT_TRUE(rig_.NextFromTun());
  EXPECT_EQ(rig_.HandedOver(), handed_over);
  for (size_t worker = 0; worker < workers(); ++worker) {
    for (uint8_t lane = 0; lane < kRigLanes; ++lane) {
      const bool carried = lane % 3 == 0 || lane == 1;
      EXPECT_EQ(rig_.workers[worker]->state().lanes.Contains(lane),
                carried && worker == OwnerOf(lane))
          << "lane " << int{lane} << " of worker " << worker;
    }
  }
}

TEST_P(WorkerTest, WhatIsTooBigIsAnswered) {
  PacketSpec spec = ToPeer(PortOf(3), 1500);
  rig_.IntoTun(OwnerOf(3), BuildPacket(spec));
  const auto answer = rig_.NextFromTun();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->packet[9], 1) << "no ICMP";
  EXPECT_EQ(answer->packet[20], 3);
  EXPECT_EQ(answer->packet[21], 4);
  EXPECT_EQ(LoadBe16(&answer->packet[26]), 1420);
  EXPECT_TRUE(Counted(Drop::too_big));
}

TEST_P(WorkerTest, WhatCannotBeSentIsCounted) {
  rig_.IntoTun(0, {0x12, 0x34});
  EXPECT_TRUE(Counted(Drop::bad_tun_packet));
  PacketSpec spec = ToPeer(1000);
  spec.destination_host = 99;
  rig_.IntoTun(0, BuildPacket(spec));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::no_route) == 1; }));
  spec.destination_host = 3;
  rig_.IntoTun(0, BuildPacket(spec));
  const auto event = rig_.NextEvent(Event::Type::kNeedHandshake);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->peer, 1u);
  EXPECT_EQ(rig_.Drops(Drop::no_session), 1u);
  // Keys, but no path to send over.
  const KeypairOfBothEnds& keys = rig_.AddKeypair();
  rig_.Tell({.type = Command::Type::kSendUnder, .peer = 1, .keypair = &keys.server, .mtu = 1420});
  ASSERT_TRUE(rig_.AwaitCommands());
  rig_.IntoTun(0, BuildPacket(spec));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::no_path) == 1; }));
  rig_.Tell({.type = Command::Type::kUsePath, .peer = 1, .path = 2});
  ASSERT_TRUE(rig_.AwaitCommands());
  rig_.IntoTun(0, BuildPacket(spec));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::no_path) == 2; }));
  EXPECT_EQ(rig_.AllDrops(), 5u);
}

TEST_P(WorkerTest, AHandshakeIsAskedForOnceASecondOnly) {
  PacketSpec spec = ToPeer(1000);
  spec.destination_host = 3;
  for (int i = 0; i < 50; ++i) rig_.IntoTun(0, BuildPacket(spec));
  ASSERT_TRUE(Counted(Drop::no_session, 50));
  int asked = 0;
  Event event;
  while (rig_.events.events.TryPop(event)) asked += event.type == Event::Type::kNeedHandshake;
  EXPECT_EQ(asked, 1);
}

// --- From the network to TUN ---

TEST_P(WorkerTest, DatagramsOfThePeerReachTun) {
  for (uint8_t lane = 0; lane < kRigLanes; ++lane) {
    const Buffer packet = BuildPacket(OfPeer(static_cast<uint16_t>(2000 + lane)));
    FromPeer(lane, packet);
    const auto out = rig_.NextFromTun();
    ASSERT_TRUE(out);
    EXPECT_EQ(out->worker, OwnerOf(lane));
    EXPECT_EQ(out->packet, packet);
    EXPECT_EQ(out->vnet.gso_type, VnetHeader::kGsoNone);
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
  EXPECT_EQ(rig_.HandedOver(), 0u);
  const auto opened = rig_.NextEvent(Event::Type::kOpened);
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->keypair_id, rig_.first_keys().server.id);
}

TEST_P(WorkerTest, AStrayIsHandedToItsOwner) {
  for (uint8_t lane = 0; lane < kRigLanes; ++lane) {
    const Buffer packet = BuildPacket(OfPeer(static_cast<uint16_t>(2000 + lane)));
    rig_.ToSocket((lane + 1u) % workers(), rig_.Seal(rig_.first_keys(), lane, packet));
    const auto out = rig_.NextFromTun();
    ASSERT_TRUE(out);
    EXPECT_EQ(out->worker, OwnerOf(lane));
    EXPECT_EQ(out->packet, packet);
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
  EXPECT_EQ(rig_.HandedOver(), workers() == 1 ? 0u : kRigLanes);
}

TEST_P(WorkerTest, APacketOfEveryLaneInOneReadIsSorted) {
  std::vector<Buffer> sent;
  for (uint8_t lane = 0; lane < kRigLanes; ++lane) {
    const Buffer packet = BuildPacket(OfPeer(static_cast<uint16_t>(3000 + lane)));
    sent.push_back(packet);
    rig_.ToSocket(0, rig_.Seal(rig_.first_keys(), lane, packet));
  }
  std::vector<Buffer> came;
  for (int i = 0; i < kRigLanes; ++i) {
    const auto out = rig_.NextFromTun();
    ASSERT_TRUE(out);
    came.push_back(out->packet);
  }
  EXPECT_THAT(came, ::testing::UnorderedElementsAreArray(sent));
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(WorkerTest, AReplayIsRefused) {
  const Buffer datagram = rig_.Seal(rig_.first_keys(), 5, BuildPacket(OfPeer(2000)));
  rig_.ToSocket(OwnerOf(5), datagram);
  ASSERT_TRUE(rig_.NextFromTun());
  for (size_t socket = 0; socket < workers(); ++socket) rig_.ToSocket(socket, datagram);
  EXPECT_TRUE(Counted(Drop::replayed, workers()));
  EXPECT_FALSE(rig_.NextFromTun(50));
}

TEST_P(WorkerTest, WhatIsNotThePeersIsCountedAndGoesNoFurther) {
  struct Case {
    Drop reason;
    Buffer datagram;
  };
  const KeypairOfBothEnds& keys = rig_.first_keys();
  const Buffer inner = BuildPacket(OfPeer(2000));
  std::vector<Case> cases;
  const auto add = [&](Drop reason, Buffer datagram) {
    cases.push_back({reason, std::move(datagram)});
  };
  const auto changed = [&](size_t at, uint8_t by) {
    Buffer datagram = rig_.Seal(keys, 5, inner);
    datagram[at] ^= by;
    return datagram;
  };
  add(Drop::short_datagram, {1, 2, 3});
  add(Drop::bad_magic, changed(0, 1));
  add(Drop::bad_version, changed(2, 2));
  add(Drop::bad_kind, changed(3, 0x80));
  add(Drop::bad_flags, changed(11, 0x80));
  add(Drop::unknown_session, changed(4, 1));
  add(Drop::bad_lane, changed(8, 0x40));
  add(Drop::bad_path, changed(9, 0x20));
  add(Drop::bad_epoch, changed(10, 0x10));
  add(Drop::unauthentic, changed(20, 1));
  add(Drop::unauthentic, changed(40, 1));
  add(Drop::malformed_inner, rig_.Seal(keys, 5, Buffer(60, 0x45)));
  add(Drop::spoofed_source, rig_.Seal(keys, 5, BuildPacket(ToPeer(2000))));
  PacketSpec other = OfPeer(2000);
  other.source_host = 3;  // another peer's
  add(Drop::spoofed_source, rig_.Seal(keys, 5, BuildPacket(other)));
  PacketSpec no_transport = OfPeer(2000);
  no_transport.protocol = 47;
  add(Drop::bad_flags,
      rig_.Seal(keys, 5, BuildPacket(no_transport), Kind::kData, kFlagPartialChecksum));
  add(Drop::bad_flags, rig_.Seal(keys, 5, inner, Kind::kData, kFlagCompressed));
  add(Drop::bad_control, rig_.Seal(keys, 5, Buffer{1, 2, 3}, Kind::kControl));
  Buffer handshake(kHeaderBytes);
  WriteHeader(handshake.data(), {Kind::kInitiation, 0, 5, 0, 0, 0, 0, 0});
  add(Drop::handshake_malformed, handshake);

  std::map<Drop, uint64_t> expected;
  uint64_t all = 0;
  for (const Case& one : cases) {
    rig_.ToSocket(OwnerOf(5), one.datagram);
    ++expected[one.reason];
    ++all;
    EXPECT_TRUE(WorkerRig::Await([&] { return rig_.AllDrops() >= all; }));
    EXPECT_EQ(rig_.Drops(one.reason), expected[one.reason])
        << kDropNames[static_cast<size_t>(one.reason)];
    EXPECT_EQ(rig_.AllDrops(), all) << kDropNames[static_cast<size_t>(one.reason)];
  }
  EXPECT_FALSE(rig_.NextFromTun(50));
  // After all that the lane is as good as ever.
  FromPeer(5, inner);
  const auto out = rig_.NextFromTun();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->packet, inner);
}

TEST_P(WorkerTest, HandshakesAndTheSlowLaneGoToTheSlowPath) {
  Buffer datagram(172, 7);
  WriteHeader(datagram.data(), {Kind::kInitiation, 0, kSlowLane, 0, 0, 0, 0, 0});
  rig_.ToSocket(0, datagram);
  const auto event = rig_.NextEvent(Event::Type::kDatagram);
  ASSERT_TRUE(event);
  EXPECT_EQ(Buffer(event->bytes.begin(), event->bytes.begin() + event->length), datagram);
  EXPECT_EQ(event->back.remote, rig_.peer_socket.local);
  datagram.resize(600);
  rig_.ToSocket(0, datagram);
  EXPECT_TRUE(Counted(Drop::handshake_malformed));
}

TEST_P(WorkerTest, AFullEventRingDropsAndCounts) {
  Buffer datagram(172, 7);
  WriteHeader(datagram.data(), {Kind::kInitiation, 0, kSlowLane, 0, 0, 0, 0, 0});
  for (int i = 0; i < kEventSlots + 100; ++i) {
    rig_.ToSocket(0, datagram);
    if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(Counted(Drop::inbox_full, 100));
}

// --- Addresses of lanes ---

TEST_P(WorkerTest, APingIsAnsweredInItsLane) {
  rig_.ToSocket(OwnerOf(7), rig_.SealControl(rig_.first_keys(), 7,
                                             {ControlMessage::Type::kPing, 0x1122334455667788}));
  const auto out = rig_.NextAtPeer();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->header.kind, Kind::kControl);
  EXPECT_EQ(out->header.lane, 7);
  ControlMessage message{};
  ASSERT_EQ(ReadControlMessage(out->plain, message), ControlVerdict::kOk);
  EXPECT_EQ(message.type, ControlMessage::Type::kPong);
  EXPECT_EQ(message.token, 0x1122334455667788u);
}

TEST_P(WorkerTest, ALaneIsAnsweredWhereItProvedToReceive) {
  const uint8_t lane = 6;
  const Buffer to_peer = BuildPacket(ToPeer(PortOf(lane)));
  // The same machine, another port: the path's address was proven already.
  const UdpSocket lane_socket =
      OpenUdp({rig_.peer_socket.local.address, 0, "", false, false}).value();
  const auto from = [&](const UdpSocket& socket, const Buffer& datagram) {
    SendDatagram(socket.fd.get(), rig_.sockets[OwnerOf(lane)].local, {}, datagram);
  };
  from(lane_socket, rig_.Seal(rig_.first_keys(), lane, BuildPacket(OfPeer(2000))));
  ASSERT_TRUE(rig_.NextFromTun());
  rig_.IntoTun(0, to_peer);
  auto out = rig_.NextAt(lane_socket.fd.get());
  ASSERT_TRUE(out);
  EXPECT_EQ(out->plain, to_peer);

  // Another machine has to answer a ping before anything goes there.
  const UdpSocket elsewhere =
      OpenUdp({IpAddress::Parse("127.0.0.9").value(), 0, "", false, false}).value();
  from(elsewhere, rig_.Seal(rig_.first_keys(), lane, BuildPacket(OfPeer(2000))));
  ASSERT_TRUE(rig_.NextFromTun());
  out = rig_.NextAt(elsewhere.fd.get());
  ASSERT_TRUE(out);
  ControlMessage ping{};
  ASSERT_EQ(ReadControlMessage(out->plain, ping), ControlVerdict::kOk);
  EXPECT_EQ(ping.type, ControlMessage::Type::kPing);
  rig_.IntoTun(0, to_peer);
  ASSERT_TRUE(rig_.NextAt(lane_socket.fd.get()));
  from(elsewhere,
       rig_.SealControl(rig_.first_keys(), lane, {ControlMessage::Type::kPong, ping.token ^ 1}));
  rig_.IntoTun(0, to_peer);
  ASSERT_TRUE(rig_.NextAt(lane_socket.fd.get()));
  from(elsewhere,
       rig_.SealControl(rig_.first_keys(), lane, {ControlMessage::Type::kPong, ping.token}));
  // Control and TUN are not ordered among each other.
  ASSERT_TRUE(WorkerRig::Await([&] {
    rig_.IntoTun(0, to_peer);
    while (rig_.NextAt(lane_socket.fd.get(), 2)) {
    }
    const auto moved = rig_.NextAt(elsewhere.fd.get(), 2);
    return moved && moved->plain == to_peer;
  }));

  // The slow path names another address: what the lane learned before is void.
  rig_.Tell(
      {.type = Command::Type::kSetPath, .peer = 0, .path = 0, .route = {lane_socket.local, {}, 0}});
  ASSERT_TRUE(rig_.AwaitCommands());
  while (rig_.NextAt(elsewhere.fd.get(), 10)) {
  }
  rig_.IntoTun(0, to_peer);
  EXPECT_TRUE(rig_.NextAt(lane_socket.fd.get()));
}

// --- Commands ---

TEST_P(WorkerTest, KeysAreSwappedUnderTrafficWithoutLoss) {
  constexpr int kBurst = 24;
  const KeypairOfBothEnds* current = &rig_.first_keys();
  const KeypairOfBothEnds* previous = nullptr;
  for (int round = 0; round < 60; ++round) {
    const KeypairOfBothEnds* before = current;
    for (int i = 0; i < kBurst; ++i) {
      if (i == kBurst / 2) {
        current = &rig_.AddKeypair();
        rig_.Tell({.type = Command::Type::kSendUnder,
                   .peer = 0,
                   .keypair = &current->server,
                   .mtu = 1420});
      }
      const auto port = static_cast<uint16_t>(4000 + i);
      rig_.IntoTun(static_cast<size_t>(i) % workers(), BuildPacket(ToPeer(port)));
      const auto lane = static_cast<uint8_t>(i % kRigLanes);
      // Every second one is still under the keys before.
      rig_.ToSocket(OwnerOf(lane),
                    rig_.Seal(i % 2 == 0 ? *current : *before, lane, BuildPacket(OfPeer(port))));
    }
    for (int i = 0; i < kBurst; ++i) {
      ASSERT_TRUE(rig_.NextAtPeer()) << "round " << round;
      ASSERT_TRUE(rig_.NextFromTun()) << "round " << round;
    }
    if (previous != nullptr) {
      rig_.Tell({.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = &previous->server});
      ASSERT_TRUE(rig_.AwaitCommands());
      rig_.keypairs.erase(previous->client.local_index);  // no worker may look at it from now on
    }
    previous = before;
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(WorkerTest, ADatagramMayBeFasterThanTheCommandThatAnnouncesItsKeys) {
  for (int i = 0; i < 200; ++i) {
    const KeypairOfBothEnds& keys = rig_.AddKeypair();
    rig_.ToSocket(OwnerOf(1), rig_.Seal(keys, 1, BuildPacket(OfPeer(2000))));
    ASSERT_TRUE(rig_.NextFromTun());
    rig_.Tell({.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = &keys.server});
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(WorkerTest, WithoutItsKeysASessionIsDeaf) {
  const KeypairOfBothEnds keys = rig_.first_keys();
  rig_.Tell(
      {.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = &rig_.first_keys().server});
  ASSERT_TRUE(rig_.AwaitCommands());
  rig_.keypairs.clear();
  rig_.IntoTun(0, BuildPacket(ToPeer(1000)));
  EXPECT_TRUE(Counted(Drop::no_session));
  rig_.ToSocket(OwnerOf(5), rig_.Seal(keys, 5, BuildPacket(OfPeer(2000))));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::unknown_session) == 1; }));
  EXPECT_FALSE(testing::WaitReadable(rig_.peer_socket.fd.get(), 50));
  EXPECT_FALSE(rig_.NextFromTun(50));
}

TEST_P(WorkerTest, AnotherPeerOfTheSameSlotBeginsWithNothingOfTheLast) {
  FromPeer(5, BuildPacket(OfPeer(2000)));
  ASSERT_TRUE(rig_.NextFromTun());
  rig_.IntoTun(0, BuildPacket(ToPeer(1000)));
  ASSERT_TRUE(rig_.NextAtPeer());
  rig_.Tell(
      {.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = &rig_.first_keys().server});
  rig_.Tell({.type = Command::Type::kEndPeer, .peer = 0});
  ASSERT_TRUE(rig_.AwaitCommands());
  uint64_t ended = 0;
  for (const auto& worker : rig_.workers) {
    const Session& session = *worker->state().sessions[0];
    EXPECT_EQ(session.rx_packets.Get() + session.tx_packets.Get(), 0u);
    EXPECT_EQ(session.traffic[0].rx_bytes.Get() + session.traffic[0].tx_bytes.Get(), 0u);
    EXPECT_EQ(session.last_rx_ns.load(), 0u);
    ended += worker->state().ended_rx_packets.Get() + worker->state().ended_tx_packets.Get();
  }
  EXPECT_EQ(ended, 2u);
  rig_.keypairs.clear();
  rig_.IntoTun(0, BuildPacket(ToPeer(1000)));
  EXPECT_TRUE(Counted(Drop::no_session));
  // The next one's sequences begin at nothing, too: the window of a lane would refuse them.
  const KeypairOfBothEnds& next = rig_.AddKeypair();
  rig_.Tell({.type = Command::Type::kSetPath,
             .peer = 0,
             .path = 0,
             .route = {rig_.peer_socket.local, {}, 0}});
  rig_.Tell({.type = Command::Type::kUsePath, .peer = 0, .path = 0});
  rig_.Tell({.type = Command::Type::kSendUnder, .peer = 0, .keypair = &next.server, .mtu = 1420});
  ASSERT_TRUE(rig_.AwaitCommands());
  rig_.ToSocket(OwnerOf(5), rig_.Seal(next, 5, BuildPacket(OfPeer(2001))));
  EXPECT_TRUE(rig_.NextFromTun());
  rig_.IntoTun(0, BuildPacket(ToPeer(1001)));
  EXPECT_TRUE(rig_.NextAtPeer());
}

TEST_P(WorkerTest, KeysThatAreTooOldSealAndOpenNothing) {
  const KeypairOfBothEnds& keys = rig_.AddKeypair();
  auto& mine = *rig_.keypairs[keys.client.local_index];
  KeypairOfBothEnds old = keys;
  old.server.local_index ^= 0x40000;
  old.client.remote_index ^= 0x40000;
  old.server.id = old.client.id = keys.server.id + 100;
  old.server.open_until_ns = old.server.seal_until_ns = MonotonicNowNs() - 1;
  rig_.Tell({.type = Command::Type::kAddKeypair, .peer = 0, .keypair = &old.server});
  rig_.Tell({.type = Command::Type::kSendUnder, .peer = 0, .keypair = &old.server, .mtu = 1420});
  ASSERT_TRUE(rig_.AwaitCommands());
  rig_.IntoTun(0, BuildPacket(ToPeer(1000)));
  EXPECT_TRUE(Counted(Drop::no_session));
  rig_.ToSocket(OwnerOf(5), rig_.Seal(old, 5, BuildPacket(OfPeer(2000))));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::expired_key) == 1; }));
  EXPECT_FALSE(testing::WaitReadable(rig_.peer_socket.fd.get(), 50));
  rig_.Tell({.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = &old.server});
  rig_.Tell({.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = &mine.server});
  EXPECT_TRUE(rig_.AwaitCommands());
}

TEST_P(WorkerTest, EveryCommandIsCountedOnce) {
  constexpr uint64_t kCommands = 5 * kInboxSlots;
  for (uint64_t i = 0; i < kCommands; ++i) {
    rig_.Tell({.type = Command::Type::kUsePath, .peer = 0, .path = 0});
  }
  ASSERT_TRUE(rig_.AwaitCommands());
  for (const auto& mailbox : rig_.mailboxes) {
    EXPECT_EQ(mailbox->commands_done.load(), rig_.commands_given);
  }
}

TEST_P(WorkerTest, AnIdleWorkerStopsAtOnce) {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const TimeNs begin_ns = MonotonicNowNs();
  rig_.Stop();
  EXPECT_LT(MonotonicNowNs() - begin_ns, kSecondNs);
  rig_.Stop();  // again does nothing
}

// A packet for a worker that has stopped waits in its mailbox, and belongs to another's pool.
TEST_P(WorkerTest, WorkersStopOneAfterTheOtherUnderTraffic) {
  std::atomic<bool> done = false;
  std::thread traffic([&] {
    PrepareAeadThread();
    Buffer message = testing::BehindVnetHeader({}, BuildPacket(ToPeer(1000)));
    for (uint16_t port = 1000; !done;
         port = static_cast<uint16_t>(port == 1100 ? 1000 : port + 1)) {
      StoreBe16(&message[kVnetHeaderBytes + 20], port);
      for (const UniqueFd& tun : rig_.tun) (void)!write(tun.get(), message.data(), message.size());
      SendDatagram(rig_.peer_socket.fd.get(), rig_.sockets[port % workers()].local, {},
                   rig_.Seal(rig_.first_keys(), static_cast<uint8_t>(port % kRigLanes),
                             BuildPacket(OfPeer(port))));
    }
  });
  std::thread kernel([&] {  // a queue of TUN is always taken from
    while (!done) rig_.NextFromTun(10);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const TimeNs begin_ns = MonotonicNowNs();
  for (auto& worker : rig_.workers) {
    EXPECT_TRUE(worker->Stop());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_LT(MonotonicNowNs() - begin_ns, 3 * kSecondNs);
  done = true;
  traffic.join();
  kernel.join();
}

// Everything at once, for as long as it takes a race detector to see: traffic in both directions,
// and commands that change keys, paths and routes below it.
TEST_P(WorkerTest, CommandsAndTrafficInBothDirections) {
  const TimeNs end_ns = MonotonicNowNs() + 1500 * kMillisecondNs;
  const auto running = [end_ns] { return MonotonicNowNs() < end_ns; };
  std::atomic<const KeypairOfBothEnds*> sealing = &rig_.first_keys();
  std::atomic<uint64_t> rounds = 0;
  std::atomic<uint64_t> to_tun = 0;
  std::atomic<uint64_t> to_peer = 0;
  std::atomic<bool> stopped = false;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {  // the kernel's packets for the tunnel
    Buffer message = testing::BehindVnetHeader({}, BuildPacket(ToPeer(1000)));
    for (uint16_t port = 1000; running();
         port = static_cast<uint16_t>(port == 1200 ? 1000 : port + 1)) {
      StoreBe16(&message[kVnetHeaderBytes + 20], port);
      (void)!write(rig_.tun[port % workers()].get(), message.data(), message.size());
    }
  });
  threads.emplace_back([&] {  // the peer's
    PrepareAeadThread();
    for (uint16_t port = 1000; running();
         port = static_cast<uint16_t>(port == 1200 ? 1000 : port + 1)) {
      // A set of keys stays for two rounds of commands, so this is not freed while it is used.
      rounds.fetch_add(1);
      const auto lane = static_cast<uint8_t>(port % kRigLanes);
      rig_.ToSocket(port % 7 == 0 ? 0 : OwnerOf(lane),
                    rig_.Seal(*sealing.load(), lane, BuildPacket(OfPeer(port))));
    }
    rounds = UINT64_MAX / 2;
  });
  threads.emplace_back([&] {
    while (!stopped) to_tun += rig_.NextFromTun(10).has_value();
  });
  threads.emplace_back([&] {
    uint8_t datagram[2048];
    while (running()) {
      if (!testing::WaitReadable(rig_.peer_socket.fd.get(), 10)) continue;
      to_peer += recv(rig_.peer_socket.fd.get(), datagram, sizeof(datagram), MSG_DONTWAIT) > 0;
    }
  });
  std::vector<std::unique_ptr<RouteTable>> tables;
  const RouteTable::Route prefix{IpPrefix::Parse("10.77.0.0/24").value(), 0};
  const KeypairOfBothEnds* current = sealing;
  while (running()) {
    const KeypairOfBothEnds& next = rig_.AddKeypair();
    rig_.Tell({.type = Command::Type::kSendUnder, .peer = 0, .keypair = &next.server, .mtu = 1420});
    tables.push_back(std::make_unique<RouteTable>(std::span(&prefix, 1)));
    rig_.Tell({.type = Command::Type::kSetRoutes, .routes = tables.back().get()});
    const auto path = static_cast<uint8_t>(tables.size() % 3);
    rig_.Tell({.type = Command::Type::kSetPath,
               .peer = 0,
               .path = path,
               .route = {rig_.peer_socket.local, {}, 0}});
    rig_.Tell({.type = Command::Type::kUsePath, .peer = 0, .path = path});
    sealing = &next;
    const uint64_t round = rounds;
    while (rounds < round + 2 && running()) std::this_thread::yield();
    rig_.Tell({.type = Command::Type::kRemoveKeypair, .peer = 0, .keypair = &current->server});
    const bool carried_out = rig_.AwaitCommands();
    EXPECT_TRUE(carried_out);
    if (!carried_out || !running()) break;
    rig_.keypairs.erase(current->client.local_index);
    if (tables.size() > 1) tables.erase(tables.begin());
    current = &next;
    Event event;
    while (rig_.events.events.TryPop(event)) {
    }
  }
  rig_.Stop();
  stopped = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(to_tun, 0u);  // how many depends on the machine
  EXPECT_GT(to_peer, 0u);
  EXPECT_EQ(rig_.Drops(Drop::unauthentic), 0u);
  EXPECT_EQ(rig_.Drops(Drop::replayed), 0u);
  EXPECT_EQ(rig_.Drops(Drop::bad_lane), 0u);
  EXPECT_EQ(rig_.Drops(Drop::spoofed_source), 0u);
}

// --- A client's sockets ---

class ClientSockets : public ::testing::TestWithParam<std::tuple<BackendChoice, int>> {
 protected:
  ClientSockets()
      : rig_({.io = std::get<0>(GetParam()),
              .workers = std::get<1>(GetParam()),
              .socket_for_each_lane = true}) {
    rig_.SetUpPeer();
  }

  WorkerRig rig_;
};
INSTANTIATE_TEST_SUITE_P(Backends, ClientSockets,
                         ::testing::Combine(::testing::Values(BackendChoice::kEpoll,
                                                              BackendChoice::kUring),
                                            ::testing::Values(2, 3)),
                         Name);

TEST_P(ClientSockets, EachLaneSpeaksThroughItsOwn) {
  for (uint16_t port = 1000; port < 1050; ++port) {
    rig_.IntoTun(0, BuildPacket(ToPeer(port)));
    const auto out = rig_.NextAtPeer();
    ASSERT_TRUE(out);
    EXPECT_EQ(out->from, rig_.sockets[out->header.lane].local);
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

// Another path, of sockets that come and go while packets go out.
TEST_P(ClientSockets, ComeAndGoByCommandUnderTraffic) {
  constexpr uint16_t kGroup = 3;
  constexpr uint8_t kPath = 1;
  const IpAddress loopback = IpAddress::Parse("127.0.0.1").value();
  uint16_t port = 1;
  const auto send_and_take = [&](size_t packets) {
    std::set<Endpoint> from;
    for (size_t i = 0; i < packets; ++i) {
      rig_.IntoTun(i % rig_.workers.size(), BuildPacket(ToPeer(++port)));
      const auto out = rig_.NextAtPeer();
      EXPECT_TRUE(out);
      if (!out) break;
      from.insert(out->from);
    }
    return from;
  };
  std::set<Endpoint> fixed;
  for (const UdpSocket& socket : rig_.sockets) fixed.insert(socket.local);
  for (int round = 0; round < 30; ++round) {
    std::vector<UdpSocket> sockets;
    std::set<Endpoint> own;
    SocketGroup group{kGroup, 3, std::vector<std::vector<WorkerSocket>>(rig_.workers.size())};
    for (int lane = 0; lane < kRigLanes; ++lane) {
      sockets.push_back(OpenUdp({loopback, 0, "", false, true}).value());
      own.insert(sockets.back().local);
      group.by_worker[static_cast<size_t>(lane) % rig_.workers.size()].push_back(
          {sockets.back().fd.get(), kGroup, static_cast<int16_t>(lane), false});
    }
    rig_.Tell({.type = Command::Type::kAddSockets, .sockets = &group});
    rig_.Tell({.type = Command::Type::kSetPath,
               .peer = 0,
               .path = kPath,
               .route = {rig_.peer_socket.local, {}, kGroup}});
    rig_.Tell({.type = Command::Type::kUsePath, .peer = 0, .path = kPath});
    ASSERT_TRUE(rig_.AwaitCommands());
    for (const Endpoint& from : send_and_take(40)) ASSERT_TRUE(own.contains(from));
    // What comes in by one of them is its lane's.
    const uint8_t lane = static_cast<uint8_t>(round % kRigLanes);
    const Buffer inner = BuildPacket(OfPeer(static_cast<uint16_t>(round + 1)));
    SendDatagram(rig_.peer_socket.fd.get(), sockets[lane].local, {},
                 rig_.Seal(rig_.first_keys(), lane, inner, Kind::kData, 0, kPath));
    const auto out = rig_.NextFromTun();
    ASSERT_TRUE(out);
    EXPECT_EQ(out->packet, inner);

    rig_.Tell({.type = Command::Type::kUsePath, .peer = 0, .path = 0});
    rig_.Tell({.type = Command::Type::kEndPath, .peer = 0, .path = kPath});
    rig_.Tell({.type = Command::Type::kRemoveSockets, .group = kGroup});
    ASSERT_TRUE(rig_.AwaitCommands());
    sockets.clear();  // nobody uses them now
    for (const Endpoint& from : send_and_take(10)) ASSERT_TRUE(fixed.contains(from));
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(ClientSockets, WithoutSocketsAPathSendsNothingAndCounts) {
  rig_.Tell({.type = Command::Type::kRemoveSockets, .group = 0});
  ASSERT_TRUE(rig_.AwaitCommands());
  rig_.IntoTun(0, BuildPacket(ToPeer(1)));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::no_path) == 1; }));
  EXPECT_EQ(rig_.AllDrops(), 1u);
}

TEST_P(ClientSockets, ThatSocketsCouldNotBeAddedIsTold) {
  constexpr uint16_t kGroup = 7;
  SocketGroup group{kGroup, 3, std::vector<std::vector<WorkerSocket>>(rig_.workers.size())};
  group.by_worker[0].push_back({1'000'000, kGroup, 0, false});  // no descriptor has this number
  rig_.Tell({.type = Command::Type::kAddSockets, .sockets = &group});
  const auto event = rig_.NextEvent(Event::Type::kNoSockets);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->group, kGroup);
  EXPECT_EQ(event->generation, 3u);
  EXPECT_GT(event->length, 10);
  ASSERT_TRUE(rig_.AwaitCommands());  // the others have looked at the group, too
  rig_.IntoTun(0, BuildPacket(ToPeer(1)));
  EXPECT_TRUE(rig_.NextAtPeer()) << "the others go on";
}

// A path that ends, and the next one of its id: neither its bytes nor its losses are the next
// one's.
TEST_P(ClientSockets, APathThatBeginsCountsAnew) {
  const auto route = Route{rig_.peer_socket.local, {}, 0};
  const auto of_path = [&](Counter PathTraffic::*counter) {
    uint64_t sum = 0;
    for (const auto& worker : rig_.workers) {
      sum += (worker->state().sessions[0]->traffic[0].*counter).Get();
    }
    return sum;
  };
  const auto arrive = [&](uint16_t port) {
    rig_.ToSocket(3, rig_.Seal(rig_.first_keys(), 3, BuildPacket(OfPeer(port))));
    ASSERT_TRUE(rig_.NextFromTun());
  };
  arrive(1);
  for (int lost = 0; lost < 50; ++lost) rig_.Seal(rig_.first_keys(), 3, BuildPacket(OfPeer(2)));
  rig_.Tell({.type = Command::Type::kEndPath, .peer = 0, .path = 0});
  rig_.Tell({.type = Command::Type::kSetPath, .peer = 0, .path = 0, .route = route});
  ASSERT_TRUE(rig_.AwaitCommands());
  EXPECT_EQ(of_path(&PathTraffic::rx_bytes), 0u);
  arrive(3);
  EXPECT_EQ(of_path(&PathTraffic::rx_datagrams), 1u);
  EXPECT_EQ(of_path(&PathTraffic::rx_expected), 1u);
  // A change of its route is not another path.
  rig_.Tell({.type = Command::Type::kSetPath, .peer = 0, .path = 0, .route = route});
  ASSERT_TRUE(rig_.AwaitCommands());
  rig_.Seal(rig_.first_keys(), 3, BuildPacket(OfPeer(4)));
  arrive(5);
  EXPECT_EQ(of_path(&PathTraffic::rx_datagrams), 2u);
  EXPECT_EQ(of_path(&PathTraffic::rx_expected), 3u);
}

TEST_P(ClientSockets, AServerThatAnswersALaneAtAnothersPortIsToldTheRightOne) {
  rig_.ToSocket(9, rig_.Seal(rig_.first_keys(), 4, BuildPacket(OfPeer(2000))));
  const auto out = rig_.NextFromTun();
  ASSERT_TRUE(out) << "it is no less authentic";
  EXPECT_EQ(out->worker, 4u % rig_.workers.size());
  const auto hello = rig_.NextAtPeer();
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->header.lane, 4);
  EXPECT_EQ(hello->from, rig_.sockets[4].local);
  ControlMessage message{};
  ASSERT_EQ(ReadControlMessage(hello->plain, message), ControlVerdict::kOk);
  EXPECT_EQ(message.type, ControlMessage::Type::kHello);
}

// --- A real device ---

class RealTun : public ::testing::TestWithParam<std::tuple<BackendChoice, int>> {};
INSTANTIATE_TEST_SUITE_P(Backends, RealTun,
                         ::testing::Combine(::testing::Values(BackendChoice::kEpoll,
                                                              BackendChoice::kUring),
                                            ::testing::Values(2)),
                         Name);

TEST_P(RealTun, CarriesAProgramsDatagramsInBothDirections) {
  testing::InFreshNetwork([] {
    auto device = OpenTun("braid9", std::get<1>(GetParam()), true);
    ASSERT_TRUE(device.ok()) << device.status();
    ASSERT_TRUE(testing::AddIpv4("braid9", IpPrefix::Parse("10.77.0.1/24").value()));
    ASSERT_TRUE(testing::SetMtu("braid9", 1420) && testing::BringUp("braid9"));
    WorkerRig::Options options{.io = std::get<0>(GetParam()), .workers = std::get<1>(GetParam())};
    for (const UniqueFd& queue : device->queues) options.tun_fds.push_back(queue.get());
    options.offloads = device->offloads;
    WorkerRig rig(options);
    rig.SetUpPeer();

    const UdpSocket program = OpenUdp({IpAddress::Parse("10.77.0.1").value(), 5000}).value();
    const Buffer words = {'o', 'u', 't'};
    SendDatagram(program.fd.get(), Endpoint::Parse("10.77.0.2:443").value(), {}, words);
    std::optional<WorkerRig::Opened> out;
    do {  // the kernel has things of its own to say to a new link
      out = rig.NextAtPeer();
      ASSERT_TRUE(out);
    } while (out->plain.size() < 31 || out->plain[9] != testing::kUdp);
    EXPECT_EQ(Buffer(out->plain.begin() + 28, out->plain.end()), words);

    for (uint8_t lane = 0; lane < kRigLanes; ++lane) {
      PacketSpec spec = OfPeer(443);
      spec.destination_port = 5000;
      spec.payload = {'i', 'n', lane};
      rig.ToSocket(lane % rig.workers.size(), rig.Seal(rig.first_keys(), lane, BuildPacket(spec)));
      ASSERT_TRUE(testing::WaitReadable(program.fd.get(), testing::kPatienceMs));
      Buffer heard(100);
      Arrival arrival{};
      heard.resize(ReceiveDatagram(program.fd.get(), heard, arrival));
      EXPECT_EQ(heard, spec.payload);
      EXPECT_EQ(arrival.source, Endpoint::Parse("10.77.0.2:443").value());
    }
    rig.Stop();
  });
}

}  // namespace
}  // namespace braid::worker_test
