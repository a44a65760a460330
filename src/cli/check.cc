// `braid check`: validates a configuration and the files with secrets that it names.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "cli/cli.h"
#include "slowpath/config.h"
#include "slowpath/config_keys.h"

namespace braid {
namespace {

int Check(const std::string& file) {
  LoadedConfig loaded = LoadConfig(file, ProcessEnvironment());
  CheckKeyFiles(loaded);
  CheckHttpFiles(loaded);
  CheckPasswordFiles(loaded);
  for (const Mistake& mistake : loaded.mistakes) {
    std::cerr << DescribeMistake(loaded.file, mistake) << '\n';
  }
  for (Mistake warning : loaded.warnings) {
    warning.what.insert(0, "warning: ");
    std::cerr << DescribeMistake(loaded.file, warning) << '\n';
  }
  if (!loaded.mistakes.empty()) return 1;
  std::cout << loaded.file << ": ok\n";
  return 0;
}

}  // namespace

void AddCheckCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("check", "Validate a configuration and its key files");
  const auto file = std::make_shared<std::string>();
  command
      ->add_option("--config,-c", *file,
                   "The configuration, .json, .yaml or .yml; the extension may be left out")
      ->required()
      ->type_name("FILE");
  command->callback([file, &exit_code] { exit_code = Check(*file); });
}

}  // namespace braid
