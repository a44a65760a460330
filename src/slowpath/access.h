// Who may ask the HTTP API for what: by the name that it was reached by (a web page must not get at
// it by a name of its own that leads here), by the page that asks, and by the token.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "slowpath/access_token.h"
#include "slowpath/api.h"

namespace braid {

struct AccessRules {
  Endpoint address;  // that the API listens at
  bool tls = false;
  std::string token_file;            // empty: nothing may be written
  std::vector<std::string> hosts;    // names besides those of the loopback, in lower case
  std::vector<std::string> origins;  // "https://panel.example:8443", in lower case
};

// What a request says of itself.
struct AccessClaim {
  std::string_view host;           // of the field of this name, with its port
  std::string_view origin;         // empty: it has none, so no web page of another origin asks
  std::string_view authorization;  // the field, whole
  IpAddress local;                 // that the connection came to
};

class Access {
 public:
  // Errors: those of ReadTokenFile().
  static absl::StatusOr<Access> Create(AccessRules rules);

  // Host and Origin.
  std::optional<ApiRefusal> CheckSource(const AccessClaim& claim) const;
  // Reads need no token where only this machine's own users get here.
  std::optional<ApiRefusal> CheckToken(const AccessClaim& claim, bool writes,
                                       std::chrono::steady_clock::time_point now);
  // Whether the origin is one of the rules', whose pages are to see the answer.
  bool IsConfiguredOrigin(std::string_view origin) const;

 private:
  Access(AccessRules rules, AccessToken token);

  bool IsOwnHost(std::string_view host, const IpAddress& local) const;

  AccessRules rules_;
  AccessToken token_;
};

}  // namespace braid
