#include "slowpath/health.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/quoted.h"

namespace braid {
namespace {

using Component = HealthReport::Component;

// In the order of the enumerators.
constexpr std::array<std::string_view, 3> kHealthNames = {"ok", "degraded", "failed"};

constexpr DurationNs kStuckNs = 3 * kSecondNs;
constexpr DurationNs kLateNs = 500 * kMillisecondNs;
constexpr double kMostFilesUsed = 0.8;

bool IsStuck(DurationNs silent_ns) { return silent_ns >= kStuckNs; }

Component JudgeWorkers(const HealthInputs& inputs) {
  const std::vector<DurationNs>& silent_ns = inputs.workers_silent_ns;
  const auto stuck = std::find_if(silent_ns.begin(), silent_ns.end(), IsStuck);
  if (stuck == silent_ns.end()) return {"workers"};
  return {"workers", Health::kFailed,
          absl::StrCat("worker ", stuck - silent_ns.begin(), " has not answered for ",
                       *stuck / kSecondNs, " s: it hangs, or has no CPU")};
}

Component JudgeSlowPath(const HealthInputs& inputs) {
  if (inputs.slow_path_lag_ns < kLateNs) return {"slow_path"};
  return {"slow_path", Health::kDegraded,
          absl::StrCat("its timer came ", inputs.slow_path_lag_ns / kMillisecondNs,
                       " ms late: the machine is short of CPU")};
}

std::string DescribeDown(const HealthInputs::PeerView& peer, const HealthInputs::PathView& path) {
  return absl::StrCat("path ", Quoted(path.name), " to ", Quoted(peer.name), " is down",
                      path.problem.empty() ? "" : ": ", path.problem);
}

bool IsReached(const HealthInputs::PeerView& peer) {
  return peer.established && std::any_of(peer.paths.begin(), peer.paths.end(),
                                         [](const auto& path) { return path.up; });
}

// What is wrong with a peer, the worst first.
std::vector<std::string> ProblemsOf(const HealthInputs::PeerView& peer) {
  if (!IsReached(peer)) {
    std::string why = absl::StrCat(
        peer.established ? "no answer over any path from " : "no session with ", Quoted(peer.name));
    for (const HealthInputs::PathView& path : peer.paths) {
      if (path.problem.empty()) continue;
      absl::StrAppend(&why, "; path ", Quoted(path.name), ": ", path.problem);
    }
    return {why};
  }
  std::vector<std::string> problems;
  for (const HealthInputs::PathView& path : peer.paths) {
    if (!path.up) problems.push_back(DescribeDown(peer, path));
  }
  return problems;
}

Component JudgeConnectivity(const HealthInputs& inputs) {
  Component component{"connectivity"};
  if (!inputs.is_client) return component;
  std::vector<std::string> problems;
  bool reaches_any = inputs.peers.empty();
  // Peers that are not reached before paths that are down.
  for (const bool reached : {false, true}) {
    for (const HealthInputs::PeerView& peer : inputs.peers) {
      if (IsReached(peer) != reached) continue;
      reaches_any = reaches_any || reached;
      for (std::string& problem : ProblemsOf(peer)) problems.push_back(std::move(problem));
    }
  }
  if (problems.empty()) return component;
  component.health = reaches_any ? Health::kDegraded : Health::kFailed;
  component.why = problems.front();
  if (problems.size() > 1) absl::StrAppend(&component.why, " (and ", problems.size() - 1, " more)");
  return component;
}

Component JudgeNetwork(const HealthInputs& inputs) {
  if (inputs.network_problem.empty()) return {"network"};
  return {"network", Health::kDegraded, inputs.network_problem};
}

Component JudgeResources(const HealthInputs& inputs) {
  if (!inputs.used_up.empty()) {
    std::string reasons;
    for (const Drop reason : inputs.used_up) {
      absl::StrAppend(&reasons, reasons.empty() ? "" : ", ",
                      std::string(kDropNames[static_cast<size_t>(reason)]));
    }
    return {"resources", Health::kDegraded,
            absl::StrCat("a worker's memory was used up, and packets were dropped: ", reasons)};
  }
  if (inputs.open_files == 0 && inputs.most_files != 0) {
    return {"resources", Health::kDegraded,
            absl::StrCat("no file descriptor of ", inputs.most_files,
                         " is left to count them with: raise the limit (LimitNOFILE=)")};
  }
  const bool many = static_cast<double>(inputs.open_files) >
                    kMostFilesUsed * static_cast<double>(inputs.most_files);
  if (!many) return {"resources"};
  return {"resources", Health::kDegraded,
          absl::StrCat(inputs.open_files, " of ", inputs.most_files,
                       " file descriptors are in use: raise the limit (LimitNOFILE=)")};
}

// What the daemon warns of it lives with, and so may whoever watches it.
Component JudgeConfiguration(const HealthInputs& inputs) {
  Component component{"configuration"};
  if (inputs.warnings.empty()) return component;
  component.why = inputs.warnings.front();
  if (inputs.warnings.size() > 1) {
    absl::StrAppend(&component.why, " (and ", inputs.warnings.size() - 1, " more)");
  }
  return component;
}

}  // namespace

std::string_view NameOf(Health health) { return kHealthNames[static_cast<size_t>(health)]; }

HealthReport JudgeHealth(const HealthInputs& inputs) {
  HealthReport report;
  report.components = {JudgeWorkers(inputs), JudgeSlowPath(inputs),  JudgeConnectivity(inputs),
                       JudgeNetwork(inputs), JudgeResources(inputs), JudgeConfiguration(inputs)};
  for (const Component& component : report.components) {
    report.health = std::max(report.health, component.health);
  }
  return report;
}

HealthReport HealthWithoutTunnel(std::string why) {
  return {Health::kFailed, {{"tunnel", Health::kFailed, std::move(why)}}};
}

nlohmann::ordered_json DescribeHealth(const HealthReport& report) {
  nlohmann::ordered_json json;
  json["status"] = std::string(NameOf(report.health));
  for (const Component& component : report.components) {
    nlohmann::ordered_json& one = json["components"][std::string(component.name)];
    one["status"] = std::string(NameOf(component.health));
    if (!component.why.empty()) one["why"] = component.why;
  }
  return json;
}

bool AreWorkersAlive(const std::vector<DurationNs>& workers_silent_ns) {
  return std::none_of(workers_silent_ns.begin(), workers_silent_ns.end(), IsStuck);
}

}  // namespace braid
