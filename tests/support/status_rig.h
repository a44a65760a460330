// All that a daemon has to tell of itself, without a daemon: real workers, and an end of tunnels on
// a simulated network. To be made within InFreshNetwork().
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "slowpath/status_sources.h"
#include "support/running_workers.h"
#include "support/simulated_end.h"
#include "support/simulated_network.h"

namespace braid::testing {

class StatusRig {
 public:
  // The end's peers are called peer0, peer1, …, a client's paths link0, link1, …
  StatusRig(Role role, size_t peers, size_t paths = 1)
      : state_dir_(MakeFolder()),
        config(MakeConfig(role, peers, paths)),
        near(network, role, AddressesOf(role, paths)),
        workers(config, Unpinned(2)),
        meters(peers),
        quotas(state_dir_, Key{}) {
    for (size_t i = 0; i < peers; ++i) {
      const Endpoint at{IpAddress::Parse("192.0.2." + std::to_string(i % 250 + 1)).value(),
                        static_cast<uint16_t>(20000 + i)};
      const Role other = role == Role::kClient ? Role::kServer : Role::kClient;
      far.push_back(std::make_unique<SimulatedEnd>(network, other, std::vector<Endpoint>{at}));
      const std::vector<Endpoint> nowhere;
      near.Know(*far[i], role == Role::kClient ? std::vector<Endpoint>{at} : nowhere);
      far[i]->Know(near, role == Role::kClient ? nowhere : near.addresses);
    }
    if (role == Role::kClient) {
      client_paths.emplace(config);
      FollowPaths([](const PathConfig& path) { return BindingChoice{{{path.name, 1, {}}}, ""}; });
    }
    near.Start();
  }
  ~StatusRig() {
    (void)workers.group.Stop();
    std::filesystem::remove_all(state_dir_);
  }

  void FollowPaths(ClientPaths::Choose choose) {
    client_paths->Follow({}, choose, [](uint8_t) { return true; });
  }

  void Run(DurationNs duration_ns) {
    network.Run(duration_ns, Peers::kTickNs, [this] {
      near.Tick();
      for (auto& end : far) end->Tick();
    });
  }

  StatusSources sources() const {
    return {config,
            near_peers(),
            workers.group,
            meters,
            workers.device.offloads,
            near.options.aeads,
            stray_drops,
            tun_queue_drops,
            3,
            true,
            1400,
            warnings,
            1,
            network.now_ns(),
            client_paths ? &*client_paths : nullptr,
            quotas,
            config.throttle};
  }

 private:
  static std::string MakeFolder() {
    char name[] = "/tmp/braid-status-XXXXXX";
    return mkdtemp(name);
  }
  static std::vector<Endpoint> AddressesOf(Role role, size_t paths) {
    if (role == Role::kServer) return {Endpoint::Parse("198.51.100.1:7700").value()};
    std::vector<Endpoint> addresses;
    for (size_t path = 0; path < paths; ++path) {
      addresses.push_back(
          Endpoint::Parse("203.0.113." + std::to_string(path + 1) + ":40000").value());
    }
    return addresses;
  }
  static Config MakeConfig(Role role, size_t peers, size_t paths) {
    Config config;
    config.role = role;
    for (size_t i = 0; i < peers; ++i) {
      config.tunnel.peers.emplace_back().name = "peer" + std::to_string(i);
    }
    if (role == Role::kServer) config.tunnel.listen = {Endpoint::Parse("127.0.0.1:7700").value()};
    for (size_t i = 0; role == Role::kClient && i < paths; ++i) {
      config.tunnel.paths.emplace_back().name = "link" + std::to_string(i);
    }
    return config;
  }
  const Peers& near_peers() const { return const_cast<SimulatedEnd&>(near).peers(); }

  const std::string state_dir_;

 public:
  Config config;
  SimulatedNetwork network;
  SimulatedEnd near;
  std::vector<std::unique_ptr<SimulatedEnd>> far;  // by peer; to be started by the test
  RunningWorkers workers;
  PathMeters meters;
  PathQuotas quotas;
  std::optional<ClientPaths> client_paths;
  DropCounters stray_drops;
  uint64_t tun_queue_drops = 2;
  std::vector<std::string> warnings;
};

}  // namespace braid::testing
