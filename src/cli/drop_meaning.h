// What the reasons for dropped packets mean, for people.
#pragma once

#include <string>
#include <string_view>

namespace braid {

// Empty for a reason that this version does not know.
std::string DropMeaning(std::string_view name);

}  // namespace braid
