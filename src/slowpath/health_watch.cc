#include "slowpath/health_watch.h"

#include <algorithm>
#include <utility>

#include "slowpath/path_commands.h"
#include "slowpath/process_usage.h"

namespace braid {
namespace {

constexpr DurationNs kLagWindowNs = 10 * kSecondNs;
constexpr DurationNs kUsedUpForNs = 60 * kSecondNs;

std::string ProblemOf(const StatusSources& sources, const PeerPath& path, size_t id) {
  if (path.refused) return kCarriesTooLittle;
  const bool is_known = sources.paths != nullptr && (*sources.paths)[id].has_value();
  return is_known ? (*sources.paths)[id]->problem : "";
}

HealthInputs::PeerView SeePeer(const StatusSources& sources, const Peer& peer) {
  HealthInputs::PeerView view{peer.config.name, peer.established(), {}};
  const BondGauges* bond = sources.workers.BondOf(peer.slot);
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    const PeerPath& path = peer.paths[id];
    if (!path.exists) continue;
    const bool up = PathStateName(peer, id, bond) != "down";
    view.paths.push_back({path.name, up, up ? "" : ProblemOf(sources, path, id)});
  }
  return view;
}

}  // namespace

void HealthWatch::OnTimer(TimeNs due_ns, TimeNs now_ns) {
  if (now_ns >= lag_since_ns_ + kLagWindowNs) {
    const bool follows = now_ns < lag_since_ns_ + 2 * kLagWindowNs;
    lag_before_ns_ = follows ? lag_ns_ : 0;
    lag_ns_ = 0;
    lag_since_ns_ = now_ns;
  }
  lag_ns_ = std::max(lag_ns_, now_ns > due_ns ? now_ns - due_ns : 0);
}

void HealthWatch::Sample(absl::FunctionRef<uint64_t(Drop)> drops, TimeNs now_ns) {
  for (size_t i = 0; i < pools_.size(); ++i) {
    const uint64_t now = drops(kPoolDrops[i]);
    if (now != std::exchange(pools_[i].drops, now)) pools_[i].dropped_ns = now_ns;
  }
}

DurationNs HealthWatch::LagAt(TimeNs now_ns) const {
  const bool is_recent = now_ns < lag_since_ns_ + kLagWindowNs;
  return is_recent ? std::max(lag_ns_, lag_before_ns_) : lag_ns_;
}

std::vector<Drop> HealthWatch::UsedUpAt(TimeNs now_ns) const {
  std::vector<Drop> used_up;
  for (size_t i = 0; i < pools_.size(); ++i) {
    const TimeNs last_ns = pools_[i].dropped_ns;
    if (last_ns != 0 && now_ns < last_ns + kUsedUpForNs) used_up.push_back(kPoolDrops[i]);
  }
  return used_up;
}

HealthInputs HealthWatch::See(const StatusSources& sources, std::string network_problem) const {
  HealthInputs inputs;
  inputs.workers_silent_ns = SilencesOf(sources.workers, sources.now_ns);
  inputs.slow_path_lag_ns = LagAt(sources.now_ns);
  inputs.is_client = sources.config.role == Role::kClient;
  if (inputs.is_client) {
    for (const Peer* peer : sources.peers.all()) inputs.peers.push_back(SeePeer(sources, *peer));
  }
  inputs.network_problem = std::move(network_problem);
  const OpenFiles open = OpenFilesOfThisProcess();
  inputs.open_files = open.now;
  inputs.most_files = open.most;
  inputs.used_up = UsedUpAt(sources.now_ns);
  inputs.warnings = sources.warnings;
  return inputs;
}

std::vector<DurationNs> SilencesOf(const WorkerGroup& workers, TimeNs now_ns) {
  std::vector<DurationNs> silent_ns;
  for (int worker = 0; worker < workers.workers(); ++worker) {
    silent_ns.push_back(workers.SilentFor(worker, now_ns));
  }
  return silent_ns;
}

}  // namespace braid
