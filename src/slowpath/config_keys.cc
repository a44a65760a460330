#include "slowpath/config_keys.h"

#include <string>

#include "slowpath/access_token.h"
#include "slowpath/config_proxy.h"
#include "slowpath/key_file.h"
#include "slowpath/tls_identity.h"

namespace braid {

void CheckKeyFiles(LoadedConfig& loaded) {
  for (const KeyFileUse& use : loaded.key_files) {
    const absl::StatusOr<Secret> key = ReadKeyFile(use.path);
    if (key.ok()) continue;
    loaded.mistakes.push_back({.pointer = use.pointer,
                               .what = std::string(key.status().message()),
                               .variable = use.variable});
  }
}

void CheckHttpFiles(LoadedConfig& loaded) {
  for (const HttpFileUse& use : loaded.http_files) {
    const absl::Status status = use.certificate_path.empty()
                                    ? ReadTokenFile(use.path).status()
                                    : CheckTlsFiles({use.certificate_path, use.path});
    if (status.ok()) continue;
    loaded.mistakes.push_back(
        {.pointer = use.pointer, .what = std::string(status.message()), .variable = use.variable});
  }
}

void CheckPasswordFiles(LoadedConfig& loaded) {
  for (const KeyFileUse& use : loaded.password_files) {
    auto password = ReadPasswordFile(use.path);
    if (password.ok()) {
      Wipe(*password);
      continue;
    }
    loaded.mistakes.push_back({.pointer = use.pointer,
                               .what = std::string(password.status().message()),
                               .variable = use.variable});
  }
}

}  // namespace braid
