#include "fastpath/worker.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <string>

// Test builds may load a library ahead of this program that aborts when a thread allocates after it
// has said so here. Without it the symbol is absent.
extern "C" __attribute__((weak)) void braid_forbid_allocation(int forbid);

namespace braid {
namespace {

constexpr DurationNs kSleepNs = 60 * kSecondNs;  // nothing depends on it
constexpr int kHandedPacketsPerBatch = 64;
constexpr int kVerdictsPerBatch = 64;
constexpr useconds_t kLookForEndUs = 200;
constexpr useconds_t kTellAgainUs = 1000;
constexpr int kTriesToTell = 1000;

void ForbidAllocation(bool forbid) {
  if (braid_forbid_allocation != nullptr) braid_forbid_allocation(forbid ? 1 : 0);
}

}  // namespace

Worker::Worker(const WorkerOptions& options, WorkerMailbox& mailbox)
    : state_(options),
      mailbox_(mailbox),
      trains_(state_),
      bonds_(state_, trains_),
      answers_(state_),
      egress_(options.egress ? std::make_unique<Egress>(state_, answers_, *options.egress)
                             : nullptr),
      transmitter_(state_, trains_, bonds_, answers_, egress_.get()),
      receiver_(state_, transmitter_, bonds_) {
  receiver_.SetCarryOutCommands(
      [](void* worker) { static_cast<Worker*>(worker)->CarryOutCommands(); }, this);
}

Worker::~Worker() { (void)Stop(); }

absl::Status Worker::Start() {
  std::promise<absl::Status> ready;
  thread_ = std::thread([this, &ready] {
    absl::Status status = Prepare();
    const bool go = status.ok();
    ready.set_value(std::move(status));
    if (go) RunUntilEnd();
  });
  absl::Status status = ready.get_future().get();
  if (!status.ok()) thread_.join();
  return status;
}

bool Worker::Stop(DurationNs patience_ns) {
  if (!thread_.joinable()) return true;
  Command stop;
  stop.type = Command::Type::kStop;
  const TimeNs began_ns = MonotonicNowNs();
  bool told = false;
  while (!ended_.load(std::memory_order_acquire)) {
    if (!told) told = mailbox_.commands.TryPush(Command(stop));
    mailbox_.doorbell.Ring();
    if (MonotonicNowNs() - began_ns >= patience_ns) return false;
    usleep(kLookForEndUs);
  }
  thread_.join();
  return true;
}

// By the thread's clock, so that the worker has nothing to count.
DurationNs Worker::CpuTimeNs() const {
  clockid_t clock;
  timespec time;
  auto& thread = const_cast<std::thread&>(thread_);
  const bool runs = thread_.joinable() &&
                    pthread_getcpuclockid(thread.native_handle(), &clock) == 0 &&
                    clock_gettime(clock, &time) == 0;
  return runs ? ToNs(time) : 0;
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
  for (const WorkerSocket& socket : state_.options.sockets) {
    if (absl::Status s = AddSocket(socket); !s.ok()) return s;
  }
  return state_.backend->AddWake(mailbox_.doorbell.fd());
}

// A worker that dies takes nobody with it: the slow path is told, and starts the tunnel anew.
void Worker::RunUntilEnd() {
  try {
    Run();
    ForbidAllocation(false);
  } catch (const std::exception& error) {
    ForbidAllocation(false);
    TellOfDeath(error.what());
  }
  state_.backend.reset();
  ended_.store(true, std::memory_order_release);
}

// Nothing else would tell of it, so it waits for room; not for a slow path that has gone.
void Worker::TellOfDeath(const char* why) {
  Event event;
  event.type = Event::Type::kDied;
  event.SetText(why);
  for (int tries = 0; tries < kTriesToTell; ++tries) {
    if (state_.options.slow_path->events.TryPush(Event(event))) break;
    usleep(kTellAgainUs);
  }
  state_.options.slow_path->doorbell.Ring();
}

void Worker::Run() {
  ForbidAllocation(true);
  while (!stopping_) {
    mailbox_.doorbell.AnnounceSleep();
    const bool waiting =
        mailbox_.commands.Empty() && mailbox_.packets.Empty() && mailbox_.verdicts.Empty();
    batch_has_time_ = false;
    state_.backend->Poll(waiting ? SleepTime() : 0, *this);
    mailbox_.doorbell.AnnounceAwake();
    TakeHandedPackets();
    TakeVerdicts();
    CarryOutCommands();
    FinishBatch();
  }
}

TimeNs Worker::EgressDue() const { return egress_ ? egress_->NextDue() : kNever; }

// Until the next bond is due, what waits for a limit, or a port that rests. While any is, each
// batch has read the time.
DurationNs Worker::SleepTime() const {
  const TimeNs due_ns = std::min({bonds_.NextDue(), receiver_.NextDue(), EgressDue()});
  if (due_ns <= state_.now_ns) return 0;
  return std::min(due_ns - state_.now_ns, kSleepNs);
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
  const WorkerSocket& socket = state_.sockets[arrival.socket_id];
  const Route back{arrival.source, socket.answers_from_local ? arrival.local : IpAddress{},
                   socket.group};
  receiver_.OnDatagrams(std::move(packet),
                        {back, socket.lane, arrival.datagram_bytes, arrival.wall_ns}, false);
}

void Worker::TakeHandedPackets() {
  HandedPacket handed;
  for (int i = 0; i < kHandedPacketsPerBatch && mailbox_.packets.TryPop(handed); ++i) {
    BeginBatch();
    switch (handed.from) {
      case HandedPacket::From::kTun:
        transmitter_.OnTunPacket(std::move(handed.packet), true);
        break;
      case HandedPacket::From::kNetwork:
        receiver_.OnDatagrams(std::move(handed.packet), handed.incoming, true);
        break;
      case HandedPacket::From::kDirect:
        bonds_.NoteDirect(handed.peer);
        break;
    }
  }
}

void Worker::TakeVerdicts() {
  TcpVerdict verdict;
  for (int i = 0; i < kVerdictsPerBatch && mailbox_.verdicts.TryPop(verdict); ++i) {
    BeginBatch();
    if (egress_) egress_->OnVerdict(verdict);
  }
}

void Worker::CarryOutCommands() {
  Command command;
  while (mailbox_.commands.TryPop(command)) {
    BeginBatch();
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
      if (state_.HasBond(command.peer)) bonds_.OnPathsChanged(command.peer, *session);
      break;
    case Command::Type::kRemoveKeypair:
      if (session->send_keypair == command.keypair) {
        session->send_keypair = nullptr;
        bonds_.OnSessionEnd(command.peer);
        receiver_.OnSessionEnd(command.peer);
      }
      state_.sessions_by_index.Erase(command.keypair->local_index);
      break;
    case Command::Type::kSetPath:
      if (!session->paths[command.path].route.remote.is_set())
        BeginPath(command.peer, command.path);
      session->paths[command.path].route = command.route;
      ++session->paths[command.path].version;
      break;
    case Command::Type::kUsePath:
      session->active_path = command.path;
      session->has_path = true;
      break;
    case Command::Type::kSetPathUp:
      session->paths[command.path].up = command.up;
      session->paths[command.path].far = command.far;
      session->paths[command.path].options = command.path_options;
      if (state_.HasBond(command.peer)) bonds_.OnPathsChanged(command.peer, *session);
      break;
    case Command::Type::kSetClassRules:
      bonds_.SetClassRules(command.class_rules);
      break;
    case Command::Type::kSetEgress:
      if (egress_) egress_->SetRules(command.egress_rules, command.egress_names);
      receiver_.SetTellsOfNames(command.egress_names != nullptr);
      break;
    case Command::Type::kSetBond:
      bonds_.SetOptions(command.bond);
      break;
    case Command::Type::kSetThrottle:
      state_.throttle = command.throttle;
      bonds_.SetLimits(command.throttle == nullptr ? nullptr : &command.throttle->tx);
      receiver_.SetLimits(command.throttle == nullptr ? nullptr : &command.throttle->rx);
      break;
    case Command::Type::kSetPeerMode:
      if (state_.HasBond(command.peer)) bonds_.SetMode(command.peer, command.mode);
      break;
    case Command::Type::kEndPath:
      session->paths[command.path].route = {};
      session->paths[command.path].up = false;
      if (state_.HasBond(command.peer)) bonds_.OnPathsChanged(command.peer, *session);
      ++session->paths[command.path].version;
      break;
    case Command::Type::kEndPeer:
      // What it was sealed to last is on its way through its session.
      trains_.FlushAll();
      bonds_.End(command.peer);
      receiver_.EndPeer(command.peer);
      state_.EndSession(command.peer);
      break;
    case Command::Type::kAddSockets:
      AddSockets(*command.sockets);
      break;
    case Command::Type::kRemoveSockets:
      RemoveSockets(command.group);
      break;
    case Command::Type::kStop:
      stopping_ = true;
      break;
  }
}

// What an earlier path of this id lost on its way is no loss of this one, nor are its bytes this
// one's. The sender's own count goes on.
void Worker::BeginPath(PeerSlot peer, uint8_t path) {
  Session& session = *state_.sessions[peer];
  for (LaneState* lane : session.lanes) {
    if (lane != nullptr) lane->receiver.ForgetPath(path);
  }
  session.traffic[path].BeginAnew();
  if (Bond* bond = bonds_.Find(peer)) bond->ForgetPath(path);
}

absl::Status Worker::AddSocket(const WorkerSocket& socket) {
  return state_.backend->AddSocket(socket.fd, state_.sockets.Put(socket));
}

void Worker::AddSockets(const SocketGroup& group) {
  ForbidAllocation(false);  // an error has a text
  for (const WorkerSocket& socket : group.by_worker[static_cast<size_t>(state_.options.index)]) {
    const absl::Status status = AddSocket(socket);
    if (status.ok()) continue;
    RemoveSockets(group.group);
    Event event;
    event.type = Event::Type::kNoSockets;
    event.group = group.group;
    event.generation = group.generation;
    event.SetText(std::string(status.message()));
    state_.Tell(std::move(event));
    break;
  }
  ForbidAllocation(true);
}

// Once this command is passed the sockets may be closed, so nothing may be on its way through them.
void Worker::RemoveSockets(uint16_t group) {
  trains_.FlushAll();
  state_.sockets.Clear(group, [this](int fd) { state_.backend->RemoveSocket(fd); });
}

void Worker::FinishBatch() {
  if (bonds_.NextDue() != kNever) {
    BeginBatch();
    bonds_.Run([this](PeerSlot peer, Bond& bond) { receiver_.DeliverReady(peer, bond); });
  }
  if (receiver_.NextDue() != kNever) {
    BeginBatch();
    receiver_.DeliverShaped();
  }
  if (EgressDue() != kNever) {
    BeginBatch();
    egress_->Expire();
  }
  trains_.Close();
  receiver_.FinishWrites();
  state_.backend->Flush();
  trains_.AfterFlush();
  answers_.AfterFlush();
  if (egress_) egress_->AfterFlush();
  receiver_.AfterFlush();
  affinity_.OnBatch(state_.now_ns);
}

}  // namespace braid
