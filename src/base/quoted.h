// A name within a sentence.
#pragma once

#include <string>

namespace braid {

inline std::string Quoted(const std::string& name) { return '"' + name + '"'; }

}  // namespace braid
