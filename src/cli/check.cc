// `braid check`: validates a configuration and the files with secrets that it names.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "cli/cli.h"
#include "slowpath/access_token.h"
#include "slowpath/config.h"
#include "slowpath/key_file.h"
#include "slowpath/tls_identity.h"

namespace braid {
namespace {

void CheckKeyFiles(LoadedConfig& loaded) {
  for (const KeyFileUse& use : loaded.key_files) {
    const absl::StatusOr<Secret> key = ReadKeyFile(use.path);
    if (key.ok()) continue;
    loaded.mistakes.push_back({.pointer = use.pointer,
                               .what = std::string(key.status().message()),
                               .variable = use.variable});
  }
}

void CheckHttpFiles(LoadedConfig& loaded) {
  for (const HttpFileUse& use : loaded.http_files) {
    const absl::Status status = use.certificate_path.empty()
                                    ? ReadTokenFile(use.path).status()
                                    : CheckTlsFiles({use.certificate_path, use.path});
    if (status.ok()) continue;
    loaded.mistakes.push_back(
        {.pointer = use.pointer, .what = std::string(status.message()), .variable = use.variable});
  }
}

int Check(const std::string& file) {
  LoadedConfig loaded = LoadConfig(file, ProcessEnvironment());
  CheckKeyFiles(loaded);
  CheckHttpFiles(loaded);
  for (const Mistake& mistake : loaded.mistakes) {
    std::cerr << DescribeMistake(file, mistake) << '\n';
  }
  for (Mistake warning : loaded.warnings) {
    warning.what.insert(0, "warning: ");
    std::cerr << DescribeMistake(file, warning) << '\n';
  }
  if (!loaded.mistakes.empty()) return 1;
  std::cout << file << ": ok\n";
  return 0;
}

}  // namespace

void AddCheckCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("check", "Validate a configuration and its key files");
  const auto file = std::make_shared<std::string>();
  command->add_option("--config,-c", *file, "The configuration, .json, .yaml or .yml")
      ->required()
      ->type_name("FILE");
  command->callback([file, &exit_code] { exit_code = Check(*file); });
}

}  // namespace braid
