// `braid cleanup`: takes back what daemons that have died have changed of this machine.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "slowpath/bring_up.h"
#include "slowpath/config.h"
#include "slowpath/kill_switch.h"

namespace braid {
namespace {

struct CleanupOptions {
  std::string state_dir = SecurityConfig().state_dir;
  bool all = false;
};

bool HasChange(const std::vector<HostChange>& changes, const HostChange& one) {
  return std::find(changes.begin(), changes.end(), one) != changes.end();
}

// False, after having said why, where something is left.
bool CleanUpAfter(const std::string& path) {
  auto journal = Journal::Open(path);
  // A daemon that runs takes back its own when it ends.
  if (absl::IsAlreadyExists(journal.status())) {
    std::cout << "left alone, its daemon runs: " << path << '\n';
    return true;
  }
  if (!journal.ok()) return Fail("cleanup", journal.status()) == 0;
  const std::vector<HostChange> changes = journal->changes();
  ThisHost host;
  // The first of the errors that are told is returned as well.
  std::set<std::string> told;
  const auto tell = [&told](const std::string& line) {
    if (told.insert(line).second) Fail("cleanup", line);
  };
  BringUp bring_up(host, *std::move(journal), tell);
  const absl::Status status = bring_up.TakeBackAll();
  if (!status.ok()) tell(std::string(status.message()));
  for (const HostChange& change : changes) {
    const bool is_back =
        !HasChange(bring_up.changes(), change) && !HasChange(bring_up.changed_since(), change);
    if (is_back) std::cout << "taken back: " << Describe(change) << '\n';
  }
  return status.ok();
}

// Where no daemon ever ran there is no folder; who names one means one that is there.
bool CleanUpIn(const std::string& state_dir) {
  const auto journals = JournalsIn(state_dir);
  if (!journals.ok()) {
    const bool never_ran =
        absl::IsNotFound(journals.status()) && state_dir == SecurityConfig().state_dir;
    const std::string why(journals.status().message());
    if (!never_ran) return Fail("cleanup", why) == 0;
    std::cout << "nothing to take back: there is no " << state_dir << '\n';
    return true;
  }
  bool done = true;
  for (const std::string& path : *journals) done &= CleanUpAfter(path);
  return done;
}

bool LiftAltogether(const std::string& state_dir) {
  const bool was_on = IsKillSwitchKept(state_dir);
  if (absl::Status status = LiftKillSwitch(state_dir); !status.ok()) {
    return Fail("cleanup", status) == 0;
  }
  if (was_on) std::cout << "the kill switch is off\n";
  return true;
}

int CleanUp(const CleanupOptions& options) {
  bool done = CleanUpIn(options.state_dir);
  if (options.all) {
    done &= LiftAltogether(options.state_dir);
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
