// The files that a configuration names for keys, tokens, passwords and certificates, looked at
// along with it.
#pragma once

#include "slowpath/config.h"

namespace braid {

// Adds a mistake for each that holds no key, or lets others read it.
void CheckKeyFiles(LoadedConfig& loaded);
// The same of the HTTP API: its token, and its certificate and key, which must belong together.
void CheckHttpFiles(LoadedConfig& loaded);
// The same of the passwords that upstreams want.
void CheckPasswordFiles(LoadedConfig& loaded);

}  // namespace braid
