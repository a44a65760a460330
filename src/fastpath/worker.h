// A worker: one pinned thread that moves packets between its TUN queue and its sockets. It sleeps
// in its backend only; everything that others want of it comes through its mailbox.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "fastpath/cpu_affinity.h"
#include "fastpath/rx.h"
#include "fastpath/tx.h"
#include "fastpath/worker_state.h"

namespace braid {

class Worker final : private Backend::Sink {
 public:
  // `mailbox` is the one that others know this worker by; it and all descriptors in the options
  // outlive the worker.
  Worker(const WorkerOptions& options, WorkerMailbox& mailbox);
  ~Worker();

  // Starts the thread and returns once it is ready, or with why it can't be.
  absl::Status Start();
  // Ends it: a stop command, then join. Safe when not started. False when the thread has not ended
  // within that time: it hangs, and neither it nor what it uses may be destroyed.
  [[nodiscard]] bool Stop(DurationNs patience_ns = kNever);

  // What the slow path may read while the worker runs: counters, and what Start() has fixed.
  const WorkerState& state() const { return state_; }
  const Bonds& bonds() const { return bonds_; }
  const Receiver& receiver() const { return receiver_; }
  const Egress* egress() const { return egress_.get(); }
  std::string_view backend_name() const { return state_.backend->name(); }
  // That its thread has had. For whoever starts and stops it; 0 while it does not run.
  DurationNs CpuTimeNs() const;

 private:
  absl::Status Prepare();
  void RunUntilEnd();
  void TellOfDeath(const char* why);
  void Run();
  void OnTunPacket(PacketPtr packet) override;
  void OnDatagrams(PacketPtr packet, const Arrival& arrival) override;
  DurationNs SleepTime() const;
  TimeNs EgressDue() const;
  void BeginBatch();
  void TakeHandedPackets();
  void TakeVerdicts();
  void CarryOutCommands();
  void CarryOut(const Command& command);
  void BeginPath(PeerSlot peer, uint8_t path);
  absl::Status AddSocket(const WorkerSocket& socket);
  void AddSockets(const SocketGroup& group);
  void RemoveSockets(uint16_t group);
  void FinishBatch();

  WorkerState state_;
  CpuAffinity affinity_;
  WorkerMailbox& mailbox_;
  Trains trains_;
  Bonds bonds_;
  TunAnswers answers_;
  const std::unique_ptr<Egress> egress_;  // nullptr where nothing leaves past the tunnel
  Transmitter transmitter_;
  Receiver receiver_;
  bool stopping_ = false;
  bool batch_has_time_ = false;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace braid
