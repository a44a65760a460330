#include "cli/throttle_view.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "cli/text_layout.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

std::string RenderLimit(const Json& limit) {
  if (limit.is_null()) return "not limited";
  return absl::StrCat(limit.at("rate_mbps").get<double>(), " Mbit/s, burst ",
                      limit.at("burst_kb").get<double>(), " kB");
}

// What has come of it, as far as there is something to tell.
std::string RenderShaper(const Json& shaper) {
  std::string text;
  const auto add = [&](const char* key, const char* what) {
    const auto found = shaper.find(key);
    if (found == shaper.end() || found->get<uint64_t>() == 0) return;
    absl::StrAppend(&text, text.empty() ? "; " : ", ", found->get<uint64_t>(), " ", what);
  };
  add("delayed", "packets waited");
  add("dropped", "dropped");
  add("marked", "marked (ECN)");
  add("refused", "not opened");
  return text;
}

std::string RenderOne(const std::string& name, const Json& limits) {
  const auto shaper = [&limits](const char* key) {
    const auto found = limits.find(key);
    return found == limits.end() ? "" : RenderShaper(*found);
  };
  return absl::StrCat(name, "\n  send     ", RenderLimit(limits.at("send")), shaper("sending"),
                      "\n  receive  ", RenderLimit(limits.at("receive")), shaper("receiving"),
                      "\n");
}

}  // namespace

std::string RenderThrottle(const Json& throttle) {
  std::string text = RenderOne("all together", throttle.at("total"));
  for (const auto& peer : throttle.at("peers")) {
    text += RenderOne("peer " + Printable(peer.at("name").get<std::string>()), peer);
  }
  return text;
}

}  // namespace braid
