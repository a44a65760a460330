#include "cli/proxy_url.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "slowpath/config_values.h"

namespace braid {
namespace {

constexpr std::string_view kScheme = "socks5://";
constexpr uint16_t kDefaultProxyPort = 1080;
constexpr size_t kMaxLoginBytes = 255;  // RFC 1929

absl::Status NotProxyUrl() {
  return absl::InvalidArgumentError(
      "must be such as socks5://proxy.example.net:1080 or socks5://USER:PASSWORD@192.0.2.7");
}

std::optional<HostPort> ParseServer(std::string_view text) {
  if (const auto server = ParseHostPort(text)) return server;
  if (IsHostName(text)) return HostPort{std::string(text), kDefaultProxyPort, {}};
  const bool has_brackets = text.starts_with('[') && text.ends_with(']');
  const auto address = IpAddress::Parse(has_brackets ? text.substr(1, text.size() - 2) : text);
  if (!address || (has_brackets && address->is_v4())) return std::nullopt;
  return HostPort{address->ToString(), kDefaultProxyPort, *address};
}

std::optional<std::string> Unescaped(std::string_view text) {
  std::string plain;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      plain += text[at];
      continue;
    }
    const std::string digits(text.substr(at + 1, 2));
    if (digits.size() < 2 || !std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit)) {
      return std::nullopt;
    }
    plain += absl::HexStringToBytes(digits);
    at += 2;
  }
  return plain;
}

absl::Status ReadLogin(std::string_view text, ProxyUrl& to) {
  const size_t colon = text.find(':');
  const auto username = Unescaped(text.substr(0, colon));
  if (!username) return NotProxyUrl();
  to.username = *username;
  if (colon != text.npos) {
    to.password = Unescaped(text.substr(colon + 1));
    if (!to.password) return NotProxyUrl();
  }
  const auto is_long = [](const std::string& part) { return part.size() > kMaxLoginBytes; };
  const bool is_empty = to.username.empty() || (to.password && to.password->empty());
  if (is_empty || is_long(to.username) || (to.password && is_long(*to.password))) {
    return absl::InvalidArgumentError("user name and password have 1 to 255 bytes each");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ProxyUrl> ParseProxyUrl(std::string_view text) {
  if (!text.starts_with(kScheme)) return NotProxyUrl();
  text.remove_prefix(kScheme.size());
  if (text.ends_with('/')) text.remove_suffix(1);
  ProxyUrl url;
  const size_t at = text.rfind('@');
  if (at != text.npos) {
    const absl::Status status = ReadLogin(text.substr(0, at), url);
    if (!status.ok()) return status;
    text.remove_prefix(at + 1);
  }
  const auto server = ParseServer(text);
  if (!server) return NotProxyUrl();
  url.server = *server;
  return url;
}

}  // namespace braid
