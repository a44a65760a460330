// `braid probe`: what a SOCKS5 server can do.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/probe_view.h"
#include "cli/proxy_url.h"
#include "cli/tint.h"
#include "slowpath/config_proxy.h"
#include "slowpath/config_values.h"
#include "slowpath/socks5_probe.h"

namespace braid {
namespace {

struct ProbeArguments {
  std::string url;
  std::string password_file;
  std::string connect;
  std::string name_server;
  double timeout_s = 5;
  bool json = false;
};

std::string CheckProxyUrl(const std::string& text) {
  return std::string(ParseProxyUrl(text).status().message());
}

std::string CheckHostPort(const std::string& text) {
  return IsHostAndPort(text) ? "" : "\"" + text + "\" is not an address or a name with a port";
}

// Whether what is given of a login fits together.
void CheckLogin(const ProxyUrl& url, const ProbeArguments& arguments) {
  const bool has_file = !arguments.password_file.empty();
  if (has_file && url.username.empty()) {
    throw CLI::ValidationError("--password-file", "wants a user name: socks5://USER@HOST");
  }
  if (has_file && url.password) {
    throw CLI::ValidationError("--password-file", "there is a password in the URL, too");
  }
  if (!url.username.empty() && !url.password && !has_file) {
    throw CLI::ValidationError("URL", "the user name wants a password: --password-file FILE");
  }
}

absl::StatusOr<Socks5ProbeOptions> OptionsOf(const ProxyUrl& url, const ProbeArguments& arguments) {
  Socks5ProbeOptions options;
  options.server = url.server;
  if (!url.username.empty()) {
    auto password = url.password ? absl::StatusOr<std::string>(*url.password)
                                 : ReadPasswordFile(arguments.password_file);
    if (!password.ok()) return password.status();
    options.credentials = {url.username, *std::move(password)};
  }
  options.connect = ParseHostPort(arguments.connect);
  options.name_server = ParseHostPort(arguments.name_server);
  options.timeout_ns =
      static_cast<DurationNs>(arguments.timeout_s * static_cast<double>(kSecondNs));
  return options;
}

int Probe(const ProbeArguments& arguments) {
  const auto url = ParseProxyUrl(arguments.url);
  if (!url.ok()) return Fail("probe", url.status());
  CheckLogin(*url, arguments);
  const auto options = OptionsOf(*url, arguments);
  if (!options.ok()) return Fail("probe", options.status());
  if (url->password) {
    std::cerr << "braid probe: note: others of this machine can see a password on the command "
                 "line; --password-file FILE keeps it from them\n";
  }
  const std::vector<Socks5ProbeStep> steps = ProbeSocks5(*options);
  if (arguments.json) {
    std::cout << DescribeProbe(*options, steps)
                     .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << std::endl;
  } else {
    std::cout << RenderProbe(steps, WantsColour(STDOUT_FILENO)) << std::flush;
  }
  if (const int code = EndOutput("probe"); code != 0) return code;
  return CanConnect(steps) ? 0 : 1;
}

}  // namespace

void AddProbeCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("probe", "Show what a SOCKS5 proxy can do, step by step");
  const auto arguments = std::make_shared<ProbeArguments>();
  command
      ->add_option("URL", arguments->url,
                   "The proxy: socks5://[USER[:PASSWORD]@]HOST[:PORT]; port 1080, if none is given")
      ->required()
      ->check(CheckProxyUrl);
  command
      ->add_option("--password-file", arguments->password_file,
                   "Where the password is, on one line of a file that is its owner's alone: others "
                   "can see what is on a command line")
      ->type_name("FILE");
  command
      ->add_option("--connect", arguments->connect,
                   "What the proxy is to connect to, instead of its own address and port")
      ->type_name("HOST:PORT")
      ->check(CheckHostPort);
  command
      ->add_option("--udp", arguments->name_server,
                   "A DNS server that is asked through the proxy's relay of datagrams; without it "
                   "only whether there is a relay is looked at")
      ->type_name("HOST:PORT")
      ->check(CheckHostPort);
  command
      ->add_option("--timeout", arguments->timeout_s,
                   "How long each step may take; up to the login they are one")
      ->type_name("SECONDS")
      ->check(Between(0.1, 60))
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print JSON");
  command->footer(
      "The exit code is 1 unless the proxy lets one in and connects. For root it is reached past "
      "the tunnel, as the daemon would reach it.");
  command->callback([arguments, &exit_code] { exit_code = Probe(*arguments); });
}

}  // namespace braid
