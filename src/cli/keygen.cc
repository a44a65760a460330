// `braid keygen`: a new private key on standard output.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "cli/cli.h"
#include "slowpath/key_file.h"
#include "slowpath/noise.h"

namespace braid {
namespace {

// RFC 7748 clamps whenever it uses a key; a key that is stored so has one form only.
void Clamp(Key& key) {
  key.front() &= 248;
  key.back() = static_cast<uint8_t>((key.back() & 127) | 64);
}

int Keygen() {
  Secret key = KeyPair::Generate().private_key;
  Clamp(key);
  std::string text = EncodeKey(key);
  std::cout << text << std::endl;
  Wipe(text);
  if (std::cout) return 0;
  std::cerr << "braid keygen: standard output cannot be written\n";
  return 1;
}

}  // namespace

void AddKeygenCommand(CLI::App& app, int& exit_code) {
  app.add_subcommand("keygen", "Print a new private key")
      ->footer("Keep it to yourself: (umask 077; braid keygen > private.key)")
      ->callback([&exit_code] { exit_code = Keygen(); });
}

}  // namespace braid
