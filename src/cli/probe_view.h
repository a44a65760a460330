// What `braid probe` found out of a proxy, for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "slowpath/socks5_probe.h"

namespace braid {

// Lines of at most 80 columns: one a step, what to do below it; what the proxy carries, at the end.
std::string RenderProbe(const std::vector<Socks5ProbeStep>& steps, bool colour);

// {"server", "username", "works", "steps": [{"name", "status": "ok" | "failed" | "not tried", "ms",
//  "found", "advice", "reply"}]}; null where there is nothing. The password is not in it.
nlohmann::ordered_json DescribeProbe(const Socks5ProbeOptions& options,
                                     const std::vector<Socks5ProbeStep>& steps);

}  // namespace braid
