// `braid status`: what the running daemon says of itself, for people or, with --json, for programs.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "cli/status_view.h"
#include "cli/tint.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

struct StatusArguments {
  std::string socket{kDefaultControlSocket};
  bool json = false;
  bool verbose = false;
  bool all = false;
};

int Status(const StatusArguments& arguments) {
  const auto reply = CallControl(arguments.socket, "status");
  if (!reply.ok()) return Fail("status", reply.status());
  const auto status = nlohmann::ordered_json::parse(*reply);
  if (arguments.json) {
    std::cout << status.dump(2) << std::endl;
  } else {
    const StatusViewOptions options{
        .colour = WantsColour(STDOUT_FILENO), .verbose = arguments.verbose, .all = arguments.all};
    std::cout << RenderStatus(status, options);
  }
  return EndOutput("status");
}

}  // namespace

void AddStatusCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("status", "Show the state of the running daemon");
  const auto arguments = std::make_shared<StatusArguments>();
  AddSocketOption(*command, arguments->socket);
  command->add_flag("--json", arguments->json, "Print JSON, with everything");
  command->add_flag("-v,--verbose", arguments->verbose,
                    "Show keys, addresses, offloads and what each worker did, too");
  command->add_flag("--all", arguments->all, "Show every peer, not only the busiest");
  command->callback([arguments, &exit_code] { exit_code = Status(*arguments); });
}

}  // namespace braid
