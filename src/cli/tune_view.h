// What `braid tune` prints: for people, and with --json for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "slowpath/tuning.h"

namespace braid {

struct TuneReport {
  WorkerLayout layout;
  std::vector<TunnelLink> links;  // that were looked at
  std::vector<Finding> findings;
};

// Lines of at most 80 columns: the workers, then each group's findings, then what can be done.
std::string RenderTuneReport(const TuneReport& report, bool colour);

// Lines of changes made or taken back, and their sum.
std::string RenderChanges(const std::vector<ChangeResult>& results, bool colour);

nlohmann::ordered_json DescribeTuneReport(const TuneReport& report);
nlohmann::ordered_json DescribeChanges(const std::vector<ChangeResult>& results);

}  // namespace braid
