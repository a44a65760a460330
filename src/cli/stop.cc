// `braid stop`: asks the running daemon to stop and returns when it has.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>

#include "cli/cli.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

constexpr std::chrono::seconds kStopTimeout{10};

int Stop(const std::string& socket) {
  const absl::Status status = StopDaemon(socket, kStopTimeout);
  if (status.ok()) return 0;
  std::cerr << "braid stop: " << status.message() << '\n';
  return 1;
}

}  // namespace

void AddStopCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("stop", "Stop the running daemon and wait for its end");
  const auto socket = std::make_shared<std::string>(kDefaultControlSocket);
  command->add_option("--socket", *socket, "The daemon's control socket")
      ->type_name("PATH")
      ->capture_default_str();
  command->callback([socket, &exit_code] { exit_code = Stop(*socket); });
}

}  // namespace braid
