#include "fastpath/egress.h"

#include <algorithm>
#include <utility>

#include "base/flow_hash.h"
#include "fastpath/mailbox.h"
#include "fastpath/readdress.h"
#include "fastpath/tcp_reset.h"

namespace braid {
namespace {

constexpr uint16_t kFirstPort = 1024;
// One in use, and two that rest: short flows come and go quickly.
constexpr size_t kPortsPerSession = 3;

// As the device chooses who reads a packet, whatever lanes a peer has agreed on.
int OwnerOf(Bytes packet, const WorkerOptions& worker) {
  const uint32_t hash = FlowHash(packet);
  return static_cast<int>(hash % static_cast<uint32_t>(worker.lanes)) % worker.workers;
}

int OwnerOf(const FlowKey& flow, const WorkerOptions& worker) {
  std::array<uint8_t, 44> headers{};
  const bool v6 = flow.source.is_v6();
  const size_t address_bytes = v6 ? 16 : 4;
  const size_t l4_offset = v6 ? 40 : 20;
  headers[0] = v6 ? 0x60 : 0x45;
  headers[v6 ? 6 : 9] = flow.protocol;
  uint8_t* addresses = &headers[v6 ? 8 : 12];
  std::copy_n(flow.source.bytes.begin(), address_bytes, addresses);
  std::copy_n(flow.destination.bytes.begin(), address_bytes, addresses + address_bytes);
  StoreBe16(&headers[l4_offset], flow.source_port);
  StoreBe16(&headers[l4_offset + 2], flow.destination_port);
  return OwnerOf(Bytes(headers).first(l4_offset + 4), worker);
}

uint8_t FlagsOf(const Segmenter& segmenter) {
  return segmenter.packet()[segmenter.inner().l4_offset + size_t{13}];
}

// RFC 792, RFC 4443.
constexpr uint8_t kEchoRequest = 8;
constexpr uint8_t kEchoReply = 0;
constexpr uint8_t kEchoRequestV6 = 128;
constexpr uint8_t kEchoReplyV6 = 129;
constexpr size_t kEchoHeaderBytes = 8;

bool AsksForEcho(const Segmenter& segmenter) {
  const InnerPacket& inner = segmenter.inner();
  const Bytes packet = segmenter.packet();
  if (inner.fragment || segmenter.segments() != 1) return false;
  if (inner.protocol != (inner.v6 ? kProtocolIcmpV6 : kProtocolIcmp)) return false;
  if (packet.size() < inner.l4_offset + kEchoHeaderBytes) return false;
  return packet[inner.l4_offset] == (inner.v6 ? kEchoRequestV6 : kEchoRequest);
}

bool BeginsTcp(const Segmenter& segmenter) {
  return (FlagsOf(segmenter) & (kTcpSyn | kTcpAck | kTcpRst)) == kTcpSyn;
}

// Those first whose packets come back to the worker itself.
std::vector<uint16_t> PortsFor(const EgressNeighbours& of, const EgressOptions& options,
                               const WorkerOptions& worker) {
  std::vector<uint16_t> ports;
  if (!of.is_set()) return ports;
  std::vector<uint16_t> elsewhere;
  FlowKey back{of.listener, of.Of(worker.index), of.listener_port, 0, kProtocolTcp};
  for (uint32_t port = kFirstPort; port <= UINT16_MAX; ++port) {
    back.destination_port = static_cast<uint16_t>(port);
    const bool home = OwnerOf(back, worker) == worker.index;
    (home ? ports : elsewhere).push_back(back.destination_port);
  }
  ports.insert(ports.end(), elsewhere.begin(), elsewhere.end());
  ports.resize(std::min(ports.size(), kPortsPerSession * options.max_sessions));
  return ports;
}

}  // namespace

Egress::Sessions::Sessions(const EgressNeighbours& of, const EgressOptions& options,
                           const WorkerOptions& worker)
    : neighbours(of),
      own(of.is_set() ? of.Of(worker.index) : IpAddress()),
      tcp(PortsFor(of, options, worker), options.max_sessions),
      syns(tcp.places(), kNoSyn) {}

Egress::Egress(WorkerState& state, TunAnswers& answers, const EgressOptions& options)
    : state_(state),
      answers_(answers),
      datagrams_(options.datagrams),
      shortcuts_(options.shortcuts),
      v4_(options.v4, options, state.options),
      v6_(options.v6, options, state.options),
      known_(kKnownSets * kKnownOfSet),
      syns_(static_cast<HeldSyns::Slot>((kMaxHeldSyns + state.options.workers - 1) /
                                        state.options.workers)) {}

void Egress::SetRules(const EgressRules* rules, const LearnedNames* names) {
  rules_ = rules;
  names_ = names;
  ++generation_;
}

TimeNs Egress::NextDue() const { return std::min(v4_.tcp.NextDue(), v6_.tcp.NextDue()); }

bool Egress::Take(PacketPtr& packet, const Segmenter& segmenter, bool handed) {
  const InnerPacket& inner = segmenter.inner();
  const FlowKey flow = FlowKey::Of(segmenter.packet(), inner);
  Sessions& of = Of(inner.v6);
  if (inner.is_tcp() && of.neighbours.is_set()) {
    if (ComesBack(packet, segmenter, flow, handed)) return true;
    const Place place = of.tcp.Find(flow);
    const bool begins_anew = place != kNowhere && BeginsTcp(segmenter) &&
                             of.tcp[place].state == TcpSessions::State::kResting;
    if (begins_anew) {
      of.tcp.Detach(place);  // it is another flow, which the rules of now decide about
    } else if (place != kNowhere) {
      OnSegment(of, place, std::move(packet), segmenter);
      return true;
    }
  }
  if (rules_ == nullptr) return false;
  const EgressAction& action = ActionFor(flow, inner.is_tcp() && BeginsTcp(segmenter));
  if (action.to == EgressAction::To::kTunnel) {
    if (names_ != nullptr) TellOfQuery(segmenter, flow);
    return false;
  }
  // What a flow of its own is kept for has one owner, also where queues are chosen otherwise.
  if (HandOver(OwnerOf(segmenter.packet(), state_.options), packet, segmenter, handed)) return true;
  if (action.to == EgressAction::To::kBlock) {
    Block(action, segmenter);
  } else if (action.to == EgressAction::To::kGroup && AsksForEcho(segmenter)) {
    AnswerEcho(std::move(packet), segmenter);
  } else {
    Begin(action, segmenter, flow);
  }
  return true;
}

bool Egress::HandOver(int worker, PacketPtr& packet, const Segmenter& segmenter, bool handed) {
  if (worker == state_.options.index) return false;
  const uint64_t packets = segmenter.segments();
  if (handed) {
    state_.drops.Count(Drop::bad_lane, packets);
  } else {
    state_.HandTo(worker, {HandedPacket::From::kTun, std::move(packet), {}}, packets);
  }
  return true;
}

// From the relay, to a neighbour of any worker.
bool Egress::ComesBack(PacketPtr& packet, const Segmenter& segmenter, const FlowKey& flow,
                       bool handed) {
  Sessions& of = Of(segmenter.inner().v6);
  if (flow.source != of.neighbours.listener) return false;
  const int worker = of.neighbours.WorkerOf(flow.destination, state_.options.workers);
  if (worker < 0) return false;
  if (HandOver(worker, packet, segmenter, handed)) return true;
  const Place place = flow.source_port == of.neighbours.listener_port
                          ? of.tcp.FindPort(flow.destination_port)
                          : kNowhere;
  if (place == kNowhere) {
    state_.drops.Count(Drop::egress_no_flow, segmenter.segments());
  } else {
    CountTurned(of, place);
    TurnRound(std::move(packet), segmenter, of.tcp[place].flow.Reversed());
  }
  return true;
}

// A flow that has been decided about is not decided about anew, as long as there are not very many.
const EgressAction& Egress::ActionFor(const FlowKey& flow, bool begins) {
  KnownFlow* const of_set = &known_[(absl::Hash<FlowKey>()(flow) & (kKnownSets - 1)) * kKnownOfSet];
  KnownFlow* place = of_set;
  bool is_known = false;
  for (size_t i = 0; i < kKnownOfSet && !is_known; ++i) {
    KnownFlow& one = of_set[i];
    is_known = one.generation != 0 && one.key == flow;
    if (is_known || one.needed_ns < place->needed_ns) place = &one;
  }
  KnownFlow& known = *place;
  known.needed_ns = state_.now_ns;
  if (is_known && StillHolds(known, begins)) return known.action;
  EgressRules::Set names;
  const bool has_names = names_ != nullptr && names_->Find(flow.destination, state_.now_ns, names);
  const size_t rule = has_names ? rules_->Find(flow, names) : rules_->Find(flow);
  known.key = flow;
  known.generation = generation_;
  known.action = rule == EgressRules::kNoRule ? EgressAction() : rules_->rule(rule).action;
  return known.action;
}

// One that begins is another flow, of which more may be known by now. One of TCP stays what it is
// until then, whatever rules there are: it cannot go on elsewhere.
bool Egress::StillHolds(const KnownFlow& known, bool begins) const {
  if (begins) return false;
  return known.key.protocol == kProtocolTcp || known.generation == generation_;
}

// So that its answer is believed.
void Egress::TellOfQuery(const Segmenter& segmenter, const FlowKey& flow) {
  const InnerPacket& inner = segmenter.inner();
  const bool is_one = inner.is_udp() && !inner.fragment && segmenter.segments() == 1;
  if (!is_one || flow.destination_port != kDnsPort) return;
  state_.TellOfDns(Event::Type::kTunnelQuery, flow,
                   segmenter.packet().subspan(inner.headers_bytes()));
}

void Egress::Block(const EgressAction& action, const Segmenter& segmenter) {
  state_.drops.Count(Drop::egress_blocked, segmenter.segments());
  if (action.silent) return;
  const Bytes packet = segmenter.packet();
  const MutableBytes to = answers_.Next();
  if (to.empty()) return;
  answers_.Write(
      segmenter.inner().is_tcp()
          ? WriteTcpReset(packet, segmenter.inner(), to)
          : WriteIcmpError(packet, segmenter.inner(), {IcmpError::What::kProhibited, 0}, to));
}

void Egress::RelayDatagrams(const EgressAction& action, const Segmenter& segmenter,
                            const FlowKey& flow) {
  const Bytes packet = segmenter.packet();
  // Whatever it speaks with.
  const size_t hash = absl::HashOf(flow.source, flow.source_port);
  EgressDatagrams& relay = *datagrams_[hash % datagrams_.size()];
  const Bytes from_tun(packet.data() - kVnetHeaderBytes, kVnetHeaderBytes + packet.size());
  const auto* record = reinterpret_cast<const uint8_t*>(&action);
  RecordRing& packets = *relay.packets[static_cast<size_t>(state_.options.index)];
  if (!packets.TryPush({record, sizeof(action)}, from_tun)) {
    return state_.drops.Count(Drop::egress_full, segmenter.segments());
  }
  relay.doorbell.Ring();
}

// There is no other end that could be asked: a proxy carries no ICMP. It goes back as it came, with
// its ends exchanged, which no checksum notices.
void Egress::AnswerEcho(PacketPtr packet, const Segmenter& segmenter) {
  const InnerPacket& inner = segmenter.inner();
  const MutableBytes from_tun = packet->bytes();
  const MutableBytes inner_packet = from_tun.subspan(kVnetHeaderBytes);
  const size_t address_bytes = inner.v6 ? 16 : 4;
  uint8_t* const source = &inner_packet[inner.v6 ? 8 : 12];
  std::swap_ranges(source, source + address_bytes, source + address_bytes);
  uint8_t* const icmp = &inner_packet[inner.l4_offset];
  const uint16_t before = LoadBe16(icmp);
  icmp[0] = inner.v6 ? kEchoReplyV6 : kEchoReply;
  const uint64_t sum = ChecksumOfField(static_cast<uint16_t>(~LoadBe16(icmp + 2))) +
                       ChecksumOfField(static_cast<uint16_t>(~before)) +
                       ChecksumOfField(LoadBe16(icmp));
  StoreBe16(icmp + 2, static_cast<uint16_t>(~ChecksumFold(sum)));
  StoreNative(from_tun.data(), VnetHeader{});
  Turned& turned = NextTurned();
  turned.packet = std::move(packet);
  Write(turned, from_tun);
}

void Egress::Begin(const EgressAction& action, const Segmenter& segmenter, const FlowKey& flow) {
  const Bytes packet = segmenter.packet();
  const InnerPacket& inner = segmenter.inner();
  Sessions& of = Of(inner.v6);
  const auto reset = [&] {
    const MutableBytes to = answers_.Next();
    if (!to.empty()) answers_.Write(WriteTcpReset(packet, inner, to));
  };
  const auto refuse = [&](Drop reason) {
    state_.drops.Count(reason, segmenter.segments());
    reset();
  };
  if (inner.is_udp() && !datagrams_.empty()) return RelayDatagrams(action, segmenter, flow);
  if (!inner.is_tcp() || !of.neighbours.is_set()) {
    return state_.drops.Count(Drop::egress_unsupported, segmenter.segments());
  }
  if (!BeginsTcp(segmenter)) return refuse(Drop::egress_no_flow);
  // With data (TCP Fast Open); it comes again without.
  if (packet.size() > HeldSyns::kMaxSynBytes) {
    return state_.drops.Count(Drop::egress_unsupported, segmenter.segments());
  }
  const bool has_room = (syns_.HasRoom() && of.tcp.HasRoom()) || MakeRoom(of);
  const Place place = has_room ? of.tcp.Begin(flow) : kNowhere;
  if (place == kNowhere) return refuse(Drop::egress_full);
  of.syns[place] = syns_.Hold(segmenter, place, state_.now_ns);
  Event event;
  event.type = Event::Type::kTcpBegins;
  event.flow = flow;
  event.action = action;
  event.tcp = IdOf(of, place);
  if (!state_.Tell(std::move(event))) {  // which is counted
    GiveUp(of, place);
    return reset();
  }
  CountSessions();
}

// True when one more may begin, since one that has waited for long does not any more.
bool Egress::MakeRoom(const Sessions& of) {
  const HeldSyns::Slot oldest = syns_.oldest();
  if (oldest == kNoSyn || state_.now_ns - syns_[oldest].since_ns < kHeldAtLeastNs) return false;
  Sessions& its = Of(syns_[oldest].inner.v6);
  if (&its != &of && !of.tcp.HasRoom()) return false;
  const Place place = syns_[oldest].place;
  state_.drops.Count(Drop::egress_evicted);
  TellGone(IdOf(its, place));
  GiveUp(its, place);
  return true;
}

void Egress::OnSegment(Sessions& of, Place place, PacketPtr packet, const Segmenter& segmenter) {
  TcpSessions::Session& session = of.tcp[place];
  const uint8_t flags = FlagsOf(segmenter);
  if (session.state == TcpSessions::State::kPending) {
    // It asks again, and what it will get is under way; or it has given up.
    state_.drops.Count(Drop::egress_waits, segmenter.segments());
    if ((flags & kTcpRst) == 0) return;
    TellGone(IdOf(of, place));
    GiveUp(of, place);
    return CountSessions();
  }
  if ((flags & kTcpFin) != 0) {
    session.initiator_ended = true;
    session.next_sequence = TcpSequenceEnd(segmenter.packet(), segmenter.inner());
  }
  if ((flags & kTcpRst) == 0) {
    session.initiator_answered |= (flags & kTcpAck) != 0;
  } else if (session.state == TcpSessions::State::kOpen && !session.initiator_answered) {
    // It had given up before it was told. The kernel forgets what never was a connection without a
    // word to the relay, which would wait for it, and meet the next flow of these ports with it.
    TellGone(IdOf(of, place));
    End(of, place);
    CountSessions();
  }
  CountTurned(of, place);
  TurnRound(std::move(packet), segmenter, ToRelay(of, place));
}

// A flow that lasts is worth two calls of the kernel; a short one is not.
void Egress::CountTurned(Sessions& of, Place place) {
  TcpSessions::Session& session = of.tcp[place];
  if (shortcuts_ == nullptr || session.state != TcpSessions::State::kOpen) return;
  if (!session.initiator_answered) return;
  if (session.turned > kTurnedBeforeShortcut) return;
  if (++session.turned <= kTurnedBeforeShortcut) return;
  const FlowKey to_relay = ToRelay(of, place);
  session.has_shortcut = shortcuts_->Add(session.flow, to_relay);
  if (session.has_shortcut) shortcuts_->Add(to_relay.Reversed(), session.flow.Reversed());
}

void Egress::RemoveShortcut(Sessions& of, Place place) {
  TcpSessions::Session& session = of.tcp[place];
  if (!std::exchange(session.has_shortcut, false)) return;
  shortcuts_->Remove(session.flow);
  shortcuts_->Remove(ToRelay(of, place).Reversed());
}

FlowKey Egress::ToRelay(const Sessions& of, Place place) const {
  return {of.own, of.neighbours.listener, of.tcp[place].port, of.neighbours.listener_port,
          kProtocolTcp};
}

void Egress::TurnRound(PacketPtr packet, const Segmenter& segmenter, const FlowKey& to) {
  const MutableBytes from_tun = packet->bytes();
  Readdress(from_tun.subspan(kVnetHeaderBytes), segmenter.inner(), to,
            segmenter.partial_checksum());
  // A checksum elsewhere was finished when the packet was looked at.
  if (!segmenter.partial_checksum()) StoreNative(from_tun.data(), VnetHeader{});
  Turned& turned = NextTurned();
  turned.packet = std::move(packet);
  Write(turned, from_tun);
}

Egress::Turned& Egress::NextTurned() {
  if (turned_used_ == kMaxHeld) {
    state_.backend->Flush();
    AfterFlush();
  }
  return turned_[turned_used_++];
}

void Egress::Write(Turned& turned, MutableBytes from_tun) {
  turned.part = {from_tun.data(), from_tun.size()};
  turned.request = {state_.options.tun_fd, {&turned.part, 1}, 0};
  state_.backend->Write(turned.request);
}

void Egress::AfterFlush() {
  for (size_t i = 0; i < turned_used_; ++i) {
    Turned& turned = turned_[i];
    if (turned.request.error != 0) state_.drops.Count(Drop::tun_write_failed);
    turned.packet.reset();
    if (turned.syn != kNoSyn) syns_.Free(std::exchange(turned.syn, kNoSyn));
  }
  turned_used_ = 0;
}

// --- What the slow path and the relay say ---

void Egress::OnVerdict(const TcpVerdict& verdict) {
  Sessions& of = Of(verdict.flow.v6);
  const Place place = verdict.flow.place;
  const TcpSessions::Session& session = of.tcp[place];
  const bool known = session.generation == verdict.flow.generation;
  const bool pending = known && session.state == TcpSessions::State::kPending;
  if (verdict.type == TcpVerdict::Type::kOpen && pending) {
    Open(of, place);
  } else if (verdict.type == TcpVerdict::Type::kOpen) {
    // Its initiator has given up meanwhile.
    TellGone(verdict.flow);
  } else if (pending) {
    Refuse(of, verdict);
  } else if (known && session.state == TcpSessions::State::kOpen) {
    End(of, place);
  }
  CountSessions();
}

void Egress::Open(Sessions& of, Place place) {
  of.tcp.Open(place);
  Turned& turned = NextTurned();
  turned.syn = std::exchange(of.syns[place], kNoSyn);
  syns_.Take(turned.syn);
  HeldSyns::Syn& syn = syns_[turned.syn];
  Readdress(syn.packet(), syn.inner, ToRelay(of, place), syn.partial_checksum);
  Write(turned, syn.from_tun());
}

void Egress::End(Sessions& of, Place place) {
  RemoveShortcut(of, place);
  of.tcp.End(place, state_.now_ns);
}

void Egress::Refuse(Sessions& of, const TcpVerdict& verdict) {
  HeldSyns::Syn& syn = syns_[of.syns[verdict.flow.place]];
  const MutableBytes to = answers_.Next();
  if (!to.empty() && verdict.type == TcpVerdict::Type::kUnreachable) {
    answers_.Write(WriteIcmpError(syn.packet(), syn.inner, {verdict.error, 0}, to));
  } else if (!to.empty() && verdict.type != TcpVerdict::Type::kForget) {
    answers_.Write(WriteTcpReset(syn.packet(), syn.inner, to));
  }
  GiveUp(of, verdict.flow.place);
}

void Egress::GiveUp(Sessions& of, Place place) {
  syns_.Drop(std::exchange(of.syns[place], kNoSyn));
  of.tcp.Cancel(place);
}

TcpFlowId Egress::IdOf(const Sessions& of, Place place) const {
  return {static_cast<uint16_t>(state_.options.index), &of == &v6_, of.tcp[place].port, place,
          of.tcp[place].generation};
}

void Egress::TellGone(const TcpFlowId& flow) {
  Event event;
  event.type = Event::Type::kTcpGone;
  event.tcp = flow;
  state_.Tell(std::move(event));
}

// What the kernel still remembers of the flow at the relay's end (it may have closed first) is
// ended, so that the next one of this port finds nothing of it.
void Egress::Expire() {
  for (Sessions* of : {&v4_, &v6_}) {
    while (of->tcp.NextDue() <= state_.now_ns) {
      const MutableBytes to = answers_.Next();
      if (to.empty()) return;
      const Place place = of->tcp.Expire();
      const TcpSessions::Session& session = of->tcp[place];
      if (!session.initiator_ended) continue;
      answers_.Write(WriteTcpResetOf(ToRelay(*of, place), session.next_sequence, to));
    }
  }
}

void Egress::CountSessions() {
  tcp_sessions_.store(v4_.tcp.in_use() + v6_.tcp.in_use(), std::memory_order_relaxed);
}

}  // namespace braid
