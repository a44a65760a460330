// How well the daemon is: each component by itself, and the worst of them as the whole. Pure.
// docs/monitoring.md has the rules.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/counters.h"

namespace braid {

enum class Health : uint8_t {
  kOk,
  kDegraded,  // works, but something needs attention
  kFailed,    // does not do what it is for
};
// "ok", "degraded", "failed"
std::string_view NameOf(Health health);

// The pools that a worker has once and for all: when one is used up packets are dropped for this.
inline constexpr std::array kPoolDrops = {Drop::bond_full, Drop::no_buffer, Drop::no_lane_state};

struct HealthInputs {
  struct PathView {
    std::string name;
    bool up = false;
    std::string problem;  // why it is not, as far as is known
  };
  struct PeerView {
    std::string name;
    bool established = false;
    std::vector<PathView> paths;
  };

  std::vector<DurationNs> workers_silent_ns;  // how long each has owed a sign of life
  DurationNs slow_path_lag_ns = 0;            // that its timer came late, lately at most
  bool is_client = true;
  std::vector<PeerView> peers;  // of a client: a server does not wait for anybody
  std::string network_problem;  // what could not be changed around the tunnel; empty: nothing
  uint64_t open_files = 0;
  uint64_t most_files = 0;
  std::vector<Drop> used_up;  // those of kPoolDrops that have happened lately
  std::vector<std::string> warnings;
};

struct HealthReport {
  struct Component {
    std::string_view name;
    Health health = Health::kOk;
    std::string why = {};  // what there is to know; of one that is not ok, what is wrong
  };
  Health health = Health::kOk;
  std::vector<Component> components;
};

HealthReport JudgeHealth(const HealthInputs& inputs);
// Of a daemon whose tunnel is down, by command or since it has failed.
HealthReport HealthWithoutTunnel(std::string why);

// {"status": "ok", "components": {"workers": {"status": …, "why": …}, …}}; no "why" where there is
// nothing to know.
nlohmann::ordered_json DescribeHealth(const HealthReport& report);

// None of them has owed a sign of life for too long: systemd's watchdog may be told so.
bool AreWorkersAlive(const std::vector<DurationNs>& workers_silent_ns);

}  // namespace braid
