// What a link is like in one direction, and how that is written: "rate 20mbit loss 2%".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/clock.h"

namespace braid::linkem {

inline constexpr DurationNs kMaxDelayNs = 60 * kSecondNs;
inline constexpr double kMaxBurstFrames = 1e6;

struct LinkSettings {
  uint64_t rate_bits_per_s = 0;  // 0: unlimited
  DurationNs delay_ns = 0;       // one way, behind the serialisation
  DurationNs jitter_ns = 0;      // the delay varies by as much, up and down
  double loss = 0;               // share of the frames, each by itself
  double burst_loss = 0;         // share of the frames that are lost in bursts
  double burst_frames = 1;       // mean length of a burst
  uint64_t queue_bytes = 256'000;
  double reorder = 0;  // share of the frames that are held back for so long
  DurationNs reorder_ns = 0;
  bool down = false;

  bool operator==(const LinkSettings&) const = default;
};

// Sets one of them: rate, delay, jitter, loss, burst-loss, queue, reorder. The error says what the
// value may look like; the settings are then unchanged.
absl::Status SetLink(LinkSettings& settings, std::string_view key, std::string_view value);

// Sets several: "rate 20mbit loss 2%". All or none.
absl::Status SetLink(LinkSettings& settings, std::string_view text);

// As SetLink takes them, those that are not as usual: "rate 20mbit delay 10ms".
std::string DescribeLink(const LinkSettings& settings);

}  // namespace braid::linkem
