// `braid doctor`: what of this machine, and of a configuration on it, keeps a tunnel from working,
// and what to do.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "cli/doctor_view.h"
#include "cli/outcome.h"
#include "cli/tint.h"
#include "slowpath/config.h"
#include "slowpath/diagnosis.h"
#include "slowpath/machine_probe.h"
#include "slowpath/tunnel_probe.h"

namespace braid {
namespace {

struct DoctorArguments {
  std::string config;
  bool json = false;
};

std::vector<Diagnosis> Diagnose(const DoctorArguments& arguments) {
  if (arguments.config.empty()) return DiagnoseMachine(ProbeMachine(nullptr), nullptr);
  const TunnelState tunnel = ProbeTunnel(arguments.config, ProcessEnvironment());
  const Config* config = tunnel.config ? &*tunnel.config : nullptr;
  std::vector<Diagnosis> all = DiagnoseMachine(ProbeMachine(config), config);
  const std::vector<Diagnosis> more = DiagnoseTunnel(tunnel);
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

int Doctor(const DoctorArguments& arguments) {
  const std::vector<Diagnosis> all = Diagnose(arguments);
  if (arguments.json) {
    std::cout << DescribeDiagnoses(all).dump(2, ' ', false,
                                             nlohmann::ordered_json::error_handler_t::replace)
              << std::endl;
  } else {
    std::cout << RenderDiagnoses(all, WantsColour(STDOUT_FILENO)) << std::flush;
  }
  if (const int code = EndOutput("doctor"); code != 0) return code;
  return CountFailed(all) == 0 ? 0 : 1;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "doctor", "Look for what keeps a tunnel from working on this machine, and say what to do");
  const auto arguments = std::make_shared<DoctorArguments>();
  command
      ->add_option("--config,-c", arguments->config,
                   "Also look at this configuration, and at the ways to its servers")
      ->type_name("FILE");
  command->add_flag("--json", arguments->json, "Print JSON");
  command->footer("The exit code is 1 if anything failed. Nothing of the machine is changed.");
  command->callback([arguments, &exit_code] { exit_code = Doctor(*arguments); });
}

}  // namespace braid
