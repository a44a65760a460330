// linkem: joins two Ethernet interfaces by an emulated link.
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "io/unique_fd.h"
#include "linkem/command.h"
#include "linkem/emulator.h"
#include "linkem/link_settings.h"
#include "linkem/report.h"

namespace braid::linkem {
namespace {

constexpr int kUsageError = 2;

constexpr char kFooter[] =
    R"(While it runs, each line of standard input is a command, answered by one line, "ok" or
"error: …" (status: by a table before it, with --json by a line of JSON):

  [to-left|to-right] set KEY VALUE [KEY VALUE…]   keys as the options, without --
  [to-left|to-right] down|up                      loses everything, silently
  status                                          settings and counters
  quit

A trace file holds lines SECONDS COMMAND; a last line SECONDS loop starts it again.
It ends on SIGINT, SIGTERM, quit, or when an interface goes away.)";

struct Arguments {
  std::string left;
  std::string right;
  std::string to_left;
  std::string to_right;
  std::string trace_file;
  std::string network_namespace;
  bool has_seed = false;
  uint64_t seed = 0;
  bool priority = false;
  bool until_eof = false;
  bool json = false;
  LinkSettings both;
};

absl::Status EnterNamespace(const std::string& name) {
  const std::string path = name.find('/') == std::string::npos ? "/run/netns/" + name : name;
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || setns(fd.get(), CLONE_NEWNET) != 0) {
    return absl::NotFoundError(absl::StrFormat("--netns %s: %s: %s", name, path, strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status TakePriority() {
  sched_param parameter{};
  parameter.sched_priority = 1;
  if (sched_setscheduler(0, SCHED_FIFO, &parameter) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrFormat(
      "--priority: the kernel refuses real-time scheduling here: %s", strerror(errno)));
}

absl::Status SetOneWay(LinkSettings& settings, const char* option, const std::string& text) {
  if (text.empty()) return absl::OkStatus();
  const absl::Status status = SetLink(settings, text);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: %s", option, std::string(status.message())));
}

absl::StatusOr<EmulatorOptions> OptionsFrom(const Arguments& arguments) {
  EmulatorOptions options;
  options.left = arguments.left;
  options.right = arguments.right;
  options.to_left = options.to_right = arguments.both;
  absl::Status status = SetOneWay(options.to_left, "--to-left", arguments.to_left);
  if (status.ok()) status = SetOneWay(options.to_right, "--to-right", arguments.to_right);
  if (!status.ok()) return status;
  options.seed = arguments.has_seed ? arguments.seed : std::random_device()();
  options.until_end_of_input = arguments.until_eof;
  options.json = arguments.json;
  if (!arguments.trace_file.empty()) {
    absl::StatusOr<Trace> trace = ReadTrace(arguments.trace_file);
    if (!trace.ok()) return trace.status();
    options.trace = *std::move(trace);
  }
  return options;
}

absl::Status Run(const Arguments& arguments) {
  absl::StatusOr<EmulatorOptions> options = OptionsFrom(arguments);
  if (!options.ok()) return options.status();
  absl::Status status;
  if (!arguments.network_namespace.empty()) status = EnterNamespace(arguments.network_namespace);
  if (status.ok() && arguments.priority) status = TakePriority();
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Emulator>> emulator = Emulator::Create(*std::move(options));
  if (!emulator.ok()) return emulator.status();
  std::cout << "ready" << std::endl;
  status = (*emulator)->Run();
  const EmulatorStatus told = (*emulator)->Status();
  std::cout << (arguments.json ? StatusJson(told) + "\n" : StatusTable(told)) << std::flush;
  return status;
}

void AddOptions(CLI::App& app, Arguments& arguments) {
  app.add_option("LEFT", arguments.left, "An Ethernet interface")->required();
  app.add_option("RIGHT", arguments.right, "Another one")->required();
  const auto both = [&](const char* key, const char* value, const char* text) {
    app.add_option_function<std::string>(
           std::string("--") + key,
           [&arguments, key](const std::string& given) {
             const absl::Status status = SetLink(arguments.both, key, given);
             if (!status.ok()) throw CLI::ValidationError("--" + std::string(status.message()));
           },
           text)
        ->type_name(value);
  };
  both("rate", "RATE", "50mbit, 800kbit, 1.5gbit; default: unlimited");
  both("delay", "TIME", "One way, behind the rate: 10ms, 500us");
  both("jitter", "TIME", "The delay varies by as much, up and down, evenly; the order stays");
  both("loss", "SHARE", "Of the frames, each by itself: 0.5%");
  both("burst-loss", "SHARE,FRAMES", "In bursts of this mean length: 1%,8");
  both("queue", "SIZE", "In front of the rate: 64KiB, 1MB; default: 256KB (of 1000 bytes)");
  both("reorder", "SHARE,TIME", "Frames that are held back for so long: 1%,5ms");
  app.add_option("--to-left", arguments.to_left, "What is different that way: \"rate 5mbit\"")
      ->type_name("SETTINGS");
  app.add_option("--to-right", arguments.to_right, "What is different that way")
      ->type_name("SETTINGS");
  app.add_option("--trace", arguments.trace_file, "Commands, each at its time")->type_name("FILE");
  app.add_option_function<uint64_t>(
         "--seed",
         [&arguments](uint64_t seed) {
           arguments.seed = seed;
           arguments.has_seed = true;
         },
         "Of chance; default: another one each time")
      ->type_name("N");
  app.add_option("--netns", arguments.network_namespace, "Where the interfaces are")
      ->type_name("NAME");
  app.add_flag("--priority", arguments.priority, "Real-time scheduling (SCHED_FIFO)");
  app.add_flag("--until-eof", arguments.until_eof, "End with standard input");
  app.add_flag("--json", arguments.json, "Status and the statistics at the end as a line of JSON");
  app.footer(kFooter);
}

}  // namespace
}  // namespace braid::linkem

int main(int argc, char** argv) {
  CLI::App app("Joins two Ethernet interfaces by an emulated link.", "linkem");
  app.set_version_flag("--version", "linkem " BRAID_VERSION, "Print the version and exit");
  app.set_help_flag("--help,-h", "Print this help and exit");
  braid::linkem::Arguments arguments;
  braid::linkem::AddOptions(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : braid::linkem::kUsageError;
  }
  const absl::Status status = braid::linkem::Run(arguments);
  if (status.ok()) return 0;
  std::cerr << "linkem: " << status.message() << '\n';
  return 1;
}
