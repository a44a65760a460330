// Flows past the tunnel in real workers: held, turned round both ways, refused and blocked as their
// rules and the slow path say; and what else there is goes through the tunnel as before.
#include "fastpath/egress.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "fastpath/readdress.h"
#include "support/worker_rig.h"

namespace braid::egress_test {
namespace {

using testing::Buffer;
using testing::BuildPacket;
using testing::PacketSpec;
using testing::WorkerRig;

constexpr uint16_t kListenerPort = 4000;

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

// As the kernel would have them.
class FakeShortcuts final : public FlowShortcuts {
 public:
  bool Add(const FlowKey& from, const FlowKey& to) override {
    const std::lock_guard lock(mutex_);
    if (is_full) return false;
    added_[from] = to;
    return true;
  }
  void Remove(const FlowKey& from) override {
    const std::lock_guard lock(mutex_);
    added_.erase(from);
  }
  absl::flat_hash_map<FlowKey, FlowKey> added() const {
    const std::lock_guard lock(mutex_);
    return added_;
  }

  std::atomic<bool> is_full{false};

 private:
  mutable std::mutex mutex_;
  absl::flat_hash_map<FlowKey, FlowKey> added_;
};

using Relays = std::vector<std::unique_ptr<EgressDatagrams>>;

EgressOptions Options(int workers = 1, FlowShortcuts* shortcuts = nullptr,
                      const Relays& relays = {}) {
  EgressOptions options;
  for (const auto& relay : relays) options.datagrams.push_back(relay.get());
  options.shortcuts = shortcuts;
  options.v4 = {Address("169.254.96.1"), Address("169.254.96.2"), kListenerPort};
  options.v6 = {Address("fd62:7261:6964:96::1"), Address("fd62:7261:6964:96::2"), kListenerPort};
  options.max_sessions = 200 / static_cast<size_t>(workers);
  return options;
}

FlowKey KeyOf(const Buffer& packet) {
  InnerPacket inner;
  EXPECT_TRUE(ParseInner(packet, inner));
  return FlowKey::Of(packet, inner);
}

bool IsSound(const Buffer& packet) {
  InnerPacket inner;
  return ParseInner(packet, inner) && ChecksumIsValid(packet, inner) &&
         (inner.v6 || Ipv4HeaderChecksumIsValid(packet.data()));
}

uint8_t FlagsOf(const Buffer& packet) {
  InnerPacket inner;
  EXPECT_TRUE(ParseInner(packet, inner));
  return packet[inner.l4_offset + 13u];
}

class EgressTest : public ::testing::TestWithParam<std::tuple<bool, int>> {
 protected:
  explicit EgressTest(int relays = 0)
      : relays_(MakeRelays(relays)),
        rig_({.workers = std::get<1>(GetParam()),
              .egress = Options(std::get<1>(GetParam()), &shortcuts_, relays_)}) {
    rig_.SetUpPeer();
  }
  ~EgressTest() override { rig_.Stop(); }

  bool v6() const { return std::get<0>(GetParam()); }
  size_t workers() const { return rig_.workers.size(); }

  static Relays MakeRelays(int count) {
    Relays relays;
    while (static_cast<int>(relays.size()) < count) {
      relays.push_back(std::make_unique<EgressDatagrams>(std::get<1>(GetParam())));
    }
    return relays;
  }

  void Rules(std::vector<EgressRule> rules) {
    auto next = std::make_unique<EgressRules>(std::move(rules));
    rig_.Tell({.type = Command::Type::kSetEgress, .egress_rules = next.get()});
    ASSERT_TRUE(rig_.AwaitCommands());
    rules_ = std::move(next);
  }
  // Ports from 1000 on.
  void EverythingLeaves(EgressAction::To to = EgressAction::To::kDirect) {
    EgressRule rule;
    rule.ports = {{1000, 65535}};
    rule.action.to = to;
    Rules({rule});
  }

  PacketSpec Spec(uint16_t source_port, uint8_t flags, size_t payload_bytes = 0) const {
    PacketSpec spec = testing::SpecOf(v6(), testing::kTcp, payload_bytes);
    spec.source_port = source_port;
    spec.destination_port = 1443;
    spec.tcp_flags = flags;
    spec.tcp_sequence = 1000;
    return spec;
  }
  Buffer Syn(uint16_t source_port) const { return BuildPacket(Spec(source_port, testing::kSyn)); }
  size_t ReaderOf(const Buffer& packet) const { return WorkerRig::LaneOf(packet) % workers(); }
  // By the queue that the kernel would choose.
  void IntoTun(const Buffer& packet, const VnetHeader& vnet = {}) {
    rig_.IntoTun(ReaderOf(packet), packet, vnet);
  }

  TcpFlowId Begin(uint16_t source_port) {
    IntoTun(Syn(source_port));
    const auto event = rig_.NextEvent(Event::Type::kTcpBegins);
    EXPECT_TRUE(event);
    if (!event) return {};
    EXPECT_EQ(event->flow, KeyOf(Syn(source_port)));
    EXPECT_EQ(event->tcp.v6, v6());
    return event->tcp;
  }

  const EgressNeighbours& neighbours() const { return v6() ? options_.v6 : options_.v4; }
  FlowKey ToRelay(const TcpFlowId& flow) const {
    return {neighbours().Of(flow.worker), neighbours().listener, flow.port, kListenerPort,
            kProtocolTcp};
  }

  const EgressOptions options_ = Options();
  FakeShortcuts shortcuts_;
  std::unique_ptr<EgressRules> rules_;
  const Relays relays_;  // of datagrams; they do not run, what they are given is looked at here
  WorkerRig rig_;
};
INSTANTIATE_TEST_SUITE_P(FamiliesAndWorkers, EgressTest,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(1, 2, 3)));

TEST_P(EgressTest, AFlowIsHeldAndThenTurnedRoundBothWays) {
  EverythingLeaves();
  for (uint16_t port = 20000; port < 20020; ++port) {
    const TcpFlowId flow = Begin(port);
    EXPECT_FALSE(rig_.NextFromTun(0)) << "nobody has said yet whether it gets there";
    rig_.Say({TcpVerdict::Type::kOpen, flow, {}});
    const auto syn = rig_.NextFromTun();
    ASSERT_TRUE(syn);
    EXPECT_EQ(KeyOf(syn->packet), ToRelay(flow));
    EXPECT_EQ(FlagsOf(syn->packet), testing::kSyn);
    EXPECT_TRUE(IsSound(syn->packet));
    // Back: the packet that the kernel's TCP sends to the neighbour.
    Buffer answer = BuildPacket(Spec(port, testing::kSyn | testing::kAck));
    InnerPacket inner;
    ASSERT_TRUE(ParseInner(answer, inner));
    Readdress(answer, inner, ToRelay(flow).Reversed(), false);
    const size_t reader = ReaderOf(answer);
    EXPECT_EQ(reader, flow.worker) << "the port is one that comes back by itself";
    rig_.IntoTun(port % workers(), answer);  // also when it does not
    const auto back = rig_.NextFromTun();
    ASSERT_TRUE(back);
    EXPECT_EQ(KeyOf(back->packet), KeyOf(Syn(port)).Reversed());
    EXPECT_TRUE(IsSound(back->packet));
    // And on, in super-packets.
    PacketSpec data = Spec(port, testing::kAck, 40'000);
    Buffer super = BuildPacket(data);
    testing::MakePartial(data, super);
    const VnetHeader vnet{VnetHeader::kNeedsChecksum,
                          v6() ? VnetHeader::kGsoTcpV6 : VnetHeader::kGsoTcpV4,
                          static_cast<uint16_t>(data.headers_bytes()),
                          1300,
                          static_cast<uint16_t>(data.l4_offset()),
                          16};
    IntoTun(super, vnet);
    auto on = rig_.NextFromTun();
    ASSERT_TRUE(on);
    EXPECT_EQ(on->packet.size(), super.size());
    EXPECT_EQ(KeyOf(on->packet), ToRelay(flow));
    EXPECT_EQ(on->vnet.gso_bytes, 1300);
    EXPECT_EQ(on->vnet.flags, VnetHeader::kNeedsChecksum);
    testing::FinishPartial(data, on->packet);
    EXPECT_TRUE(IsSound(on->packet));
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(EgressTest, AFlowThatLastsIsLeftToTheKernelUntilItEnds) {
  EverythingLeaves();
  const auto lasts = [&](uint16_t port, int segments) {
    const TcpFlowId flow = Begin(port);
    rig_.Say({TcpVerdict::Type::kOpen, flow, {}});
    EXPECT_TRUE(rig_.NextFromTun());
    for (int i = 0; i < segments; ++i) {
      IntoTun(BuildPacket(Spec(port, testing::kAck, 10)));
      EXPECT_TRUE(rig_.NextFromTun());
    }
    return flow;
  };
  lasts(20000, 3);
  EXPECT_TRUE(shortcuts_.added().empty()) << "a short one is not worth it";
  shortcuts_.is_full = true;
  lasts(20001, 40);
  EXPECT_TRUE(shortcuts_.added().empty());
  shortcuts_.is_full = false;
  const TcpFlowId flow = lasts(20002, 40);
  const FlowKey key = KeyOf(Syn(20002));
  const absl::flat_hash_map<FlowKey, FlowKey> both_ways = {
      {key, ToRelay(flow)}, {ToRelay(flow).Reversed(), key.Reversed()}};
  EXPECT_EQ(shortcuts_.added(), both_ways);
  // What still comes this way goes on as before.
  IntoTun(BuildPacket(Spec(20002, testing::kAck | testing::kFin)));
  const auto end = rig_.NextFromTun();
  ASSERT_TRUE(end);
  EXPECT_EQ(KeyOf(end->packet), ToRelay(flow));
  rig_.Say({TcpVerdict::Type::kEnd, flow, {}});
  EXPECT_TRUE(WorkerRig::Await([&] { return shortcuts_.added().empty(); }));
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(EgressTest, ItsInitiatorIsToldWhyItDoesNotGetThere) {
  EverythingLeaves();
  const TcpFlowId refused = Begin(20000);
  IntoTun(Syn(20000));  // asks again, meanwhile
  ASSERT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_waits) == 1; }));
  rig_.Say({TcpVerdict::Type::kRefuse, refused, {}});
  const auto reset = rig_.NextFromTun();
  ASSERT_TRUE(reset);
  EXPECT_EQ(KeyOf(reset->packet), KeyOf(Syn(20000)).Reversed());
  EXPECT_EQ(FlagsOf(reset->packet), testing::kRst | testing::kAck);
  EXPECT_EQ(LoadBe32(&reset->packet[(v6() ? 40 : 20) + 8]), 1001u);
  EXPECT_TRUE(IsSound(reset->packet));

  const TcpFlowId unreachable = Begin(20001);
  rig_.Say({TcpVerdict::Type::kUnreachable, unreachable, IcmpError::What::kNoHost});
  const auto error = rig_.NextFromTun();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->packet[v6() ? 6 : 9], v6() ? kProtocolIcmpV6 : kProtocolIcmp);
  EXPECT_EQ(error->packet[v6() ? 40 : 20], v6() ? 1 : 3);
  EXPECT_EQ(error->packet[v6() ? 41 : 21], v6() ? 3 : 1);

  const TcpFlowId forgotten = Begin(20002);
  rig_.Say({TcpVerdict::Type::kForget, forgotten, {}});
  EXPECT_FALSE(rig_.NextFromTun(20));
  // What was refused may be tried again, and is another flow.
  const TcpFlowId again = Begin(20000);
  EXPECT_FALSE(again == refused);
  rig_.Say({TcpVerdict::Type::kOpen, refused, {}});  // too late
  EXPECT_TRUE(rig_.NextEvent(Event::Type::kTcpGone));
  EXPECT_FALSE(rig_.NextFromTun(20));
}

TEST_P(EgressTest, WhoGivesUpWhileItIsHeldGetsNoConnection) {
  EverythingLeaves();
  const TcpFlowId flow = Begin(20000);
  IntoTun(BuildPacket(Spec(20000, testing::kRst)));
  ASSERT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_waits) == 1; }));
  rig_.Say({TcpVerdict::Type::kOpen, flow, {}});
  const auto gone = rig_.NextEvent(Event::Type::kTcpGone);
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->tcp, flow);
  EXPECT_FALSE(rig_.NextFromTun(20));
}

TEST_P(EgressTest, WhoGivesUpBeforeItIsToldLeavesNothingToItsPort) {
  EverythingLeaves();
  const TcpFlowId flow = Begin(20000);
  rig_.Say({TcpVerdict::Type::kOpen, flow, {}});
  ASSERT_TRUE(rig_.NextFromTun());
  // It has asked for nothing when the answer comes, as far as it knows.
  IntoTun(BuildPacket(Spec(20000, testing::kRst)));
  const auto reset = rig_.NextFromTun();
  ASSERT_TRUE(reset);
  EXPECT_EQ(KeyOf(reset->packet), ToRelay(flow));
  const auto gone = rig_.NextEvent(Event::Type::kTcpGone);
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->tcp, flow);
  const TcpFlowId next = Begin(20000);
  EXPECT_NE(next.port, flow.port);
  // One that has taken the connection is reset by its own kernel, which tells the relay.
  rig_.Say({TcpVerdict::Type::kOpen, next, {}});
  ASSERT_TRUE(rig_.NextFromTun());
  IntoTun(BuildPacket(Spec(20000, testing::kAck)));
  IntoTun(BuildPacket(Spec(20000, testing::kRst | testing::kAck)));
  ASSERT_TRUE(rig_.NextFromTun());
  ASSERT_TRUE(rig_.NextFromTun());
  Event event;
  EXPECT_FALSE(rig_.events.events.TryPop(event));
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(EgressTest, WhoNeverAnswersHasNoShortcut) {
  EverythingLeaves();
  const TcpFlowId flow = Begin(20000);
  rig_.Say({TcpVerdict::Type::kOpen, flow, {}});
  ASSERT_TRUE(rig_.NextFromTun());
  for (int i = 0; i < 40; ++i) {
    IntoTun(Syn(20000));
    ASSERT_TRUE(rig_.NextFromTun());
  }
  EXPECT_TRUE(shortcuts_.added().empty());
}

TEST_P(EgressTest, AFlowInTheTunnelStaysThereWhateverTheRulesAre) {
  if (v6()) return;  // which the peer does not have
  EgressRule nothing;
  nothing.ports = {{1, 1}};
  Rules({nothing});
  const auto expect_at_peer = [this](const Buffer& packet) {
    IntoTun(packet);
    const auto out = rig_.NextAtPeer();
    ASSERT_TRUE(out);
    EXPECT_EQ(out->plain, packet);
  };
  for (uint16_t port = 20000; port < 20100; ++port) expect_at_peer(Syn(port));
  EverythingLeaves();
  for (uint16_t port = 20000; port < 20100; ++port) {
    expect_at_peer(BuildPacket(Spec(port, testing::kAck, 10)));
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
  Begin(20000);  // another flow
}

TEST_P(EgressTest, ASynWithDataIsNotAnsweredSoThatItComesAgainWithout) {
  EverythingLeaves();
  IntoTun(BuildPacket(Spec(20000, testing::kSyn, 200)));
  ASSERT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_unsupported) == 1; }));
  EXPECT_FALSE(rig_.NextFromTun(20));
  Begin(20000);
}

TEST_P(EgressTest, WhatHasNoFlowIsReset) {
  EverythingLeaves();
  IntoTun(BuildPacket(Spec(20000, testing::kAck, 100)));
  const auto reset = rig_.NextFromTun();
  ASSERT_TRUE(reset);
  EXPECT_EQ(FlagsOf(reset->packet), testing::kRst);
  EXPECT_EQ(LoadBe32(&reset->packet[(v6() ? 40 : 20) + 4]), 7u) << "what it acknowledges";
  EXPECT_EQ(rig_.Drops(Drop::egress_no_flow), 1u);
  // A reset is not answered, nor what comes from a relay that has no such flow.
  IntoTun(BuildPacket(Spec(20000, testing::kRst)));
  Buffer stray = BuildPacket(Spec(20000, testing::kAck));
  InnerPacket inner;
  ASSERT_TRUE(ParseInner(stray, inner));
  Readdress(stray, inner, ToRelay({0, v6(), 2000, 0, 0}).Reversed(), false);
  rig_.IntoTun(0, stray);
  ASSERT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_no_flow) == 3; }));
  EXPECT_FALSE(rig_.NextFromTun(20));
}

TEST_P(EgressTest, AFlowThatIsOverIsStillKnownForAWhile) {
  EverythingLeaves();
  const TcpFlowId flow = Begin(20000);
  rig_.Say({TcpVerdict::Type::kOpen, flow, {}});
  ASSERT_TRUE(rig_.NextFromTun());
  IntoTun(BuildPacket(Spec(20000, testing::kFin | testing::kAck)));
  ASSERT_TRUE(rig_.NextFromTun());
  rig_.Say({TcpVerdict::Type::kEnd, flow, {}});
  ASSERT_TRUE(
      WorkerRig::Await([&] { return rig_.workers[flow.worker]->egress()->tcp_sessions() == 0; }));
  IntoTun(BuildPacket(Spec(20000, testing::kAck)));
  const auto last = rig_.NextFromTun();
  ASSERT_TRUE(last);
  EXPECT_EQ(KeyOf(last->packet), ToRelay(flow));
  // A new one of the same ports begins at once, by another port of the neighbour.
  const TcpFlowId next = Begin(20000);
  EXPECT_NE(next.port, flow.port);
  rig_.Say({TcpVerdict::Type::kForget, next, {}});
  // What the kernel remembers of the first is ended before its port is used again.
  const auto reset = rig_.NextFromTun();
  ASSERT_TRUE(reset);
  EXPECT_EQ(KeyOf(reset->packet), ToRelay(flow));
  EXPECT_EQ(FlagsOf(reset->packet), testing::kRst);
  EXPECT_EQ(LoadBe32(&reset->packet[(v6() ? 40 : 20) + 4]), 1001u);
}

TEST_P(EgressTest, AFlowThatBeginsAnewIsDecidedAboutByTheRulesOfNow) {
  EverythingLeaves();
  const TcpFlowId flow = Begin(20000);
  rig_.Say({TcpVerdict::Type::kOpen, flow, {}});
  ASSERT_TRUE(rig_.NextFromTun());
  rig_.Say({TcpVerdict::Type::kEnd, flow, {}});
  EverythingLeaves(EgressAction::To::kBlock);
  IntoTun(Syn(20000));
  const auto reset = rig_.NextFromTun();
  ASSERT_TRUE(reset);
  EXPECT_EQ(KeyOf(reset->packet), KeyOf(Syn(20000)).Reversed());
  EXPECT_EQ(rig_.Drops(Drop::egress_blocked), 1u);
}

TEST_P(EgressTest, WhenThereIsNoRoomNewFlowsAreRefusedAndOthersUnharmed) {
  EverythingLeaves();
  const TcpFlowId first = Begin(20000);
  rig_.Say({TcpVerdict::Type::kOpen, first, {}});
  ASSERT_TRUE(rig_.NextFromTun());
  uint16_t port = 20001;
  while (rig_.Drops(Drop::egress_full) == 0) {
    ASSERT_LT(port, 20500);
    IntoTun(Syn(port++));
    Event event;
    while (rig_.events.events.TryPop(event)) {
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  const auto reset = rig_.NextFromTun();
  ASSERT_TRUE(reset);
  EXPECT_EQ(FlagsOf(reset->packet), testing::kRst | testing::kAck);
  IntoTun(BuildPacket(Spec(20000, testing::kAck, 10)));
  ASSERT_TRUE(WorkerRig::Await([&] {
    const auto packet = rig_.NextFromTun(50);
    return packet && KeyOf(packet->packet) == ToRelay(first);
  }));
}

TEST_P(EgressTest, AFlowThatHasWaitedForLongMakesRoom) {
  EverythingLeaves();
  const TcpFlowId open = Begin(20000);
  rig_.Say({TcpVerdict::Type::kOpen, open, {}});
  ASSERT_TRUE(rig_.NextFromTun());
  const TcpFlowId oldest = Begin(20001);
  // Its worker has no more room.
  uint16_t port = 20001;
  const auto another = [&] {
    while (ReaderOf(Syn(++port)) != oldest.worker) {
    }
    IntoTun(Syn(port));
  };
  while (rig_.Drops(Drop::egress_full) == 0) {
    ASSERT_LT(port, 22000);
    another();
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  while (rig_.NextFromTun(20)) {
  }
  Event event;
  while (rig_.events.events.TryPop(event)) {
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  another();
  const auto gone = rig_.NextEvent(Event::Type::kTcpGone);
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->tcp, oldest);
  const auto begins = rig_.NextEvent(Event::Type::kTcpBegins);
  ASSERT_TRUE(begins);
  EXPECT_EQ(begins->flow, KeyOf(Syn(port)));
  EXPECT_EQ(rig_.Drops(Drop::egress_evicted), 1u);
  rig_.Say({TcpVerdict::Type::kOpen, oldest, {}});  // too late
  const auto too_late = rig_.NextEvent(Event::Type::kTcpGone);
  ASSERT_TRUE(too_late);
  EXPECT_EQ(too_late->tcp, oldest);
  IntoTun(BuildPacket(Spec(20000, testing::kAck, 10)));
  const auto unharmed = rig_.NextFromTun();
  ASSERT_TRUE(unharmed);
  EXPECT_EQ(KeyOf(unharmed->packet), ToRelay(open));
}

TEST_P(EgressTest, WhatIsBlockedIsToldSoUnlessItsRuleIsSilent) {
  EgressRule rule, silent;
  rule.ports = {{1443, 1443}};
  rule.action.to = silent.action.to = EgressAction::To::kBlock;
  silent.ports = {{1444, 1444}};
  silent.action.silent = true;
  Rules({rule, silent});
  IntoTun(Syn(20000));
  const auto reset = rig_.NextFromTun();
  ASSERT_TRUE(reset);
  EXPECT_EQ(FlagsOf(reset->packet), testing::kRst | testing::kAck);
  PacketSpec udp = testing::SpecOf(v6(), testing::kUdp, 20);
  udp.destination_port = 1443;
  IntoTun(BuildPacket(udp));
  const auto error = rig_.NextFromTun();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->packet[v6() ? 40 : 20], v6() ? 1 : 3);
  EXPECT_EQ(error->packet[v6() ? 41 : 21], v6() ? 1 : 13);
  udp.destination_port = 1444;
  IntoTun(BuildPacket(udp));
  ASSERT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_blocked) == 3; }));
  EXPECT_FALSE(rig_.NextFromTun(20));
}

TEST_P(EgressTest, WhatNoRuleFitsGoesThroughTheTunnel) {
  EverythingLeaves();
  for (uint16_t i = 0; i < 50; ++i) {
    PacketSpec spec = Spec(static_cast<uint16_t>(21000 + i), testing::kAck, 10);
    spec.v6 = false;
    spec.destination_port = 443;
    IntoTun(BuildPacket(spec));
    const auto out = rig_.NextAtPeer();
    ASSERT_TRUE(out);
    EXPECT_EQ(out->plain, BuildPacket(spec));
  }
  // Nor does anything once there are no rules.
  rig_.Tell({.type = Command::Type::kSetEgress, .egress_rules = nullptr});
  ASSERT_TRUE(rig_.AwaitCommands());
  PacketSpec spec = Spec(22000, testing::kSyn);
  spec.v6 = false;
  IntoTun(BuildPacket(spec));
  EXPECT_TRUE(rig_.NextAtPeer());
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

// --- Datagrams ---

class EgressDatagramsTest : public EgressTest {
 protected:
  static constexpr int kRelays = 3;

  EgressDatagramsTest() : EgressTest(kRelays) {}

  PacketSpec Udp(uint16_t source_port, uint16_t destination_port, size_t payload_bytes = 20) const {
    PacketSpec spec = testing::SpecOf(v6(), testing::kUdp, payload_bytes);
    spec.source_port = source_port;
    spec.destination_port = destination_port;
    return spec;
  }

  struct Record {
    size_t relay = 0;
    size_t worker = 0;
    EgressAction action;
    Buffer from_tun;
  };
  // The next that any relay was given.
  std::optional<Record> TakeRecord() {
    for (size_t relay = 0; relay < relays_.size(); ++relay) {
      for (size_t worker = 0; worker < workers(); ++worker) {
        RecordRing& ring = *relays_[relay]->packets[worker];
        const MutableBytes bytes = ring.Front();
        if (bytes.data() == nullptr) continue;
        Record record{relay, worker, LoadNative<EgressAction>(bytes.data()), {}};
        record.from_tun.assign(bytes.begin() + sizeof(EgressAction), bytes.end());
        ring.Pop();
        return record;
      }
    }
    return std::nullopt;
  }
  std::optional<Record> NextRecord() {
    std::optional<Record> record;
    WorkerRig::Await([&] { return (record = TakeRecord()).has_value(); });
    return record;
  }
};
INSTANTIATE_TEST_SUITE_P(FamiliesAndWorkers, EgressDatagramsTest,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(1, 2, 3)));

TEST_P(EgressDatagramsTest, GoToTheRelayOfTheirSourceWhicheverWorkerReadsThem) {
  EgressRule rule;
  rule.action.to = EgressAction::To::kGroup;
  rule.action.group = 7;
  Rules({rule});
  std::vector<int> sources(kRelays);
  for (uint16_t port = 20000; port < 20060; ++port) {
    std::optional<size_t> relay;
    for (const uint16_t to : {1443, 1444, 1445}) {
      const Buffer packet = BuildPacket(Udp(port, to));
      rig_.IntoTun((port + to) % workers(), packet);
      const auto record = NextRecord();
      ASSERT_TRUE(record);
      EXPECT_EQ(record->action, rule.action);
      EXPECT_EQ(record->from_tun, testing::BehindVnetHeader({}, packet));
      EXPECT_EQ(record->worker, ReaderOf(packet)) << "it is the owner who gives it";
      EXPECT_EQ(record->relay, relay.value_or(record->relay));
      relay = record->relay;
    }
    ++sources[*relay];
  }
  for (const int count : sources) EXPECT_GT(count, 0) << "each relay has its share";
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

TEST_P(EgressDatagramsTest, SuperPacketsGoWhole) {
  EverythingLeaves();
  const PacketSpec spec = Udp(20000, 1443, 40'000);
  Buffer packet = BuildPacket(spec);
  testing::MakePartial(spec, packet);
  const VnetHeader vnet = testing::VnetFor(spec, 1000);
  IntoTun(packet, vnet);
  const auto record = NextRecord();
  ASSERT_TRUE(record);
  EXPECT_EQ(record->from_tun, testing::BehindVnetHeader(vnet, packet));
}

TEST_P(EgressDatagramsTest, WhatARelayHasNoRoomForIsDroppedAndCounted) {
  EverythingLeaves();
  constexpr size_t kDatagrams = 60;
  const PacketSpec spec = Udp(20000, 1443, kDatagrams * 1000);
  Buffer packet = BuildPacket(spec);
  testing::MakePartial(spec, packet);
  const VnetHeader vnet = testing::VnetFor(spec, 1000);
  size_t packets = 0;
  for (; rig_.Drops(Drop::egress_full) == 0; ++packets) {
    ASSERT_LT(packets, 2 * kEgressDatagramBytes / packet.size());
    IntoTun(packet, vnet);
  }
  size_t taken = 0;
  // Whoever is full takes nothing more, and what it has stays.
  const auto all_are_told_of = [&] {
    while (TakeRecord()) ++taken;
    return taken + rig_.Drops(Drop::egress_full) / kDatagrams == packets;
  };
  EXPECT_TRUE(WorkerRig::Await(all_are_told_of));
  EXPECT_EQ(rig_.Drops(Drop::egress_full) % kDatagrams, 0u);
  EXPECT_GE(taken, kEgressDatagramBytes / 4 / packet.size() - 1);
  // There is room again.
  IntoTun(packet, vnet);
  EXPECT_TRUE(NextRecord());
  EXPECT_EQ(rig_.AllDrops(), rig_.Drops(Drop::egress_full));
}

TEST_P(EgressDatagramsTest, FragmentsAreOfNoUse) {
  EgressRule rule;
  rule.action.to = EgressAction::To::kDirect;
  Rules({rule});
  PacketSpec spec = Udp(20000, 1443);
  spec.fragment_field = 0x2000;  // IPv4: more come
  if (v6()) spec.extensions = {{testing::kFragment, {0, 0, 0, 1, 0, 0, 0, 9}}};
  IntoTun(BuildPacket(spec));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_unsupported) == 1; }));
  EXPECT_FALSE(TakeRecord());
}

TEST_P(EgressTest, DatagramsLeaveOnlyWhereThereIsARelay) {
  EverythingLeaves();
  PacketSpec udp = testing::SpecOf(v6(), testing::kUdp, 3000);
  udp.destination_port = 1443;
  Buffer packet = BuildPacket(udp);
  testing::MakePartial(udp, packet);
  IntoTun(packet, testing::VnetFor(udp, 1000));
  EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_unsupported) == 3; }));
  EXPECT_FALSE(rig_.NextFromTun(0));
}

// --- Echoes ---

class EgressEchoTest : public EgressTest {
 protected:
  void All(EgressAction::To to) {
    EgressRule rule;
    rule.action.to = to;
    Rules({rule});
  }

  uint8_t request_type() const { return v6() ? 128 : 8; }
  size_t l4_offset() const { return v6() ? 40 : 20; }

  // An ICMP message with so many bytes of data, and the checksum that ICMP has.
  PacketSpec Message(uint8_t type, size_t data_bytes, testing::Random& random) const {
    PacketSpec spec = testing::SpecOf(v6(), v6() ? kProtocolIcmpV6 : kProtocolIcmp);
    spec.payload = testing::RandomBytes(random, 8 + data_bytes);
    spec.payload[0] = type;
    spec.payload[1] = 0;
    StoreBe16(&spec.payload[2], 0);
    const auto sum =
        static_cast<uint16_t>(~testing::OnesComplementSum(spec.payload, PseudoOf(spec)));
    StoreBe16(&spec.payload[2], sum);
    return spec;
  }
  // IPv4's ICMP has no pseudo-header.
  static uint16_t PseudoOf(const PacketSpec& spec) {
    const Buffer packet = BuildPacket(spec);
    return spec.v6 ? testing::PseudoSum(packet, spec.protocol, packet.size() - 40) : 0;
  }
};
INSTANTIATE_TEST_SUITE_P(FamiliesAndWorkers, EgressEchoTest,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(1, 3)));

TEST_P(EgressEchoTest, WhatIsAskedThroughAGroupIsAnswered) {
  All(EgressAction::To::kGroup);
  testing::Random random(1);
  for (const size_t data_bytes : {0, 1, 2, 3, 55, 56, 57, 1391, 1392}) {
    for (const bool partial : {false, true}) {
      PacketSpec spec = Message(request_type(), data_bytes, random);
      if (partial) StoreBe16(&spec.payload[2], PseudoOf(spec));
      VnetHeader vnet{};
      if (partial) {
        vnet.flags = VnetHeader::kNeedsChecksum;
        vnet.checksum_start = static_cast<uint16_t>(l4_offset());
        vnet.checksum_offset = 2;
      }
      rig_.IntoTun(data_bytes % workers(), BuildPacket(spec), vnet);
      auto answer = rig_.NextFromTun();
      ASSERT_TRUE(answer);
      EXPECT_EQ(answer->vnet.flags, 0);
      EXPECT_EQ(answer->vnet.gso_type, VnetHeader::kGsoNone);
      const Bytes message = Bytes(answer->packet).subspan(l4_offset());
      EXPECT_EQ(testing::OnesComplementSum(message, PseudoOf(spec)), 0xffff) << data_bytes;
      // All else is as it came.
      std::swap(spec.source_host, spec.destination_host);
      spec.payload[0] = v6() ? 129 : 0;
      StoreBe16(&spec.payload[2], LoadBe16(&message[2]));
      EXPECT_EQ(answer->packet, BuildPacket(spec));
    }
  }
  EXPECT_EQ(rig_.AllDrops(), 0u);
}

// A wrong checksum stays wrong, for who has asked to see.
TEST_P(EgressEchoTest, WhatWasDamagedIsNotMended) {
  All(EgressAction::To::kGroup);
  testing::Random random(2);
  PacketSpec spec = Message(request_type(), 56, random);
  spec.payload.back() ^= 1;
  IntoTun(BuildPacket(spec));
  const auto answer = rig_.NextFromTun();
  ASSERT_TRUE(answer);
  const Bytes message = Bytes(answer->packet).subspan(l4_offset());
  EXPECT_NE(testing::OnesComplementSum(message, PseudoOf(spec)), 0xffff);
}

TEST_P(EgressEchoTest, NothingElseIsAnswered) {
  testing::Random random(3);
  const PacketSpec request = Message(request_type(), 56, random);
  All(EgressAction::To::kDirect);
  IntoTun(BuildPacket(request));
  ASSERT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_unsupported) == 1; }));
  All(EgressAction::To::kGroup);
  PacketSpec fragment = request;
  fragment.fragment_field = 0x2000;  // IPv4: more come
  if (v6()) fragment.extensions = {{testing::kFragment, {0, 0, 0, 1, 0, 0, 0, 9}}};
  PacketSpec cut = request;
  cut.payload.resize(7);
  const uint8_t reply_type = v6() ? 129 : 0;
  uint64_t packets = 1;
  for (const PacketSpec& spec :
       {fragment, cut, Message(reply_type, 56, random), Message(v6() ? 1 : 3, 56, random)}) {
    IntoTun(BuildPacket(spec));
    ++packets;
    EXPECT_TRUE(WorkerRig::Await([&] { return rig_.Drops(Drop::egress_unsupported) == packets; }))
        << packets;
  }
  EXPECT_FALSE(rig_.NextFromTun(20));
}

}  // namespace
}  // namespace braid::egress_test
