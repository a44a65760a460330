// The threads that do handshakes' expensive part, in a oneTBB arena: as many as there are CPUs to
// use, named "braid-handshake", and below everything else in priority, because data and control
// must not wait for them. Nothing of it exists before the first job.
//
// Jobs are begun in order, those of the second stage first. All calls come from one thread, the
// slow path's.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>

#include "fastpath/mailbox.h"
#include "slowpath/handshake_job.h"

namespace braid {

class HandshakeArena {
 public:
  // At most `threads`.
  explicit HandshakeArena(int threads);
  ~HandshakeArena();
  HandshakeArena(const HandshakeArena&) = delete;
  HandshakeArena& operator=(const HandshakeArena&) = delete;

  void Run(std::unique_ptr<HandshakeJob> job);
  // One that has run; nullptr: none has.
  std::unique_ptr<HandshakeJob> TryTake();
  bool Empty() const;  // of those
  // Rung when there is something to take: several at once need one wake only.
  Doorbell& doorbell() { return doorbell_; }

  // Awaits the jobs that threads are at, and drops all others. No thread is left then.
  void Stop();

 private:
  struct Threads;

  void WorkOff();  // on the arena's threads

  const int max_threads_;
  Doorbell doorbell_;
  mutable std::mutex mutex_;
  std::condition_variable all_left_;
  std::deque<std::unique_ptr<HandshakeJob>> waiting_;
  std::deque<std::unique_ptr<HandshakeJob>> done_;
  int busy_threads_ = 0;  // that work off what waits, or have been asked to
  bool stopped_ = false;
  std::unique_ptr<Threads> threads_;
};

}  // namespace braid
