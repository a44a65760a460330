// From TUN to the network: cuts, seals and sends. See tx.cc for the stages.
#pragma once

#include <array>

#include "fastpath/bonds.h"
#include "fastpath/control.h"
#include "fastpath/segmenter.h"
#include "fastpath/trains.h"
#include "fastpath/worker_state.h"

namespace braid {

class Transmitter {
 public:
  Transmitter(WorkerState& state, Trains& trains, Bonds& bonds)
      : state_(state), trains_(trains), bonds_(bonds) {}

  // A vnet header and packet from TUN; `handed` when another worker read it.
  void OnTunPacket(PacketPtr packet, bool handed);

  // Seals a control message into a lane of this worker and queues it for `route`.
  void SendControl(Session& session, const LaneRef& lane, uint8_t path, const Route& route,
                   const ControlMessage& message);

  // Forgets the answers to TUN, once the backend has flushed.
  void AfterFlush() { answers_used_ = 0; }

 private:
  void NoteDirect(PeerSlot peer, Session& session);
  void SendSegments(Session& session, const Keypair& keypair, LaneState& lane);
  bool Prepare(const Keypair& keypair, const LaneRef& lane, size_t packets);
  void AnswerTooBig(Session& session);

  WorkerState& state_;
  Trains& trains_;
  Bonds& bonds_;
  Segmenter segmenter_;

  static constexpr size_t kMaxAnswers = 16;  // ICMP errors between two flushes
  struct Answer {
    std::array<uint8_t, 640> bytes;
    iovec part;
    WriteRequest request;
  };
  std::array<Answer, kMaxAnswers> answers_;
  size_t answers_used_ = 0;
  TimeNs answers_window_ns_ = 0;
  int answers_in_window_ = 0;
};

}  // namespace braid
