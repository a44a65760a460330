// `braid init`: a working pair of configurations, with their keys, and what to do next. On one of
// the two machines everything is made; what the other one needs is in a folder to be copied there.
//
//   DIR/server.yaml, server.key, NAME.psk          DIR/client.yaml, client.key, client.psk
//   DIR/clients/NAME/client.yaml, …                DIR/server/server.yaml, …
//   braid init server                              braid init client
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "cli/cli.h"
#include "cli/first_config.h"
#include "cli/new_files.h"
#include "cli/outcome.h"
#include "cli/text_layout.h"
#include "slowpath/config.h"
#include "slowpath/config_values.h"
#include "slowpath/control_client.h"
#include "slowpath/host_files.h"
#include "slowpath/key_file.h"
#include "slowpath/net_snapshot.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

constexpr char kRootFolder[] = "/etc/braid";
constexpr char kOtherFolder[] = "braid";  // of who is not root
constexpr uint32_t kConfigMode = 0644;    // there is no secret in it

struct InitArguments {
  std::string dir = geteuid() == 0 ? kRootFolder : kOtherFolder;
  std::string server_config;
  std::vector<std::string> endpoints;
  std::string name = "client";
  std::vector<std::string> inner;
  std::string nat_device;
  uint16_t listen_port = 0;  // 0: the endpoint's
  FirstClient client;        // what the options say of it
};

// What is told to whoever ran it, once all is done.
class Told {
 public:
  void Note(const std::string& text) { notes_ += Wrap("note: ", "      ", text); }
  void Wrote(const std::string& path, const std::string& what) {
    if (wrote_.empty()) wrote_ = "wrote\n";
    absl::StrAppend(&wrote_, "  ", PadRight(path, 38), "  ", what, "\n");
  }
  void Step(const std::string& what, const std::string& command) {
    absl::StrAppend(&steps_, "\n", Wrap(absl::StrCat("  ", ++step_, ". "), "     ", what));
    if (!command.empty()) absl::StrAppend(&steps_, "       ", command, "\n");
  }
  std::string Text() const { return wrote_ + notes_ + "\nwhat to do next\n" + steps_; }

 private:
  std::string wrote_, notes_, steps_;
  int step_ = 0;
};

// Quoted for a shell where that is needed.
std::string Shell(const std::string& text) {
  constexpr char kPlain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-";
  if (text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string ReloadCommand(const std::string& socket) {
  if (socket == kDefaultControlSocket) return "braid reload";
  return "braid reload --socket " + Shell(socket);
}

// How systemd runs it, where the package's units look for it.
std::string AsService(const std::string& config) {
  const fs::path path = config;
  if (path.parent_path() != kRootFolder) return "";
  return " (as a service: systemctl enable --now braid@" + path.stem().string() + ")";
}

bool HasV6() {
  const HostFiles files;
  return files.ReadInteger("/proc/sys/net/ipv6/conf/default/disable_ipv6").value_or(1) == 0;
}

class Initializer {
 public:
  explicit Initializer(const InitArguments& arguments) : arguments_(arguments) {}

  absl::Status MakePair(Role here);
  absl::Status AddToServer();

 private:
  absl::Status Prepare(Role here);
  absl::Status ReadEndpoints(Role here);
  absl::Status FindEndpoint(Role here);
  absl::Status ChooseNetworks(Role here);
  absl::Status ChooseNat(Role here);
  void TakeEndpointsOfOthers(const fs::path& clients);
  absl::Status PrepareFor(const Config& config, const fs::path& folder);
  void MakeClientKeys();
  absl::Status CheckTexts() const;
  absl::Status Check(const std::string& name, const std::string& text) const;

  std::vector<NewFile> ServerFiles(const fs::path& folder) const;
  std::vector<NewFile> ClientFiles(const fs::path& folder) const;
  void TellCopy(const fs::path& folder, const std::vector<NewFile>& files, const char* to);
  void TellNat(const Config& server);
  void TellServerRun(const std::string& where, const std::string& config);
  void TellClientRun(const std::string& where, const std::string& config);

  const InitArguments& arguments_;
  NetSnapshot network_;
  FirstServer server_;
  FirstClient client_;
  Secret server_key_, client_key_, preshared_key_;
  Told told_;
};

// With the port of braid where none is given.
absl::StatusOr<HostPort> ParseEndpoint(const std::string& text) {
  const std::string port = absl::StrCat(":", kDefaultPort);
  const auto address = IpAddress::Parse(text);
  std::optional<HostPort> endpoint = ParseHostPort(text);
  if (address) endpoint = HostPort{address->ToString(), kDefaultPort, *address};
  if (!endpoint) endpoint = ParseHostPort(text + port);
  if (endpoint) return *endpoint;
  return absl::InvalidArgumentError(
      "--endpoint: must be the server's address or host name, with a port if it is not 7700, such "
      "as 192.0.2.1:7700, [2001:db8::1]:7700 or vpn.example.net, but is \"" +
      text + "\"");
}

std::string NameOf(const HostPort& endpoint) {
  if (endpoint.address.is_set()) return Endpoint{endpoint.address, endpoint.port}.ToString();
  return absl::StrCat(endpoint.host, ":", endpoint.port);
}

// Asked on a terminal only. The guess is taken where nothing is answered.
std::string Ask(const std::string& question, const std::string& guess) {
  std::cout << question << (guess.empty() ? "" : " [" + guess + "]") << ": " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  return answer.empty() ? guess : answer;
}

absl::Status Initializer::FindEndpoint(Role here) {
  const bool may_ask = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
  const std::string question = "The server's address or host name, as its clients reach it";
  std::optional<OwnAddress> own;
  if (here == Role::kServer) own = FindOwnAddress(network_);
  std::string text = own ? Endpoint{own->address, kDefaultPort}.ToString() : "";
  if (may_ask) {
    const std::string answer = Ask(question, text);
    own = answer == text ? own : std::nullopt;
    text = answer;
  }
  if (text.empty()) {
    return absl::InvalidArgumentError(
        here == Role::kServer
            ? "this machine has no default route to find its address by; say how clients reach it: "
              "--endpoint HOST:PORT"
            : "say how the server is reached: --endpoint HOST:PORT");
  }
  const auto endpoint = ParseEndpoint(text);
  if (!endpoint.ok()) return endpoint.status();
  client_.endpoints = {NameOf(*endpoint)};
  server_.port = endpoint->port;
  if (!own) return absl::OkStatus();
  std::string note = absl::StrCat("clients are told to reach the server at ", text,
                                  ", the address of ", own->device, " (no --endpoint was given)");
  if (!own->is_public) {
    note +=
        "; it is no public one: clients elsewhere need the router's, which has to forward UDP " +
        std::to_string(server_.port) + " to this machine";
  }
  told_.Note(note);
  return absl::OkStatus();
}

absl::Status Initializer::ReadEndpoints(Role here) {
  if (arguments_.endpoints.empty() && client_.endpoints.empty()) {
    if (absl::Status status = FindEndpoint(here); !status.ok()) return status;
  }
  for (const std::string& text : arguments_.endpoints) {
    const auto endpoint = ParseEndpoint(text);
    if (!endpoint.ok()) return endpoint.status();
    if (client_.endpoints.empty()) server_.port = endpoint->port;
    client_.endpoints.push_back(NameOf(*endpoint));
  }
  if (arguments_.listen_port != 0) server_.port = arguments_.listen_port;
  return absl::OkStatus();
}

absl::Status Initializer::ChooseNetworks(Role here) {
  std::vector<IpPrefix> taken;
  for (const NetAddress& one : network_.addresses) taken.push_back(one.on_link);
  // The other machine may have it: nothing is known of that one.
  const bool has_v6 = here == Role::kClient || HasV6();
  server_.listens_v6 = has_v6;
  auto inner = ChooseInnerNetworks(arguments_.inner.empty() ? taken : std::vector<IpPrefix>(),
                                   has_v6 && arguments_.inner.empty());
  if (!inner.ok()) return inner.status();
  std::set<IpAddress::Family> given;
  for (const std::string& text : arguments_.inner) {
    const auto prefix = IpPrefix::Parse(text);
    const bool is_network = prefix && *prefix == prefix->Network();
    const int most = prefix && prefix->address.is_v4() ? 29 : 124;
    if (!is_network || prefix->length > most || prefix->length == 0 ||
        !given.insert(prefix->address.family).second) {
      return absl::InvalidArgumentError(
          "--inner: must be a network such as 10.80.0.0/24, with room for the server and its "
          "clients, and at most one of IPv4 and one of IPv6, but is \"" +
          text + "\"");
    }
    if (prefix->address.is_v4()) inner->v4 = *prefix;
    if (prefix->address.is_v6()) inner->v6 = *prefix;
  }
  if (!given.empty() && given.count(IpAddress::Family::kV4) == 0) {
    return absl::InvalidArgumentError("--inner: one network must be of IPv4");
  }
  server_.inner = *inner;
  client_.inner = *inner;
  return absl::OkStatus();
}

absl::Status Initializer::ChooseNat(Role here) {
  if (!client_.default_route) return absl::OkStatus();
  server_.nat_device = arguments_.nat_device;
  if (here == Role::kServer && server_.nat_device.empty()) {
    const auto own = FindOwnAddress(network_);
    if (own) server_.nat_device = own->device;
  }
  if (!server_.nat_device.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--default-route: say by which device the server goes into the internet: --nat-device NAME "
      "(\"ip route get 1.1.1.1\" shows it there)");
}

void Initializer::MakeClientKeys() {
  client_key_ = NewPrivateKey();
  preshared_key_ = NewPrivateKey();
  client_.public_key = KeyPair::FromPrivate(client_key_).public_key;
}

absl::Status Initializer::Prepare(Role here) {
  if (absl::Status status = CheckClientName(arguments_.name); !status.ok()) return status;
  client_ = arguments_.client;
  client_.name = arguments_.name;
  auto network = ReadNetSnapshot();
  if (!network.ok()) return network.status();
  network_ = *std::move(network);
  for (const auto& step :
       {&Initializer::ReadEndpoints, &Initializer::ChooseNetworks, &Initializer::ChooseNat}) {
    if (absl::Status status = (this->*step)(here); !status.ok()) return status;
  }
  server_key_ = NewPrivateKey();
  client_.server_public_key = KeyPair::FromPrivate(server_key_).public_key;
  MakeClientKeys();
  return absl::OkStatus();
}

// What is given by an option may be what a configuration refuses.
absl::Status Initializer::Check(const std::string& name, const std::string& text) const {
  const LoadedConfig loaded = ParseConfig(text, ConfigFormat::kYaml, "/", {});
  for (const auto* mistakes : {&loaded.mistakes, &loaded.warnings}) {
    if (mistakes->empty()) continue;
    return absl::InvalidArgumentError("would be wrong: " +
                                      DescribeMistake(name, mistakes->front()));
  }
  return absl::OkStatus();
}

absl::Status Initializer::CheckTexts() const {
  if (absl::Status status = Check("server.yaml", ServerText(server_, client_)); !status.ok()) {
    return status;
  }
  return Check("client.yaml", ClientText(client_));
}

std::vector<NewFile> Initializer::ServerFiles(const fs::path& folder) const {
  return {{folder / kServerKeyFile, EncodeKey(server_key_) + "\n"},
          {folder / PresharedKeyFileOf(client_.name), EncodeKey(preshared_key_) + "\n"},
          {folder / "server.yaml", ServerText(server_, client_), kConfigMode}};
}

std::vector<NewFile> Initializer::ClientFiles(const fs::path& folder) const {
  return {{folder / kClientKeyFile, EncodeKey(client_key_) + "\n"},
          {folder / kClientPresharedKeyFile, EncodeKey(preshared_key_) + "\n"},
          {folder / "client.yaml", ClientText(client_), kConfigMode}};
}

std::vector<NewFile> Joined(std::vector<NewFile> a, const std::vector<NewFile>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// One command that works whether or not the other machine has the folder, and keeps the modes. What
// is there already, such as the keys of another tunnel, stays; and it belongs to who unpacks it.
void Initializer::TellCopy(const fs::path& folder, const std::vector<NewFile>& files,
                           const char* to) {
  std::string names;
  for (const NewFile& file : files) names += " " + Shell(fs::path(file.path).filename());
  told_.Step(
      absl::StrCat("Bring what is in ", folder.string(), " to the ", to,
                   ", then delete it here: there are keys in it."),
      absl::StrCat("tar -C ", Shell(folder), " -c", names, " | ssh root@",
                   std::string(to) == "client" ? "CLIENT" : "SERVER", " 'mkdir -p ", kRootFolder,
                   " && tar -C ", kRootFolder, " --keep-old-files --no-same-owner -x'"));
}

void Initializer::TellServerRun(const std::string& where, const std::string& config) {
  told_.Step(absl::StrCat(where, " let UDP port ", server_.port,
                          " in, wherever a firewall is, and start it", AsService(config), ":"),
             "braid run --config " + Shell(config));
}

void Initializer::TellClientRun(const std::string& where, const std::string& config) {
  told_.Step(where + " start it" + AsService(config) + ":", "braid run --config " + Shell(config));
  told_.Step("Is it up? There:",
             absl::StrCat("ping ", server_.inner.AddressesOf(1).front().address.ToString(),
                          "; braid status; braid doctor --config ", Shell(config)));
  if (!client_.kill_switch) return;
  told_.Note(
      "the kill switch stays on when the client's daemon ends or dies; \"braid cleanup --all\" "
      "lifts it there");
}

absl::Status Initializer::MakePair(Role here) {
  if (absl::Status status = Prepare(here); !status.ok()) return status;
  if (absl::Status status = CheckTexts(); !status.ok()) return status;
  const bool is_server = here == Role::kServer;
  const fs::path folder = arguments_.dir;
  const fs::path other = is_server ? folder / "clients" / client_.name : folder / "server";
  const std::vector<NewFile> ours = is_server ? ServerFiles(folder) : ClientFiles(folder);
  const std::vector<NewFile> theirs = is_server ? ClientFiles(other) : ServerFiles(other);
  auto made = NewFiles::Create(Joined(ours, theirs));
  if (absl::IsAlreadyExists(made.status()) && is_server) {
    return absl::AlreadyExistsError(absl::StrCat(std::string(made.status().message()),
                                                 "; for a further client of that server: "
                                                 "braid init client --server-config ",
                                                 Shell(folder / "server.yaml"), " --name NAME"));
  }
  if (!made.ok()) return made.status();
  made->Keep();
  const std::string name = is_server ? "server" : "client";
  told_.Wrote(ours.back().path, absl::StrCat("this machine's: the ", name, ", ",
                                             (is_server ? server_.inner.AddressesOf(1)
                                                        : client_.inner.AddressesOf(client_.number))
                                                 .front()
                                                 .address.ToString()));
  told_.Wrote((folder / "*.key, *.psk").string(), "its keys");
  told_.Wrote(other.string() + "/", is_server ? "what the client \"" + client_.name + "\" needs"
                                              : "what the server needs");
  const std::string config_there =
      absl::StrCat(kRootFolder, is_server ? "/client" : "/server", ".yaml");
  if (is_server) {
    TellServerRun("Here:", ours.back().path);
    TellCopy(other, theirs, "client");
    TellClientRun("On the client:", config_there);
  } else {
    TellCopy(other, theirs, "server");
    TellServerRun("On the server:", config_there);
    TellClientRun("Here:", ours.back().path);
  }
  std::cout << told_.Text() << std::flush;
  return absl::OkStatus();
}

// How the clients that were made before reach this server.
void Initializer::TakeEndpointsOfOthers(const fs::path& clients) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(clients, error)) {
    const fs::path file = entry.path() / "client.yaml";
    const LoadedConfig loaded = LoadConfig(file, {});
    if (!loaded.config) continue;
    for (const PeerConfig& peer : loaded.config->tunnel.peers) {
      if (peer.public_key != client_.server_public_key || peer.endpoints.empty()) continue;
      for (const HostPort& endpoint : peer.endpoints) client_.endpoints.push_back(NameOf(endpoint));
      told_.Note("the client is told to reach the server as " + file.string() + " does");
      return;
    }
  }
}

// What is to be known of a server that there is.
absl::Status Initializer::PrepareFor(const Config& config, const fs::path& folder) {
  client_ = arguments_.client;
  client_.name = arguments_.name;
  for (const PeerConfig& peer : config.tunnel.peers) {
    if (peer.name != client_.name) continue;
    return absl::AlreadyExistsError("/tunnel/peers: has \"" + peer.name +
                                    "\" already; choose another --name");
  }
  const auto key = ReadKeyFile(config.security.private_key_file);
  if (!key.ok()) return key.status();
  client_.server_public_key = KeyPair::FromPrivate(*key).public_key;
  const auto inner = InnerNetworksOf(config);
  if (!inner.ok()) return inner.status();
  const auto number = FreeNumber(config, *inner);
  if (!number.ok()) return number.status();
  server_.inner = client_.inner = *inner;
  client_.number = *number;
  auto network = ReadNetSnapshot();
  if (!network.ok()) return network.status();
  network_ = *std::move(network);
  server_.port = config.tunnel.listen.front().port;
  if (arguments_.endpoints.empty()) {
    TakeEndpointsOfOthers(folder / "clients");
  }
  if (absl::Status status = ReadEndpoints(Role::kServer); !status.ok()) return status;
  MakeClientKeys();
  return Check("client.yaml", ClientText(client_));
}

// With all that says whose it is and who may use it.
absl::StatusOr<FileAttributes> FileAttributesOf(const std::string& path) {
  struct stat now;
  if (stat(path.c_str(), &now) != 0) return absl::ErrnoToStatus(errno, "is gone");
  return FileAttributes{.mode = now.st_mode & 07777,
                        .owner = now.st_uid,
                        .group = now.st_gid,
                        .xattrs = ReadXattrs(path)};
}

absl::Status Initializer::AddToServer() {
  if (absl::Status status = CheckClientName(arguments_.name); !status.ok()) return status;
  const LoadedConfig loaded = LoadConfig(arguments_.server_config, {});
  if (!loaded.config) {
    return absl::InvalidArgumentError(
        DescribeMistake(arguments_.server_config, loaded.mistakes.front()));
  }
  // A link stays: what it leads to is replaced. The names in it are those of the link's folder.
  std::error_code error;
  const fs::path resolved = fs::canonical(loaded.file, error);
  const std::string path = error ? loaded.file : resolved.string();
  if (loaded.config->role != Role::kServer) {
    return absl::InvalidArgumentError(path + ": /mode: is not that of a server");
  }
  const fs::path folder = fs::path(loaded.file).parent_path();
  if (absl::Status status = PrepareFor(*loaded.config, folder); !status.ok()) {
    return InFile(path, status);
  }
  const auto text = ReadSmallFile(path, kMaxConfigBytes, FilePrivacy::kAny);
  if (!text.ok()) return InFile(path, text.status());
  // The daemon reads its own private key, so it can read this one, too.
  const std::string& private_key_file = loaded.config->security.private_key_file;
  const auto like = FileAttributesOf(private_key_file);
  if (!like.ok()) return InFile(private_key_file, like.status());

  const fs::path other = folder / "clients" / client_.name;
  const std::vector<NewFile> theirs = ClientFiles(other);
  std::vector<NewFile> files = theirs;
  files.push_back({.path = folder / PresharedKeyFileOf(client_.name),
                   .contents = EncodeKey(preshared_key_) + "\n",
                   .owner = like->owner,
                   .group = like->group});
  auto made = NewFiles::Create(files);
  if (!made.ok()) return made.status();
  const auto changed = AddClient(*text, client_);
  if (changed.ok()) {
    const auto attributes = FileAttributesOf(path);
    if (!attributes.ok()) return InFile(path, attributes.status());
    const absl::Status status = ReplaceSmallFile(path, *changed, *attributes);
    if (!status.ok()) return InFile(path, status);
    told_.Wrote(path, "has the client as a peer now");
  }
  made->Keep();
  told_.Wrote(files.back().path, "their shared key");
  told_.Wrote(other.string() + "/", "what the client \"" + client_.name + "\" needs");
  if (!changed.ok()) {
    told_.Step(absl::StrCat("Add the client to /tunnel/peers of ", path, " (",
                            std::string(changed.status().message()), "):"),
               PeerJson(client_));
  }
  TellNat(*loaded.config);
  told_.Step("Here: let the daemon read that, if it runs; all other sessions go on:",
             ReloadCommand(loaded.config->control.socket));
  TellCopy(other, theirs, "client");
  TellClientRun("On the client:", absl::StrCat(kRootFolder, "/client.yaml"));
  std::cout << told_.Text() << std::flush;
  return absl::OkStatus();
}

// A client whose everything goes through a server that does not bring it further.
void Initializer::TellNat(const Config& server) {
  const auto hides = [&](const NatConfig& nat) {
    return nat.source.Contains(client_.inner.v4.address);
  };
  const auto& nat = server.network.nat;
  if (!client_.default_route || std::any_of(nat.begin(), nat.end(), hides)) return;
  told_.Step(
      "Here: let what clients send into the internet leave, under \"network\" (\"ip route "
      "get 1.1.1.1\" shows the device):",
      absl::StrCat("nat: [{source: \"", client_.inner.v4.ToString(), "\", out: DEVICE}]"));
}

// The options that both have.
void AddClientOptions(CLI::App* command, InitArguments& arguments) {
  command
      ->add_option("--endpoint", arguments.endpoints,
                   "Where clients reach the server: an address or a name; may be repeated")
      ->type_name("HOST[:PORT]");
  command->add_option("--name", arguments.name, "What the client is called")
      ->type_name("NAME")
      ->capture_default_str();
  auto* everything = command->add_flag("--default-route", arguments.client.default_route,
                                       "All that the client sends goes through the tunnel");
  command
      ->add_option("--dns", arguments.client.dns_servers,
                   "The client asks this server for names; may be repeated")
      ->type_name("ADDRESS");
  command
      ->add_flag("--kill-switch", arguments.client.kill_switch,
                 "Nothing leaves the client beside the tunnel")
      ->needs(everything);
  command->add_flag("--auto-paths", arguments.client.auto_paths,
                    "The client has a path over each of its interfaces with a default route");
}

// Those of who makes a server.
std::vector<CLI::Option*> AddServerOptions(CLI::App* command, InitArguments& arguments) {
  return {command->add_option("--dir", arguments.dir, "The folder that the files are written into")
              ->type_name("FOLDER")
              ->capture_default_str(),
          command
              ->add_option("--listen-port", arguments.listen_port,
                           "The server's UDP port, where it is not that of the endpoint")
              ->type_name("PORT")
              ->check(CLI::Range(1, UINT16_MAX)),
          command
              ->add_option("--inner", arguments.inner,
                           "A network inside the tunnel; may be repeated, for IPv4 and IPv6")
              ->type_name("PREFIX"),
          command
              ->add_option("--nat-device", arguments.nat_device,
                           "With --default-route: by which the server goes into the internet")
              ->type_name("NAME")};
}

}  // namespace

void AddInitCommand(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("init", "Write a working pair of configurations, and say what to do next");
  command->require_subcommand(1);
  const auto run = [&exit_code](const absl::Status& status) {
    exit_code = status.ok() ? 0 : Fail("init", status);
  };

  CLI::App* server = command->add_subcommand("server", "This machine is the server");
  const auto of_server = std::make_shared<InitArguments>();
  AddClientOptions(server, *of_server);
  AddServerOptions(server, *of_server);
  server->callback([of_server, run] { run(Initializer(*of_server).MakePair(Role::kServer)); });

  CLI::App* client = command->add_subcommand(
      "client", "This machine is the client; or, with --server-config, add one to a server");
  const auto of_client = std::make_shared<InitArguments>();
  AddClientOptions(client, *of_client);
  auto* existing =
      client
          ->add_option("--server-config", of_client->server_config,
                       "Add a further client to this server's configuration, on the server")
          ->type_name("FILE");
  for (CLI::Option* option : AddServerOptions(client, *of_client)) existing->excludes(option);
  client->callback([of_client, run] {
    Initializer initializer(*of_client);
    run(of_client->server_config.empty() ? initializer.MakePair(Role::kClient)
                                         : initializer.AddToServer());
  });
}

}  // namespace braid
