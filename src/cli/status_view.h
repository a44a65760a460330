// The daemon's status for people: what `braid status` prints without --json.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace braid {

struct StatusViewOptions {
  bool colour = false;
  bool verbose = false;  // also keys, addresses, offloads, what each worker did, what drops mean
  bool all = false;      // every peer, however many there are
};

// Lines of at most 80 columns: a head line; a block for each peer with a table of its paths, or one
// table of all where there are many, of the busiest where there are very many; the workers, where
// wanted; the drops that are not zero; the warnings. Fields that are missing, or are not what they
// should be, are left out or shown as "-". The addresses of a peer's paths are shown, too, while it
// is not established.
std::string RenderStatus(const nlohmann::ordered_json& status, const StatusViewOptions& options);

}  // namespace braid
