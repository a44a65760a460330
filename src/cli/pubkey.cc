// `braid pubkey`: the public key of the private one on standard input.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "slowpath/key_file.h"
#include "slowpath/noise.h"

namespace braid {
namespace {

// Past the buffers of the standard library, which nobody would wipe. Reads one byte more than a key
// may have at most, so that a longer input is no key.
std::optional<Secret> ReadKeyFromInput() {
  std::string text(kMaxKeyFileBytes + 1, '\0');
  size_t used = 0;
  while (used < text.size()) {
    const ssize_t got = read(STDIN_FILENO, text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    used += static_cast<size_t>(got);
  }
  std::optional<Secret> key;
  if (used <= kMaxKeyFileBytes) key = DecodeKeyLine(std::string_view(text).substr(0, used));
  Wipe(text);
  return key;
}

int Pubkey() {
  const std::optional<Secret> key = ReadKeyFromInput();
  if (!key) {
    return Fail("pubkey",
                "standard input must be one private key, which is 32 bytes in base64, as "
                "\"braid keygen\" prints it");
  }
  std::cout << EncodeKey(KeyPair::FromPrivate(*key).public_key) << std::endl;
  return EndOutput("pubkey");
}

}  // namespace

void AddPubkeyCommand(CLI::App& app, int& exit_code) {
  app.add_subcommand("pubkey", "Print the public key of a private key")
      ->footer("Reads the private key on standard input: braid pubkey < private.key")
      ->callback([&exit_code] { exit_code = Pubkey(); });
}

}  // namespace braid
