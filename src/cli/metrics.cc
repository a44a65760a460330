// `braid metrics`: what the running daemon measures, in Prometheus' text format.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

int Metrics(const std::string& socket) {
  const auto reply = CallControl(socket, "metrics");
  if (!reply.ok()) return Fail("metrics", reply.status());
  std::cout << nlohmann::json::parse(*reply).at("text").get_ref<const std::string&>();
  return EndOutput("metrics");
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
