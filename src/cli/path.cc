// `braid path`: the paths of a running client: what they are, one more, one less, another use of
// one.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/path_view.h"
#include "cli/socket_option.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

constexpr char kLasts[] =
    "What it changes lasts until the daemon ends or reads its configuration again.";

struct PathArguments {
  std::string socket{kDefaultControlSocket};
  bool json = false;
  std::string name;
  std::string interface;
  std::string address;
  std::string endpoint;
  std::optional<double> quota_gb;
  std::optional<int> reset_day;
  std::optional<double> weight;
  std::string rate;
  bool standby = false;
};

int List(const PathArguments& arguments) {
  const auto reply = CallControl(arguments.socket, "path_list");
  if (!reply.ok()) return Fail("path list", reply.status());
  const auto paths = nlohmann::ordered_json::parse(*reply);
  std::cout << (arguments.json ? paths.dump(2) + '\n' : RenderPaths(paths));
  return EndOutput("path list");
}

int Add(const PathArguments& arguments) {
  nlohmann::json path = {{"name", arguments.name}};
  if (!arguments.interface.empty()) path["interface"] = arguments.interface;
  if (!arguments.address.empty()) path["address"] = arguments.address;
  if (!arguments.endpoint.empty()) path["endpoint"] = arguments.endpoint;
  if (arguments.quota_gb) path["quota"]["gb"] = *arguments.quota_gb;
  if (arguments.reset_day) path["quota"]["reset_day"] = *arguments.reset_day;
  const auto reply = CallControl(arguments.socket, "path_add", path.dump());
  if (!reply.ok()) return Fail("path add", reply.status());
  // It is there, but somebody may have misspelt an interface.
  const auto added = nlohmann::json::parse(*reply);
  const auto problem = added.find("problem");
  if (problem != added.end() && problem->is_string()) {
    std::cerr << "braid path add: added, but " << problem->get<std::string>() << '\n';
  }
  return 0;
}

int Delete(const PathArguments& arguments) {
  const nlohmann::json path = {{"name", arguments.name}};
  const auto reply = CallControl(arguments.socket, "path_del", path.dump());
  return reply.ok() ? 0 : Fail("path del", reply.status());
}

int Set(const PathArguments& arguments, bool standby_given) {
  nlohmann::json path = {{"name", arguments.name}};
  if (arguments.weight) path["weight"] = *arguments.weight;
  if (!arguments.rate.empty()) {
    // "auto" stays a text, and so does what is no number: the daemon says what is wrong.
    double mbps = 0;
    const bool is_number = absl::SimpleAtod(arguments.rate, &mbps);
    path["rate_mbps"] = is_number ? nlohmann::json(mbps) : nlohmann::json(arguments.rate);
  }
  if (standby_given) path["standby"] = arguments.standby;
  const auto reply = CallControl(arguments.socket, "path_set", path.dump());
  return reply.ok() ? 0 : Fail("path set", reply.status());
}

CLI::App* AddCommand(CLI::App& parent, const char* name, const char* what,
                     const std::shared_ptr<PathArguments>& arguments) {
  CLI::App* command = parent.add_subcommand(name, what);
  AddSocketOption(*command, arguments->socket);
  return command;
}

}  // namespace

void AddPathCommand(CLI::App& app, int& exit_code) {
  CLI::App* path = app.add_subcommand("path", "Show and change the paths of the running client");
  path->require_subcommand(1);
  const auto arguments = std::make_shared<PathArguments>();

  CLI::App* list = AddCommand(*path, "list", "Show the paths and their state", arguments);
  list->add_flag("--json", arguments->json, "Print JSON, with everything");
  list->callback([arguments, &exit_code] { exit_code = List(*arguments); });

  CLI::App* add = AddCommand(*path, "add", "", arguments);
  add->description(std::string("Add a path. ") + kLasts);
  add->add_option("NAME", arguments->name, "A name for the path")->required();
  CLI::Option* interface = add->add_option("--interface", arguments->interface,
                                           "The interface that it leaves by, up or not")
                               ->type_name("DEV");
  add->add_option("--address", arguments->address,
                  "Or the address of this machine that it sends from: it leaves by the interface "
                  "that has it")
      ->type_name("IP")
      ->excludes(interface);
  add->add_option("--endpoint", arguments->endpoint,
                  "Where the other end is reached, if not at the peer's endpoints")
      ->type_name("HOST:PORT");
  CLI::Option* quota =
      add->add_option("--quota-gb", arguments->quota_gb,
                      "Gigabytes a month, both ways, after which it is not used until the reset")
          ->type_name("GB");
  add->add_option("--reset-day", arguments->reset_day,
                  "The day of the month on which its quota begins anew; 1 if not given")
      ->type_name("DAY")
      ->needs(quota);
  add->callback([arguments, &exit_code] { exit_code = Add(*arguments); });

  CLI::App* del = AddCommand(*path, "del", "", arguments);
  del->description(std::string("End a path. ") + kLasts);
  del->add_option("NAME", arguments->name, "The path's name, as in \"braid path list\"")
      ->required();
  del->callback([arguments, &exit_code] { exit_code = Delete(*arguments); });

  CLI::App* set = AddCommand(*path, "set", "", arguments);
  set->description(std::string("Change how a path is used for what this end sends, while it goes "
                               "on. ") +
                   kLasts);
  set->add_option("NAME", arguments->name, "The path's name, as in \"braid path list\"")
      ->required();
  set->add_option("--weight", arguments->weight,
                  "Its share of what it carries, against the others' weights")
      ->type_name("W");
  set->add_option("--rate", arguments->rate, "What it carries; \"auto\": that is measured")
      ->type_name("MBPS");
  CLI::Option* standby = set->add_flag("--standby,!--no-standby", arguments->standby,
                                       "Use it only when the others are full or down, or always");
  set->callback(
      [arguments, standby, &exit_code] { exit_code = Set(*arguments, standby->count() != 0); });
  path->footer("Help on a command: braid path COMMAND --help");  // last, or they inherit it
}

}  // namespace braid
