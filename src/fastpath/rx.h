// From the network to TUN: opens, checks, joins and writes. See rx.cc for the stages.
#pragma once

#include <array>

#include "fastpath/coalescer.h"
#include "fastpath/shaper.h"
#include "fastpath/tx.h"
#include "fastpath/worker_state.h"

namespace braid {

class Receiver {
 public:
  Receiver(WorkerState& state, Transmitter& transmitter, Bonds& bonds);

  // What one read brought; `handed` when another thread read it.
  void OnDatagrams(PacketPtr packet, const Incoming& incoming, bool handed);

  // What a bond has held and is to be delivered now.
  void DeliverReady(PeerSlot peer, Bond& bond);
  void DeliverSlot(PeerSlot peer, Session& session, SlotId id);

  // Of what comes. What is too much waits here, once it is opened. nullptr: there are none.
  void SetLimits(ThrottleWay* way) { shaper_.SetLimits(way, state_.now_ns); }
  // Whether the slow path is to see what name servers say through the tunnel.
  void SetTellsOfNames(bool tells) { tells_of_names_ = tells; }
  // What has waited for a limit and may go on.
  void DeliverShaped();
  TimeNs NextDue() const { return shaper_.NextDue(); }
  // The peer's session has ended.
  void OnSessionEnd(PeerSlot peer) { state_.drops.Count(Drop::throttled_rx, shaper_.Clear(peer)); }
  void EndPeer(PeerSlot peer) { state_.drops.Count(Drop::throttled_rx, shaper_.End(peer)); }
  // For the slow path, at any time.
  const ShaperGauges* ShaperGaugesOf(PeerSlot peer) const { return shaper_.GaugesOf(peer); }

  // Queues the packets for TUN with the backend.
  void FinishWrites();
  // Settles them once the backend has flushed, and lets go of the buffers.
  void AfterFlush();

  // The route table is another one: what it said is forgotten.
  void OnRoutesChanged() { last_source_ = {}; }

  // A session that was not found may have just been announced: the worker carries out its commands
  // when this is set, and the datagram is looked up again.
  using CarryOutCommands = void (*)(void* worker);
  void SetCarryOutCommands(CarryOutCommands carry_out, void* worker) {
    carry_out_commands_ = carry_out;
    worker_ = worker;
  }

 private:
  // What the datagrams of one read mostly have in common, looked up with the first of them.
  struct Stream {
    SessionTable::Entry entry;
    Session* session = nullptr;  // nullptr: nothing was looked up yet
    LaneRef lane;                // unset: the lane has opened nothing yet
    Bond* bond = nullptr;        // of a bond's lane
    uint8_t lane_id = 0;
    uint8_t path = 0;
    bool source_followed = false;

    bool Has(const Header& header) const {
      return session != nullptr && header.session == entry.index && header.lane == lane_id &&
             (header.path & kPathIdMask) == path;
    }
  };

  void OnDatagram(MutableBytes datagram, const Incoming& incoming, bool handed, Stream& stream);
  std::optional<Drop> Find(const Header& header, Stream& stream);
  const SessionTable::Entry* FindEntry(uint32_t session);
  bool Owns(const Header& header, PeerSlot peer) const;
  void HandToOwner(int worker, Bytes datagram, const Incoming& incoming);
  void TellSlowPath(Bytes datagram, const Incoming& incoming);
  std::optional<Drop> Open(Stream& stream, const Header& header, MutableBytes datagram,
                           LaneReceiver::Opened& opened);
  void FollowSource(Stream& stream, const Incoming& incoming, bool newest);
  void OnBonded(const Stream& stream, const Incoming& incoming, const Header& header,
                const LaneReceiver::Opened& opened, size_t datagram_bytes);
  // False when there is nothing.
  bool DeliverRecovered(const Stream& stream);
  void OnControl(const Stream& stream, const Incoming& incoming, Bytes plain);
  void OnData(PeerSlot peer, Session& session, uint8_t flags, MutableBytes plain);
  void Delay(PeerSlot peer, uint8_t flags, Bytes plain);
  void Deliver(Session& session, MutableBytes plain, const InnerPacket& inner,
               bool partial_checksum);
  bool OwnsSource(PeerSlot peer, Bytes packet);
  void TellOfNames(Bytes plain, const InnerPacket& inner);
  void FlushAll();

  WorkerState& state_;
  Transmitter& transmitter_;
  Bonds& bonds_;
  Shaper shaper_;
  Coalescer coalescer_;
  bool tells_of_names_ = false;
  CarryOutCommands carry_out_commands_ = nullptr;
  void* worker_ = nullptr;

  // Buffers whose payload the coalescer borrows.
  static constexpr size_t kMaxHeld = kReceiveBuffers * 2;
  std::array<PacketPtr, kMaxHeld> held_;
  size_t held_used_ = 0;
  static constexpr size_t kMaxHeldSlots = 256;
  std::array<SlotId, kMaxHeldSlots> held_slots_;
  size_t held_slots_used_ = 0;
  std::span<WriteRequest> writes_;

  // The last inner source that was looked up: packets come in runs.
  IpAddress last_source_;
  PeerSlot last_source_owner_ = kNoPeer;
};

}  // namespace braid
