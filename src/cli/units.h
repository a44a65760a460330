// Quantities for people. What is not known, or cannot be, is shown as kNothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace braid {

inline constexpr char kNothing[] = "-";

std::string OrNothing(std::string text);

std::string ShowBytes(std::optional<double> bytes);       // "1.2 GiB"
std::string ShowGigabytes(std::optional<double> bytes);   // "50.0 GB", as quotas are given
std::string ShowDuration(std::optional<double> seconds);  // "3d 4h", the two largest units
std::string ShowMilliseconds(std::optional<double> ms);   // "10.2 ms"
std::string ShowLoss(std::optional<double> share);        // "1.3 %"; never rounded to nothing
std::string ShowRate(std::optional<double> mbps);         // "941.3 Mbit/s"
std::string ShowCount(std::optional<double> count);       // "1,234,567"
std::string ShowGrouped(uint64_t count);                  // the same

}  // namespace braid
