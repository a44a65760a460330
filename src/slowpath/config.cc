#include "slowpath/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "slowpath/config_control.h"
#include "slowpath/config_environment.h"
#include "slowpath/config_file.h"
#include "slowpath/config_network.h"
#include "slowpath/config_proxy.h"
#include "slowpath/config_node.h"
#include "slowpath/config_throttle.h"
#include "slowpath/config_values.h"
#include "slowpath/key_file.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

constexpr size_t kMaxInnerAddresses = 64;
constexpr uint64_t kMaxRekeyAfterSeconds = 120;
constexpr uint64_t kMinRekeyAfterPackets = 1000;
constexpr uint64_t kMaxRekeyAfterPackets = uint64_t{1} << 60;
constexpr double kMinKeepaliveSeconds = 0.01;
constexpr double kMaxKeepaliveSeconds = 60;

// In the order of the enumerators.
constexpr std::array<std::string_view, 2> kRoles = {"client", "server"};
constexpr std::array<std::string_view, 2> kPortProtocols = {"udp", "tcp"};
constexpr std::string_view kRepairs[] = {"auto", "off"};
constexpr double kMinFecRatio = 0.01;
constexpr double kMaxFecRatio = 1;
constexpr int kMaxReorderMs = 2000;
constexpr double kMinPathWeight = 0.01;
constexpr double kMaxPathWeight = 100;
constexpr double kMinPathMbps = 0.1;
constexpr double kMaxPathMbps = 100'000;
constexpr double kMinQuotaGb = 0.001;
constexpr double kMaxQuotaGb = 1'000'000;
constexpr std::array<std::string_view, 2> kLogFormats = {"text", "json"};
constexpr std::array<std::string_view, kCiphers> kCipherNames = {"chacha20-poly1305",
                                                                 "aes-256-gcm"};

constexpr std::array<std::string_view, 4> kLogLevels = {"debug", "info", "warning", "error"};
constexpr std::array<std::string_view, 3> kIoNames = {"auto", "io_uring", "epoll"};
constexpr std::array<std::string_view, 3> kAeadNames = {"auto", "ipsec-mb", "sodium"};

// Finds what must not occur twice. Says where the first one stands.
template <typename T>
class Unique {
 public:
  // False, with a mistake, when an equal value was added before.
  bool Add(const T& value, const Node& node, const std::string& what) {
    const auto [first, is_new] = first_.emplace(value, node.pointer());
    if (!is_new) node.Wrong(absl::StrCat(what, " ", first->second));
    return is_new;
  }

 private:
  std::map<T, std::string> first_;
};

class ConfigReader {
 public:
  ConfigReader(std::string folder, Report& report) : folder_(std::move(folder)), report_(report) {}

  Config Read(const nlohmann::json& tree);
  PathConfig ReadOnePath(const nlohmann::json& tree, const std::string& device);
  PathChange ReadPathChange(const nlohmann::json& tree);

 private:
  void ReadNetwork(const Section& network);
  void ReadSecurity(const Section& security);
  void ReadTunnel(const Section& tunnel);
  void ReadBonding(const Section& bonding);
  void ReadFec(const Node& node);
  void ReadClassRule(const Node& node, ClassRule& to);
  void ReadPaths(const Section& tunnel);
  void ReadListen(const Section& tunnel);
  void ReadPeers(const Section& tunnel);
  void ReadCiphers(const Node& list);
  void ReadPerformance(const Section& performance);
  void ReadLog(const Section& log);

  void ReadPath(const Node& node, PathConfig& to);
  PathChange ReadPathOptions(const Section& path) const;
  void ReadPathSource(const Section& path, PathConfig& to);
  void ReadQuota(const Node& node, std::optional<QuotaConfig>& to);
  Endpoint ReadListenAddress(const Node& node) const;
  void ReadPeer(const Node& node, PeerConfig& to);
  void ReadKeepalive(const Section& peer, PeerConfig& to) const;
  void ReadPeerEndpoints(const Section& peer, PeerConfig& to);
  void ReadAllowedIps(const Section& peer, PeerConfig& to);
  void CheckReach(const Section& peer, const PeerConfig& of) const;

  std::string Absolute(const std::string& file) const;
  void ReadFile(const Node& node, std::string& to);
  void ReadKeyFileName(const Node& node, std::string& to);

  const std::string folder_;
  Report& report_;
  Config config_;
  std::optional<Role> role_;  // nothing when "mode" is wrong: what depends on it is not judged
  Unique<std::string> path_names_;
  Unique<std::string> peer_names_;
  Unique<Key> public_keys_;
  Unique<IpPrefix> owned_prefixes_;
};

std::string ConfigReader::Absolute(const std::string& file) const {
  return (std::filesystem::path(folder_) / file).lexically_normal().string();
}

void ConfigReader::ReadFile(const Node& node, std::string& to) {
  if (const auto file = node.Text()) to = Absolute(*file);
}

void ConfigReader::ReadKeyFileName(const Node& node, std::string& to) {
  const auto file = node.Text();
  if (!file) return;
  if (DecodeKey(*file)) {
    node.Wrong(
        "must be the name of a file, but is a key itself: put it into a file with mode 0600 "
        "and take it out of here");
    return;
  }
  to = Absolute(*file);
  report_.KeyFile(node.pointer(), to);
}

void ConfigReader::ReadNetwork(const Section& network) {
  NetworkConfig& to = config_.network;
  if (const auto device = network.Find("device")) {
    if (const auto name = ReadInterfaceName(*device)) to.device = *name;
  }
  if (const auto list = network.Need("addresses", "a list such as [\"10.77.0.1/24\"]")) {
    Unique<IpAddress> seen;
    for (const Node& node : list->List(1, kMaxInnerAddresses)) {
      const auto prefix = ReadPrefix(node);
      if (!prefix || !CheckAddress(node, prefix->address, Unspecified::kRefused)) continue;
      if (!seen.Add(prefix->address, node, "is the same address as")) continue;
      to.addresses.push_back(*prefix);
    }
  }
  if (const auto mtu = network.Find("mtu")) to.mtu = ReadAutoOrInteger(*mtu, kMinMtu, kMaxMtu);
  ReadHostNetwork(network, role_, to);
}

void ConfigReader::ReadSecurity(const Section& security) {
  SecurityConfig& to = config_.security;
  if (const auto file =
          security.Need("private_key_file", "the name of the file with the private key")) {
    ReadKeyFileName(*file, to.private_key_file);
  }
  security.Integer("rekey_after_s", 1, kMaxRekeyAfterSeconds, to.rekey_after_s);
  security.Integer("rekey_after_packets", kMinRekeyAfterPackets, kMaxRekeyAfterPackets,
                   to.rekey_after_packets);
  if (const auto folder = security.Find("state_dir")) ReadFile(*folder, to.state_dir);
}

void ConfigReader::ReadTunnel(const Section& tunnel) {
  ReadPaths(tunnel);
  ReadListen(tunnel);
  ReadPeers(tunnel);
  tunnel.Integer("lanes", 1, kMaxLanes, config_.tunnel.lanes);
  ReadBonding(tunnel.Sub(
      "bonding", {"mode", "pin_flows", "repair", "fec", "reorder_max_ms", "classes"}));
  if (const auto ciphers = tunnel.Find("ciphers")) ReadCiphers(*ciphers);
}

void ConfigReader::ReadBonding(const Section& bonding) {
  BondOptions& to = config_.tunnel.bonding;
  bonding.Choice("mode", kBondingModeNames, to.mode);
  bonding.Boolean("pin_flows", to.pin_flows);
  size_t repair = 0;
  bonding.Choice("repair", kRepairs, repair);
  to.repair = repair == 0;
  if (const auto fec = bonding.Find("fec")) ReadFec(*fec);
  int reorder_max_ms = static_cast<int>(to.reorder_max_ns / kMillisecondNs);
  bonding.Integer("reorder_max_ms", 0, kMaxReorderMs, reorder_max_ms);
  to.reorder_max_ns = static_cast<DurationNs>(reorder_max_ms) * kMillisecondNs;
  const auto rules = bonding.Find("classes");
  if (!rules) return;
  for (const Node& node : rules->List(0, kMaxClassRules)) {
    ReadClassRule(node, config_.tunnel.class_rules.emplace_back());
  }
}

void ConfigReader::ReadClassRule(const Node& node, ClassRule& to) {
  const Section rule(node, {"protocol", "ports", "class"});
  if (!node.value().is_object()) return;
  if (const auto protocol = rule.Need("protocol", "\"udp\" or \"tcp\"")) {
    if (protocol->OneOf(kPortProtocols) == 1u) to.protocol = kProtocolTcp;
  }
  if (const auto ports = rule.Need("ports", "a list such as [5060, \"16384-32767\"]")) {
    for (const Node& range : ports->List(1, kMaxPortRangesPerRule)) {
      to.ports.push_back(ReadPorts(range).value_or(PortRange{}));
    }
  }
  const auto name = rule.Need("class", "\"interactive\", \"bulk\" or \"realtime\"");
  if (!name) return;
  rule.Choice("class", kTrafficClassNames, to.traffic_class);
  if (to.protocol == kProtocolTcp && to.traffic_class == TrafficClass::kRealtime) {
    name->Warn("makes TCP slow: what is lost is not sent again, and nothing is put in order");
  }
}

void ConfigReader::ReadFec(const Node& node) {
  BondOptions& to = config_.tunnel.bonding;
  const double ratio = node.value().is_number() ? node.value().get<double>() : 0;
  if (ratio >= kMinFecRatio && ratio <= kMaxFecRatio) {
    to.fec = FecMode::kRatio;
    to.fec_ratio = ratio;
  } else if (node.Is("auto")) {
    to.fec = FecMode::kAuto;
  } else if (!node.Is("off")) {
    node.Wrong(absl::StrCat("must be \"off\", \"auto\" or a number from ", kMinFecRatio, " to ",
                            kMaxFecRatio, ": how much parity for each packet"));
  }
}

void ConfigReader::ReadPaths(const Section& tunnel) {
  std::vector<PathConfig>& paths = config_.tunnel.paths;
  const auto list = tunnel.Find("paths");
  if (role_ == Role::kServer) {
    if (list) list->Wrong("belongs to a client; a server has \"listen\" instead");
    return;
  }
  if (!list) {
    paths.emplace_back().name = "default";
    return;
  }
  if (list->value().is_string()) {
    config_.tunnel.auto_paths = list->Is("auto");
    if (!config_.tunnel.auto_paths) {
      list->Wrong("must be a list of paths, or \"auto\" for each interface with a default route");
    }
    return;
  }
  for (const Node& node : list->List(1, kMaxPaths)) ReadPath(node, paths.emplace_back());
}

void ConfigReader::ReadPath(const Node& node, PathConfig& to) {
  const Section path(node, {"name", "address", "interface", "endpoint", "weight", "rate_mbps",
                            "standby", "quota"});
  if (!node.value().is_object()) return;
  if (const auto name = path.Need("name", "a name for the path")) {
    to.name = ReadName(*name).value_or("");
    if (!to.name.empty()) path_names_.Add(to.name, *name, "is the same name as");
  }
  ReadPathSource(path, to);
  ReadPathOptions(path).ApplyTo(to.bonding);
  if (const auto quota = path.Find("quota")) ReadQuota(*quota, to.quota);
  if (const auto endpoint = path.Find("endpoint")) {
    to.endpoint = ReadHostPort(*endpoint).value_or(HostPort());
    const IpAddress& remote = to.endpoint->address;
    if (to.address.is_set() && remote.is_set() && to.address.family != remote.family) {
      endpoint->Wrong("is not of the same family (IPv4, IPv6) as the path's address");
    }
  }
}

PathChange ConfigReader::ReadPathOptions(const Section& path) const {
  PathChange options;
  if (const auto weight = path.Find("weight")) {
    options.weight = weight->Number(kMinPathWeight, kMaxPathWeight);
  }
  if (const auto rate = path.Find("rate_mbps")) {
    if (rate->Is("auto")) {
      options.fixed_bytes_per_s = 0;
    } else if (rate->value().is_string()) {
      rate->Wrong(
          absl::StrCat("must be \"auto\" or a number from ", kMinPathMbps, " to ", kMaxPathMbps));
    } else if (const auto mbps = rate->Number(kMinPathMbps, kMaxPathMbps)) {
      options.fixed_bytes_per_s = static_cast<uint64_t>(std::llround(*mbps * 1e6 / 8));
    }
  }
  if (const auto standby = path.Find("standby")) options.standby = standby->Boolean();
  return options;
}

void ConfigReader::ReadQuota(const Node& node, std::optional<QuotaConfig>& to) {
  const Section quota(node, {"gb", "reset_day"});
  if (!node.value().is_object()) return;
  to.emplace();
  quota.Integer("reset_day", 1, 31, to->reset_day);
  const auto gb = quota.Need("gb", "a number of gigabytes a month, such as 50");
  if (!gb) return;
  to->bytes = static_cast<uint64_t>(
      std::llround(gb->Number(kMinQuotaGb, kMaxQuotaGb).value_or(1) * kBytesPerGb));
}

void ConfigReader::ReadPathSource(const Section& path, PathConfig& to) {
  const auto address = path.Find("address");
  const auto interface = path.Find("interface");
  if (address && interface) {
    interface->Wrong("cannot be given together with \"address\"; write one of them");
  } else if (!address && !interface) {
    report_.Wrong(path.pointer(), "must have an \"address\" or an \"interface\" to send from");
  } else if (address) {
    to.address = ReadAddress(*address, Unspecified::kRefused).value_or(IpAddress());
  } else {
    to.interface = ReadInterfaceName(*interface).value_or("");
    if (!to.interface.empty() && to.interface == config_.network.device) {
      interface->Wrong("is the tunnel's own device; a path must lead out of the machine");
    }
  }
}

void ConfigReader::ReadListen(const Section& tunnel) {
  if (role_ == Role::kClient) {
    if (const auto list = tunnel.Find("listen")) list->Wrong("belongs to a server; remove it");
    return;
  }
  const auto list = role_ ? tunnel.Need("listen", "[{\"address\": \"0.0.0.0\", \"port\": 7700}]")
                          : tunnel.Find("listen");
  if (!list) return;
  Unique<Endpoint> seen;
  for (const Node& node : list->List(1, kMaxListenAddresses)) {
    const Endpoint endpoint = ReadListenAddress(node);
    if (!endpoint.is_set() || endpoint.port == 0) continue;
    if (seen.Add(endpoint, node, "is the same as")) config_.tunnel.listen.push_back(endpoint);
  }
}

Endpoint ConfigReader::ReadListenAddress(const Node& node) const {
  const Section listen(node, {"address", "port"});
  Endpoint endpoint;
  if (const auto address = listen.Need("address", "\"0.0.0.0\" or \"::\" for all addresses")) {
    endpoint.address = ReadAddress(*address, Unspecified::kAllowed).value_or(IpAddress());
  }
  if (listen.Need("port", "a number from 1 to 65535")) {
    listen.Integer("port", 1, UINT16_MAX, endpoint.port);
  }
  return endpoint;
}

void ConfigReader::ReadPeers(const Section& tunnel) {
  const bool is_client = role_ == Role::kClient;
  const auto list = is_client ? tunnel.Need("peers", "a list of the servers to connect to")
                              : tunnel.Find("peers");
  if (role_ == Role::kServer && (!list || list->value().empty())) {
    report_.Warn("/tunnel/peers", "names no peer, so nobody can connect");
  }
  if (!list) return;
  for (const Node& node : list->List(is_client ? 1 : 0, kMaxPeers)) {
    ReadPeer(node, config_.tunnel.peers.emplace_back());
  }
}

void ConfigReader::ReadPeer(const Node& node, PeerConfig& to) {
  const Section peer(node, {"name", "public_key", "preshared_key_file", "endpoints", "allowed_ips",
                            "keepalive_s"});
  if (const auto name = peer.Need("name", "a name for the peer")) {
    to.name = ReadName(*name).value_or("");
    if (!to.name.empty()) peer_names_.Add(to.name, *name, "is the same name as");
  }
  if (const auto key_node = peer.Need("public_key", "what \"braid pubkey\" prints at the peer")) {
    if (const auto key = ReadPublicKey(*key_node)) {
      to.public_key = *key;
      public_keys_.Add(*key, *key_node, "is the same key as");
    }
  }
  if (const auto file = peer.Find("preshared_key_file")) {
    ReadKeyFileName(*file, to.preshared_key_file);
  }
  ReadPeerEndpoints(peer, to);
  ReadAllowedIps(peer, to);
  ReadKeepalive(peer, to);
}

void ConfigReader::ReadKeepalive(const Section& peer, PeerConfig& to) const {
  const auto node = peer.Find("keepalive_s");
  const auto seconds = node ? node->Number(0, kMaxKeepaliveSeconds) : std::nullopt;
  if (!seconds) return;
  to.keepalive_ms = static_cast<int>(std::lround(*seconds * 1000));
  if (*seconds > 0 && *seconds < kMinKeepaliveSeconds) {
    node->Wrong(absl::StrCat("must be 0 (off), or at least ", kMinKeepaliveSeconds));
  }
}

void ConfigReader::ReadPeerEndpoints(const Section& peer, PeerConfig& to) {
  const auto list = peer.Find("endpoints");
  if (role_ == Role::kServer) {
    if (list) list->Wrong("belongs to a client; a server waits for its peers");
    return;
  }
  if (list) {
    for (const Node& node : list->List(0, kMaxEndpointsPerPeer)) {
      to.endpoints.push_back(ReadHostPort(node).value_or(HostPort()));
    }
  }
  const bool is_list = !list || list->value().is_array();
  if (role_ == Role::kClient && is_list) CheckReach(peer, to);
}

// Every path needs an endpoint, its own or one of the peer's, that its address can send to.
void ConfigReader::CheckReach(const Section& peer, const PeerConfig& of) const {
  if (config_.tunnel.auto_paths && of.endpoints.empty()) {
    peer.Wrong("endpoints", "must have at least one, such as \"192.0.2.1:7700\"");
  }
  for (const PathConfig& path : config_.tunnel.paths) {
    if (path.endpoint) continue;
    if (of.endpoints.empty()) {
      peer.Wrong("endpoints",
                 absl::StrCat("must have at least one, such as \"192.0.2.1:7700\": path ",
                              Quote(path.name), " has no endpoint of its own"));
      return;
    }
    const bool is_reachable =
        std::any_of(of.endpoints.begin(), of.endpoints.end(), [&path](const HostPort& endpoint) {
          return !endpoint.address.is_set() || !path.address.is_set() ||
                 endpoint.address.family == path.address.family;
        });
    if (is_reachable) continue;
    peer.Wrong("endpoints", absl::StrCat("has none of the family (IPv4, IPv6) that path ",
                                         Quote(path.name), " sends from"));
  }
}

void ConfigReader::ReadAllowedIps(const Section& peer, PeerConfig& to) {
  const auto list = peer.Need("allowed_ips", "a list of the inner addresses that the peer owns");
  if (!list) return;
  for (const Node& node : list->List(0, kMaxPrefixesPerPeer)) {
    const auto network = ReadNetworkPrefix(node);
    if (!network) continue;
    if (!owned_prefixes_.Add(*network, node, "is already owned, at")) continue;
    to.allowed_ips.push_back(*network);
  }
  if (list->value().is_array() && list->value().empty()) {
    list->Warn("is empty, so nothing is sent to this peer or taken from it");
  }
}

void ConfigReader::ReadCiphers(const Node& list) {
  std::vector<Cipher> ciphers;
  Unique<Cipher> seen;
  const std::vector<Node> nodes = list.List(1, kCiphers);
  for (const Node& node : nodes) {
    const auto index = node.OneOf(kCipherNames);
    if (!index) return;
    const Cipher cipher = static_cast<Cipher>(*index);
    if (seen.Add(cipher, node, "is the same cipher as")) ciphers.push_back(cipher);
  }
  const auto portable = std::find(ciphers.begin(), ciphers.end(), Cipher::kChaCha20Poly1305);
  if (!nodes.empty() && portable == ciphers.end()) {
    list.Wrong("must have \"chacha20-poly1305\" in it, which every machine can do");
  }
  config_.tunnel.ciphers = std::move(ciphers);
}

void ConfigReader::ReadPerformance(const Section& performance) {
  PerformanceConfig& to = config_.performance;
  if (const auto workers = performance.Find("workers")) {
    to.workers = ReadAutoOrInteger(*workers, 1, kMaxWorkers);
  }
  performance.Name("io", kIoNames, to.io);
  performance.Name("aead", kAeadNames, to.aead);
  performance.Boolean("offloads", to.offloads);
  performance.Boolean("pin", to.pin);
  performance.Integer("measure_port", 0, UINT16_MAX, to.measure_port);
}

void ConfigReader::ReadLog(const Section& log) {
  log.Name("level", kLogLevels, config_.log.level);
  log.Choice("format", kLogFormats, config_.log.format);
}

PathConfig ConfigReader::ReadOnePath(const nlohmann::json& tree, const std::string& device) {
  config_.network.device = device;
  PathConfig path;
  ReadPath(Node(tree, "", report_), path);
  return path;
}

PathChange ConfigReader::ReadPathChange(const nlohmann::json& tree) {
  const Section path(Node(tree, "", report_), {"name", "weight", "rate_mbps", "standby"});
  PathChange change = ReadPathOptions(path);
  if (const auto name = path.Need("name", "the name of a path")) {
    change.name = ReadName(*name).value_or("");
  }
  if (!change.weight && !change.fixed_bytes_per_s && !change.standby) {
    report_.Wrong("", "must have a \"weight\", a \"rate_mbps\" or a \"standby\" to be changed");
  }
  return change;
}

Config ConfigReader::Read(const nlohmann::json& tree) {
  const Section root(Node(tree, "", report_), {"mode", "network", "security", "tunnel", "throttle",
                                               "proxy", "control", "performance", "log"});
  if (!tree.is_object()) return config_;
  if (const auto mode = root.Need("mode", "\"client\" or \"server\"")) {
    if (const auto index = mode->OneOf(kRoles)) role_ = static_cast<Role>(*index);
  }
  config_.role = role_.value_or(Role::kClient);
  ReadNetwork(
      root.Sub("network", {"device", "addresses", "mtu", "routes", "nat", "dns", "kill_switch"}));
  ReadSecurity(root.Sub("security",
                        {"private_key_file", "rekey_after_s", "rekey_after_packets", "state_dir"}));
  ReadTunnel(root.Sub("tunnel", {"paths", "listen", "peers", "lanes", "bonding", "ciphers"}));
  CheckHostNetwork(config_, report_);
  if (const auto throttle = root.Find("throttle")) ReadThrottle(*throttle, config_.throttle);
  CheckThrottle(config_, report_);
  if (const auto proxy = root.Find("proxy")) {
    ReadProxy(*proxy, folder_, config_.proxy.emplace());
  }
  ReadControl(root.Sub("control", {"socket", "http"}), folder_, report_, config_.control);
  ReadPerformance(
      root.Sub("performance", {"workers", "io", "aead", "offloads", "pin", "measure_port"}));
  ReadLog(root.Sub("log", {"level", "format"}));
  return std::move(config_);
}

std::optional<ConfigFormat> FormatOf(const std::filesystem::path& path) {
  const std::string extension = absl::AsciiStrToLower(path.extension().string());
  if (extension == ".json") return ConfigFormat::kJson;
  if (extension == ".yaml" || extension == ".yml") return ConfigFormat::kYaml;
  return std::nullopt;
}

// An instance of a service is told its name only, not in which language it is configured.
absl::StatusOr<std::string> FindConfigFile(const std::string& path) {
  std::error_code error;
  if (FormatOf(path) || std::filesystem::exists(path, error)) return path;
  std::vector<std::string> found;
  for (const char* extension : {".yaml", ".yml", ".json"}) {
    if (std::filesystem::exists(path + extension, error)) found.push_back(path + extension);
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    return absl::NotFoundError(absl::StrCat("there is no ", path, ".yaml, .yml or .json"));
  }
  return absl::FailedPreconditionError(absl::StrCat("could be ", found[0], " as well as ", found[1],
                                                    ": move one of them away, or name the other"));
}

absl::Status FirstMistake(const LoadedConfig& loaded) {
  const Mistake& first = loaded.mistakes.front();
  const std::string where = first.pointer.empty() ? "the path" : first.pointer.substr(1);
  return absl::InvalidArgumentError(absl::Utf8SafeCHexEscape(where) + " " + first.what);
}

LoadedConfig Failed(const std::string& file, std::string what) {
  LoadedConfig loaded{.file = file};
  loaded.mistakes.push_back({.what = std::move(what)});
  return loaded;
}

}  // namespace

std::string DescribeMistake(const std::string& file, const Mistake& mistake) {
  std::string text = file;
  if (mistake.line > 0) absl::StrAppend(&text, ":", mistake.line, ":", mistake.column);
  if (!mistake.pointer.empty()) {
    absl::StrAppend(&text, ": ", absl::Utf8SafeCHexEscape(mistake.pointer));
  }
  absl::StrAppend(&text, ": ", mistake.what);
  if (!mistake.variable.empty()) {
    absl::StrAppend(&text, " (", absl::Utf8SafeCHexEscape(mistake.variable),
                    " in the environment)");
  }
  return text;
}

absl::StatusOr<PathConfig> ParsePath(const nlohmann::json& tree, const std::string& device) {
  if (!tree.is_object()) return absl::InvalidArgumentError("a path must be an object");
  LoadedConfig loaded;
  const Origins origins;
  Report report(origins, loaded);
  PathConfig path = ConfigReader("", report).ReadOnePath(tree, device);
  if (loaded.mistakes.empty()) return path;
  return FirstMistake(loaded);
}

void PathChange::ApplyTo(BondPathOptions& options) const {
  options.weight = weight.value_or(options.weight);
  options.fixed_bytes_per_s = fixed_bytes_per_s.value_or(options.fixed_bytes_per_s);
  options.standby = standby.value_or(options.standby);
}

absl::StatusOr<PathChange> ParsePathChange(const nlohmann::json& tree) {
  LoadedConfig loaded;
  const Origins origins;
  Report report(origins, loaded);
  PathChange change = ConfigReader("", report).ReadPathChange(tree);
  if (loaded.mistakes.empty()) return change;
  return FirstMistake(loaded);
}

LoadedConfig ParseConfig(std::string_view text, ConfigFormat format, const std::string& folder,
                         const Environment& environment) {
  LoadedConfig loaded;
  auto tree = ParseConfigTree(text, format, loaded.mistakes);
  if (!tree) return loaded;
  Origins origins;
  ApplyEnvironment(environment, *tree, origins, loaded.mistakes);
  Report report(origins, loaded);
  Config config = ConfigReader(folder, report).Read(*tree);
  if (loaded.mistakes.empty()) loaded.config = std::move(config);
  return loaded;
}

LoadedConfig LoadConfig(const std::string& path, const Environment& environment) {
  const absl::StatusOr<std::string> file = FindConfigFile(path);
  if (!file.ok()) return Failed(path, std::string(file.status().message()));
  const auto format = FormatOf(*file);
  if (!format) return Failed(*file, "must end in .json, .yaml or .yml, which tells how to read it");
  const absl::StatusOr<std::string> text = ReadSmallFile(*file, kMaxConfigBytes, FilePrivacy::kAny);
  if (!text.ok()) return Failed(*file, std::string(text.status().message()));
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(*file, error);
  if (error) return Failed(*file, "is relative to a folder that is gone");
  LoadedConfig loaded = ParseConfig(*text, *format, absolute.parent_path().string(), environment);
  loaded.file = *file;
  return loaded;
}

}  // namespace braid
