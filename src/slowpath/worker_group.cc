#include "slowpath/worker_group.h"

#include <algorithm>

#include "io/udp.h"

namespace braid {
namespace {

constexpr size_t kLeastSpareSlots = 64;
constexpr DurationNs kPatienceNs = kSecondNs;

BackendChoice ChoiceOf(const std::string& io) {
  if (io == "io_uring") return BackendChoice::kUring;
  return io == "epoll" ? BackendChoice::kEpoll : BackendChoice::kAuto;
}

void AddTo(WorkerGroup::ShaperTotals& totals, const ShaperGauges* gauges) {
  if (gauges == nullptr) return;
  totals.waiting_bytes += gauges->waiting_bytes.load(std::memory_order_relaxed);
  totals.delayed += gauges->delayed.Get();
  totals.dropped += gauges->dropped.Get();
  totals.marked += gauges->marked.Get();
  totals.refused += gauges->refused.Get();
}

}  // namespace

size_t PeerRoom(size_t peers) {
  return std::min<size_t>(peers + std::max<size_t>(peers / 4, kLeastSpareSlots), kMaxPeers);
}

WorkerGroup::WorkerGroup(const std::vector<int>& cpus)
    : waiting_(cpus.size()),
      commands_given_(cpus.size()),
      asked_for_life_(cpus.size()),
      cpus_(cpus) {
  for (size_t i = 0; i < cpus.size(); ++i) mailboxes_.push_back(std::make_unique<WorkerMailbox>());
}

WorkerGroup::~WorkerGroup() { (void)Stop(); }

absl::Status WorkerGroup::Start(const Config& config, const TunDevice& device, int mtu,
                                const TunnelSockets& sockets,
                                const std::vector<EgressOptions>& egress) {
  WorkerOptions options;
  options.workers = workers();
  options.max_peers = PeerRoom(config.tunnel.peers.size());
  options.lanes = config.tunnel.lanes;
  options.max_inner_bytes = static_cast<size_t>(mtu);
  options.offloads = device.offloads;
  options.max_gso_datagrams = config.performance.offloads ? ProbeMaxGsoDatagrams() : 1;
  options.io = ChoiceOf(config.performance.io);
  options.mailboxes = mailboxes();
  options.slow_path = &events_;
  options.group = &states_;
  for (int i = 0; i < workers(); ++i) {
    options.index = i;
    options.cpu = cpus_[static_cast<size_t>(i)];
    options.tun_fd = device.queues[static_cast<size_t>(i)].get();
    options.sockets = sockets.OfWorker(i);
    if (!egress.empty()) options.egress = egress[static_cast<size_t>(i)];
    workers_.push_back(std::make_unique<Worker>(options, mailbox(i)));
    states_.push_back(&workers_.back()->state());
  }
  for (auto& worker : workers_) {
    if (absl::Status status = worker->Start(); !status.ok()) return status;
    backend_name_ = worker->backend_name();
    fallback_reason_ = worker->state().backend_fallback_reason;
  }
  return absl::OkStatus();
}

bool WorkerGroup::Stop() {
  const TimeNs until_ns = MonotonicNowNs() + kPatienceNs;
  for (auto& worker : workers_) {
    const TimeNs now_ns = MonotonicNowNs();
    if (!worker->Stop(until_ns - std::min(until_ns, now_ns))) return false;
  }
  // What a worker put into another's mailbox after that one's end goes back while its pool lives.
  HandedPacket unread;
  for (auto& mailbox : mailboxes_) {
    while (mailbox->packets.TryPop(unread)) unread.packet.reset();
  }
  return true;
}

std::vector<WorkerMailbox*> WorkerGroup::mailboxes() {
  std::vector<WorkerMailbox*> all;
  for (const auto& mailbox : mailboxes_) all.push_back(mailbox.get());
  return all;
}

void WorkerGroup::Tell(const Command& command) {
  for (size_t i = 0; i < mailboxes_.size(); ++i) Push(i, Command(command));
}

void WorkerGroup::Push(size_t worker, Command&& command) {
  ++commands_given_[worker];
  if (!waiting_[worker].empty() || !mailboxes_[worker]->commands.TryPush(std::move(command))) {
    waiting_[worker].push_back(std::move(command));
    return;
  }
  mailboxes_[worker]->doorbell.Ring();
}

bool WorkerGroup::has_waiting() const {
  return std::any_of(waiting_.begin(), waiting_.end(),
                     [](const auto& commands) { return !commands.empty(); });
}

void WorkerGroup::AddSockets(std::shared_ptr<const SocketGroup> sockets) {
  Tell({.type = Command::Type::kAddSockets, .sockets = sockets.get()});
  Retire(std::move(sockets));
}

void WorkerGroup::RemoveSockets(uint16_t group, std::shared_ptr<const void> keeper) {
  Tell({.type = Command::Type::kRemoveSockets, .group = group});
  Retire(std::move(keeper));
}

void WorkerGroup::SetRoutes(std::shared_ptr<const RouteTable> routes) {
  Tell({.type = Command::Type::kSetRoutes, .routes = routes.get()});
  std::swap(routes_, routes);
  if (routes != nullptr) Retire(std::move(routes));
}

void WorkerGroup::SetClassRules(std::shared_ptr<const ClassRules> rules) {
  Tell({.type = Command::Type::kSetClassRules, .class_rules = rules.get()});
  std::swap(class_rules_, rules);
  if (rules != nullptr) Retire(std::move(rules));
}

void WorkerGroup::SetEgressRules(std::shared_ptr<const EgressRules> rules,
                                 std::shared_ptr<const LearnedNames> names) {
  Tell({.type = Command::Type::kSetEgress,
        .egress_rules = rules.get(),
        .egress_names = names.get()});
  std::swap(egress_rules_, rules);
  std::swap(egress_names_, names);
  if (rules != nullptr) Retire(std::move(rules));
  if (names != nullptr) Retire(std::move(names));
}

void WorkerGroup::SetThrottle(std::shared_ptr<Throttle> throttle) {
  Tell({.type = Command::Type::kSetThrottle, .throttle = throttle.get()});
  std::swap(throttle_, throttle);
  if (throttle != nullptr) Retire(std::move(throttle));
}

void WorkerGroup::Retire(std::shared_ptr<const void> withdrawn) {
  retired_.push_back({commands_given_, std::move(withdrawn)});
}

void WorkerGroup::Tick() {
  for (size_t i = 0; i < waiting_.size(); ++i) {
    while (!waiting_[i].empty() &&
           mailboxes_[i]->commands.TryPush(std::move(waiting_[i].front()))) {
      waiting_[i].pop_front();
      mailboxes_[i]->doorbell.Ring();
    }
  }
  const auto passed = [&](const Retired& retired) {
    for (size_t i = 0; i < mailboxes_.size(); ++i) {
      if (mailboxes_[i]->commands_done.load(std::memory_order_acquire) < retired.commands[i]) {
        return false;
      }
    }
    return true;
  };
  while (!retired_.empty() && passed(retired_.front())) retired_.pop_front();
}

// One that does not answer is asked no further, or it would fill its mailbox.
void WorkerGroup::AskForLife(TimeNs now_ns) {
  for (size_t i = 0; i < mailboxes_.size(); ++i) {
    if (OwesLife(i)) continue;
    Push(i, Command());
    asked_for_life_[i] = {commands_given_[i], now_ns};
  }
}

bool WorkerGroup::OwesLife(size_t worker) const {
  const uint64_t done = mailboxes_[worker]->commands_done.load(std::memory_order_acquire);
  return done < asked_for_life_[worker].commands;
}

DurationNs WorkerGroup::SilentFor(int worker, TimeNs now_ns) const {
  const auto i = static_cast<size_t>(worker);
  return OwesLife(i) ? now_ns - asked_for_life_[i].at_ns : 0;
}

bool WorkerGroup::HandPacket(int worker, HandedPacket&& packet) {
  WorkerMailbox& owner = mailbox(worker);
  if (!owner.packets.TryPush(std::move(packet))) return false;
  owner.doorbell.Ring();
  return true;
}

PeerActivity WorkerGroup::ActivityOf(PeerSlot peer) const {
  PeerActivity activity;
  for (const auto& worker : workers_) {
    const Session& session = *worker->state().sessions[peer];
    activity.last_rx_ns =
        std::max(activity.last_rx_ns, session.last_rx_ns.load(std::memory_order_relaxed));
    activity.last_tx_ns =
        std::max(activity.last_tx_ns, session.last_tx_ns.load(std::memory_order_relaxed));
    activity.tx_packets += session.tx_packets.Get();
    for (size_t path = 0; path < kMaxPaths; ++path) {
      activity.rx_datagrams[path] += session.traffic[path].rx_datagrams.Get();
    }
  }
  return activity;
}

WorkerGroup::PathTotals WorkerGroup::TrafficOf(PeerSlot peer, int path) const {
  PathTotals totals;
  for (const auto& worker : workers_) {
    const PathTraffic& traffic = worker->state().sessions[peer]->traffic[static_cast<size_t>(path)];
    totals.rx_bytes += traffic.rx_bytes.Get();
    totals.tx_bytes += traffic.tx_bytes.Get();
    totals.rx_datagrams += traffic.rx_datagrams.Get();
    totals.tx_datagrams += traffic.tx_datagrams.Get();
    totals.rx_expected += traffic.rx_expected.Get();
  }
  return totals;
}

WorkerGroup::PeerTotals WorkerGroup::TrafficOf(PeerSlot peer) const {
  PeerTotals totals;
  for (const auto& worker : workers_) {
    const Session& session = *worker->state().sessions[peer];
    totals.rx_bytes += session.rx_bytes.Get();
    totals.tx_bytes += session.tx_bytes.Get();
    totals.rx_packets += session.rx_packets.Get();
    totals.tx_packets += session.tx_packets.Get();
  }
  return totals;
}

const BondGauges* WorkerGroup::BondOf(PeerSlot peer) const {
  return workers_[peer % workers_.size()]->bonds().GaugesOf(peer);
}

WorkerGroup::ShaperTotals WorkerGroup::SendShaperOf(PeerSlot peer) const {
  ShaperTotals totals;
  for (const auto& worker : workers_) AddTo(totals, worker->bonds().ShaperGaugesOf(peer));
  return totals;
}

WorkerGroup::ShaperTotals WorkerGroup::ReceiveShaperOf(PeerSlot peer) const {
  ShaperTotals totals;
  for (const auto& worker : workers_) AddTo(totals, worker->receiver().ShaperGaugesOf(peer));
  return totals;
}

WorkerGroup::WorkerTotals WorkerGroup::TotalsOf(int worker) const {
  const auto i = static_cast<size_t>(worker);
  const WorkerState& state = workers_[i]->state();
  WorkerTotals totals;
  totals.cpu = state.options.cpu;
  totals.handed_over = state.handed_over.Get();
  totals.rx_packets = state.ended_rx_packets.Get();
  totals.tx_packets = state.ended_tx_packets.Get();
  totals.rx_bytes = state.ended_rx_bytes.Get();
  totals.tx_bytes = state.ended_tx_bytes.Get();
  totals.busy_ns = workers_[i]->CpuTimeNs();
  totals.inbox_packets = mailboxes_[i]->packets.ApproximateSize();
  totals.inbox_commands = mailboxes_[i]->commands.ApproximateSize() + waiting_[i].size();
  for (const auto& session : state.sessions) {
    totals.rx_bytes += session->rx_bytes.Get();
    totals.tx_bytes += session->tx_bytes.Get();
    totals.rx_packets += session->rx_packets.Get();
    totals.tx_packets += session->tx_packets.Get();
  }
  for (int lane = 0; lane < kMaxLanes; ++lane) {
    const auto id = static_cast<uint8_t>(lane);
    if (state.lanes.Contains(id)) totals.lanes.push_back(id);
  }
  return totals;
}

uint64_t WorkerGroup::Drops(Drop reason) const {
  uint64_t drops = 0;
  for (const auto& worker : workers_) drops += worker->state().drops.Get(reason);
  return drops;
}

uint64_t WorkerGroup::HandedOver() const {
  uint64_t packets = 0;
  for (const auto& worker : workers_) packets += worker->state().handed_over.Get();
  return packets;
}

bool WorkerGroup::SegmentationRefused() const {
  return std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) {
    return worker->state().segmentation_refused.load(std::memory_order_relaxed);
  });
}

}  // namespace braid
