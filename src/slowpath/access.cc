#include "slowpath/access.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace braid {
namespace {

constexpr std::string_view kBearer = "bearer ";

std::string LowerCase(std::string_view text) { return absl::AsciiStrToLower(std::string(text)); }

// Of "localhost:7780" and "[::1]:7780", without the dot that may end a name. Nothing where it is
// neither.
std::optional<std::string> HostWithoutPort(std::string_view field) {
  const size_t bracket = field.starts_with('[') ? field.find(']') : 0;
  if (bracket == field.npos) return std::nullopt;
  const size_t colon = field.find(':', bracket);
  const std::string_view port = colon == field.npos ? "" : field.substr(colon + 1);
  if (!std::all_of(port.begin(), port.end(), absl::ascii_isdigit)) return std::nullopt;
  std::string host = LowerCase(field.substr(0, colon));
  if (bracket != 0) {
    if (host.back() != ']' || host.find(':') == host.npos) return std::nullopt;
    host = host.substr(1, host.size() - 2);
  } else if (host.ends_with('.')) {
    host.pop_back();
  }
  if (host.empty()) return std::nullopt;
  return host;
}

ApiRefusal Forbidden(std::string message) {
  return {{ControlCode::kForbidden, std::move(message)}, 403, {}};
}

ApiRefusal Unauthorized(std::string message, std::string challenge) {
  return {{ControlCode::kUnauthorized, std::move(message)},
          401,
          {{"WWW-Authenticate", std::move(challenge)}}};
}

}  // namespace

absl::StatusOr<Access> Access::Create(AccessRules rules) {
  if (rules.token_file.empty()) return Access(std::move(rules), AccessToken());
  auto token = AccessToken::Load(rules.token_file);
  if (!token.ok()) return token.status();
  return Access(std::move(rules), *std::move(token));
}

Access::Access(AccessRules rules, AccessToken token)
    : rules_(std::move(rules)), token_(std::move(token)) {}

std::optional<ApiRefusal> Access::CheckSource(const AccessClaim& claim) const {
  if (claim.host.empty()) {
    return ApiRefusal{{ControlCode::kBadRequest, "the request must have a Host"}, 400, {}};
  }
  const auto host = HostWithoutPort(claim.host);
  if (!host || !IsOwnHost(*host, claim.local)) {
    return Forbidden("this API does not go by the name in Host; control.http.hosts may list more");
  }
  if (claim.origin.empty() || IsConfiguredOrigin(claim.origin)) return std::nullopt;
  const std::string own = absl::StrCat(rules_.tls ? "https://" : "http://", LowerCase(claim.host));
  if (LowerCase(claim.origin) == own) return std::nullopt;
  return Forbidden("web pages of this Origin may not ask; control.http.origins may list it");
}

std::optional<ApiRefusal> Access::CheckToken(const AccessClaim& claim, bool writes,
                                             std::chrono::steady_clock::time_point now) {
  if (!writes && rules_.address.address.is_loopback()) return std::nullopt;
  if (!token_.is_set()) {
    return Forbidden("nothing may be changed here: control.http.token_file names no token");
  }
  if (claim.authorization.empty()) {
    return Unauthorized("this needs the token, as \"Authorization: Bearer TOKEN\"",
                        "Bearer realm=\"braid\"");
  }
  const bool is_bearer = LowerCase(claim.authorization.substr(0, kBearer.size())) == kBearer;
  if (is_bearer && token_.Matches(claim.authorization.substr(kBearer.size()), now)) {
    return std::nullopt;
  }
  return Unauthorized("the token is not the one in control.http.token_file",
                      "Bearer realm=\"braid\", error=\"invalid_token\"");
}

bool Access::IsConfiguredOrigin(std::string_view origin) const {
  return std::find(rules_.origins.begin(), rules_.origins.end(), LowerCase(origin)) !=
         rules_.origins.end();
}

// An address is a safe name: no web page can have it lead elsewhere.
bool Access::IsOwnHost(std::string_view host, const IpAddress& local) const {
  if (host == "localhost") return true;
  if (std::find(rules_.hosts.begin(), rules_.hosts.end(), host) != rules_.hosts.end()) return true;
  const auto address = IpAddress::Parse(host);
  return address &&
         (address->is_loopback() || *address == rules_.address.address || *address == local);
}

}  // namespace braid
