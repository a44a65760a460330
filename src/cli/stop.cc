// `braid stop`: asks the running daemon to stop and returns when it has, or to take its tunnel down
// only; `braid start` brings that up again.
#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

constexpr std::chrono::seconds kStopTimeout{10};

int Call(const std::string& socket, const char* verb, const char* params) {
  const auto reply = CallControl(socket, verb, params);
  return reply.ok() ? 0 : Fail(verb, reply.status());
}

int Stop(const std::string& socket) {
  const absl::Status status = StopDaemon(socket, kStopTimeout);
  return status.ok() ? 0 : Fail("stop", status);
}

}  // namespace

void AddStopCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("stop", "Stop the running daemon and wait for its end");
  const auto socket = std::make_shared<std::string>(kDefaultControlSocket);
  AddSocketOption(*command, *socket);
  const auto only_tunnel = std::make_shared<bool>(false);
  command->add_flag("--tunnel", *only_tunnel,
                    "Take the tunnel down only; the daemon goes on answering");
  command->callback([socket, only_tunnel, &exit_code] {
    exit_code = *only_tunnel ? Call(*socket, "stop", R"({"scope":"tunnel"})") : Stop(*socket);
  });
}

void AddStartCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "start", "Bring up the tunnel of a running daemon after \"braid stop --tunnel\"");
  const auto socket = std::make_shared<std::string>(kDefaultControlSocket);
  AddSocketOption(*command, *socket);
  command->callback([socket, &exit_code] { exit_code = Call(*socket, "start", "{}"); });
}

}  // namespace braid
