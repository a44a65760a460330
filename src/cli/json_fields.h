// Fields of JSON that another program has made. It may be of another version: what is missing, or
// is not what it should be, reads as nothing.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace braid {

// Null where there is none.
const nlohmann::ordered_json& Field(const nlohmann::ordered_json& object, const char* name);
// Printable; empty where it is no text.
std::string Text(const nlohmann::ordered_json& object, const char* name);
std::optional<double> Number(const nlohmann::ordered_json& object, const char* name);
bool IsTrue(const nlohmann::ordered_json& object, const char* name);

}  // namespace braid
