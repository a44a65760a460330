// The daemon's status for people: what `braid status` prints without --json.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace braid {

struct StatusViewOptions {
  bool colour = false;
  bool verbose = false;  // what each worker did, too
};

// Lines of at most 80 columns: a head line; a block for every peer with a table of its paths; the
// workers, where wanted; the drops that are not zero; the warnings. Fields that are missing, or are
// not what they should be, are left out or shown as "-".
std::string RenderStatus(const nlohmann::ordered_json& status, const StatusViewOptions& options);

// Colours are for terminals whose user has not set NO_COLOR (https://no-color.org).
bool WantsColour(int fd);

}  // namespace braid
