// Real workers of a server or a client, behind a device and sockets of the network that the calling
// thread is in: see InFreshNetwork().
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "slowpath/net_setup.h"
#include "slowpath/worker_group.h"

namespace braid::testing {

// None is pinned.
inline std::vector<int> Unpinned(size_t workers) { return std::vector<int>(workers, -1); }

// False when it does not come to pass within seconds.
template <typename Condition>
bool Await(Condition&& condition) {
  for (int i = 0; i < 25'000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return condition();
}

struct RunningWorkers {
  RunningWorkers(const Config& config, const std::vector<int>& cpus) : group(cpus) {
    constexpr char kDevice[] = "braid9";
    auto tun = OpenTun(kDevice, group.workers(), true);
    EXPECT_TRUE(tun.ok()) << tun.status();
    device = *std::move(tun);
    EXPECT_TRUE(SetUpDevice(kDevice, {IpPrefix::Parse("10.77.0.1/24").value()}, 1400).ok());
    auto opened = TunnelSockets::Open(config, group.workers());
    EXPECT_TRUE(opened.ok()) << opened.status();
    sockets = *std::move(opened);
    const absl::Status status = group.Start(config, device, 1400, *sockets);
    EXPECT_TRUE(status.ok()) << status;
  }

  TunDevice device;
  std::optional<TunnelSockets> sockets;
  WorkerGroup group;
};

}  // namespace braid::testing
