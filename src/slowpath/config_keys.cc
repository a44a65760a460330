#include "slowpath/config_keys.h"

#include <string>

#include "slowpath/key_file.h"

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

}  // namespace braid
