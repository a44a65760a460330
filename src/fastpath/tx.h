// From TUN to the network: cuts, seals and sends. See tx.cc for the stages.
#pragma once

#include <array>

#include "fastpath/control.h"
#include "fastpath/segmenter.h"
#include "fastpath/worker_state.h"

namespace braid {

class Transmitter {
 public:
  explicit Transmitter(WorkerState& state) : state_(state) {}

  // A vnet header and packet from TUN; `handed` when another worker read it.
  void OnTunPacket(PacketPtr packet, bool handed);

  // Seals a control message into a lane of this worker and queues it for `route`.
  void SendControl(Session& session, LaneState& lane, uint8_t path, const Route& route,
                   const ControlMessage& message);

  // The way that this lane is answered at on `path`: its own proven source if it was heard lately,
  // else the path's.
  const Route& RouteOf(const Session& session, LaneState& lane, uint8_t path) const;

  // Queues every train with the backend.
  void CloseTrains();
  // Settles them, and the answers to TUN, once the backend has flushed.
  void AfterFlush();

 private:
  // Datagrams of one size for one destination, being sealed behind each other into one buffer.
  struct Train {
    PacketPtr buffer;
    Session* session = nullptr;
    const LaneState* lane = nullptr;
    uint8_t path = 0;
    bool closed = false;
    uint32_t datagrams = 0;
    SendRequest request;
  };

  void SendSegments(Session& session, const Keypair& keypair, LaneState& lane);
  bool Prepare(const Keypair& keypair, LaneState& lane, size_t packets);
  void SealInto(Train& train, LaneState& lane, Kind kind, uint8_t flags, Bytes plain);
  bool Fits(const Train& train, size_t datagram_bytes) const;
  Train* TrainFor(Session& session, const LaneState& lane, uint8_t path, const Route& route,
                  size_t datagram_bytes);
  void AnswerTooBig(Session& session);
  void FlushAll();

  WorkerState& state_;
  Segmenter segmenter_;
  std::array<Train, kTrainBuffers> trains_;
  size_t trains_used_ = 0;

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
