// From TUN to the network: cuts, seals and sends. See tx.cc for the stages.
#pragma once

#include "fastpath/bonds.h"
#include "fastpath/control.h"
#include "fastpath/egress.h"
#include "fastpath/segmenter.h"
#include "fastpath/trains.h"
#include "fastpath/worker_state.h"

namespace braid {

class Transmitter {
 public:
  // `egress`: nullptr where nothing leaves past the tunnel.
  Transmitter(WorkerState& state, Trains& trains, Bonds& bonds, TunAnswers& answers, Egress* egress)
      : state_(state), trains_(trains), bonds_(bonds), answers_(answers), egress_(egress) {}

  // A vnet header and packet from TUN; `handed` when another worker read it.
  void OnTunPacket(PacketPtr packet, bool handed);

  // Seals a control message into a lane of this worker and queues it for `route`.
  void SendControl(Session& session, const LaneRef& lane, uint8_t path, const Route& route,
                   const ControlMessage& message);

 private:
  void NoteDirect(PeerSlot peer, Session& session);
  void SendSegments(Session& session, const Keypair& keypair, LaneState& lane);
  bool Prepare(const Keypair& keypair, const LaneRef& lane, size_t packets);
  void AnswerTooBig(Session& session);

  WorkerState& state_;
  Trains& trains_;
  Bonds& bonds_;
  TunAnswers& answers_;
  Egress* const egress_;
  Segmenter segmenter_;
  TimeNs answers_window_ns_ = 0;
  int answers_in_window_ = 0;
};

}  // namespace braid
