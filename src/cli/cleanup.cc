// `braid cleanup`: takes back what daemons that have died have changed of this machine.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>

#include "cli/cli.h"
#include "slowpath/bring_up.h"
#include "slowpath/config.h"
#include "slowpath/kill_switch.h"

namespace braid {
namespace {

struct CleanupOptions {
  std::string state_dir = SecurityConfig().state_dir;
  bool all = false;
};

void Say(std::string_view line) { std::cerr << "braid cleanup: " << line << '\n'; }

// False, after having said why, where something is left.
bool Take(const absl::Status& status) {
  if (!status.ok()) Say(std::string(status.message()));
  return status.ok();
}

bool CleanUpAfter(const std::string& path) {
  auto journal = Journal::Open(path);
  // A daemon that runs takes back its own when it ends.
  if (absl::IsAlreadyExists(journal.status())) {
    std::cout << "left alone, its daemon runs: " << path << '\n';
    return true;
  }
  if (!journal.ok()) return Take(journal.status());
  const std::vector<HostChange> changes = journal->changes();
  ThisHost host;
  BringUp bring_up(host, *std::move(journal), [](const std::string& line) { Say(line); });
  const bool done = Take(bring_up.TakeBackAll());
  for (const HostChange& change : changes) {
    const auto& left = bring_up.changes();
    if (std::find(left.begin(), left.end(), change) == left.end()) {
      std::cout << "taken back: " << Describe(change) << '\n';
    }
  }
  return done;
}

int CleanUp(const CleanupOptions& options) {
  bool done = true;
  for (const std::string& path : JournalsIn(options.state_dir)) done &= CleanUpAfter(path);
  if (options.all) {
    const bool was_on = IsKillSwitchKept(options.state_dir);
    const bool is_off = Take(LiftKillSwitch(options.state_dir));
    if (is_off && was_on) std::cout << "the kill switch is off\n";
    done &= is_off;
  } else if (IsKillSwitchKept(options.state_dir)) {
    std::cout << "the kill switch stays on; \"braid cleanup --all\" lifts it\n";
  }
  return done ? 0 : 1;
}

}  // namespace

void AddCleanupCommand(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("cleanup", "Take back what a daemon that has died left of its changes");
  const auto options = std::make_shared<CleanupOptions>();
  command->add_flag("--all", options->all, "Lift the kill switch as well");
  command->add_option("--state-dir", options->state_dir, "The daemons' security.state_dir")
      ->type_name("FOLDER")
      ->capture_default_str();
  command->callback([options, &exit_code] { exit_code = CleanUp(*options); });
}

}  // namespace braid
