// Numbers for people and for programs: no more digits than were measured.
#pragma once

#include <cmath>

namespace braid {

inline double Rounded(double value, int digits) {
  const double scale = std::pow(10, digits);
  return std::round(value * scale) / scale;
}

}  // namespace braid
