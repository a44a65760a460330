// How a bond is to behave, as configured. Both ends choose for what they send.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/clock.h"

namespace braid {

enum class BondingMode : uint8_t {
  kStripe,     // all paths at once
  kPreferred,  // the best one, the others when it fails
  kRedundant,  // every packet on several; the first copy counts
};
// In the order of the enumerators.
inline constexpr std::array<std::string_view, 3> kBondingModeNames = {"stripe", "preferred",
                                                                      "redundant"};
inline std::string_view NameOf(BondingMode mode) {
  return kBondingModeNames[static_cast<size_t>(mode)];
}

// Forward error correction: parity, with which the other end makes up for what is lost.
enum class FecMode : uint8_t {
  kOff,
  kAuto,   // as much as losses ask for, where repairs come too late
  kRatio,  // always so much
};

struct BondOptions {
  BondingMode mode = BondingMode::kStripe;
  bool pin_flows = false;  // of kStripe: each flow keeps to one path
  bool repair = true;      // what is lost is sent again
  FecMode fec = FecMode::kOff;
  double fec_ratio = 0;                              // of kRatio: parity for each packet
  DurationNs reorder_max_ns = 200 * kMillisecondNs;  // that a packet is held for an earlier one

  bool operator==(const BondOptions&) const = default;
};

struct BondPathOptions {
  double weight = 1;  // share of what the path carries that is used, against the others'
  uint64_t fixed_bytes_per_s = 0;  // 0: measured
  bool standby = false;            // used when the others are full or down

  bool operator==(const BondPathOptions&) const = default;
};

}  // namespace braid
