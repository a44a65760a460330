// What `braid doctor` found, for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "slowpath/diagnosis.h"

namespace braid {

// Lines of at most 80 columns, but for words that are wider: each group with a line for each check,
// what to do below it; how many are not well, at the end.
std::string RenderDiagnoses(const std::vector<Diagnosis>& diagnoses, bool colour);

// {"checks": [{"group", "name", "status": "ok" | "warn" | "fail" | "unknown", "found", "advice"}],
//  "failed": how many}
nlohmann::ordered_json DescribeDiagnoses(const std::vector<Diagnosis>& diagnoses);

size_t CountFailed(const std::vector<Diagnosis>& diagnoses);

}  // namespace braid
