#include "cli/path_view.h"

#include <array>
#include <nlohmann/json.hpp>

#include "cli/json_fields.h"
#include "cli/text_layout.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

std::string Row(const std::array<std::string, 5>& cells) {
  constexpr std::array<size_t, 4> kWidths = {14, 15, 14, 8};
  std::string line;
  for (size_t i = 0; i < kWidths.size(); ++i) {
    const std::string text = cells[i].empty() ? "-" : cells[i];
    line += PadRight(Fit(text, kWidths[i]), kWidths[i]) + ' ';
  }
  return line + Fit(cells[4].empty() ? "-" : cells[4], kColumns - Width(line)) + '\n';
}

std::string RenderPath(const Json& path) {
  const std::string address = Text(path, "address");
  const std::string interface = Text(path, "interface");
  const std::string from = !interface.empty() ? interface : !address.empty() ? address : "any";
  const bool is_open = IsTrue(path, "open");
  std::string text;
  const Json& peers = Field(path, "peers");
  for (const Json& peer : peers.is_array() ? peers : Json::array()) {
    text +=
        Row({text.empty() ? Text(path, "name") : " ", text.empty() ? from : " ", Text(peer, "name"),
             is_open ? Text(peer, "state") : "waits", Text(peer, "remote")});
  }
  if (text.empty()) text = Row({Text(path, "name"), from, "", is_open ? "open" : "waits", ""});
  const std::string problem = Text(path, "problem");
  return problem.empty() ? text : text + Wrap("    ", "    ", problem);
}

}  // namespace

std::string RenderPaths(const Json& paths) {
  std::string text = Row({"path", "from", "peer", "state", "to"});
  const Json& list = Field(paths, "paths");
  for (const Json& path : list.is_array() ? list : Json::array()) text += RenderPath(path);
  const std::string problem = Text(paths, "problem");
  return problem.empty() ? text : text + Wrap("", "", problem);
}

}  // namespace braid
