#include "linkem/link.h"

namespace braid::linkem {

bool Chance(Random& random, double share) {
  if (share <= 0) return false;
  constexpr double kOneOf53Bits = 1.0 / (uint64_t{1} << 53);
  return static_cast<double>(random() >> 11) * kOneOf53Bits < share;
}

DurationNs Serializer::Take(uint32_t bytes) {
  if (rate_ == 0) return 0;
  const uint64_t nanobits = uint64_t{bytes} * 8 * kSecondNs + carry_;
  carry_ = nanobits % rate_;
  return nanobits / rate_;
}

// The share of frames in the bad state is p / (p + r), its mean length 1 / r, with p the chance to
// enter it and r to leave it.
bool LossModel::Lost(const LinkSettings& settings, Random& random) {
  if (settings.burst_loss > 0) {
    const double leave = 1 / settings.burst_frames;
    const double enter = leave * settings.burst_loss / (1 - settings.burst_loss);
    in_burst_ = in_burst_ ? !Chance(random, leave) : Chance(random, enter);
  } else {
    in_burst_ = false;
  }
  return in_burst_ || Chance(random, settings.loss);
}

}  // namespace braid::linkem
