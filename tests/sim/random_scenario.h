// A scenario that a seed makes up: links, traffic, and what happens to them; then calm, in which
// the bond must work again, and silence, after which nothing may be left.
#pragma once

#include <cstdint>
#include <string>

namespace braid::sim {

struct RandomOutcome {
  std::string violations;  // empty: none
  uint64_t digest = 0;     // of all that happened: the same seed gives the same
};

// `tell`: prints what is done.
RandomOutcome RunRandomScenario(uint64_t seed, bool tell = false);

}  // namespace braid::sim
