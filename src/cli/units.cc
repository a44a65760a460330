#include "cli/units.h"

#include <array>
#include <cstddef>
#include <utility>

#include "absl/strings/str_format.h"

namespace braid {

std::string OrNothing(std::string text) { return text.empty() ? kNothing : text; }

std::string ShowBytes(std::optional<double> bytes) {
  if (!bytes || *bytes < 0) return kNothing;
  constexpr std::array<const char*, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = *bytes;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, value, kUnits[unit]);
}

std::string ShowGigabytes(std::optional<double> bytes) {
  if (!bytes || *bytes < 0) return kNothing;
  return absl::StrFormat("%.*f GB", *bytes < 1e9 ? 3 : 1, *bytes / 1e9);
}

std::string ShowDuration(std::optional<double> seconds) {
  if (!seconds || *seconds < 0 || *seconds > 1e12) return kNothing;
  constexpr std::pair<int64_t, char> kUnits[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
  auto left = static_cast<int64_t>(*seconds);
  std::string out;
  for (const auto& [size, name] : kUnits) {
    const int64_t count = std::exchange(left, left % size) / size;
    if (!out.empty()) return count == 0 ? out : out + absl::StrFormat(" %d%c", count, name);
    if (count > 0 || size == 1) out = absl::StrFormat("%d%c", count, name);
  }
  return out;
}

std::string ShowMilliseconds(std::optional<double> ms) {
  if (!ms || *ms < 0) return kNothing;
  return absl::StrFormat("%.*f ms", *ms < 9.995 ? 2 : *ms < 999.95 ? 1 : 0, *ms);
}

std::string ShowLoss(std::optional<double> share) {
  if (!share || *share < 0) return kNothing;
  if (*share == 0) return "0 %";
  // What is lost is never rounded to nothing.
  return *share < 0.0005 ? "<0.1 %" : absl::StrFormat("%.1f %%", *share * 100);
}

std::string ShowRate(std::optional<double> mbps) {
  if (!mbps || *mbps < 0) return kNothing;
  if (*mbps >= 999.95) return absl::StrFormat("%.2f Gbit/s", *mbps / 1000);
  return absl::StrFormat("%.1f Mbit/s", *mbps);
}

std::string ShowGrouped(uint64_t count) {
  std::string digits = absl::StrFormat("%d", count);
  for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string ShowCount(std::optional<double> count) {
  if (!count || *count < 0 || *count > 1e18) return kNothing;
  return ShowGrouped(static_cast<uint64_t>(*count));
}

}  // namespace braid
