// The option --socket of the commands that speak to a running daemon.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace braid {

// `socket` holds the default, and outlives the parsing.
inline void AddSocketOption(CLI::App& command, std::string& socket) {
  command.add_option("--socket", socket, "The daemon's control socket")
      ->type_name("PATH")
      ->capture_default_str();
}

}  // namespace braid
