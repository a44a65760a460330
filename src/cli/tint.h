// Colours of text on terminals.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace braid {

enum class Tint : uint8_t { kPlain, kBold, kDim, kGood, kFair, kBad };

// As it is where `colour` is false.
std::string Tinted(bool colour, Tint tint, const std::string& text);

// Of a path, a peer or the daemon.
Tint TintOfState(std::string_view state);

// Colours are for terminals whose user has not set NO_COLOR (https://no-color.org).
bool WantsColour(int fd);

}  // namespace braid
