// The command line of braid: one subcommand, each in its own file of cli/.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace {

constexpr int kUsageError = 2;

// CLI11 tells who misspelt a command that one is missing.
std::string Explain(const CLI::App* app, const CLI::Error& error) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  const std::vector<std::string> unknown = app->remaining();
  const bool is_command = app->get_require_subcommand_min() > 0 && !unknown.empty();
  if (!is_command) return CLI::FailureMessage::simple(app, error);
  return '"' + unknown.front() + "\" is not a command of \"" + app->get_name() +
         "\"\nRun with --help for more information.\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("One encrypted, bonded tunnel over several links.", "braid");
  app.set_version_flag("--version", "braid " BRAID_VERSION, "Print the version and exit");
  app.set_help_flag("--help,-h", "Print this help and exit");
  app.require_subcommand(1);
  app.failure_message(Explain);

  int exit_code = 0;
  braid::AddInitCommand(app, exit_code);
  braid::AddRunCommand(app, exit_code);
  braid::AddCheckCommand(app, exit_code);
  braid::AddKeygenCommand(app, exit_code);
  braid::AddPubkeyCommand(app, exit_code);
  braid::AddStatusCommand(app, exit_code);
  braid::AddHealthCommand(app, exit_code);
  braid::AddMetricsCommand(app, exit_code);
  braid::AddTopCommand(app, exit_code);
  braid::AddDoctorCommand(app, exit_code);
  braid::AddProbeCommand(app, exit_code);
  braid::AddPathCommand(app, exit_code);
  braid::AddModeCommand(app, exit_code);
  braid::AddThrottleCommand(app, exit_code);
  braid::AddBenchCommand(app, exit_code);
  braid::AddStartCommand(app, exit_code);
  braid::AddStopCommand(app, exit_code);
  braid::AddReloadCommand(app, exit_code);
  braid::AddTuneCommand(app, exit_code);
  braid::AddCleanupCommand(app, exit_code);
  braid::AddKillSwitchCommand(app, exit_code);
  app.footer("Help on a command: braid COMMAND --help");  // last, or commands inherit it

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  return exit_code;
}
