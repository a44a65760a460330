#include "slowpath/key_file.h"

#include <sodium.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "slowpath/small_file.h"

namespace braid {

Secret NewPrivateKey() {
  Secret key = KeyPair::Generate().private_key;
  key.front() &= 248;
  key.back() = static_cast<uint8_t>((key.back() & 127) | 64);
  return key;
}

std::optional<Secret> DecodeKey(std::string_view text) {
  Secret key;
  size_t length = 0;
  const int error = sodium_base642bin(key.data(), key.size(), text.data(), text.size(), nullptr,
                                      &length, nullptr, sodium_base64_VARIANT_ORIGINAL);
  if (error != 0 || length != key.size()) return std::nullopt;
  return key;
}

std::optional<Secret> DecodeKeyLine(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return DecodeKey(text.substr(0, last == std::string_view::npos ? 0 : last + 1));
}

std::string EncodeKey(const Key& key) {
  std::string text(sodium_base64_ENCODED_LEN(sizeof(Key), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), key.data(), key.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();  // the terminating zero
  return text;
}

void Wipe(std::string& text) { sodium_memzero(text.data(), text.size()); }

absl::StatusOr<Secret> ReadKeyFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxKeyFileBytes, FilePrivacy::kOwnerOnly);
  if (!text.ok()) return InFile(path, text.status());
  const std::optional<Secret> key = DecodeKeyLine(*text);
  Wipe(*text);
  if (key) return *key;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": does not hold a key, which is 32 bytes in base64, on one line"));
}

}  // namespace braid
