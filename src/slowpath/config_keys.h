// The key files of a configuration, looked at along with it.
#pragma once

#include "slowpath/config.h"

namespace braid {

// Adds a mistake for each that holds no key, or lets others read it.
void CheckKeyFiles(LoadedConfig& loaded);

}  // namespace braid
