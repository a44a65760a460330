// What an emulator has done, for people and for programs.
#pragma once

#include <string>

#include "linkem/emulator.h"

namespace braid::linkem {

// Lines, each with its end.
std::string StatusTable(const EmulatorStatus& status);
// One line, without its end.
std::string StatusJson(const EmulatorStatus& status);

}  // namespace braid::linkem
