// `braid health`: how well the running daemon is, at a glance and as an exit code for monitoring.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/cli.h"
#include "cli/health_view.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "cli/tint.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

// A daemon that needs longer is not well, and who asks may not wait much longer.
constexpr std::chrono::seconds kHealthTimeout{5};
constexpr int kNoAnswer = 3;

struct HealthArguments {
  std::string socket{kDefaultControlSocket};
  bool json = false;
};

int Health(const HealthArguments& arguments) {
  const auto reply = CallControl(arguments.socket, "health", "{}", kHealthTimeout);
  if (!reply.ok()) {
    Fail("health", reply.status());
    return kNoAnswer;
  }
  const auto health = nlohmann::ordered_json::parse(*reply);
  const bool colour = WantsColour(STDOUT_FILENO);
  std::cout << (arguments.json ? health.dump(2) + '\n' : RenderHealth(health, colour));
  return EndOutput("health") == 0 ? ExitCodeOf(health) : kNoAnswer;
}

}  // namespace

void AddHealthCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "health",
      "Show how well the running daemon is. The exit code is 0 when all is well, 1 when something "
      "needs attention, 2 when the daemon does not do what it is for, 3 when it does not answer.");
  const auto arguments = std::make_shared<HealthArguments>();
  AddSocketOption(*command, arguments->socket);
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments, &exit_code] { exit_code = Health(*arguments); });
}

}  // namespace braid
