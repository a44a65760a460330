// Judges what was seen of this machine and of a tunnel's configuration on it: check by check what
// was found and, where it is not well, what to do. Pure: looking is machine_probe.h's and
// tunnel_probe.h's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "slowpath/machine_probe.h"
#include "slowpath/tunnel_probe.h"

namespace braid {

struct Diagnosis {
  enum class Verdict : uint8_t {
    kOk,
    kWarn,     // it works, worse than it could
    kFail,     // the tunnel will not work, or not as it is wanted
    kUnknown,  // it could not be looked at
  };

  std::string_view group = {};
  std::string name = {};
  Verdict verdict = Verdict::kOk;
  std::string found = {};
  std::string advice = {};  // what to do; of what is not kOk, where something can be done
};

// The advice where only root may look.
inline constexpr char kLookAsRoot[] = "look as root: sudo braid doctor";

inline std::string Why(const absl::Status& status) { return std::string(status.message()); }

// `config` says what is needed; null where none was given.
std::vector<Diagnosis> DiagnoseMachine(const MachineState& machine, const Config* config);
std::vector<Diagnosis> DiagnoseTunnel(const TunnelState& tunnel);

}  // namespace braid
