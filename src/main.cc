// The command line of braid: one subcommand, each in its own file of cli/.
#include <CLI/CLI.hpp>

#include "cli/cli.h"

namespace {

constexpr int kUsageError = 2;

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("One encrypted, bonded tunnel over several links.", "braid");
  app.set_version_flag("--version", "braid " BRAID_VERSION, "Print the version and exit");
  app.set_help_flag("--help,-h", "Print this help and exit");
  app.require_subcommand(1);
  app.footer("Help on a command: braid COMMAND --help");

  int exit_code = 0;
  braid::AddRunCommand(app, exit_code);
  braid::AddCheckCommand(app, exit_code);
  braid::AddKeygenCommand(app, exit_code);
  braid::AddPubkeyCommand(app, exit_code);
  braid::AddStatusCommand(app, exit_code);
  braid::AddBenchCommand(app, exit_code);
  braid::AddStopCommand(app, exit_code);
  braid::AddTuneCommand(app, exit_code);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  return exit_code;
}
