// `braid keygen`: a new private key on standard output.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "slowpath/key_file.h"

namespace braid {
namespace {

int Keygen() {
  std::string text = EncodeKey(NewPrivateKey());
  std::cout << text << std::endl;
  Wipe(text);
  return EndOutput("keygen");
}

}  // namespace

void AddKeygenCommand(CLI::App& app, int& exit_code) {
  app.add_subcommand("keygen", "Print a new private key")
      ->footer("Keep it to yourself: (umask 077; braid keygen > private.key)")
      ->callback([&exit_code] { exit_code = Keygen(); });
}

}  // namespace braid
