// How a command ends: what it exits with, and what it says on standard error when it has failed.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace braid {

// Says "braid COMMAND: why". Returns 1.
int Fail(std::string_view command, std::string_view why);
int Fail(std::string_view command, const absl::Status& why);

// 0 when everything that was printed has left standard output; else it says so, and returns 1.
int EndOutput(std::string_view command);

}  // namespace braid
