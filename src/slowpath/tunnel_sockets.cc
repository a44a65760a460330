#include "slowpath/tunnel_sockets.h"

#include <string>
#include <utility>

#include "absl/status/status.h"

namespace braid {
namespace {

absl::Status Explain(const absl::Status& status, const std::string& where) {
  return absl::Status(status.code(), where + ": " + std::string(status.message()));
}

}  // namespace

absl::StatusOr<TunnelSockets> TunnelSockets::Open(const Config& config, int workers) {
  TunnelSockets all;
  all.lanes_ = config.tunnel.lanes;
  all.workers_ = workers;
  if (config.role == Role::kClient) return all;
  for (size_t i = 0; i < config.tunnel.listen.size(); ++i) {
    absl::Status status = all.OpenServerGroup(config.tunnel.listen[i], static_cast<uint16_t>(i));
    if (!status.ok()) return Explain(status, "/tunnel/listen/" + std::to_string(i));
  }
  return all;
}

absl::StatusOr<std::vector<uint16_t>> TunnelSockets::AddPath(int path, const PathBinding& binding) {
  std::vector<IpAddress> from = {binding.address};
  if (!binding.address.is_set()) {
    from = {IpAddress::Any(IpAddress::Family::kV4), IpAddress::Any(IpAddress::Family::kV6)};
  }
  std::vector<uint16_t> opened;
  for (const IpAddress& address : from) {
    const uint16_t group = ClientGroup(path, address);
    SlowSocket slow_socket;
    auto made = OpenClientGroup(binding, address, group, slow_socket);
    if (!made.ok()) {
      // A machine without IPv6 still has IPv4.
      if (!binding.address.is_set() && address.is_v6()) continue;
      return made.status();
    }
    groups_[group] = *std::move(made);
    slow_[group] = slow_socket;
    opened.push_back(group);
  }
  return opened;
}

absl::StatusOr<std::shared_ptr<TunnelSockets::Group>> TunnelSockets::OpenClientGroup(
    const PathBinding& binding, const IpAddress& address, uint16_t group, SlowSocket& slow_socket) {
  auto made = std::make_shared<Group>();
  made->of_workers.group = group;
  made->of_workers.generation = ++generations_;
  made->of_workers.by_worker.resize(static_cast<size_t>(workers_));
  UdpSocketOptions options{.address = address, .interface = binding.device};
  // One for each lane, one for the bonds of each worker, and the slow lane's.
  for (int i = 0; i <= lanes_ + workers_; ++i) {
    const bool slow = i == lanes_ + workers_;
    options.coalesce = !slow;
    auto socket = OpenUdp(options);
    if (!socket.ok()) return socket.status();
    const int fd = socket->fd.get();
    if (slow) {
      slow_socket = {fd, false};
    } else {
      const int lane = i < lanes_ ? i : kFirstBondLane;
      const int worker = i < lanes_ ? i % workers_ : i - lanes_;
      made->of_workers.by_worker[static_cast<size_t>(worker)].push_back(
          {fd, group, static_cast<int16_t>(lane), false});
    }
    made->sockets.push_back(*std::move(socket));
  }
  return made;
}

absl::Status TunnelSockets::OpenServerGroup(const Endpoint& listen, uint16_t group) {
  auto made = std::make_shared<Group>();
  made->of_workers.group = group;
  made->of_workers.by_worker.resize(static_cast<size_t>(workers_));
  UdpSocketOptions options{.address = listen.address, .port = listen.port};
  // Workers share the port, which would also let another program of this user share it.
  if (auto alone = OpenUdp(options); !alone.ok()) return alone.status();
  options.reuse_port = true;
  const bool any_address = listen.address.is_unspecified();
  // The order of binding is the index that the steering program returns: workers, then slow path.
  for (int worker = 0; worker <= workers_; ++worker) {
    const bool slow = worker == workers_;
    options.coalesce = !slow;
    auto socket = OpenUdp(options);
    if (!socket.ok()) return socket.status();
    const int fd = socket->fd.get();
    if (slow) {
      slow_[group] = {fd, any_address};
    } else {
      made->of_workers.by_worker[static_cast<size_t>(worker)].push_back(
          {fd, group, Incoming::kAnyLane, any_address});
    }
    made->sockets.push_back(*std::move(socket));
  }
  if (absl::Status status = AttachLaneSteering(made->sockets.back(), workers_); !status.ok()) {
    steered_ = false;
    warnings_.push_back(std::string(status.message()) +
                        ": workers hand datagrams to each other instead");
  }
  groups_[group] = std::move(made);
  return absl::OkStatus();
}

TunnelSockets::Keeper TunnelSockets::Remove(uint16_t group) {
  slow_[group] = {};
  if (groups_[group] != nullptr) drops_of_closed_ += groups_[group]->ReceiveQueueDrops();
  return std::exchange(groups_[group], nullptr);
}

uint64_t TunnelSockets::Group::ReceiveQueueDrops() const {
  uint64_t drops = 0;
  for (const UdpSocket& socket : sockets) drops += braid::ReceiveQueueDrops(socket.fd.get());
  return drops;
}

uint64_t TunnelSockets::ReceiveQueueDrops() const {
  uint64_t drops = drops_of_closed_;
  for (const auto& group : groups_) {
    if (group != nullptr) drops += group->ReceiveQueueDrops();
  }
  return drops;
}

std::shared_ptr<const SocketGroup> TunnelSockets::OfGroup(uint16_t group) const {
  if (groups_[group] == nullptr) return nullptr;
  return {groups_[group], &groups_[group]->of_workers};
}

std::vector<WorkerSocket> TunnelSockets::OfWorker(int worker) const {
  std::vector<WorkerSocket> sockets;
  for (const auto& group : groups_) {
    if (group == nullptr) continue;
    const auto& own = group->of_workers.by_worker[static_cast<size_t>(worker)];
    sockets.insert(sockets.end(), own.begin(), own.end());
  }
  return sockets;
}

}  // namespace braid
