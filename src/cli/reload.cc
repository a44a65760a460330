// `braid reload`: has the running daemon read its configuration again, and shows what differs.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "cli/text_layout.h"
#include "slowpath/control_client.h"
#include "slowpath/control_protocol.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

struct ReloadArguments {
  std::string socket{kDefaultControlSocket};
  bool only_show = false;
  bool json = false;
};

// "  ~ /tunnel/peers/hub/keepalive_s: 2.0 -> 5.0", "  + /tunnel/paths/lte", "  - …".
std::string RenderChanges(const Json& changes) {
  std::string text;
  for (const Json& change : changes) {
    const Json& before = change.at("before");
    const Json& after = change.at("after");
    const char* sign = before.is_null() ? "+" : after.is_null() ? "-" : "~";
    absl::StrAppend(&text, "  ", sign, " ", Printable(change.at("pointer").get<std::string>()));
    if (!before.is_null() && !after.is_null()) {
      absl::StrAppend(&text, ": ", Printable(before.dump()), " -> ", Printable(after.dump()));
    }
    absl::StrAppend(&text, change.at("needs_restart") ? "  (needs a restart)\n" : "\n");
  }
  return text;
}

std::string Render(const Json& result, bool only_show) {
  std::string text;
  for (const Json& warning : result.at("warnings")) {
    absl::StrAppend(&text, "warning: ", Printable(warning.get<std::string>()), "\n");
  }
  const Json& changes = result.at("changes");
  if (changes.empty()) return text + "nothing differs from what runs\n";
  absl::StrAppend(&text, only_show ? "differs from what runs:\n" : "changed:\n");
  return text + RenderChanges(changes);
}

// What the daemon says of why it has changed nothing.
std::string RenderDetails(const absl::Status& status) {
  const auto payload = status.GetPayload(kControlErrorPayload);
  if (!payload) return "";
  const Json error = Json::parse(std::string(*payload), nullptr, /*allow_exceptions=*/false);
  if (!error.is_object() || !error.contains("details")) return "";
  const Json& details = error.at("details");
  std::string text;
  if (details.contains("mistakes")) {
    for (const Json& mistake : details.at("mistakes")) {
      absl::StrAppend(&text, Printable(mistake.get<std::string>()), "\n");
    }
  }
  if (details.contains("changes")) text += RenderChanges(details.at("changes"));
  return text;
}

int Reload(const ReloadArguments& arguments) {
  const Json params = {{"only_show", arguments.only_show}};
  const auto reply = CallControl(arguments.socket, "reload", params.dump());
  if (!reply.ok()) {
    std::cerr << RenderDetails(reply.status());
    return Fail("reload", reply.status());
  }
  const Json result = Json::parse(*reply);
  std::cout << (arguments.json ? result.dump(2) + '\n' : Render(result, arguments.only_show));
  return EndOutput("reload");
}

}  // namespace

void AddReloadCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "reload",
      "Have the running daemon read its configuration again. Sessions of peers that stay go on; "
      "when something is wrong, or needs a restart, nothing is changed.");
  const auto arguments = std::make_shared<ReloadArguments>();
  command->add_flag("--dry-run,-n", arguments->only_show, "Only show what differs");
  command->add_flag("--json", arguments->json, "Print JSON");
  AddSocketOption(*command, arguments->socket);
  command->callback([arguments, &exit_code] { exit_code = Reload(*arguments); });
}

}  // namespace braid
