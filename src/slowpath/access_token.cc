#include "slowpath/access_token.h"

#include <openssl/crypto.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "slowpath/key_file.h"

namespace braid {
namespace {

constexpr std::string_view kTokenPunctuation = "-._~+/=";

bool IsToken(std::string_view text) {
  return text.size() >= kMinTokenBytes && text.size() <= kMaxTokenBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  kTokenPunctuation.find(c) != kTokenPunctuation.npos;
         });
}

}  // namespace

absl::StatusOr<std::string> ReadTokenFile(const std::string& path) {
  auto token = ReadSmallFile(path, kMaxTokenBytes + 2, FilePrivacy::kOwnerOnly);
  if (!token.ok()) {
    token = InFile(path, token.status());
    return token;
  }
  const size_t last = token->find_last_not_of(" \t\r\n");
  token->erase(last == token->npos ? 0 : last + 1);
  if (IsToken(*token)) return token;
  Wipe(*token);
  token = absl::InvalidArgumentError(
      absl::StrCat(path, ": does not hold a token, which is ", kMinTokenBytes, " to ",
                   kMaxTokenBytes, " letters, digits or ", std::string(kTokenPunctuation),
                   " on one line; make one with: (umask 077; openssl rand -hex 32 > ", path, ")"));
  return token;
}

absl::StatusOr<AccessToken> AccessToken::Load(const std::string& path) {
  AccessToken token;
  token.path_ = path;
  token.version_ = VersionOf(path);
  auto read = ReadTokenFile(path);
  if (!read.ok()) return read.status();
  token.token_ = *std::move(read);
  return token;
}

bool AccessToken::Matches(std::string_view token, std::chrono::steady_clock::time_point now) {
  if (!is_set()) return false;
  LookAtFile(now);
  return !token_.empty() && token.size() == token_.size() &&
         CRYPTO_memcmp(token.data(), token_.data(), token_.size()) == 0;
}

void AccessToken::LookAtFile(std::chrono::steady_clock::time_point now) {
  if (now < next_look_) return;
  next_look_ = now + kLookAtFilesEvery;
  const FileVersion version = VersionOf(path_);
  if (version == version_) return;
  version_ = version;
  auto read = ReadTokenFile(path_);
  Wipe(token_);
  token_ = read.ok() ? *std::move(read) : "";
  if (read.ok()) {
    spdlog::info("http: the token was read anew from {}", path_);
  } else {
    spdlog::error("http: no token is taken any more: {}", std::string(read.status().message()));
  }
}

}  // namespace braid
