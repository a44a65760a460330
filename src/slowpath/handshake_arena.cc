#include "slowpath/handshake_arena.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_scheduler_observer.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>
#include <utility>

namespace braid {
namespace {

// Beside a worker that wants all of its CPU, a thread of this arena gets a tenth.
constexpr int kNice = 10;

// Waking a thread costs a good part of a job. So another one begins where there is that much for
// each of those at work, and the slow path hears of so many results at once while there is more to
// do: a millisecond's work.
constexpr size_t kBatch = 8;

// Failing to stand back is no reason to do no handshakes.
void StandBack() {
  pthread_setname_np(pthread_self(), "braid-handshake");
  const sched_param none{};
  (void)!sched_setscheduler(0, SCHED_BATCH, &none);
  (void)!setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNice);
}

class StandsBackOnEntry final : public tbb::task_scheduler_observer {
 public:
  explicit StandsBackOnEntry(tbb::task_arena& arena) : task_scheduler_observer(arena) {
    observe(true);
  }
  ~StandsBackOnEntry() override { observe(false); }

  void on_scheduler_entry(bool is_worker) override {
    if (is_worker) StandBack();
  }
};

// oneTBB would keep its threads for whoever asks next. This ends them, and waits until they have
// ended.
class EndsThreads {
 public:
  ~EndsThreads() { tbb::finalize(scheduler_, std::nothrow); }

 private:
  tbb::task_scheduler_handle scheduler_{tbb::attach{}};
};

}  // namespace

struct HandshakeArena::Threads {
  // Left to itself, oneTBB counts the thread that asks among those that work.
  explicit Threads(int count)
      : allowed(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(count) + 1),
        arena(count, /*reserved_for_masters=*/0),
        observer(arena) {}

  EndsThreads at_last;  // when nothing uses them any more
  tbb::global_control allowed;
  tbb::task_arena arena;
  StandsBackOnEntry observer;
};

HandshakeArena::HandshakeArena(int threads) : max_threads_(threads) {}

HandshakeArena::~HandshakeArena() { Stop(); }

void HandshakeArena::Run(std::unique_ptr<HandshakeJob> job) {
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    if (job->stage() == HandshakeJob::Stage::kRead) {
      waiting_.push_back(std::move(job));
    } else {
      waiting_.push_front(std::move(job));
    }
    const bool enough = waiting_.size() <= kBatch * static_cast<size_t>(busy_threads_);
    if (busy_threads_ == max_threads_ || enough) return;
    ++busy_threads_;
  }
  if (threads_ == nullptr) threads_ = std::make_unique<Threads>(max_threads_);
  threads_->arena.enqueue([this] { WorkOff(); });
}

void HandshakeArena::WorkOff() {
  std::unique_lock lock(mutex_);
  while (!waiting_.empty()) {
    std::unique_ptr<HandshakeJob> job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    job->Run();
    lock.lock();
    done_.push_back(std::move(job));
    if (waiting_.empty() || done_.size() >= kBatch) doorbell_.Ring();
  }
  // Under the lock: who waits for this may end the arena's life right after.
  if (--busy_threads_ == 0) all_left_.notify_all();
}

std::unique_ptr<HandshakeJob> HandshakeArena::TryTake() {
  const std::lock_guard lock(mutex_);
  if (done_.empty()) return nullptr;
  std::unique_ptr<HandshakeJob> job = std::move(done_.front());
  done_.pop_front();
  return job;
}

bool HandshakeArena::Empty() const {
  const std::lock_guard lock(mutex_);
  return done_.empty();
}

void HandshakeArena::Stop() {
  std::unique_lock lock(mutex_);
  stopped_ = true;
  waiting_.clear();
  all_left_.wait(lock, [this] { return busy_threads_ == 0; });
  done_.clear();
  lock.unlock();
  threads_ = nullptr;
}

}  // namespace braid
