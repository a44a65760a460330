// `braid run`: the daemon in the foreground.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "slowpath/config.h"
#include "slowpath/daemon.h"
#include "slowpath/log.h"

namespace braid {
namespace {

int Run(const std::string& file) {
  const LoadedConfig loaded = LoadConfig(file, ProcessEnvironment());
  for (const Mistake& mistake : loaded.mistakes) {
    std::cerr << DescribeMistake(loaded.file, mistake) << '\n';
  }
  if (!loaded.config) return 1;
  const Config& config = *loaded.config;
  absl::Status status = SetUpLog(config.log.level, config.log.format);
  for (const Mistake& warning : loaded.warnings) {
    std::cerr << "warning: " << DescribeMistake(loaded.file, warning) << '\n';
  }
  if (status.ok()) status = RunDaemon(std::filesystem::absolute(file).string(), config);
  return status.ok() ? 0 : Fail("run", status);
}

}  // namespace

void AddRunCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("run", "Run the daemon in the foreground");
  const auto file = std::make_shared<std::string>();
  command
      ->add_option("--config,-c", *file,
                   "The configuration, .json, .yaml or .yml; the extension may be left out")
      ->required()
      ->type_name("FILE");
  command->callback([file, &exit_code] { exit_code = Run(*file); });
}

}  // namespace braid
