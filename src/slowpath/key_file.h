// Keys as text, base64 of 32 bytes, and the private files that hold them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "slowpath/noise.h"

namespace braid {

inline constexpr size_t kMaxKeyFileBytes = 256;

// A new private key in the one form in which RFC 7748 uses it.
Secret NewPrivateKey();

// Canonical base64 of exactly 32 bytes, and nothing around it. Public keys are read with it too.
std::optional<Secret> DecodeKey(std::string_view text);
// As DecodeKey, with white space allowed behind the key, as in a file.
std::optional<Secret> DecodeKeyLine(std::string_view text);
std::string EncodeKey(const Key& key);

// Overwrites a text that held a secret, in a way that the compiler keeps.
void Wipe(std::string& text);

// Reads a key whose file belongs to its owner alone. Errors name the file, never what is in it.
[[nodiscard]] absl::StatusOr<Secret> ReadKeyFile(const std::string& path);

}  // namespace braid
