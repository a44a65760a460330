// swarm: many braid clients out of one process, against a real server.
//
//   swarm keys        writes a server's configuration that knows all clients
//   swarm handshakes  how many handshakes the server does, and what each costs
//   swarm idle        all clients stay established: what memory each takes
//   swarm send        inner packets of many clients in turn: what each costs
//
// Clients and server agree by --seed, from which every key follows. Where one address stands for
// all clients, the server lets only a few handshakes a second of it through: --sources 10.30.0.0/16
// gives each client an address of its own (ip route add local 10.30.0.0/16 dev lo, and a route
// back).
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "identities.h"
#include "modes.h"
#include "progress.h"
#include "report.h"
#include "server_config.h"
#include "slowpath/key_file.h"

namespace braid::swarm {
namespace {

constexpr int kUsageError = 2;

int Fail(const absl::Status& status) {
  std::cerr << "swarm: " << std::string(status.message()) << '\n';
  return 1;
}

// "1000"; "max" is 0, which stands for no limit.
std::optional<double> ParseRate(const std::string& text) {
  if (text == "max") return 0;
  double per_second = 0;
  const bool good = absl::SimpleAtod(text, &per_second) && per_second > 0;
  return good ? std::optional(per_second) : std::nullopt;
}

absl::Status BadRate(const std::string& option, const std::string& text) {
  return absl::InvalidArgumentError(option + ": \"" + text +
                                    "\" is neither a number above 0 nor \"max\"");
}

// "CLIENTS" or "CLIENTSxFLOWS".
absl::StatusOr<SendCase> ParseCase(const std::string& text, uint32_t clients) {
  const size_t times = text.find('x');
  SendCase one;
  const bool good = absl::SimpleAtoi(text.substr(0, times), &one.active) &&
                    (times == text.npos || absl::SimpleAtoi(text.substr(times + 1), &one.flows)) &&
                    one.active > 0 && one.active <= clients && one.flows > 0 &&
                    one.flows <= kMaxFlows;
  if (good) return one;
  return absl::InvalidArgumentError(
      absl::StrFormat("--case: \"%s\" is not CLIENTS or CLIENTSxFLOWS, with at most %u clients and "
                      "%u flows of each",
                      text, clients, kMaxFlows));
}

struct Arguments {
  uint32_t clients = 1000;
  std::string seed = "braid";
  std::string server = "127.0.0.1:7700";
  std::string sources;
  size_t sockets = 0;
  std::string cipher = "auto";
  int lanes = kDefaultLanes;
  double keepalive_s = 2;
  double rekey_after_s = 120;
  double give_up_s = 10;
  std::string rate = "1000";
  uint32_t window = 256;
  ServerProbe probe;
  bool json = false;
};

absl::StatusOr<SwarmOptions> OptionsOf(const Arguments& arguments) {
  SwarmOptions options;
  options.clients = arguments.clients;
  options.seed = arguments.seed;
  options.sockets.sockets = arguments.sockets == 0
                                ? arguments.clients
                                : std::min<size_t>(arguments.sockets, arguments.clients);
  const auto server = Endpoint::Parse(arguments.server);
  if (!server) {
    return absl::InvalidArgumentError("--server: \"" + arguments.server +
                                      "\" is no address with a port, such as 10.0.0.1:7700");
  }
  options.sockets.server = *server;
  if (!arguments.sources.empty()) {
    const auto sources = IpPrefix::Parse(arguments.sources);
    if (!sources || !sources->address.is_v4() || !server->address.is_v4()) {
      return absl::InvalidArgumentError("--sources: \"" + arguments.sources +
                                        "\" is no IPv4 net, such as 10.30.0.0/16");
    }
    options.sockets.sources = *sources;
  }
  auto aeads = ChooseAeads("auto");
  if (!aeads.ok()) return aeads.status();
  options.settings.aeads = *aeads;
  for (const Cipher cipher : {Cipher::kAes256Gcm, Cipher::kChaCha20Poly1305}) {
    const bool wanted = arguments.cipher == "auto" || arguments.cipher == CipherName(cipher);
    if (wanted && (*aeads)[cipher] != nullptr) options.settings.ciphers.push_back(cipher);
  }
  if (options.settings.ciphers.empty()) {
    return absl::InvalidArgumentError("--cipher: this machine has no " + arguments.cipher);
  }
  options.settings.lanes = arguments.lanes;
  options.settings.keepalive_ns = static_cast<DurationNs>(arguments.keepalive_s * kSecondNs);
  options.settings.rekey_after_ns = static_cast<DurationNs>(arguments.rekey_after_s * kSecondNs);
  return options;
}

template <typename Mode>
int Run(const Arguments& arguments, const SwarmOptions& options, const Mode& mode,
        absl::StatusOr<Json> (*run)(Swarm&, const ServerProbe&, const Mode&)) {
  PrepareAeadThread();
  TakeSignals();
  Swarm swarm(options);
  if (absl::Status status = swarm.Open(); !status.ok()) return Fail(status);
  const absl::StatusOr<Json> result = run(swarm, arguments.probe, mode);
  swarm.LeaveAll();
  if (!result.ok()) return Fail(result.status());
  std::cout << (arguments.json ? result->dump(2) + "\n" : Render(*result)) << std::flush;
  return std::cout ? 0 : 1;
}

void AddWho(CLI::App* command, Arguments& arguments) {
  command->add_option("--clients", arguments.clients, "How many clients")
      ->check(CLI::Range(1u, kMaxClients))
      ->capture_default_str();
  command->add_option("--seed", arguments.seed, "What all keys follow from")->capture_default_str();
}

void AddCommon(CLI::App* command, Arguments& arguments) {
  AddWho(command, arguments);
  command->add_option("--server", arguments.server, "The server's address and port")
      ->capture_default_str();
  command->add_option("--sources", arguments.sources,
                      "Sockets send from the addresses of this net");
  command->add_option("--sockets", arguments.sockets,
                      "How many sockets the clients share (default: each has its own)");
  command->add_option("--cipher", arguments.cipher, "What the clients offer")
      ->check(CLI::IsMember({"auto", "aes-256-gcm", "chacha20-poly1305"}))
      ->capture_default_str();
  command->add_option("--lanes", arguments.lanes, "What the clients offer")
      ->check(CLI::Range(1, kMaxLanes))
      ->capture_default_str();
  command->add_option("--rate", arguments.rate, "Handshakes begun per second, or \"max\"")
      ->capture_default_str();
  command->add_option("--window", arguments.window, "Handshakes under way at once, at rate max")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--server-pid", arguments.probe.pid,
                      "The server's process, for its CPU time and memory");
  command->add_option("--control-socket", arguments.probe.control_socket,
                      "The server's, for its counters");
  command->add_flag("--json", arguments.json, "Print JSON");
}

void AddStaying(CLI::App* command, Arguments& arguments) {
  command->add_option("--keepalive-s", arguments.keepalive_s, "Pings of an idle client; 0 is off")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--rekey-after-s", arguments.rekey_after_s, "Handshakes of a client")
      ->check(CLI::Range(0.1, 170.0))
      ->capture_default_str();
}

int Main(int argc, char** argv) {
  CLI::App app("Many braid clients out of one process.", "swarm");
  app.require_subcommand(1);
  Arguments arguments;

  ServerConfigOptions keys{.listen = "0.0.0.0:7700"};
  CLI::App* keys_command = app.add_subcommand("keys", "Write a server's configuration");
  AddWho(keys_command, arguments);
  keys_command->add_option("--server-config", keys.file, "The file to write")->required();
  keys_command->add_option("--listen", keys.listen, "The server's address and port")
      ->capture_default_str();
  keys_command->add_option("--extra-peer", keys.extra_peers, "One more peer: PUBKEY=PREFIX");

  HandshakesMode handshakes;
  CLI::App* handshakes_command =
      app.add_subcommand("handshakes", "Do handshakes, one after another");
  AddCommon(handshakes_command, arguments);
  handshakes_command->add_option("--seconds", handshakes.seconds)->capture_default_str();
  handshakes_command->add_option("--warmup", handshakes.warmup_s)->capture_default_str();
  handshakes_command
      ->add_option("--again-after", handshakes.again_s, "A client's pause between two, in seconds")
      ->capture_default_str();
  handshakes_command->add_option("--give-up-s", arguments.give_up_s, "On a handshake")
      ->capture_default_str();

  IdleMode idle;
  CLI::App* idle_command = app.add_subcommand("idle", "Stay established");
  AddCommon(idle_command, arguments);
  AddStaying(idle_command, arguments);
  idle_command->add_option("--seconds", idle.seconds, "0: until SIGINT or SIGTERM")
      ->capture_default_str();

  SendMode send;
  std::string packets = "max";
  std::vector<std::string> cases;
  std::string to = V4(kServerInner).ToString() + ":9";
  std::string pattern = "turn";
  CLI::App* send_command = app.add_subcommand("send", "Send inner packets");
  AddCommon(send_command, arguments);
  AddStaying(send_command, arguments);
  send_command->add_option("--seconds", send.seconds, "Of each case")->capture_default_str();
  send_command->add_option("--warmup", send.warmup_s)->capture_default_str();
  send_command->add_option("--packets", packets, "Per second, or \"max\"")->capture_default_str();
  send_command->add_option("--batch", send.batch, "Packets between two looks at the sockets")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  send_command->add_option("--size", send.inner_bytes, "Of an inner packet")
      ->check(CLI::Range(kMinTrafficBytes, kMaxTrafficBytes))
      ->capture_default_str();
  send_command->add_option("--to", to, "The inner address and port behind the server")
      ->capture_default_str();
  send_command->add_option("--pattern", pattern, "Whose packet is next")
      ->check(CLI::IsMember({"turn", "random"}))
      ->capture_default_str();
  send_command
      ->add_option("--case", cases,
                   "How many clients send, and flows of each: 1x100 (default: all, one flow)")
      ->delimiter(',');
  send_command->add_option("--rounds", send.rounds, "Cases take turns in each")
      ->capture_default_str();

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  if (keys_command->parsed()) {
    keys.clients = arguments.clients;
    keys.seed = arguments.seed;
    if (absl::Status status = WriteServerConfig(keys); !status.ok()) return Fail(status);
    std::cout << EncodeKey(ServerIdentity(keys.seed).public_key) << std::endl;
    return 0;
  }
  auto options = OptionsOf(arguments);
  if (!options.ok()) return Fail(options.status());
  const auto rate = ParseRate(arguments.rate);
  if (!rate) return Fail(BadRate("--rate", arguments.rate));
  const Pace pace{.per_second = *rate, .window = arguments.window};
  if (handshakes_command->parsed()) {
    handshakes.pace = pace;
    options->settings.give_up_ns = static_cast<DurationNs>(arguments.give_up_s * kSecondNs);
    // Each client's next handshake is the measurement's, so it says nothing in between.
    options->settings.keepalive_ns = 0;
    return Run(arguments, *options, handshakes, RunHandshakes);
  }
  if (idle_command->parsed()) {
    idle.pace = pace;
    return Run(arguments, *options, idle, RunIdle);
  }
  send.pace = pace;
  const auto packet_rate = ParseRate(packets);
  if (!packet_rate) return Fail(BadRate("--packets", packets));
  send.per_second = *packet_rate;
  send.pattern = pattern == "turn" ? Pattern::kTurn : Pattern::kRandom;
  if (cases.empty()) cases.push_back(std::to_string(arguments.clients));
  for (const std::string& text : cases) {
    const auto one = ParseCase(text, arguments.clients);
    if (!one.ok()) return Fail(one.status());
    send.cases.push_back(*one);
  }
  const auto inner = Endpoint::Parse(to);
  if (!inner || !inner->address.is_v4()) {
    return Fail(absl::InvalidArgumentError("--to: \"" + to + "\" is no IPv4 address with a port"));
  }
  send.to = *inner;
  return Run(arguments, *options, send, RunSend);
}

}  // namespace
}  // namespace braid::swarm

int main(int argc, char** argv) { return braid::swarm::Main(argc, argv); }
