// `braid mode`: how what is sent goes over the paths of the running daemon.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bonding/bond_options.h"
#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "cli/text_layout.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

struct ModeArguments {
  std::string socket{kDefaultControlSocket};
  std::string mode;  // empty: it is only shown
  bool json = false;
};

// The mode, and the peers for which something else is to be known.
std::string Render(const nlohmann::ordered_json& modes) {
  const auto mode = modes.at("mode").get<std::string>();
  std::string text = mode + '\n';
  for (const auto& peer : modes.at("peers")) {
    const std::string name = "  " + Printable(peer.at("name").get<std::string>()) + ": ";
    if (peer.at("mode") != mode) {
      text +=
          name + "sent to in mode " + peer.at("mode").get<std::string>() + ", as it has asked\n";
    }
    if (peer.at("other_end") == "cannot") {
      text += name + "is too old to follow, and sends in a mode of its own\n";
    } else if (peer.at("other_end") == "asked") {
      text += name + "was asked to send so too, and has not answered yet\n";
    }
  }
  return text;
}

int Mode(const ModeArguments& arguments) {
  nlohmann::json params = nlohmann::json::object();
  if (!arguments.mode.empty()) params["mode"] = arguments.mode;
  const auto reply = CallControl(arguments.socket, "mode", params.dump());
  if (!reply.ok()) return Fail("mode", reply.status());
  const auto modes = nlohmann::ordered_json::parse(*reply);
  std::cout << (arguments.json ? modes.dump(2) + '\n' : Render(modes));
  return EndOutput("mode");
}

}  // namespace

void AddModeCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "mode",
      "Show or switch how packets go over several paths. A client's holds for both directions, a "
      "server's for what it sends to all clients. It lasts until the daemon ends, or is "
      "given another configuration with another mode.");
  const auto arguments = std::make_shared<ModeArguments>();
  command
      ->add_option(
          "MODE", arguments->mode,
          "stripe (all paths at once), preferred (the best one) or redundant (every packet "
          "over each)")
      ->check(CLI::IsMember(
          std::vector<std::string>(kBondingModeNames.begin(), kBondingModeNames.end())));
  command->add_flag("--json", arguments->json, "Print JSON");
  AddSocketOption(*command, arguments->socket);
  command->callback([arguments, &exit_code] { exit_code = Mode(*arguments); });
}

}  // namespace braid
