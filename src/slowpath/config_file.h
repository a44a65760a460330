// Turns the text of a configuration into one tree, whichever language it is written in, within
// bounds of depth and size that neither nesting nor YAML's aliases can exceed.
//
// A plain YAML scalar means what the same characters mean in JSON; all others are text. There is no
// second kind of number, and "yes", "0x10" or "1:30" are what they look like.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slowpath/config.h"

namespace braid {

inline constexpr size_t kMaxConfigDepth = 64;
// Of all values: one for each, and one for each byte of text, aliases counted as often as used.
inline constexpr size_t kMaxConfigWeight = 8 << 20;

// Nothing when no tree could be made. Keys given twice are mistakes that leave a tree.
std::optional<nlohmann::json> ParseConfigTree(std::string_view text, ConfigFormat format,
                                              std::vector<Mistake>& mistakes);

// The same for JSON that stands at `pointer` of another tree; the places of its mistakes begin
// there.
std::optional<nlohmann::json> ParseJsonAt(std::string_view text, const std::string& pointer,
                                          std::vector<Mistake>& mistakes);

// One step of a pointer: escaped as RFC 6901 demands, and cut where nobody would read on.
std::string PointerStep(std::string_view key);

bool IsUtf8(const std::string& text);

}  // namespace braid
