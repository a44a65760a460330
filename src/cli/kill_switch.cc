// `braid kill-switch`: brings back at boot what keeps traffic from leaving beside the tunnel, and
// shows it.
#include "slowpath/kill_switch.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_join.h"
#include "cli/cli.h"
#include "cli/outcome.h"
#include "slowpath/config.h"

namespace braid {
namespace {

// Who has switched it on wants nothing to leave, also when it is not known for which tunnel.
int Load(const std::string& state_dir) {
  const absl::Status status = LoadKillSwitch(state_dir);
  if (status.ok()) return 0;
  Fail("kill-switch", status);
  const absl::Status shut = ShutEverythingIn();
  if (!shut.ok()) return Fail("kill-switch", shut);
  std::cerr << "braid kill-switch: nothing at all leaves this machine until then\n";
  return 1;
}

int Show(const std::string& state_dir) {
  const auto state = LookAtKillSwitch(state_dir);
  if (!state.ok()) return Fail("kill-switch", state.status());
  const std::string devices = absl::StrJoin(state->kept_for, ", ");
  if (state->kept_for.empty()) {
    std::cout << (state->is_loaded ? "on, for the tunnels of another state directory\n" : "off\n");
    return 0;
  }
  if (state->is_loaded) {
    std::cout << "on: nothing leaves beside " << devices << '\n';
    return 0;
  }
  std::cout << "missing: it is to be on for " << devices
            << ", but its nftables rules are gone; \"braid kill-switch load\" brings them back\n";
  return 1;
}

}  // namespace

void AddKillSwitchCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("kill-switch", "Show the kill switch, or load it at boot");
  command->require_subcommand(1);
  const auto state_dir = std::make_shared<std::string>(SecurityConfig().state_dir);
  const auto add = [&](const char* name, const char* what, int (*run)(const std::string&)) {
    CLI::App* verb = command->add_subcommand(name, what);
    verb->add_option("--state-dir", *state_dir, "The daemons' security.state_dir")
        ->type_name("FOLDER")
        ->capture_default_str();
    verb->callback([state_dir, run, &exit_code] { exit_code = run(*state_dir); });
  };
  add("status", "Show whether it is on, and for which tunnels", Show);
  add("load", "Bring back the kill switch that an earlier run has switched on, if any", Load);
  command->footer("\"braid cleanup --all\" lifts it.");
}

}  // namespace braid
