#include "sim/link_text.h"

#include <array>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/limits.h"

namespace braid::sim {
namespace {

constexpr size_t kMostFields = 6;
constexpr double kMs = 1e6;

absl::StatusOr<linkem::LinkSettings> ParseLink(const std::string& text) {
  const std::vector<std::string> fields = absl::StrSplit(text, '/');
  std::array<double, kMostFields> values = {0, 0, 0, 256, 0, 0};
  if (fields.size() < 2 || fields.size() > kMostFields) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "link \"%s\": write Mbit/s, then ms one way, %% of loss, kB of queue, ms of "
        "jitter, %% of reordering, with / between: 50/10/0/256",
        text));
  }
  for (size_t i = 0; i < fields.size(); ++i) {
    if (!absl::SimpleAtod(fields[i], &values[i]) || values[i] < 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("link \"%s\": \"%s\" is not a number", text, fields[i]));
    }
  }
  return linkem::LinkSettings{
      .rate_bits_per_s = static_cast<uint64_t>(values[0] * 1e6),
      .delay_ns = static_cast<DurationNs>(values[1] * kMs),
      .jitter_ns = static_cast<DurationNs>(values[4] * kMs),
      .loss = values[2] / 100,
      .queue_bytes = static_cast<uint64_t>(values[3] * 1000),
      .reorder = values[5] / 100,
      .reorder_ns = 2 * kMillisecondNs,
  };
}

}  // namespace

absl::StatusOr<std::vector<linkem::LinkSettings>> ParseLinks(const std::string& text) {
  std::vector<linkem::LinkSettings> links;
  for (const std::string& one : std::vector<std::string>(absl::StrSplit(text, ','))) {
    absl::StatusOr<linkem::LinkSettings> link = ParseLink(one);
    if (!link.ok()) return link.status();
    links.push_back(*link);
  }
  if (links.size() > kMaxPaths) {
    return absl::InvalidArgumentError(absl::StrFormat("at most %d links", kMaxPaths));
  }
  return links;
}

}  // namespace braid::sim
