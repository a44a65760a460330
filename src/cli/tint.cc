#include "cli/tint.h"

#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>

#include "absl/strings/str_format.h"

namespace braid {

std::string Tinted(bool colour, Tint tint, const std::string& text) {
  if (!colour || tint == Tint::kPlain || text.empty()) return text;
  constexpr std::array<const char*, 6> kCodes = {"0", "1", "2", "32", "33", "31"};
  return absl::StrFormat("\x1b[%sm%s\x1b[0m", kCodes[static_cast<size_t>(tint)], text);
}

Tint TintOfState(std::string_view state) {
  if (state == "up" || state == "running" || state == "ready" || state == "established") {
    return Tint::kGood;
  }
  if (state == "down" || state == "failed") return Tint::kBad;
  return Tint::kFair;
}

bool WantsColour(int fd) { return isatty(fd) == 1 && std::getenv("NO_COLOR") == nullptr; }

}  // namespace braid
