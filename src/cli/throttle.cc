// `braid throttle`: the limits of rates of the running daemon.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "cli/throttle_view.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

// In the place of a peer's name.
constexpr std::string_view kTotal = "total";
constexpr char kNameHelp[] = "A peer's name, or \"total\": all peers together";

struct ThrottleArguments {
  std::string socket{kDefaultControlSocket};
  std::string name;
  double rate_mbps = 0;
  std::optional<double> burst_kb;
  std::string only;  // "send", "receive"; empty: both
  bool json = false;
};

int Show(const ThrottleArguments& arguments) {
  const auto reply = CallControl(arguments.socket, "throttle");
  if (!reply.ok()) return Fail("throttle", reply.status());
  const auto throttle = nlohmann::ordered_json::parse(*reply);
  std::cout << (arguments.json ? throttle.dump(2) + '\n' : RenderThrottle(throttle));
  return EndOutput("throttle");
}

int ChangeLimits(const ThrottleArguments& arguments, const nlohmann::json& limit) {
  nlohmann::json params;
  if (arguments.name == kTotal) {
    params["total"] = limit;
  } else {
    params["peers"][arguments.name] = limit;
  }
  const auto reply = CallControl(arguments.socket, "throttle", params.dump());
  return reply.ok() ? 0 : Fail("throttle", reply.status());
}

int Set(const ThrottleArguments& arguments) {
  nlohmann::json rate = {{"rate_mbps", arguments.rate_mbps}};
  if (arguments.burst_kb) rate["burst_kb"] = *arguments.burst_kb;
  return ChangeLimits(arguments,
                      arguments.only.empty() ? rate : nlohmann::json{{arguments.only, rate}});
}

}  // namespace

void AddThrottleCommand(CLI::App& app, int& exit_code) {
  CLI::App* throttle = app.add_subcommand(
      "throttle",
      "Show and change how much is sent to each peer and taken from it, and to and from all of "
      "them together. A change lasts until the daemon ends, or is given a configuration with other "
      "limits.");
  throttle->require_subcommand(0, 1);
  const auto arguments = std::make_shared<ThrottleArguments>();
  const auto add_show = [&](CLI::App* command) {
    AddSocketOption(*command, arguments->socket);
    command->add_flag("--json", arguments->json, "Print JSON");
  };
  add_show(throttle);
  throttle->callback([throttle, arguments, &exit_code] {
    if (throttle->get_subcommands().empty()) exit_code = Show(*arguments);
  });

  CLI::App* show = throttle->add_subcommand("show", "Show the limits and what came of them");
  add_show(show);
  show->callback([arguments, &exit_code] { exit_code = Show(*arguments); });

  CLI::App* set = throttle->add_subcommand("set", "Limit a peer, or all together");
  AddSocketOption(*set, arguments->socket);
  set->add_option("NAME", arguments->name, kNameHelp)->required();
  set->add_option("RATE", arguments->rate_mbps, "Mbit/s of inner packets, each way by itself")
      ->required();
  set->add_option(
         "--burst", arguments->burst_kb,
         "Kilobytes that may pass at once; a fiftieth of a second of the rate if not given")
      ->type_name("KB");
  set->add_option("--only", arguments->only, "Limit this way, and leave the other without a limit")
      ->check(CLI::IsMember({"send", "receive"}));
  set->callback([arguments, &exit_code] { exit_code = Set(*arguments); });

  CLI::App* clear = throttle->add_subcommand("clear", "End a limit");
  AddSocketOption(*clear, arguments->socket);
  clear->add_option("NAME", arguments->name, kNameHelp)->required();
  clear->callback([arguments, &exit_code] { exit_code = ChangeLimits(*arguments, nullptr); });
}

}  // namespace braid
