// `braid metrics`: what the running daemon measures, in Prometheus' text format.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/cli.h"
#include "cli/socket_option.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

int Metrics(const std::string& socket) {
  const auto reply = CallControl(socket, "metrics");
  if (!reply.ok()) {
    std::cerr << "braid metrics: " << reply.status().message() << '\n';
    return 1;
  }
  std::cout << nlohmann::json::parse(*reply).at("text").get_ref<const std::string&>() << std::flush;
  if (std::cout) return 0;
  std::cerr << "braid metrics: standard output cannot be written\n";
  return 1;
}

}  // namespace

void AddMetricsCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "metrics", "Print what the running daemon measures, in Prometheus' text format");
  const auto socket = std::make_shared<std::string>(kDefaultControlSocket);
  AddSocketOption(*command, *socket);
  command->callback([socket, &exit_code] { exit_code = Metrics(*socket); });
}

}  // namespace braid
