// Text for terminals of 80 columns: widths, padding, wrapping. Widths count code points; names in
// wide scripts may overhang.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace braid {

inline constexpr size_t kColumns = 80;

size_t Width(std::string_view text);

// `text` in at most `width` columns, the last of them a sign that something is missing.
std::string Fit(std::string text, size_t width);

std::string PadRight(std::string text, size_t width);
std::string PadLeft(const std::string& text, size_t width);

// Text from elsewhere: none of it may steer the terminal.
std::string Printable(std::string text);

// Those parts that are not empty.
std::string Join(const std::vector<std::string>& parts, std::string_view separator);

// `text` broken at spaces, every line behind `indent`, the first behind `first`, which is as wide.
std::string Wrap(std::string_view first, std::string_view indent, std::string_view text);

}  // namespace braid
