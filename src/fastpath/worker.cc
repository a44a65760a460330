#include "fastpath/worker.h"

#include <pthread.h>
#include <sched.h>

#include <future>
#include <string>

// Test builds may load a library ahead of this program that aborts when a thread allocates after it
// has said so here. Without it the symbol is absent.
extern "C" __attribute__((weak)) void braid_forbid_allocation(int forbid);

namespace braid {
namespace {

constexpr DurationNs kSleepNs = 60 * kSecondNs;  // nothing depends on it
constexpr int kHandedPacketsPerBatch = 64;

void ForbidAllocation(bool forbid) {
  if (braid_forbid_allocation != nullptr) braid_forbid_allocation(forbid ? 1 : 0);
}

}  // namespace

Worker::Worker(const WorkerOptions& options, WorkerMailbox& mailbox)
    : state_(options), mailbox_(mailbox), transmitter_(state_), receiver_(state_, transmitter_) {
  receiver_.SetCarryOutCommands(
      [](void* worker) { static_cast<Worker*>(worker)->CarryOutCommands(); }, this);
}

Worker::~Worker() { Stop(); }

absl::Status Worker::Start() {
  std::promise<absl::Status> ready;
  thread_ = std::thread([this, &ready] {
    absl::Status status = Prepare();
    const bool go = status.ok();
    ready.set_value(std::move(status));
    if (go) Run();
  });
  absl::Status status = ready.get_future().get();
  if (!status.ok()) thread_.join();
  return status;
}

void Worker::Stop() {
  if (!thread_.joinable()) return;
  Command stop;
  stop.type = Command::Type::kStop;
  while (!mailbox_.commands.TryPush(Command(stop))) sched_yield();
  mailbox_.doorbell.Ring();
  thread_.join();
}

absl::Status Worker::Prepare() {
  const std::string name = "braid-worker" + std::to_string(state_.options.index);
  pthread_setname_np(pthread_self(), name.c_str());
  if (absl::Status s = affinity_.Start(state_.options.cpu); !s.ok()) return s;
  PrepareAeadThread();
  for (auto* pool : {&state_.receive_pool, &state_.train_pool}) {
    auto made =
        PacketPool::Create(pool == &state_.receive_pool ? kReceivePoolBuffers : kTrainBuffers);
    if (!made.ok()) return made.status();
    *pool = std::move(*made);
    (*pool)->BindToThisThread();
  }
  auto backend =
      MakeBackend(state_.options.io, *state_.receive_pool, state_.backend_fallback_reason);
  if (!backend.ok()) return backend.status();
  state_.backend = std::move(*backend);
  if (absl::Status s = state_.backend->AddTun(state_.options.tun_fd); !s.ok()) return s;
  for (size_t id = 0; id < state_.options.sockets.size(); ++id) {
    absl::Status s =
        state_.backend->AddSocket(state_.options.sockets[id].fd, static_cast<uint16_t>(id));
    if (!s.ok()) return s;
  }
  return state_.backend->AddWake(mailbox_.doorbell.fd());
}

void Worker::Run() {
  ForbidAllocation(true);
  while (!stopping_) {
    mailbox_.doorbell.AnnounceSleep();
    const bool waiting = mailbox_.commands.Empty() && mailbox_.packets.Empty();
    batch_has_time_ = false;
    state_.backend->Poll(waiting ? kSleepNs : 0, *this);
    mailbox_.doorbell.AnnounceAwake();
    TakeHandedPackets();
    CarryOutCommands();
    FinishBatch();
  }
  ForbidAllocation(false);
  state_.backend.reset();
}

void Worker::BeginBatch() {
  if (batch_has_time_) return;
  batch_has_time_ = true;
  state_.now_ns = MonotonicNowNs();
}

void Worker::OnTunPacket(PacketPtr packet) {
  BeginBatch();
  transmitter_.OnTunPacket(std::move(packet), false);
}

void Worker::OnDatagrams(PacketPtr packet, const Arrival& arrival) {
  BeginBatch();
  const WorkerSocket& socket = state_.options.sockets[arrival.socket_id];
  const Route back{arrival.source, socket.answers_from_local ? arrival.local : IpAddress{},
                   socket.group};
  receiver_.OnDatagrams(std::move(packet), {back, socket.lane, arrival.datagram_bytes}, false);
}

void Worker::TakeHandedPackets() {
  HandedPacket handed;
  for (int i = 0; i < kHandedPacketsPerBatch && mailbox_.packets.TryPop(handed); ++i) {
    BeginBatch();
    if (handed.from == HandedPacket::From::kTun) {
      transmitter_.OnTunPacket(std::move(handed.packet), true);
    } else {
      receiver_.OnDatagrams(std::move(handed.packet), handed.incoming, true);
    }
  }
}

void Worker::CarryOutCommands() {
  Command command;
  while (mailbox_.commands.TryPop(command)) {
    CarryOut(command);
    mailbox_.commands_done.fetch_add(1, std::memory_order_release);
  }
}

void Worker::CarryOut(const Command& command) {
  Session* session = state_.FindSession(command.peer);
  switch (command.type) {
    case Command::Type::kNone:
      break;
    case Command::Type::kSetRoutes:
      state_.routes = command.routes;
      receiver_.OnRoutesChanged();
      break;
    case Command::Type::kAddKeypair:
      state_.sessions_by_index.Insert(command.keypair->local_index, command.peer, command.keypair);
      break;
    case Command::Type::kSendUnder:
      session->send_keypair = command.keypair;
      session->mtu = command.mtu;
      break;
    case Command::Type::kRemoveKeypair:
      if (session->send_keypair == command.keypair) session->send_keypair = nullptr;
      state_.sessions_by_index.Erase(command.keypair->local_index);
      break;
    case Command::Type::kSetPath:
      session->paths[command.path].route = command.route;
      ++session->paths[command.path].version;
      break;
    case Command::Type::kUsePath:
      session->active_path = command.path;
      session->has_path = true;
      break;
    case Command::Type::kStop:
      stopping_ = true;
      break;
  }
}

void Worker::FinishBatch() {
  transmitter_.CloseTrains();
  receiver_.FinishWrites();
  state_.backend->Flush();
  transmitter_.AfterFlush();
  receiver_.AfterFlush();
  affinity_.OnBatch(state_.now_ns);
}

}  // namespace braid
