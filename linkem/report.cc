#include "linkem/report.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"

namespace braid::linkem {
namespace {

using Json = nlohmann::ordered_json;

std::string Arrow(const EmulatorStatus& status, bool to_left) {
  return to_left ? absl::StrFormat("%s -> %s", status.right, status.left)
                 : absl::StrFormat("%s -> %s", status.left, status.right);
}

Json DirectionJson(const DirectionStatus& direction) {
  const LinkSettings& settings = direction.settings;
  const LinkCounters& counters = direction.counters;
  return {{"rate_mbps", static_cast<double>(settings.rate_bits_per_s) / 1e6},
          {"delay_ms", static_cast<double>(settings.delay_ns) / 1e6},
          {"jitter_ms", static_cast<double>(settings.jitter_ns) / 1e6},
          {"loss", settings.loss},
          {"burst_loss", settings.burst_loss},
          {"burst_frames", settings.burst_frames},
          {"queue_limit_bytes", settings.queue_bytes},
          {"reorder", settings.reorder},
          {"reorder_ms", static_cast<double>(settings.reorder_ns) / 1e6},
          {"down", settings.down},
          {"frames_in", counters.frames_in},
          {"bytes_in", counters.bytes_in},
          {"frames_delivered", counters.frames_delivered},
          {"bytes_delivered", counters.bytes_delivered},
          {"frames_queue_full", counters.frames_queue_full},
          {"bytes_queue_full", counters.bytes_queue_full},
          {"frames_lost", counters.frames_lost},
          {"bytes_lost", counters.bytes_lost},
          {"frames_held_back", counters.frames_held_back},
          {"queue_frames", counters.queue_frames},
          {"queue_bytes", counters.queue_bytes},
          {"max_queue_bytes", counters.max_queue_bytes},
          {"kernel_drops", direction.kernel_drops},
          {"receive_errors", direction.receive_errors},
          {"send_errors", direction.send_errors},
          {"no_memory", direction.no_memory}};
}

std::string Share(uint64_t part, uint64_t whole) {
  if (whole == 0) return "";
  return absl::StrFormat("%.2f %%", 100 * static_cast<double>(part) / static_cast<double>(whole));
}

}  // namespace

std::string StatusJson(const EmulatorStatus& status) {
  return Json{{"left", status.left},
              {"right", status.right},
              {"seed", status.seed},
              {"seconds", status.seconds},
              {"cpu_seconds", status.cpu_seconds},
              {"to_left", DirectionJson(status.to_left)},
              {"to_right", DirectionJson(status.to_right)}}
      .dump();
}

// Names, frames, shares and bytes below each other; rows of zeros are left out but for the first.
std::string StatusTable(const EmulatorStatus& status) {
  std::string text;
  for (const bool to_left : {false, true}) {
    const DirectionStatus& direction = to_left ? status.to_left : status.to_right;
    const LinkCounters& counters = direction.counters;
    text += absl::StrFormat("%s: %s\n", Arrow(status, to_left), DescribeLink(direction.settings));
    const auto row = [&](const char* name, uint64_t frames, uint64_t bytes) {
      text += absl::StrFormat("  %-22s %12d frames %9s %12.3f MB\n", name, frames,
                              Share(frames, counters.frames_in), static_cast<double>(bytes) / 1e6);
    };
    row("delivered", counters.frames_delivered, counters.bytes_delivered);
    if (counters.frames_queue_full != 0) {
      row("dropped, queue full", counters.frames_queue_full, counters.bytes_queue_full);
    }
    if (counters.frames_lost != 0) row("lost", counters.frames_lost, counters.bytes_lost);
    for (const auto& [name, frames] : std::vector<std::pair<const char*, uint64_t>>{
             {"held back", counters.frames_held_back},
             {"dropped by the kernel", direction.kernel_drops},
             {"refused when read", direction.receive_errors},
             {"refused when sent", direction.send_errors},
             {"dropped, no memory", direction.no_memory}}) {
      if (frames != 0) {
        text += absl::StrFormat("  %-22s %12d frames %9s\n", name, frames,
                                Share(frames, counters.frames_in));
      }
    }
    if (counters.max_queue_bytes != 0) {
      text += absl::StrFormat("  %-22s %12.1f KB, at most %.1f KB\n", "queue now",
                              static_cast<double>(counters.queue_bytes) / 1e3,
                              static_cast<double>(counters.max_queue_bytes) / 1e3);
    }
  }
  text += absl::StrFormat("%.1f s, %.1f %% of a CPU, seed %d\n", status.seconds,
                          100 * status.cpu_seconds / std::max(status.seconds, 1e-9), status.seed);
  return text;
}

}  // namespace braid::linkem
