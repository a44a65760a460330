// `braid kill-switch`: brings back at boot what keeps traffic from leaving beside the tunnel, shows
// it, and takes a tunnel that is no more out of it.
#include "slowpath/kill_switch.h"

#include <net/if.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <set>
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

// By a device of that name traffic may leave, whoever makes one. A tunnel that is down has none.
void TellOfMissing(const std::set<std::string>& devices) {
  for (const std::string& device : devices) {
    if (if_nametoindex(device.c_str()) != 0) continue;
    std::cerr << "braid kill-switch: there is no " << device
              << " now; if no tunnel is to have it any more: braid kill-switch release " << device
              << '\n';
  }
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
    std::cout << "on: nothing leaves beside " << devices << std::endl;
    TellOfMissing(state->kept_for);
    return 0;
  }
  std::cout << "missing: it is to be on for " << devices
            << ", but its nftables rules are gone; \"braid kill-switch load\" brings them back\n";
  return 1;
}

int Release(const std::string& state_dir, const std::string& device) {
  const absl::Status status = ReleaseFromKillSwitch(state_dir, device);
  if (!status.ok()) return Fail("kill-switch", status);
  std::cout << "nothing leaves by " << device << " any more\n";
  return 0;
}

}  // namespace

void AddKillSwitchCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("kill-switch", "Show the kill switch, or load it at boot");
  command->require_subcommand(1);
  const auto state_dir = std::make_shared<std::string>(SecurityConfig().state_dir);
  const auto device = std::make_shared<std::string>();
  const auto add = [&](const char* name, const char* what) {
    CLI::App* verb = command->add_subcommand(name, what);
    verb->add_option("--state-dir", *state_dir, "The daemons' security.state_dir")
        ->type_name("FOLDER")
        ->capture_default_str();
    return verb;
  };
  add("status", "Show whether it is on, and for which tunnels")->callback([state_dir, &exit_code] {
    exit_code = Show(*state_dir);
  });
  add("load", "Bring back the kill switch that an earlier run has switched on, if any")
      ->callback([state_dir, &exit_code] { exit_code = Load(*state_dir); });
  CLI::App* release = add("release",
                          "Let nothing leave any more by the device of a tunnel that is "
                          "no more, as after it was given another network.device");
  release->add_option("device", *device, "The device that the tunnel had")
      ->required()
      ->type_name("DEVICE");
  release->callback([state_dir, device, &exit_code] { exit_code = Release(*state_dir, *device); });
  command->footer("\"braid cleanup --all\" lifts it.");
}

}  // namespace braid
