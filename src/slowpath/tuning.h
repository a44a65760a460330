// Judges a survey of this machine: line by line what costs the tunnel throughput, what would be
// better, and which settings make it so. Pure: the same survey gives the same findings.
//
// What it knows of braid: each worker is one thread on one CPU; a flow's lane belongs to one
// worker; the datagrams of a lane come and go in trains (GSO and GRO), through a socket of the lane
// (client) or of the worker (server).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slowpath/host_survey.h"
#include "slowpath/tune_changes.h"
#include "slowpath/worker_layout.h"

namespace braid {

enum class TuneGroup : uint8_t { kCpu, kPower, kNetDevice, kIrq, kNetCore, kMemory, kKernel };
inline constexpr std::string_view kTuneGroups[] = {"cpu",      "power",  "net-device", "irq",
                                                   "net-core", "memory", "kernel"};

struct Finding {
  enum class Verdict : uint8_t { kOk, kCosts, kUnknown };

  TuneGroup group = TuneGroup::kCpu;
  std::string device = {};  // empty for what is the whole machine's
  std::string name = {};
  Verdict verdict = Verdict::kOk;
  std::string now = {};
  std::string better = {};           // of kCosts
  std::string why = {};              // also what to know of something that is well
  bool seen_here = false;            // of kCosts: this machine shows the loss; else it is a rule
  std::vector<Change> changes = {};  // of kCosts: what makes it so; none: by hand
};

std::vector<Finding> FindTuning(const HostSurvey& host, const WorkerLayout& layout);

}  // namespace braid
