#include "slowpath/tunnel_sockets.h"

#include <string>

#include "absl/status/status.h"

namespace braid {
namespace {

absl::Status Explain(const absl::Status& status, const std::string& where) {
  return absl::Status(status.code(), where + ": " + std::string(status.message()));
}

IpAddress Unspecified(IpAddress::Family family) { return {family, {}}; }

}  // namespace

absl::StatusOr<TunnelSockets> TunnelSockets::Open(const Config& config, int workers) {
  TunnelSockets all;
  if (config.role == Role::kServer) {
    for (size_t i = 0; i < config.tunnel.listen.size(); ++i) {
      absl::Status status =
          all.OpenServerGroup(config.tunnel.listen[i], static_cast<uint16_t>(i), workers);
      if (!status.ok()) return Explain(status, "/tunnel/listen/" + std::to_string(i));
    }
    return all;
  }
  for (size_t i = 0; i < config.tunnel.paths.size(); ++i) {
    const PathConfig& path = config.tunnel.paths[i];
    const std::string where = "/tunnel/paths/" + std::to_string(i);
    all.slow_.resize(i * 2 + 2);
    if (path.address.is_set()) {
      absl::Status status =
          all.OpenClientGroup(path, path.address, ClientGroup(static_cast<int>(i), path.address),
                              config.tunnel.lanes, workers);
      if (!status.ok()) return Explain(status, where);
      continue;
    }
    for (const auto family : {IpAddress::Family::kV4, IpAddress::Family::kV6}) {
      const IpAddress any = Unspecified(family);
      absl::Status status = all.OpenClientGroup(path, any, ClientGroup(static_cast<int>(i), any),
                                                config.tunnel.lanes, workers);
      // A machine without IPv6 still has IPv4.
      if (!status.ok() && family == IpAddress::Family::kV4) return Explain(status, where);
    }
  }
  return all;
}

absl::Status TunnelSockets::OpenClientGroup(const PathConfig& path, const IpAddress& address,
                                            uint16_t group, int lanes, int workers) {
  UdpSocketOptions options{address, 0, path.interface, false};
  for (int lane = 0; lane <= lanes; ++lane) {
    const bool slow = lane == lanes;
    options.coalesce = !slow;
    auto socket = OpenUdp(options);
    if (!socket.ok()) return socket.status();
    const int fd = socket->fd.get();
    if (slow) {
      slow_[group] = {fd, false};
    } else {
      owned_.push_back({{fd, group, static_cast<int16_t>(lane), false}, lane % workers});
    }
    sockets_.push_back(*std::move(socket));
  }
  return absl::OkStatus();
}

absl::Status TunnelSockets::OpenServerGroup(const Endpoint& listen, uint16_t group, int workers) {
  UdpSocketOptions options{listen.address, listen.port, "", false};
  // Workers share the port, which would also let another program of this user share it.
  if (auto alone = OpenUdp(options); !alone.ok()) return alone.status();
  options.reuse_port = true;
  const bool any_address = listen.address.is_unspecified();
  // The order of binding is the index that the steering program returns: workers, then slow path.
  for (int worker = 0; worker <= workers; ++worker) {
    const bool slow = worker == workers;
    options.coalesce = !slow;
    auto socket = OpenUdp(options);
    if (!socket.ok()) return socket.status();
    const int fd = socket->fd.get();
    if (slow) {
      slow_.push_back({fd, any_address});
    } else {
      owned_.push_back({{fd, group, Incoming::kAnyLane, any_address}, worker});
    }
    sockets_.push_back(*std::move(socket));
  }
  if (absl::Status status = AttachLaneSteering(sockets_.back(), workers); !status.ok()) {
    steered_ = false;
    warnings_.push_back(std::string(status.message()) +
                        ": workers hand datagrams to each other instead");
  }
  return absl::OkStatus();
}

uint64_t TunnelSockets::ReceiveQueueDrops() const {
  uint64_t drops = 0;
  for (const UdpSocket& socket : sockets_) drops += braid::ReceiveQueueDrops(socket.fd.get());
  return drops;
}

std::vector<WorkerSocket> TunnelSockets::OfWorker(int worker) const {
  std::vector<WorkerSocket> sockets;
  for (const Owned& owned : owned_) {
    if (owned.worker == worker) sockets.push_back(owned.socket);
  }
  return sockets;
}

}  // namespace braid
